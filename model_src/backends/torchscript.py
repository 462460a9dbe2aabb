"""TorchScript: the whole graph in one file that loads without our classes (torch.jit lives here).

torch.jit is deprecated but works in torch 2.13; its warnings are silenced here and only here.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model_src.backends.common import EXAMPLE, Backend

if TYPE_CHECKING:
    from model_src.bundle import Bundle


def export(model: nn.Module, path: Path) -> None:
    """Trace ``model`` with a dynamic batch and length, freeze it and write it to ``path``."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model.eval(), EXAMPLE, check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), str(path))


def load(bundle: "Bundle", path: Path) -> Backend:
    """Load the graph and let the runtime prepare it for this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.load(str(path), map_location="cpu")
        graph = torch.jit.optimize_for_inference(graph)

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = graph(ids, mask)
        return logits

    return run
