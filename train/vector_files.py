"""Word vectors in text files: read once, checked line by line, then mapped from a cache."""

import io
import itertools
import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model_src.errors import BundleError, ConfigError
from model_src.files import atomic_dir, read_json
from train.fetch import locked, user_cache

logger = logging.getLogger(__name__)

# Some words with their rows ``[words, hidden]`` float32.
Block = tuple[list[str], np.ndarray]

_KEY, _WORDS, _ROWS = "key.json", "words.txt", "vectors.npy"
_LINES = 4096


@dataclass(frozen=True)
class Vectors:
    """Words, the most frequent first, and their rows ``[words, hidden]`` float32."""

    words: list[str]
    rows: np.ndarray


def from_text(path: Path) -> Vectors:
    """Read a file in GloVe's or word2vec's text format, or what was kept of it last time.

    Raises:
        ConfigError: when it cannot be read, or a line is not a word and its numbers.

    """
    path = path.resolve()
    state = path.stat()
    key = {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    name = f"{path.stem}-{sha256(str(path).encode()).hexdigest()[:16]}"
    return cached(name, key, lambda: _lines(path))


def cached(name: str, key: dict[str, Any], read: Callable[[], Iterator[Block]]) -> Vectors:
    """Return the vectors kept under ``name`` with an equal ``key``; else ``read`` and keep them.

    Where the cache cannot be written they are held in memory instead.
    """
    folder = user_cache() / "vectors" / name
    kept = _load(folder, key)
    if kept is not None:
        return kept
    try:
        with locked(folder):
            kept = _load(folder, key)  # another process may have made it meanwhile
            if kept is None:
                with atomic_dir(folder, (_KEY, _WORDS, _ROWS)) as scratch:
                    _save(scratch, key, read())
                kept = _load(folder, key)
    except OSError as reason:
        logger.warning("Cannot keep %s for the next time: %s", name, reason)
    if kept is None:
        found = list(read())
        words = [word for block, _ in found for word in block]
        kept = Vectors(words, np.concatenate([rows for _, rows in found]))
    return kept


def blocks(lines: Iterator[str], source: str) -> Iterator[Block]:
    """Check and parse ``lines``; the memory used does not depend on how many there are."""
    first = next(lines, "")
    header = re.fullmatch(r"(\d+) (\d+)\s*", first)
    # Without word2vec's header the width comes from the first line.
    width = int(header[2]) if header else len(first.split()) - 1
    number = 2 if header else 1
    done = 0
    lines = lines if header or not first else itertools.chain([first], lines)
    while chunk := list(itertools.islice(lines, _LINES)):
        parsed = _parse(chunk, width)
        if parsed is None:
            bad = next(i for i, line in enumerate(chunk) if _parse([line], width) is None)
            wanted = f"{width} numbers" if width > 0 else "its numbers"
            raise ConfigError(f"{source}, line {number + done + bad}: not a word and {wanted}")
        done += len(chunk)
        yield parsed
    if not done:
        raise ConfigError(f"{source} is empty")
    if header and done != int(header[1]):
        raise ConfigError(f"{source} holds {done} words, but its first line says {header[1]}")


def _lines(path: Path) -> Iterator[Block]:
    size = path.stat().st_size
    try:
        with (
            path.open("rb") as raw,
            tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as bar,
        ):
            # Words of large files hold other line ends of Unicode.
            stream = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n")
            for block in blocks(iter(stream), str(path)):
                bar.update(raw.tell() - bar.n)
                yield block
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text file in UTF-8") from None
    except OSError as reason:
        raise ConfigError(f"cannot read {path}: {reason.strerror}") from None


def _parse(lines: list[str], width: int) -> Block | None:
    """Return the words and rows of ``lines``, or None when one of them is bad."""
    if width < 1:
        return None
    words, values = [], []
    for line in lines:
        text = line.rstrip()
        if text.count(" ") == width:
            word, _, numbers = text.partition(" ")
        else:  # some words of large files hold blanks
            word, *parts = text.rsplit(" ", width)
            numbers = " ".join(parts) if len(parts) == width else ""
            if _number(word.rpartition(" ")[2]):
                return None
        if not numbers:
            return None
        words.append(word)
        values.append(numbers)
    try:
        rows = np.loadtxt(values, dtype=np.float32, delimiter=" ", comments=None, ndmin=2)
    except ValueError:
        return None
    fits = rows.shape == (len(lines), width) and bool(np.isfinite(rows).all())
    return (words, rows) if fits else None


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _save(folder: Path, key: dict[str, Any], read: Iterator[Block]) -> None:
    words: list[str] = []
    width = 0
    with (folder / _ROWS).open("wb") as stream:
        for names, rows in read:
            if not width:
                width = rows.shape[1]
                _header(stream, 0, width)
            words += names
            stream.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        # numpy pads this header so that it can be written over when the length has grown.
        stream.seek(0)
        _header(stream, len(words), width)
    text = "\n".join(words).encode()
    (folder / _WORDS).write_bytes(text)
    (folder / _KEY).write_text(json.dumps(key | _check(text, width)), encoding="utf-8")


def _header(stream: io.BufferedWriter, length: int, width: int) -> None:
    state = {"descr": "<f4", "fortran_order": False, "shape": (length, width)}
    np.lib.format.write_array_header_1_0(stream, state)


def _check(words: bytes, width: int) -> dict[str, Any]:
    return {"words": sha256(words).hexdigest(), "width": width}


def _load(folder: Path, key: dict[str, Any]) -> Vectors | None:
    """Return what ``_save`` wrote, mapped into memory; None if it is absent, old or damaged."""
    try:
        text = (folder / _WORDS).read_bytes()
        rows = np.load(folder / _ROWS, mmap_mode="r")
        words = text.decode().split("\n")
        known = read_json(folder / _KEY, BundleError)
        fits = rows.dtype == np.float32 and rows.shape == (len(words), known.get("width"))
        if not fits or known != key | _check(text, rows.shape[1]):
            return None
    except (OSError, ValueError, EOFError, BundleError):
        return None
    return Vectors(words, rows)
