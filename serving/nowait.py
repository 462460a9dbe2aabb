"""TorchServe's batches without their delay: a worker takes what waits and never waits for more.

TorchServe 0.12.0 waits ``maxBatchDelay`` milliseconds for the next request of a batch, at least 1
(0 counts as 100), which a lone client pays with every request. So a copy of the one class that
waits, with nanoseconds for a unit, stands before TorchServe's own in the class path. In that class
the word MILLISECONDS occurs once, as the name of the unit; nothing else of it changes. A class that
is not the one of 0.12.0, byte for byte, is left as it is, and so is every one where the environment
has ``ICLASSIFIER_BATCH_DELAY=ms``.
"""

import hashlib
import os
import zipfile
from pathlib import Path

SWITCH = "ICLASSIFIER_BATCH_DELAY"
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
    found = _class(frontend / _JAR)
    if os.environ.get(SWITCH) == "ms" or hashlib.sha256(found).hexdigest() != _SHA256:
        return own
    target = folder / _CLASS
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(found.replace(_MS, _NS))
    return f"{folder}{os.pathsep}{own}"


def _class(jar: Path) -> bytes:
    """Return TorchServe's own class; empty where there is none."""
    try:
        with zipfile.ZipFile(jar) as packed:
            return packed.read(_CLASS)
    except (OSError, KeyError, zipfile.BadZipFile):
        return b""
