"""Read, check and split labelled text: the data contract.

A data directory holds ``train``, ``valid`` and ``test``, each as ``.txt`` or ``.tsv`` (sentence TAB
label), ``.csv`` (header with ``text`` and ``label``) or ``.jsonl`` (objects with the same keys).
CRLF, blanks at line ends, a missing last newline and a byte-order mark are fine.
"""

import csv
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from model_src.errors import DataError
from model_src.files import sha256
from model_src.tokenizer import text_problem

if TYPE_CHECKING:
    import _csv

SPLITS = ("train", "valid", "test")
_HEADERS = (["text", "label"], ["sentence", "label"])
# The names a data directory made by prepare holds; a folder with any other is not replaced.
OWN = tuple(f"{split}.*" for split in SPLITS)
_SHOWN = 5


class Example(NamedTuple):
    """One labelled sentence."""

    text: str
    label: str


class _Bad(NamedTuple):
    line: int
    reason: str


@dataclass(frozen=True)
class Data:
    """A data directory in memory."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    labels: list[str]
    dropped: dict[str, int]
    fingerprint: str


def load(data_dir: Path, *, skip_bad: bool = False) -> Data:
    """Read a data directory; labels are those of train, sorted.

    Raises:
        DataError: for a missing split or bad lines, unless ``skip_bad`` drops and counts those.

    """
    paths = {split: find(data_dir, split) for split in SPLITS}
    dropped: Counter[str] = Counter()
    train = read(paths["train"], dropped if skip_bad else None)
    labels = sorted({example.label for example in train})
    if len(labels) < 2:
        raise DataError(
            f"{paths['train']} has {len(labels)} different labels; at least 2 are needed"
        )
    valid, test = (
        read(paths[split], dropped if skip_bad else None, labels) for split in ("valid", "test")
    )
    digest = "-".join(sha256(path)[:16] for path in paths.values())
    return Data(train, valid, test, labels, dict(dropped), digest)


def refuse_unknown_labels(loaded: Data, labels: list[str]) -> None:
    """Raise DataError when the data has a label that a model with ``labels`` cannot give."""
    unknown = sorted(set(loaded.labels) - set(labels))
    if unknown:
        raise DataError(f"the data has the label {unknown[0]!r}, but the model knows {labels}")


def find(data_dir: Path, split: str) -> Path:
    """Return the one file of ``split``; raises DataError when there is none or more than one."""
    if not data_dir.is_dir():
        raise DataError(
            f"there is no data directory {data_dir}; make it with ./iclassifier prepare"
        )
    found = [path for suffix in _READERS if (path := data_dir / f"{split}{suffix}").is_file()]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{split}{suffix}" for suffix in _READERS)
    if found:
        raise DataError(f"{data_dir} has {' and '.join(p.name for p in found)}; keep one of them")
    raise DataError(f"{data_dir} lacks its {split} split: one of {names}")


def read(
    path: Path, dropped: Counter[str] | None = None, labels: list[str] | None = None
) -> list[Example]:
    """Read one file.

    Args:
        path: its suffix says the format.
        dropped: counts bad lines by reason instead of refusing them.
        labels: the labels that may occur, when given.

    Raises:
        DataError: naming the file and the first five bad lines.

    """
    if path.suffix not in _READERS:
        raise DataError(f"{path} has the suffix {path.suffix!r}; known are {', '.join(_READERS)}")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    bad: list[_Bad] = []
    examples = []
    for line, text, label in _READERS[path.suffix](path, bad):
        reason = _problem(text, label, labels)
        if reason:
            bad.append(_Bad(line, reason))
        else:
            examples.append(Example(text.strip(), str(label).strip()))
    if bad and dropped is None:
        shown = "\n".join(f"  line {b.line}: {b.reason}" for b in sorted(bad)[:_SHOWN])
        more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"{path} has {len(bad)} bad lines:\n{shown}{more}\n"
            "Mend them, or add --skip_bad to drop and count them."
        )
    if dropped is not None:
        dropped.update(b.reason.split(":")[0] for b in bad)
    if not examples:
        raise DataError(f"{path} holds no sentence")
    return examples


def write(path: Path, examples: list[Example]) -> None:
    """Write sentence TAB label lines; blanks inside a sentence become single spaces."""
    lines = [f"{' '.join(example.text.split())}\t{example.label}\n" for example in examples]
    path.write_text("".join(lines), encoding="utf-8")


def split(
    examples: list[Example], seed: int, held: tuple[str, ...] = ("test", "valid")
) -> dict[str, list[Example]]:
    """Cut off a tenth for each of ``held``, stratified by label, the same for the same seed.

    The rest is train. Equal sentences stay together, so that none is both trained on and tested.

    Raises:
        DataError: when a part would be empty, or there is only one label.

    """
    if len({example.label for example in examples}) < 2:
        raise DataError("all sentences have the same label; at least 2 labels are needed")
    by_text: dict[str, list[Example]] = {}
    for example in examples:
        by_text.setdefault(" ".join(example.text.split()), []).append(example)
    by_label: dict[str, list[str]] = {}
    for text, group in by_text.items():
        by_label.setdefault(group[0].label, []).append(text)
    generator = random.Random(seed)  # noqa: S311 - no secret
    parts: dict[str, list[Example]] = {
        name: [] for name in SPLITS if name == "train" or name in held
    }
    for _, texts in sorted(by_label.items()):
        generator.shuffle(texts)
        tenth = round(len(texts) / 10)
        cuts = {name: texts[i * tenth : (i + 1) * tenth] for i, name in enumerate(held)}
        cuts["train"] = texts[len(held) * tenth :]
        for name, chosen in cuts.items():
            parts[name] += [example for text in chosen for example in by_text[text]]
    for name, part in parts.items():
        if not part:
            raise DataError(
                f"{len(examples)} sentences are too few to split: none is left for {name}"
            )
        generator.shuffle(part)
    return parts


def _problem(text: object, label: object, labels: list[str] | None) -> str | None:
    if not isinstance(text, str):
        return "text is missing or no string"
    if problem := text_problem(text):
        return problem
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        return "the label is missing"
    if text_problem(str(label)) or len(str(label).strip().splitlines()) > 1 or "\t" in str(label):
        return "the label holds a tab, a line end or no valid text"
    if labels is not None and str(label).strip() not in labels:
        return f"label unseen in train: {str(label).strip()!r}"
    return None


_Row = tuple[int, Any, Any]


def _lines(path: Path, bad: list[_Bad]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines without their ends, up to the last one that is not blank."""
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")
    for number, line in enumerate(raw, 1):
        try:
            yield number, line.decode().rstrip("\r")
        except UnicodeDecodeError:
            bad.append(_Bad(number, "invalid UTF-8"))


