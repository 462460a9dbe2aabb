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
    """One entry of the table; its targets are what ``loss`` and ``measure`` take."""

    def __init__(self, config: Config) -> None:
        """Keep what the loss needs."""

    def targets(self, examples: list[Example], labels: list[str]) -> Tensor:
        """Return the labels as numbers, a row a sentence."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits ``[batch, labels]`` in fp32."""

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[str, float]:
        """Return the measure that chooses the best epoch: its name, and its value in 0..1."""


class SingleLabel:
    """Exactly one label: cross-entropy and accuracy; targets are ``[n]`` int64."""

    def __init__(self, config: Config) -> None:
        """Keep what the loss needs."""
        self.smoothing = config.label_smoothing

    def targets(self, examples: list[Example], labels: list[str]) -> Tensor:
        """Return the index of each sentence's label."""
        index = {label: i for i, label in enumerate(labels)}
        return torch.tensor([index[example.label] for example in examples])

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return functional.cross_entropy(logits, targets, label_smoothing=self.smoothing)

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[str, float]:
        """Return the accuracy."""
        return "accuracy", int((logits.argmax(dim=1) == targets).sum()) / len(targets)


class MultiLabel:
    """Any number of labels: binary cross-entropy and mean AUROC; targets are ``[n, labels]``."""

    def __init__(self, config: Config) -> None:
        """Keep what the loss needs."""
        self.smoothing = config.label_smoothing

    def targets(self, examples: list[Example], labels: list[str]) -> Tensor:
        """Return 1.0 for the labels that a sentence has and 0.0 for the others."""
        index = {label: i for i, label in enumerate(labels)}
        targets = torch.zeros(len(examples), len(labels))
        for row, example in zip(targets, examples, strict=True):
            row[[index[label] for label in example.labels]] = 1.0
        return targets

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross-entropy; smoothing moves targets towards one half."""
        smooth = targets * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, smooth)

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[str, float]:
        """Return the mean AUROC; macro F1 where no label has both positives and negatives."""
        scores, gold = logits.double().sigmoid().numpy(), targets.bool().numpy()
        area = mean_auroc(scores, gold)
        if area is None:
            return "macro_f1", macro_f1(scores >= THRESHOLD, gold)
        return "mean_auroc", area


TASKS: dict[bool, type[Task]] = {False: SingleLabel, True: MultiLabel}


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
