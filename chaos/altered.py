"""Archives that went wrong on purpose."""

import zipfile
from pathlib import Path

# Added to the handler: each batch waits, as a large model computes.
SLOW = """
import time

_answer = GloveHandler.answer


def _slow(self, calls):
    time.sleep({seconds})
    return _answer(self, calls)


GloveHandler.answer = _slow
"""
# Added to the handler: some requests keep memory, as a cache without a bound does.
LEAKY = """
import itertools

_answer, _kept, _seen = GloveHandler.answer, [], itertools.count(1)


def _leaky(self, calls):
    _kept.extend(bytes({size}) + b"x" for _ in calls if not next(_seen) % {every})
    return _answer(self, calls)


GloveHandler.answer = _leaky
"""


def with_handler(mar: Path, target: Path, addition: str) -> Path:
    """Copy an archive to ``target`` with ``addition`` at the end of its handler."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(mar) as packed, zipfile.ZipFile(target, "w") as out:
        for name in packed.namelist():
            more = addition.encode() if name == "glove.py" else b""
            out.writestr(name, packed.read(name) + more)
    return target
