"""Read, check and split labelled text: the data contract.

A data directory holds ``train``, ``valid`` and ``test``, each as ``.txt`` or ``.tsv`` (sentence TAB
label), ``.csv`` (header with ``text`` and ``label``) or ``.jsonl`` (objects with the same keys).
Where a sentence has any number of labels, a ``.csv`` has a column of 0 and 1 for each label instead
of ``label``, and objects have a list ``labels``.
CRLF, blanks at line ends, a missing last newline and a byte-order mark are fine.
"""

import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from model_src.decode import SEPARATOR, joined
from model_src.errors import DataError
from model_src.files import sha256
from model_src.text import text_problem
from train.readers import READERS, Bad

SPLITS = ("train", "valid", "test")
# The names a data directory made by prepare holds; a folder with any other is not replaced.
OWN = tuple(f"{split}.*" for split in SPLITS)
_SHOWN = 5
# A label set of fewer sentences would not reach every split, so it joins others.
_RARE = 10


class Example(NamedTuple):
    """One sentence with its label; with ``multi``, with any number of them joined."""

    text: str
    label: str
    multi: bool = False

    @property
    def labels(self) -> list[str]:
        """All labels of the sentence."""
        return self.label.split(SEPARATOR) * bool(self.label) if self.multi else [self.label]


