"""TorchScript: the whole graph in one file that loads without our classes (torch.jit lives here).

torch.jit is deprecated but works in torch 2.13; its warnings are silenced here and only here.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model_src.classifier import Classifier
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.backends import Backend
    from model_src.bundle import Bundle


def export(model: Classifier, path: Path) -> None:
    """Write the lean form of ``model`` to ``path`` as a frozen graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(freeze(lean(model)), str(path))


def freeze(model: nn.Module) -> torch.jit.ScriptModule:
    """Trace ``model``, in evaluation mode, with a dynamic batch and length, and freeze it."""
    ids = torch.ones(2, 7, dtype=torch.int64)
    mask = torch.arange(7)[None, :] < torch.tensor([[7], [4]])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (ids, mask), check_trace=False)
        frozen: torch.jit.ScriptModule = torch.jit.freeze(traced)
    return frozen


def load(bundle: "Bundle", path: Path) -> "Backend":
    """Load the graph and let the runtime prepare it for this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.load(str(path), map_location="cpu")
        graph = torch.jit.optimize_for_inference(graph)

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = graph(ids, mask)
        return logits

    return run
