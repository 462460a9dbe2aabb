"""TorchScript: the whole graph in one file that loads without our classes (torch.jit lives here).

torch.jit is deprecated but works in torch 2.13; its warnings are silenced here and only here.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from model_src.backends.common import EXAMPLE, Backend
from model_src.classifier import Classifier
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle

F = TypeVar("F", bound=Callable[..., Any])


def export(model: Classifier, path: Path) -> None:
    """Write the lean form of ``model`` to ``path`` as a frozen graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(freeze(lean(model)), str(path))


def freeze(model: nn.Module) -> torch.jit.ScriptModule:
    """Trace ``model``, in evaluation mode, with a dynamic batch and length, and freeze it."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, EXAMPLE, check_trace=False)
        frozen: torch.jit.ScriptModule = torch.jit.freeze(traced)
    return frozen


def script(function: F) -> F:
    """Compile ``function`` with its loops, which ``freeze`` would unroll."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled: F = torch.jit.script(function)
    return compiled


def load(bundle: "Bundle", path: Path) -> Backend:
    """Load the graph and let the runtime prepare it for this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.load(str(path), map_location="cpu")
        if not torch.backends.mkldnn.is_available():
            optimized: Backend = torch.jit.optimize_for_inference(graph)
            return optimized
        return _packed(graph.graph)


def _packed(graph: Any) -> Backend:  # noqa: ANN401 - torch ships no types of its graphs
    """Let oneDNN compute the linear layers, with weights in the order it likes best.

    It takes half the time of MKL, which torch calls by default, at any batch size. Its tensors
    cannot be constants of a graph, so they become inputs.
    """
    compiled: Any = script(_product)
    packed: dict[str, Tensor] = {}  # a layer that is passed many times is packed once
    inputs: dict[str, Any] = {}
    for node in graph.findAllNodes("aten::linear"):
        x, weight, bias = node.inputs()
        name = weight.debugName()
        if name not in packed:
            packed[name] = torch.ops.mkldnn._reorder_linear_weight(weight.node().t("value"), None)
            inputs[name] = graph.addInput()
        graph.setInsertPoint(node)
        (output,) = graph.insertGraph(compiled.graph, [x, inputs[name], bias])
        node.output().replaceAllUsesWith(output)
        node.destroy()
    graph.eraseInput(0)  # the module, which holds nothing after freezing
    torch._C._jit_pass_dce(graph)  # the weights in their old order
    function = torch._C._create_function_from_graph("forward", graph)
    weights = list(packed.values())

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = function(ids, mask, *weights)
        return logits

    return run


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map ``[..., in]`` to ``[..., out]``; many rows become a multiple of 16, the last ones zeros.

    For each number of rows that it meets oneDNN makes kernels and keeps them, 0.1 MB a layer: so
    there are at most 92 numbers up to 512, and the memory of a worker soon stops growing.
    """
    rows = x.numel() // x.shape[-1]
    more = -rows % 16
    if rows > 64 and more > 0:
        whole = torch.empty([rows + more, x.shape[-1]])
        whole[:rows].view(x.shape).copy_(x)
        whole[rows:].zero_()
        product = torch.ops.mkldnn._linear_pointwise(whole, weight, bias, "none", [], "")
        y: Tensor = product[:rows].unflatten(0, x.shape[:-1])
    else:
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y
