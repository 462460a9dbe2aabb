"""Logits to labels with their scores: the only softmax and the only sigmoid of the project."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor

from model_src.errors import BundleError

# A label of a multi-label model is given from this probability on.
THRESHOLD = 0.5
SEPARATOR = "|"


@dataclass(frozen=True)
class Prediction:
    """The best label, its probability, and all probabilities from the highest to the lowest."""

    label: str
    score: float
    scores: dict[str, float]

    @classmethod
    def of(cls, scores: dict[str, float]) -> Self:
        """Return the answer that sorted ``scores`` stand for."""
        label, score = next(iter(scores.items()))
        return cls(label, score, scores)

    @property
    def labels(self) -> list[str]:
        """The labels given: here always one."""
        return [self.label]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields in the order of the serving contract."""
        return asdict(self)


@dataclass(frozen=True)
class MultiPrediction(Prediction):
    """Any number of labels: ``label`` joins them all, ``score`` is the highest probability."""

    @classmethod
    def of(cls, scores: dict[str, float]) -> Self:
        """Return the answer that sorted ``scores`` stand for."""
        return cls(joined(_given(scores)), max(scores.values()), scores)

    @property
    def labels(self) -> list[str]:
        """The labels given, possibly none, from the highest score to the lowest."""
        return _given(self.scores)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields in the order of the serving contract."""
        return {"labels": self.labels, "scores": self.scores}


def _given(scores: dict[str, float]) -> list[str]:
    return [label for label, score in scores.items() if score >= THRESHOLD]


def joined(labels: Iterable[str]) -> str:
    """Return a set of labels as one text, whatever their order: ``insult|toxic``."""
    return SEPARATOR.join(sorted(labels))


def label_of(answer: dict[str, Any]) -> str:
    """Return the label, or all labels joined, of what ``as_dict`` or a server gave."""
    return str(answer["label"]) if "label" in answer else joined(answer["labels"])


def decode(logits: Tensor, labels: list[str], *, multi_label: bool = False) -> list[Prediction]:
    """Turn logits ``[batch, labels]`` into one prediction a row; equal scores keep label order.

    Raises:
        BundleError: for logits that are no numbers, which a model that diverged gives.

    """
    if not logits.isfinite().all():
        raise BundleError("the model gives scores that are no numbers; train it with a lower lr")
    # float64, so that the scores of a sentence sum to 1 within 1e-15 rather than 1e-7
    exact = logits.double()
    probabilities = exact.sigmoid() if multi_label else exact.softmax(dim=1)
    values, order = probabilities.sort(dim=1, descending=True, stable=True)
    kind = MultiPrediction if multi_label else Prediction
    return [
        kind.of({labels[i]: p for i, p in zip(index, row, strict=True)})
        for index, row in zip(order.tolist(), values.tolist(), strict=True)
    ]
