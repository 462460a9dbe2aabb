"""Jigsaw's toxic comments: three files of a competition, put in place by hand."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from model_src.decode import joined
from model_src.errors import DataError
from train.data import Example

LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
# In test_labels.csv: the row was not used for scoring.
_NOT_SCORED = "-1"


class Rows(NamedTuple):
    """How many rows the files have, and how many of test are scored."""

    train: int
    test: int
    scored: int


ROWS = Rows(train=159_571, test=153_164, scored=63_978)


def parts(files: Sequence[Path], rows: Rows = ROWS) -> dict[str, list[Example]]:
    """Read train, and test joined with its labels without what is not scored.

    Args:
        files: train.csv, test.csv and test_labels.csv.
        rows: how many they must have.

    Raises:
        DataError: when a file is not the one it should be.

    """
    train_path, test_path, labels_path = files
    train = [
        example
        for row in _rows(train_path, ["id", "comment_text", *LABELS], rows.train)
        if (example := _example(train_path, row["comment_text"], row))
    ]
    texts = {
        row["id"]: row["comment_text"]
        for row in _rows(test_path, ["id", "comment_text"], rows.test)
    }
    test = []
    scored = 0
    for row in _rows(labels_path, ["id", *LABELS], rows.test):
        text = texts.pop(row["id"], None)
        if text is None:
            raise DataError(f"{labels_path} has the id {row['id']!r} twice or {test_path} lacks it")
        if row[LABELS[0]] != _NOT_SCORED:
            scored += 1
            if example := _example(labels_path, text, row):
                test.append(example)
    if scored != rows.scored:
        raise DataError(f"{labels_path} has {scored} scored rows instead of {rows.scored}")
    return {"train": train, "test": test}


def _rows(path: Path, header: list[str], count: int) -> Iterator[dict[str, str]]:
    """Yield the rows of a file with exactly this header and so many rows."""
    found = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            if table.fieldnames != header:
                raise DataError(f"{path} has the header {table.fieldnames} instead of {header}")
            for row in table:
                if None in row or None in row.values():
                    raise DataError(f"{path}, line {table.line_num}: not {len(header)} columns")
                found += 1
                yield row
    except (UnicodeDecodeError, csv.Error) as reason:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {reason}") from None
    if found != count:
        raise DataError(f"{path} has {found} rows instead of {count}: fetch it again")


def _example(path: Path, text: str, row: dict[str, str]) -> Example | None:
    """Return one comment, or None for one that is blank."""
    for label in LABELS:
        if row[label] not in {"0", "1"}:
            raise DataError(f"{path}: {label} of {row['id']} is {row[label]!r} instead of 0 or 1")
    label = joined(label for label in LABELS if row[label] == "1")
    return Example(" ".join(text.split()), label, multi=True) if text.strip() else None
