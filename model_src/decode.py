"""Logits to a label with its score: the only softmax of the project."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from model_src.errors import BundleError


@dataclass(frozen=True)
class Prediction:
    """The best label, its probability, and all probabilities from the highest to the lowest."""

    label: str
    score: float
    scores: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields in the order of the serving contract."""
        return asdict(self)


def decode(logits: Tensor, labels: list[str]) -> list[Prediction]:
    """Turn logits ``[batch, labels]`` into one prediction a row; equal scores keep label order.

    Raises:
        BundleError: for logits that are no numbers, which a model that diverged gives.

    """
    if not logits.isfinite().all():
        raise BundleError("the model gives scores that are no numbers; train it with a lower lr")
    # float64, so that the scores of a sentence sum to 1 within 1e-15 rather than 1e-7
    probabilities, order = logits.double().softmax(dim=1).sort(dim=1, descending=True, stable=True)
    return [
        Prediction(
            labels[index[0]], row[0], {labels[i]: p for i, p in zip(index, row, strict=True)}
        )
        for index, row in zip(order.tolist(), probabilities.tolist(), strict=True)
    ]
