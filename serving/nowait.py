"""TorchServe's batches without their delay: a worker takes what waits and never waits for more.

TorchServe 0.12.0 waits ``maxBatchDelay`` milliseconds for the next request of a batch, at least 1
(0 counts as 100), which a lone client pays with every request. So a copy of the one class that
waits, with nanoseconds for a unit, stands before TorchServe's own in the class path: an archive
that asks for ``maxBatchDelay: 50`` gets 50 ns, which is none, and ``serve start`` says so. In that
class the word MILLISECONDS occurs once, as the name of the unit; nothing else of it changes. A
class that is not the one of 0.12.0, byte for byte, is left as it is, and so is every one where the
environment has ``ICLASSIFIER_BATCH_DELAY=ms``.
"""

import hashlib
import os
import sysconfig
import zipfile
from pathlib import Path

from serving.store import Served

SWITCH = "ICLASSIFIER_BATCH_DELAY"
FRONTEND = Path(sysconfig.get_path("purelib"), "ts", "frontend")
_JAR, _CLASS = "model-server.jar", "org/pytorch/serve/wlm/Model.class"
_SHA256 = "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff"
# Strings of a class file begin with their length in two bytes.
_MS, _NS = (len(word).to_bytes(2, "big") + word for word in (b"MILLISECONDS", b"NANOSECONDS"))


def class_path(frontend: Path, folder: Path) -> str:
    """Return the class path of a server; ``folder`` gets the changed class if there is one.

    Args:
        frontend: the folder of TorchServe's jars.
        folder: of the server that is being started.

    """
    own = f"{frontend}/*"
    found = _to_change(frontend)
    if not found:
        return own
    target = folder / _CLASS
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(found.replace(_MS, _NS))
    return f"{folder}{os.pathsep}{own}"


def remark(served: Served, frontend: Path = FRONTEND) -> str:
    """Return what to tell a user whose archive asks for a delay that it does not get, else ""."""
    if served.batch_delay <= 1 or not _to_change(frontend):
        return ""
    return (
        f"{served.name} {served.version} asks for maxBatchDelay: {served.batch_delay}, but batches "
        f"wait for nobody here: {SWITCH}=ms before the command lets them wait so many milliseconds"
    )


def _to_change(frontend: Path) -> bytes:
    """Return the class to be changed; empty where it is to stay as it is."""
    found = _class(frontend / _JAR)
    known = hashlib.sha256(found).hexdigest() == _SHA256
    return found if known and os.environ.get(SWITCH) != "ms" else b""


def _class(jar: Path) -> bytes:
    """Return TorchServe's own class; empty where there is none."""
    try:
        with zipfile.ZipFile(jar) as packed:
            return packed.read(_CLASS)
    except (OSError, KeyError, zipfile.BadZipFile):
        return b""
