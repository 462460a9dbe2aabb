"""Atomic writes and checked reads: an interruption leaves the old file or the new, never half."""

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from model_src.errors import UserError

# What a killed process leaves of a file.
_SCRATCH = ".*.partial-*"


@contextlib.contextmanager
def atomic_dir(path: Path, own: tuple[str, ...]) -> Iterator[Path]:
    """Yield an empty scratch folder beside ``path`` that replaces ``path`` on success.

    Args:
        path: the folder to make or to replace.
        own: patterns of the names that such a folder holds.

    Raises:
        UserError: when ``path`` holds anything else, which would be lost.

    """
    path = path.resolve()
    refuse_foreign(path, own)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    scratch = path.with_name(f".{path.name}.partial-{os.getpid()}")
    scratch.mkdir()
    old = path.with_name(f".{path.name}.partial-{os.getpid()}-old")
    try:
        yield scratch
        if path.exists():
            path.rename(old)
        scratch.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for rest in (scratch, old):
            shutil.rmtree(rest, ignore_errors=True)


def refuse_foreign(path: Path, own: tuple[str, ...]) -> None:
    """Raise UserError when replacing ``path`` would lose what this program did not make."""
    here = Path.cwd()
    if path.resolve() in (here, *here.parents):
        raise UserError(f"{path} is where you are, and would be replaced: name a folder in it")
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; name a folder")
    for entry in path.iterdir():
        if not any(fnmatch.fnmatch(entry.name, pattern) for pattern in (*own, _SCRATCH)):
            raise UserError(
                f"{path} holds {entry.name}, which would be lost: name a new folder or move it away"
            )


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the name of a scratch file beside ``path`` that replaces ``path`` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` through a scratch file beside it."""
    with atomic_file(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path, error: type[UserError]) -> dict:  # type: ignore[type-arg]
    """Return the JSON object in ``path``; raises ``error`` with the reason if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} is missing") from None
    except (OSError, ValueError) as reason:
        raise error(f"cannot read {path} as JSON: {reason}") from None
    if not isinstance(value, dict):
        raise error(f"{path} must hold one JSON object")
    return value


def sweep(path: Path) -> None:
    """Remove what killed processes left behind; live processes keep their scratch."""
    for stale in path.parent.glob(f".{path.name}.partial-*"):
        owner = stale.name.split(".partial-")[1].split("-")[0]
        if owner.isdigit() and Path(f"/proc/{owner}").exists() and int(owner) != os.getpid():
            continue
        if stale.name.endswith("-old") and not path.exists():
            stale.rename(path)
        else:
            shutil.rmtree(stale, ignore_errors=True)
