"""Looks into training while it runs."""

import contextlib
from collections.abc import Iterator

import pytest
import torch

from model_src.tokenizer import pad_batch
from train import loop

# Probabilities ``[sentences, labels]`` of each registry entry.
Unsaved = dict[tuple[str, str], list[list[float]]]


@contextlib.contextmanager
def answers_at_best() -> Iterator[list[list[float]]]:
    """Yield what the model trained meanwhile answers on valid at its best."""
    best = -1.0
    answers: list[list[float]] = []
    original = loop._Fit._measure

    def measure(self: loop._Fit) -> tuple[str, float]:
        nonlocal best
        name, value = original(self)
        if value >= best:
            best = value
            with torch.inference_mode():
                logits = self.model(*pad_batch(self.valid.rows, self.valid.pad_id))
            answers[:] = logits.softmax(-1).tolist()
        return name, value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Fit, "_measure", measure)
        yield answers
