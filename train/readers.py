"""One reader for each file format of the data contract: its rows, and the lines it cannot read.

A row is its line number, its text, its labels as they stand there, and whether they are any number
of labels instead of exactly one.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from model_src.errors import DataError
from model_src.text import is_unicode

if TYPE_CHECKING:
    import _csv

_HEADERS = (["text", "label"], ["sentence", "label"])
_TEXTS = ("text", "comment_text")  # the second is Jigsaw's
_NO_LABELS = (*_TEXTS, "id", "")  # the last is the index that pandas writes
_OURS = {*_NO_LABELS, "sentence", "label"}
_NO_UTF8 = "invalid UTF-8"
# A text may be as long as it likes; 131,072 characters are what Python allows by itself.
csv.field_size_limit(sys.maxsize)


class Bad(NamedTuple):
    """A line that cannot be used, and why."""

    line: int
    reason: str


Row = tuple[int, Any, list[Any], bool]


def _lines(path: Path, bad: list[Bad]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines without their ends, up to the last one that is not blank."""
    for number, line in _any_lines(path):
        if is_unicode(line):
            yield number, line
        else:
            bad.append(Bad(number, _NO_UTF8))


def _any_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield those that are no UTF-8 too, so that each is told from the lines around it."""
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")
    for number, line in enumerate(raw, 1):
        yield number, line.decode(errors="surrogateescape").rstrip("\r")


def _read_tsv(path: Path, bad: list[Bad]) -> Iterator[Row]:
    for number, line in _lines(path, bad):
        fields = line.rstrip().split("\t")
        names = [_name(field) for field in fields]
        if names in _HEADERS:
            if number > 1:
                bad.append(Bad(number, "duplicate header"))
        elif number == 1 and names[::-1] in _HEADERS:
            raise DataError(f"{path}, line 1: the columns are the wrong way round: {line!r}")
        elif len(fields) > 2:
            bad.append(Bad(number, f"{len(fields) - 1} tabs instead of 1"))
        else:
            yield number, fields[0], [fields[1] if len(fields) == 2 else None], False


def _name(field: str) -> str:
    """Return the name of a column, ours in lower case however it is spelt."""
    name = field.strip()
    return name.lower() if name.lower() in _OURS else name


def _read_csv(path: Path, bad: list[Bad]) -> Iterator[Row]:
    # A line may be one of many in a quoted field, which would be another without it.
    # Strict: a quote that is never closed must not take the next rows for its own. That allows no
    # blanks between a closing quote and the end of the line, which are harmless.
    rows = csv.reader((line.rstrip(" \t") + "\n" for _, line in _any_lines(path)), strict=True)
    header = [_name(name) for name in next(_csv_rows(path, rows), [])]
    if not is_unicode("".join(header)):
        raise DataError(f"{path}, line 1: the header is {_NO_UTF8}")
    text = next((name for name in _TEXTS if name in header), _TEXTS[0])
    columns = [name for name in header if name not in _NO_LABELS]
    multi = "label" not in header and len(columns) >= 2
    for name in (text, *(columns if multi else ["label"])):
        if header.count(name) != 1:
            what = "lacks the column" if name not in header else "has more than once the column"
            raise DataError(f"{path}, line 1: the header {what} {name!r}: {header}")
    first = 1
    zeros_and_ones = columns if multi else []
    for row in _csv_rows(path, rows):
        start, first = first + 1, rows.line_num
        if reason := _csv_problem(row, header, zeros_and_ones):
            bad.append(Bad(start, reason))
            continue
        values = dict(zip(header, (value.strip() for value in row), strict=True))
        if multi:
            yield start, values[text], [name for name in columns if values[name] == "1"], True
        else:
            yield start, values[text], [values["label"]], False


def _csv_problem(row: list[str], header: list[str], zeros_and_ones: list[str]) -> str:
    """Say why ``row`` cannot be used, or nothing; some columns hold ``zeros_and_ones`` only."""
    if not is_unicode("".join(row)):
        return _NO_UTF8
    if [_name(name) for name in row] == header:
        return "duplicate header"
    if len(row) != len(header):
        return f"{len(row)} columns instead of {len(header)}"
    for name, value in zip(header, row, strict=True):
        if name in zeros_and_ones and value.strip() not in ("0", "1"):
            # who forgot the column of labels must not be left to guess
            what = f"{name} is {value.strip()!r}"
            return f"without a column 'label' every column is a label of 0 or 1: {what}"
    return ""


def _csv_rows(path: Path, rows: "_csv.Reader") -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as reason:
        raise DataError(
            f"{path}, line {rows.line_num}: {reason}; is a quote left open or not doubled?"
        ) from None


def _read_jsonl(path: Path, bad: list[Bad]) -> Iterator[Row]:
    for number, line in _lines(path, bad):
        try:
            # objects become tuples of pairs, so that a key that occurs twice is seen
            item = json.loads(line or "{}", object_pairs_hook=tuple)
        except (ValueError, RecursionError):
            bad.append(Bad(number, "no valid JSON"))
            continue
        if not isinstance(item, tuple):
            bad.append(Bad(number, "no JSON object"))
            continue
        values = dict(item)
        if len(values) < len(item):
            bad.append(Bad(number, "a key occurs twice"))
        elif "labels" not in values:
            yield number, values.get("text"), [values.get("label")], False
        elif "label" in values:
            bad.append(Bad(number, "it has both label and labels"))
        elif not isinstance(values["labels"], list):
            bad.append(Bad(number, "labels is no list"))
        else:
            yield number, values.get("text"), values["labels"], True


READERS = {".txt": _read_tsv, ".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}
