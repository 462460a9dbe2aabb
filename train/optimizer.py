"""AdamW (arXiv 1711.05101) with warm-up, linear decay and decay on plateau."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from model_src.config import Config


def make(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return AdamW; fused, since its many small passes over memory cost as much as the model."""
    return torch.optim.AdamW(_groups(model, config), lr=config.lr, fused=True)


def schedule(
    optimizer: torch.optim.Optimizer, config: Config, steps: int, decay: Callable[[], float]
) -> LambdaLR:
    """Return the factor on ``lr`` for each of ``steps``, times ``decay()`` of the plateau."""
    warmup = max(1, round(steps * config.warmup_ratio))
    return LambdaLR(
        optimizer,
        lambda step: decay() * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup)),
    )


def _groups(model: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Decay matrices only: no biases, norms or word vectors (words not in train would fade)."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.dim() > 1 and name != "embedding.table.weight"]
    chosen = {id(p) for p in decayed}
    kept = [p for _, p in trained if id(p) not in chosen]
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
