"""OpenVINO: reads an ONNX graph itself and runs it in fp32 or with its products in bf16 or int8."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model_src.backends.common import Backend, by_length, cpu_has, one_by_one
from model_src.backends.onnx import to_quantize, write
from model_src.classifier import Classifier
from model_src.encoders.densenet import DenseNet
from model_src.encoders.dsa import DynamicSelfAttention
from model_src.lean import CONVOLUTIONS, lean

if TYPE_CHECKING:
    from onnx import GraphProto

    from model_src.bundle import Bundle

# Values of an input that share a scale. Larger groups are hardly faster and less exact, smaller
# ones slower; inputs narrower than a group stay fp32.
_GROUP = 64


def export(model: Classifier, path: Path) -> None:
    """Write an ONNX graph with the convolutions and attentions that OpenVINO does best itself."""
    write(lean(model, keep=(*CONVOLUTIONS, DynamicSelfAttention)), path)


def export_bf16(model: Classifier, path: Path) -> None:
    """Write an ONNX graph of products, but for dense blocks: their convolutions are faster."""
    write(lean(model, keep=(DenseNet,)), path)


def export_int8(model: Classifier, path: Path) -> None:
    """Write the graph with int8 weights, a scale for each output, in all matrix products.

    Convolutions become products, since only products are computed in int8. The mask stays although
    no sentence is padded: without it OpenVINO 2026.4.1 computes attention over 16 tokens or more
    wrongly once it has met a shorter sentence.
    """
    import onnx

    made = to_quantize(lean(model))
    _round_weights(made.graph)
    onnx.save(made, path)


def _round_weights(graph: "GraphProto") -> None:
    """Put int8 weights and a DequantizeLinear before each MatMul of a weight ``[in, out]``.

    OpenVINO never computes these nodes: it takes them for compressed weights. The last layer, a
    Gemm or a product that makes the logits, is small: it stays fp32.
    """
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in graph.initializer}
    rounded = set()
    nodes = []
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and "logits" not in node.output:
            name = node.input[1]
            parts = [f"{name}_int8", f"{name}_scale"]
            if name not in rounded:
                rounded.add(name)
                weight = numpy_helper.to_array(weights[name])
                scale = np.abs(weight).max(axis=0).clip(1e-12) / np.float32(127)
                halves = (np.rint(weight / scale).astype(np.int8), scale)
                graph.initializer.extend(map(numpy_helper.from_array, halves, parts))
                nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}_fp32"], axis=1))
            node.input[1] = f"{name}_fp32"
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, values in ((graph.node, nodes), (graph.initializer, kept)):
        del field[:]
        field.extend(values)


def load(bundle: "Bundle", path: Path) -> Backend:
    """Compile the graph for this CPU in fp32, which it would leave for bf16 by itself."""
    return _compiled(path, "f32")


def load_bf16(bundle: "Bundle", path: Path) -> Backend:
    """Compile the graph for this CPU in bf16 where the CPU has it."""
    import openvino

    ops = openvino.Core().read_model(path).get_ops()
    convolves = any(op.get_type_name() == "Convolution" for op in ops)
    run = _compiled(path, "bf16")
    return one_by_one(run) if convolves else by_length(run)


def load_int8(bundle: "Bundle", path: Path) -> Backend:
    """Compile the graph with inputs rounded group by group on CPUs with VNNI.

    Others compute in fp32 with the rounded weights: sums of int8 products might overflow there.
    """
    return by_length(_compiled(path, "f32", _GROUP if cpu_has("avx512_vnni", "avx_vnni") else 0))


def _compiled(path: Path, precision: str, group: int = 0) -> Backend:
    import openvino

    # It frees by libc what another allocator has given, and that ends the process.
    if "malloc" in (preloaded := os.environ.get("LD_PRELOAD", "")):
        raise RuntimeError(f"OpenVINO does not run with LD_PRELOAD={preloaded}: start without it")
    settings = {
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,  # of int8 weights only
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # workers of one machine would all sit on its first core
    }
    model = openvino.Core().compile_model(path, "CPU", settings)
    inputs = len(model.inputs)  # the exporter drops an input that nothing reads

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        # Copied: the runtime reuses the memory of its answer.
        return torch.tensor(model([ids.numpy(), mask.numpy()][:inputs])[0])

    return run
