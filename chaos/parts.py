"""Two archives of one name that answer otherwise, endless sentences, and the offline answers."""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import untrained
from benchmarks.untrained import Entry
from model_src.predictor import Predictor
from serving.archive import archive
from serving.export import export
from serving.sentences import bundled

NAME = "chaos"
# What a served score may differ from the offline one.
EXACT = 1e-5
# So many that no two sentences have the same scores: an answer to another client is known as such.
LABELS = [f"kind{i}" for i in range(8)]
_TINY = {"vocab_size": "0", "num_filters": "16", "fc_hidden_size": "32"}
_KERNELS = {"1.0": "2,3", "2.0": "3,4"}
_AT_ONCE = 10_000
# Words of a sentence: the first ones number it, the others are chosen at random.
_NUMBERING, _MOST = 3, 24


def make(folder: Path, version: str) -> tuple[Path, Path]:
    """Make one version in ``folder``; return its archive and its export directory."""
    entry = Entry(NAME, "glove-cnn", options=_TINY | {"kernel_sizes": _KERNELS[version]})
    texts = bundled()
    source = untrained.make(entry, folder / f"model-{version}", LABELS, texts).folder
    exported = export(source, "torchscript", folder / f"export-{version}", texts, accept=True)
    return archive(exported.folder, NAME, folder / "store", version), exported.folder


def versions() -> list[str]:
    """Return the versions that ``make`` knows."""
    return list(_KERNELS)


def _words() -> list[str]:
    found = {word.lower() for text in bundled() for word in text.split()}
    return sorted(word for word in found if word.isascii() and word.isalpha())


_WORDS = _words()


def sentence(number: int) -> str:
    """Return the sentence of this number: the same each time, and another for each number."""
    digits = [number // len(_WORDS) ** i % len(_WORDS) for i in range(_NUMBERING)]
    generator = random.Random(number)  # noqa: S311 - nothing secret
    more = generator.choices(_WORDS, k=generator.randint(0, _MOST))
    return " ".join([*(_WORDS[digit] for digit in digits), *more])


class Offline:
    """The offline answers of each version."""

    def __init__(self, exports: Mapping[str, Path]) -> None:
        """Take the export directory of each version."""
        self._exports = exports
        self._loaded: dict[str, Predictor] = {}

    def scores(self, version: str, texts: list[str]) -> np.ndarray:
        """Return the probabilities ``[texts, labels]`` that ``version`` gives offline."""
        if version not in self._loaded:
            self._loaded[version] = Predictor.load(self._exports[version])
        predict = self._loaded[version].predict
        # in slices: a million answers take many times the memory of their scores
        slices = [
            table([]),
            *(
                table(each.scores for each in predict(texts[start : start + _AT_ONCE]))
                for start in range(0, len(texts), _AT_ONCE)
            ),
        ]
        return np.concatenate(slices)


def table(scores: Iterable[Mapping[str, float]]) -> np.ndarray:
    """Return scores by label as ``[sentences, labels]``; NaN, equal to nothing, where one lacks."""
    rows = [[each.get(label, float("nan")) for label in LABELS] for each in scores]
    return np.array(rows, dtype=np.float64).reshape(-1, len(LABELS))


def chosen(answers: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Return the number and the score of each answer's label, ``[sentences, 2]``.

    NaN, equal to nothing, where a label is unknown or a score is no number.
    """
    rows = [
        (
            LABELS.index(label) if (label := each.get("label")) in LABELS else float("nan"),
            score if isinstance(score := each.get("score"), float) else float("nan"),
        )
        for each in answers
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def same(scores: np.ndarray, best: np.ndarray, known: np.ndarray) -> bool:
    """Tell whether an answer's ``scores`` and its ``best``, as ``chosen`` gives it, are ``known``.

    Of labels whose offline scores are equal within the tolerance, each may be the best.
    """
    if not near(scores, known) or len(best) != len(known) or np.isnan(best).any():
        return False
    own = known[np.arange(len(known)), best[:, 0].astype(int)]
    return near(best[:, 1], own) and bool((own >= known.max(axis=1) - EXACT).all())


def near(scores: np.ndarray, known: np.ndarray) -> bool:
    """Tell whether ``scores`` are ``known``, both of one shape, within the tolerance."""
    return scores.shape == known.shape and bool((np.abs(scores - known) <= EXACT).all())
