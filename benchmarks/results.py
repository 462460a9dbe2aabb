"""What all benchmarks do with what they find: JSON to go on from, and a table to read."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from model_src.errors import DataError
from model_src.files import atomic_write, read_json

ROOT = Path(__file__).resolve().parent.parent
FRONT = "./iclassifier"


def load(path: Path) -> dict[str, Any]:
    """Return what was found so far; empty where nothing was."""
    known: dict[str, Any] = read_json(path, DataError) if path.exists() else {}
    return known


def begun(path: Path, made_with: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier run found if it was ``made_with`` the same, else only that."""
    known = load(path)
    return known if known.get("made_with") == made_with else {"made_with": made_with}


def save(path: Path, found: dict[str, Any]) -> None:
    """Write what was found so far."""
    atomic_write(path, json.dumps(found, indent=2) + "\n")


def report(path: Path, lines: Iterable[str]) -> Path:
    """Write ``lines`` of Markdown beside the JSON file ``path``; return where."""
    markdown = path.with_suffix(".md")
    atomic_write(markdown, "\n".join([*lines, ""]))
    return markdown


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    first, *more = (f"| {' | '.join(row)} |" for row in (heads, *rows))
    return [first, "|---" * len(heads) + "|", *more]


def typed(path: Path) -> Path:
    """Return ``path`` as typed in the project's folder."""
    return Path(os.path.relpath(path, ROOT))


def code(places: Iterable[str], root: Path = ROOT) -> str:
    """Return a short name of all the code in ``places``, files and folders under ``root``."""
    found = hashlib.sha256()
    for each in places:
        for path in sorted([root / each, *(root / each).rglob("*")]):
            if path.is_file() and path.suffix != ".pyc":
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                found.update(f"{path.relative_to(root)} {content}\n".encode())
    return found.hexdigest()[:12]
