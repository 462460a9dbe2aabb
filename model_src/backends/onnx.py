"""ONNX: one graph with a dynamic batch and length, run by ONNX Runtime in fp32 or int8.

Exported from a trace, as TorchScript is: a tenth of a second instead of the three of torch's newer
exporter, which needs onnxscript too. That way is deprecated but works in torch 2.13; its warnings
are silenced here and only here.
"""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model_src.backends.common import EXAMPLE, Backend, cpu_has, one_by_one
from model_src.backends.onnx_ops import fused
from model_src.classifier import Classifier
from model_src.lean import CONVOLUTIONS, lean

if TYPE_CHECKING:
    from onnx import ModelProto

    from model_src.bundle import Bundle

# A sum and a norm in one operation takes almost three times as long as the two (1.32, AVX-512).
_WORSE = ["SkipLayerNormFusion"]
_DYNAMIC = {name: {0: "batch", 1: "seq"} for name in ("ids", "mask")}


def export(model: Classifier, path: Path) -> None:
    """Write ids and mask ``[batch, seq]`` to logits ``[batch, labels]``.

    Convolutions stay what they are: in fp32 the runtime's own lose to products with one narrow
    input only, and win with all others.
    """
    write(lean(model, keep=CONVOLUTIONS), path)


def export_int8(model: Classifier, path: Path) -> None:
    """Write the graph with int8 weights, a scale for each output, in all matrix products.

    Convolutions become products, since ONNX Runtime's own are 3 to 4 times slower in int8 than in
    fp32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    made = to_quantize(fused(lean(model, padded=False)))
    # Its fusions are those of our lean graph; without the mark it logs advice to run them.
    add_pre_process_metadata(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(
            made,
            path,
            op_types_to_quantize=["MatMul"],
            # The last layer is small: rounding it costs time, and answers their last digits. It is
            # renamed, as a product and a sum, before the names are looked at.
            nodes_to_exclude=[
                f"{node.name}_MatMul" for node in made.graph.node if "logits" in node.output
            ],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


def write(model: nn.Module, path: Path) -> None:
    """Write the graph of ``model``, in evaluation mode, with a dynamic batch and length."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            EXAMPLE,
            path,
            dynamo=False,
            opset_version=17,
            input_names=list(_DYNAMIC),
            output_names=["logits"],
            dynamic_axes=_DYNAMIC,
        )


def to_quantize(model: nn.Module) -> "ModelProto":
    """Return the graph of ``model``, in which every product reads its weight itself.

    The exporter lets only the first of the layers that share a weight do so, as all of ALBERT's.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
        file = Path(scratch) / "fp32.onnx"
        write(model, file)
        made = onnx.load(file)
    graph = made.graph
    weights = {tensor.name for tensor in graph.initializer}
    same = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in weights
    }
    kept = [node for node in graph.node if node.output[0] not in same]
    for node in kept:
        node.input[:] = [same.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)
    return made


def load(bundle: "Bundle", path: Path) -> Backend:
    """Load the fp32 graph."""
    return _session(path)


def load_int8(bundle: "Bundle", path: Path) -> Backend:
    """Load the int8 graph; inputs are quantized all together, so sentences run one by one."""
    return one_by_one(_session(path))


def _session(path: Path) -> Backend:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are on nodes of its own making
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    if not cpu_has("avx512_vnni", "avx_vnni"):
        # Without it sums of int8 products overflow; with VNNI it only takes half as long again.
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=_WORSE
        )
    except Exception as reason:  # noqa: BLE001 - its errors have no base of their own
        raise RuntimeError(str(reason)) from None

    masked = len(session.get_inputs()) > 1  # the exporter drops an input that nothing reads

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        inputs = {"ids": ids.numpy()} | ({"mask": mask.numpy()} if masked else {})
        try:
            (logits,) = session.run(["logits"], inputs)
        except Exception as reason:  # noqa: BLE001 - likewise
            raise RuntimeError(str(reason)) from None
        return torch.from_numpy(logits)

    return run
