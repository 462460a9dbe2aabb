"""Archives that went wrong on purpose."""

import zipfile
from pathlib import Path

# Added to the handler: each batch waits, as a large model computes.
SLOW = """
import time

_handle = GloveHandler.handle


def _slow(self, data, context):
    time.sleep({seconds})
    return _handle(self, data, context)


GloveHandler.handle = _slow
"""
# Added to the handler: some requests keep memory, as a cache without a bound does.
LEAKY = """
import itertools

_handle, _kept, _seen = GloveHandler.handle, [], itertools.count(1)


def _leaky(self, data, context):
    _kept.extend(bytes({size}) + b"x" for _ in data if not next(_seen) % {every})
    return _handle(self, data, context)


GloveHandler.handle = _leaky
"""


def with_handler(mar: Path, target: Path, addition: str) -> Path:
    """Copy an archive to ``target`` with ``addition`` at the end of its handler."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(mar) as packed, zipfile.ZipFile(target, "w") as out:
        for name in packed.namelist():
            more = addition.encode() if name == "glove.py" else b""
            out.writestr(name, packed.read(name) + more)
    return target
