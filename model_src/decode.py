"""Logits to labels with their scores: the only softmax and the only sigmoid of the project."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from model_src.errors import BundleError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

# A label of a multi-label model is given from this probability on.
THRESHOLD = 0.5
SEPARATOR = "|"


@dataclass(frozen=True)
class Choice:
    """What of an answer is wanted: how many scores, and from which score on a label is given."""

    top_k: int | None = None
    threshold: float | None = None

    @classmethod
    def of(cls, top_k: object = None, threshold: object = None) -> "Choice":
        """Check what a client sent; raises RequestError without repeating it."""
        if top_k is None and threshold is None:
            return ALL
        if top_k is not None and not (type(top_k) is int and top_k >= 1):
            raise RequestError("top_k must be a whole number of 1 or more")
        if threshold is None:
            return cls(top_k)
        if type(threshold) not in (int, float) or not 0 <= threshold <= 1:  # type: ignore[operator]
            raise RequestError("threshold must be a number from 0 to 1")
        return cls(top_k, float(threshold))  # type: ignore[arg-type]

    def best(self, scores: dict[str, float]) -> dict[str, float]:
        """Return the first ``top_k`` of sorted ``scores``."""
        if self.top_k is None:
            return scores
        return dict(itertools.islice(scores.items(), self.top_k))


ALL = Choice()


class Prediction(NamedTuple):
    """The best label, its probability, and all probabilities from the highest to the lowest."""

    label: str
    score: float
    scores: dict[str, float]
    # whether the text was longer than the model reads
    truncated: bool = False

    @classmethod
    def of(cls, scores: dict[str, float]) -> Self:
        """Return the answer that sorted ``scores`` stand for."""
        label, score = next(iter(scores.items()))
        return cls(label, score, scores)

    @property
    def labels(self) -> list[str]:
        """The labels given: here always one."""
        return [self.label]

    def given(self, choice: Choice = ALL) -> list[str]:
        """Return the labels given at the threshold of ``choice``: here one, or none below it."""
        sure = choice.threshold is None or self.score >= choice.threshold
        return [self.label] if sure else []

    def as_dict(self, choice: Choice = ALL) -> dict[str, Any]:
        """Return the fields of the serving contract in its order."""
        label = next(iter(self.given(choice)), None)
        fields = {"label": label, "score": self.score, "scores": choice.best(self.scores)}
        return self._noted(fields)

    def _noted(self, fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"truncated": True} if self.truncated else fields


class MultiPrediction(Prediction):
    """Any number of labels: ``label`` joins them all, ``score`` is the highest probability."""

    __slots__ = ()

    @classmethod
    def of(cls, scores: dict[str, float]) -> Self:
        """Return the answer that sorted ``scores`` stand for."""
        return cls(joined(_from(THRESHOLD, scores)), max(scores.values()), scores)

    @property
    def labels(self) -> list[str]:
        """The labels given, possibly none, from the highest score to the lowest."""
        return self.given()

    def given(self, choice: Choice = ALL) -> list[str]:
        """Return the labels from the threshold of ``choice`` on, highest score first."""
        return _from(THRESHOLD if choice.threshold is None else choice.threshold, self.scores)

    def as_dict(self, choice: Choice = ALL) -> dict[str, Any]:
        """Return the fields of the serving contract in its order."""
        fields = {"labels": self.given(choice), "scores": choice.best(self.scores)}
        return self._noted(fields)


def _from(threshold: float, scores: dict[str, float]) -> list[str]:
    return [label for label, score in scores.items() if score >= threshold]


def joined(labels: Iterable[str]) -> str:
    """Return a set of labels as one text, whatever their order: ``insult|toxic``."""
    return SEPARATOR.join(sorted(labels))


def label_of(answer: dict[str, Any]) -> str:
    """Return the label, or all labels joined, of what ``as_dict`` or a server gave; else ``""``."""
    return answer["label"] or "" if "label" in answer else joined(answer["labels"])


def decode(logits: "Tensor", labels: list[str], *, multi_label: bool = False) -> list[Prediction]:
    """Turn logits ``[batch, labels]`` into one prediction a row; equal scores keep label order.

    Raises:
        BundleError: for logits that are no numbers, which a model that diverged gives.

    """
    # Floats of Python: for one sentence a quarter of the time that operations on tensors take.
    probabilities = _sigmoid if multi_label else _softmax
    kind = MultiPrediction if multi_label else Prediction
    found = []
    for row in logits.tolist():
        if not math.isfinite(sum(row)):
            raise BundleError(
                "the model gives scores that are no numbers; train it with a lower lr"
            )
        pairs = zip(labels, probabilities(row), strict=True)
        found.append(kind.of(dict(sorted(pairs, key=itemgetter(1), reverse=True))))
    return found


def _softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(logit - top) for logit in row]
    total = sum(powers)
    return [power / total for power in powers]


def _sigmoid(row: list[float]) -> list[float]:
    # exp(-|x|) never overflows, and keeps what is near 0 exact
    return [(math.exp(x) if x < 0 else 1.0) / (1 + math.exp(-abs(x))) for x in row]
