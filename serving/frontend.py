"""Some names changed in TorchServe's Java, in copies of two classes that stand first in the path.

A batch takes what waits, and never waits for more: TorchServe 0.12.0 waits ``maxBatchDelay``
milliseconds for the next request of a batch, at least 1 (0 counts as 100), which a lone client pays
with every request. With nanoseconds for a unit an archive that asks for ``maxBatchDelay: 50`` gets
50 ns, which is none, and ``serve start`` says so; ``ICLASSIFIER_BATCH_DELAY=ms`` in the environment
leaves the milliseconds.

A form that cannot be read is the client's mistake, but TorchServe answers what its reader throws
by a 500 and logs it with what was sent. It is a 400 or a 413 instead (``FORMS`` tells how).

Each name stands once in its class, and nothing else of it changes. A class that is not the one of
0.12.0, byte for byte, is left as it is.
"""

import hashlib
import os
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

from serving.store import Served

SWITCH = "ICLASSIFIER_BATCH_DELAY"
FRONTEND = Path(sysconfig.get_path("purelib"), "ts", "frontend")
_JAR = "model-server.jar"


@dataclass(frozen=True)
class Change:
    """One class of the jar, by its SHA-256, and the names in it that become others."""

    file: str
    sha256: str
    names: tuple[tuple[str, str], ...]

    def made(self, frontend: Path) -> bytes:
        """Return the changed class; empty where it is another, or none."""
        try:
            with zipfile.ZipFile(frontend / _JAR) as packed:
                found = packed.read(self.file)
        except (OSError, KeyError, zipfile.BadZipFile):
            return b""
        if hashlib.sha256(found).hexdigest() != self.sha256:
            return b""
        for old, new in self.names:
            found = found.replace(_constant(old), _constant(new))
        return found


DELAY = Change(
    "org/pytorch/serve/wlm/Model.class",
    "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff",
    (("MILLISECONDS", "NANOSECONDS"),),
)
FORMS = Change(
    "org/pytorch/serve/http/HttpRequestHandler.class",
    "4284484a3cbe3c227cec2578dcb44b9ae9c4f1b8cffbccec26e36490803cea31",
    (
        # Of what is a 400: a failed download, which config.properties rules out (allowed_urls).
        (
            "org/pytorch/serve/archive/DownloadArchiveException",
            "io/netty/handler/codec/http/multipart/HttpPostRequestDecoder$ErrorDataDecoderException",
        ),
        # The reader falls over an empty boundary. A bad request is an IllegalArgumentException
        # too, so that it meets the last of the errors that are no 500: a 403, made a 400.
        ("org/pytorch/serve/http/BadRequestException", "java/lang/IndexOutOfBoundsException"),
        ("FORBIDDEN", "BAD_REQUEST"),
        # It calls itself for each part within a part, thousands of which go into one body: too
        # large. What lacks memory is a 500 instead of a 507, or a closed connection.
        ("java/lang/OutOfMemoryError", "java/lang/StackOverflowError"),
        ("INSUFFICIENT_STORAGE", "REQUEST_ENTITY_TOO_LARGE"),
    ),
)


def class_path(frontend: Path, folder: Path) -> str:
    """Return the class path of a server; ``folder`` gets the changed classes if there are any.

    Args:
        frontend: the folder of TorchServe's jars.
        folder: of the server that is being started.

    """
    made = {change.file: change.made(frontend) for change in _wanted()}
    for file, content in made.items():
        if content:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
    own = f"{frontend}/*"
    return f"{folder}{os.pathsep}{own}" if any(made.values()) else own


def remark(served: Served, frontend: Path = FRONTEND) -> str:
    """Return what to tell a user whose archive asks for a delay that it does not get, else ""."""
    if served.batch_delay <= 1 or DELAY not in _wanted() or not DELAY.made(frontend):
        return ""
    return (
        f"{served.name} {served.version} asks for maxBatchDelay: {served.batch_delay}, but batches "
        f"wait for nobody here: {SWITCH}=ms before the command lets them wait so many milliseconds"
    )


def _wanted() -> list[Change]:
    return [FORMS] if os.environ.get(SWITCH) == "ms" else [DELAY, FORMS]


def _constant(name: str) -> bytes:
    """Return ``name`` as a class file has it: its length in two bytes, and its own."""
    return len(name).to_bytes(2, "big") + name.encode()
