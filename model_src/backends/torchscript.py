"""TorchScript: the whole graph in one file that loads without our classes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model_src.backends import jit
from model_src.backends.common import Backend
from model_src.backends.packed import packed
from model_src.classifier import Classifier
from model_src.embeddings.glove import GloveEmbedding
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle


def export(model: Classifier, path: Path) -> None:
    """Write the lean form of ``model`` to ``path`` as a frozen graph.

    Words are computed without padding. With transformers it stays: a sentence alone, for which the
    graph is the same, would pay for telling sentences apart in each layer.
    """
    words = isinstance(model.embedding, GloveEmbedding)
    form = packed(lean(model, padded=False)) if words else None
    jit.save(jit.freeze(form or lean(model)), path)


def load(bundle: "Bundle", path: Path) -> Backend:
    """Load the graph and let the runtime prepare it for this machine."""
    graph = jit.load(path)
    if not torch.backends.mkldnn.is_available():
        return jit.optimize(graph)
    return _prepacked(graph.graph)


def _prepacked(graph: Any) -> Backend:  # noqa: ANN401 - torch ships no types of its graphs
    """Let oneDNN compute the linear layers, with weights in the order it likes best.

    It takes half the time of MKL, which torch calls by default, at any batch size. Its tensors
    cannot be constants of a graph, so they become inputs.
    """
    compiled: Any = jit.script(_product)
    weights: dict[str, Tensor] = {}  # a layer that is passed many times is prepacked once
    inputs: dict[str, Any] = {}
    for node in graph.findAllNodes("aten::linear"):
        x, weight, bias = node.inputs()
        name = weight.debugName()
        if name not in weights:
            weights[name] = torch.ops.mkldnn._reorder_linear_weight(weight.node().t("value"), None)
            inputs[name] = graph.addInput()
        graph.setInsertPoint(node)
        (output,) = graph.insertGraph(compiled.graph, [x, inputs[name], bias])
        node.output().replaceAllUsesWith(output)
        node.destroy()
    graph.eraseInput(0)  # the module, which holds nothing after freezing
    function, values = jit.function_of(graph), list(weights.values())

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = function(ids, mask, *values)
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