@dataclass(frozen=True)
class Data:
    """A data directory in memory."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    labels: list[str]
    dropped: dict[str, int]
    fingerprint: str

    @property
    def multi_label(self) -> bool:
        """Whether a sentence has any number of labels instead of exactly one."""
        return self.train[0].multi


def load(data_dir: Path, *, skip_bad: bool = False) -> Data:
    """Read a data directory; labels are those of train, sorted.

    Raises:
        DataError: for a missing split or bad lines, unless ``skip_bad`` drops and counts those.

    """
    paths = {split: find(data_dir, split) for split in SPLITS}
    dropped: Counter[str] = Counter()
    train = read(paths["train"], dropped if skip_bad else None)
    labels = sorted({label for example in train for label in example.labels})
    if len(labels) < 2:
        raise DataError(
            f"{paths['train']} has {len(labels)} different labels; at least 2 are needed"
        )
    valid, test = (
        read(paths[split], dropped if skip_bad else None, labels, multi=train[0].multi)
        for split in ("valid", "test")
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
    found = [path for suffix in READERS if (path := data_dir / f"{split}{suffix}").is_file()]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{split}{suffix}" for suffix in READERS)
    if found:
        raise DataError(f"{data_dir} has {' and '.join(p.name for p in found)}; keep one of them")
    raise DataError(f"{data_dir} lacks its {split} split: one of {names}")


def read(
    path: Path,
    dropped: Counter[str] | None = None,
    labels: list[str] | None = None,
    *,
    multi: bool | None = None,
) -> list[Example]:
    """Read one file.

    Args:
        path: its suffix says the format.
        dropped: counts bad lines by reason instead of refusing them.
        labels: the labels that may occur, when given.
        multi: whether sentences have any number of labels; without, as the first one has.

    Raises:
        DataError: naming the file and the first five bad lines.

    """
    if path.suffix not in READERS:
        raise DataError(f"{path} has the suffix {path.suffix!r}; known are {', '.join(READERS)}")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    bad: list[Bad] = []
    examples = []
    for line, text, found, kind in READERS[path.suffix](path, bad):
        reason = _problem(text, found, labels, multi=kind)
        if multi not in (None, kind):
            reason = "one label, where others have any number"
            if kind:
                reason = "any number of labels, where others have one"
        if reason:
            bad.append(Bad(line, reason))
        else:
            multi = kind
            label = joined({str(each).strip() for each in found})
            examples.append(Example(text.strip(), label, kind))
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


def write_splits(folder: Path, parts: dict[str, list[Example]]) -> None:
    """Write a data directory: ``.tsv`` with one label a sentence, else ``.jsonl``.

    Blanks inside a sentence become single spaces.
    """
    for name, part in parts.items():
        if not part[0].multi:
            write(folder / f"{name}.tsv", part)
            continue
        items = [{"text": " ".join(e.text.split()), "labels": list(e.labels)} for e in part]
        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def split(
    examples: list[Example], seed: int, held_out: tuple[str, ...] = ("test", "valid")
) -> dict[str, list[Example]]:
    """Split off a tenth for each of ``held_out``, stratified by label, the same for the same seed.

    Equal sentences stay together, so that none is both trained on and tested.

    Raises:
        DataError: when a part would be empty, or there is only one label.

    """
    if len({example.label for example in examples}) < 2:
        raise DataError("all sentences have the same label; at least 2 labels are needed")
    by_text: dict[str, list[Example]] = {}
    for example in examples:
        by_text.setdefault(" ".join(example.text.split()), []).append(example)
    generator = random.Random(seed)  # noqa: S311 - no secret
    parts: dict[str, list[Example]] = {name: [] for name in ("train", *reversed(held_out))}
    for texts in _pooled(_strata(by_text), parts["train"], by_text, generator):
        generator.shuffle(texts)
        tenth = round(len(texts) / 10)
        cuts = {name: texts[i * tenth : (i + 1) * tenth] for i, name in enumerate(held_out)}
        cuts["train"] = texts[len(held_out) * tenth :]
        for name, chosen in cuts.items():
            parts[name] += [example for text in chosen for example in by_text[text]]
    for name, part in parts.items():
        if not part:
            kinds = len({example.label for example in examples})
            raise DataError(
                f"{len(examples)} sentences ({len(by_text)} different ones, {kinds} labels) are "
                f"too few to split: none is left for {name}; or are the columns swapped?"
            )
        generator.shuffle(part)
    return parts


def _pooled(
    strata: dict[str, list[str]],
    train: list[Example],
    by_text: dict[str, list[Example]],
    generator: random.Random,
) -> list[list[str]]:
    """Return the strata, those too small for a tenth as one, but a text of each, put in train."""
    few: list[str] = []
    large = []
    for _, texts in sorted(strata.items()):
        if round(len(texts) / 10):
            large.append(texts)
            continue
        generator.shuffle(texts)
        train += by_text[texts[0]]
        few += texts[1:]
    return [*large, few]


def _strata(by_text: dict[str, list[Example]]) -> dict[str, list[str]]:
    """Group texts by label; those with a rare label or set of labels by the rarest they have.

    Equal sentences may have different labels, each of which counts.
    """
    labels_of = {
        text: {label for example in group for label in example.labels}
        for text, group in by_text.items()
    }
    sets = Counter(group[0].label for group in by_text.values())
    singles = Counter(label for labels in labels_of.values() for label in labels)
    strata: dict[str, list[str]] = {}
    for text, group in by_text.items():
        label = group[0].label
        rarest = min(labels_of[text], key=lambda label: (singles[label], label), default="")
        rare = sets[label] < _RARE or 0 < singles[rarest] < _RARE
        strata.setdefault(rarest if rare else label, []).append(text)
    return strata


def _problem(
    text: object, found: list[object], labels: list[str] | None, *, multi: bool
) -> str | None:
    if not isinstance(text, str):
        return "text is missing or no string"
    if problem := text_problem(text):
        return problem
    for label in found:
        if label is None or isinstance(label, list | tuple) or not str(label).strip():
            return "the label is missing"
        if isinstance(label, bool | float):
            return f"the label is {label!r}, but must be text or a whole number"
        name = str(label).strip()
        if text_problem(name) or len(name.splitlines()) > 1 or "\t" in str(label):
            return "the label holds a tab, a line end or no valid text"
        if multi and SEPARATOR in name:
            return f"the label holds {SEPARATOR}, which joins labels"
        if labels is not None and name not in labels:
            return f"label unseen in train: {name!r}"
    return None
