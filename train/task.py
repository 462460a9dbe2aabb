"""What one label a sentence and any number of labels differ in: targets, loss, measure on valid."""

import dataclasses
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from model_src.config import Config
from model_src.decode import THRESHOLD
from model_src.errors import ConfigError
from train.data import Data, Example
from train.measures import macro_f1, mean_auroc


class Task(Protocol):
    """One entry of the table; its targets are what all else takes."""

    def targets(self, examples: list[Example], labels: list[str]) -> Tensor:
        """Return the labels as numbers, a row a sentence."""

    def weights(self, targets: Tensor, num_labels: int) -> Tensor:
        """Return ``[labels]`` weights that make rare labels count as much as frequent ones."""

    def loss(
        self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None
    ) -> Tensor:
        """Return the mean loss of logits ``[batch, labels]`` in fp32."""

    def distance(self, logits: Tensor, soft: Tensor) -> Tensor:
        """Return the mean Kullback-Leibler divergence from a teacher's logits to a student's."""

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[str, float]:
        """Return the measure that chooses the best epoch: its name, and its value in 0..1."""


class SingleLabel:
    """Exactly one label: cross-entropy and accuracy; targets are ``[n]`` int64."""

    def targets(self, examples: list[Example], labels: list[str]) -> Tensor:
        """Return the index of each sentence's label."""
        index = {label: i for i, label in enumerate(labels)}
        return torch.tensor([index[example.label] for example in examples])

    def weights(self, targets: Tensor, num_labels: int) -> Tensor:
        """Return the inverse frequencies, whose mean over ``targets`` is 1."""
        counts = torch.bincount(targets, minlength=num_labels)
        return len(targets) / (num_labels * counts.clamp(min=1))

    def loss(
        self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None
    ) -> Tensor:
        """Return the cross-entropy; the mean is over rows, whatever their weights.

        A row has the weight of its label. torch would give what is smoothed over to the other
        labels their weights, by which a rare one becomes the likeliest answer to every sentence.
        """
        rows = functional.cross_entropy(
            logits, targets, label_smoothing=smoothing, reduction="none"
        )
        return (rows if weights is None else rows * weights[targets]).mean()

    def distance(self, logits: Tensor, soft: Tensor) -> Tensor:
        """Return the divergence of the two softmax distributions."""
        student, teacher = logits.log_softmax(dim=1), soft.log_softmax(dim=1)
        return functional.kl_div(student, teacher, reduction="batchmean", log_target=True)

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[str, float]:
        """Return the accuracy."""
        return "accuracy", int((logits.argmax(dim=1) == targets).sum()) / len(targets)


class MultiLabel:
    """Any number of labels: binary cross-entropy and mean AUROC; targets are ``[n, labels]``."""

    def targets(self, examples: list[Example], labels: list[str]) -> Tensor:
        """Return 1.0 for the labels that a sentence has and 0.0 for the others."""
        index = {label: i for i, label in enumerate(labels)}
        targets = torch.zeros(len(examples), len(labels))
        for row, example in zip(targets, examples, strict=True):
            row[[index[label] for label in example.labels]] = 1.0
        return targets

    def weights(self, targets: Tensor, num_labels: int) -> Tensor:
        """Return negatives a positive, for each label."""
        positives = targets.sum(dim=0).clamp(min=1)
        return (len(targets) - positives).clamp(min=1) / positives

    def loss(
        self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None
    ) -> Tensor:
        """Return the binary cross-entropy; smoothing moves targets towards one half.

        Weights are of the sentences that have a label, not of what is smoothed: see above.
        """
        smooth = targets * (1 - smoothing) + smoothing / 2
        each = None if weights is None else 1 + targets * (weights - 1)
        return functional.binary_cross_entropy_with_logits(logits, smooth, weight=each)

    def distance(self, logits: Tensor, soft: Tensor) -> Tensor:
        """Return the divergence of the sigmoids, label by label."""
        teacher = soft.sigmoid()
        cross = functional.binary_cross_entropy_with_logits(logits, teacher)
        return cross - functional.binary_cross_entropy_with_logits(soft, teacher)

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[str, float]:
        """Return the mean AUROC; macro F1 where no label has both positives and negatives."""
        scores, gold = logits.double().sigmoid().numpy(), targets.bool().numpy()
        area = mean_auroc(scores, gold)
        if area is None:
            return "macro_f1", macro_f1(scores >= THRESHOLD, gold)
        return "mean_auroc", area


TASKS: dict[bool, Task] = {False: SingleLabel(), True: MultiLabel()}


def settle(config: Config, data: Data) -> Config:
    """Return ``config`` with ``multi_label`` as the data is.

    Raises:
        ConfigError: when it is something else already.

    """
    if config.multi_label not in (None, data.multi_label):
        found = "any number of labels" if data.multi_label else "exactly one label"
        raise ConfigError(
            f"multi_label of the model is {str(config.multi_label).lower()}, but the data has "
            f"{found} a sentence: both must agree"
        )
    return dataclasses.replace(config, multi_label=data.multi_label)