def _read_tsv(path: Path, bad: list[_Bad]) -> Iterator[_Row]:
    for number, line in _lines(path, bad):
        fields = line.rstrip().split("\t")
        if [field.strip() for field in fields] in _HEADERS:
            if number > 1:
                bad.append(_Bad(number, "duplicate header"))
        elif number == 1 and [field.strip() for field in reversed(fields)] in _HEADERS:
            raise DataError(f"{path}, line 1: the columns are the wrong way round: {line!r}")
        elif len(fields) > 2:
            bad.append(_Bad(number, f"{len(fields) - 1} tabs instead of 1"))
        else:
            yield number, fields[0], fields[1] if len(fields) == 2 else None


def _read_csv(path: Path, bad: list[_Bad]) -> Iterator[_Row]:
    numbers: list[int] = []

    def feed() -> Iterator[str]:
        for number, line in _lines(path, bad):
            numbers.append(number)
            yield line + "\n"

    rows = csv.reader(feed())
    header = [name.strip() for name in next(_csv_rows(path, rows), [])]
    for name in ("text", "label"):
        if header.count(name) != 1:
            what = "lacks the column" if name not in header else "has more than once the column"
            raise DataError(f"{path}, line 1: the header {what} {name!r}: {header}")
    text, label = header.index("text"), header.index("label")
    first = 1
    for row in _csv_rows(path, rows):
        start, first = numbers[first], rows.line_num
        if [name.strip() for name in row] == header:
            bad.append(_Bad(start, "duplicate header"))
        elif len(row) != len(header):
            bad.append(_Bad(start, f"{len(row)} columns instead of {len(header)}"))
        else:
            yield start, row[text], row[label]


def _csv_rows(path: Path, rows: "_csv.Reader") -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as reason:
        raise DataError(f"{path}, line {rows.line_num}: {reason}; is a quote left open?") from None


def _read_jsonl(path: Path, bad: list[_Bad]) -> Iterator[_Row]:
    for number, line in _lines(path, bad):
        try:
            # objects become tuples of pairs, so that a key that occurs twice is seen
            item = json.loads(line or "{}", object_pairs_hook=tuple)
        except (ValueError, RecursionError):
            bad.append(_Bad(number, "no valid JSON"))
            continue
        if not isinstance(item, tuple):
            bad.append(_Bad(number, "no JSON object"))
        elif len(dict(item)) < len(item):
            bad.append(_Bad(number, "a key occurs twice"))
        else:
            values = dict(item)
            yield number, values.get("text"), values.get("label")


_READERS = {".txt": _read_tsv, ".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}
