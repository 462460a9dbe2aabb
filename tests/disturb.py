"""Exports that go wrong on purpose: a backend whose logits are not what they should be."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from model_src.backends import Format
from model_src.backends.common import Backend
from model_src.bundle import Bundle
from serving.export import GOLDEN

Change = Callable[[Tensor], Tensor]
Disturb = Callable[[str, Change], None]


def disturbed(entry: Format, wrong: Change) -> Format:
    """Return ``entry`` with logits that ``wrong`` has changed."""

    def load(bundle: Bundle, path: Path) -> Backend:
        backend = entry.load(bundle, path)
        return lambda ids, mask: wrong(backend(ids, mask))

    return replace(entry, load=load)


def a_little(logits: Tensor) -> Tensor:
    """Change probabilities by up to 0.0025, and hardly any label."""
    return logits + torch.tensor([0.0, 0.01])


def negated(logits: Tensor) -> Tensor:
    return -logits


def no_numbers(logits: Tensor) -> Tensor:
    """Spoil batches that are larger than that of the golden answers: data shows it first."""
    return logits * float("nan") if len(logits) > len(GOLDEN) else logits


def late(logits: Tensor) -> Tensor:
    time.sleep(0.003 * len(logits))
    return logits


def state(folder: Path) -> dict[str, bytes]:
    """Return all there is below ``folder``, hidden or not."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
