"""OpenVINO: reads an ONNX graph itself and runs it in fp32 or with its products in bf16."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model_src.backends.common import Backend, by_length, one_by_one
from model_src.backends.onnx import write
from model_src.classifier import Classifier
from model_src.encoders.densenet import DenseNet
from model_src.encoders.dsa import DynamicSelfAttention
from model_src.lean import CONVOLUTIONS, lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle


def export(model: Classifier, path: Path) -> None:
    """Write an ONNX graph with the convolutions and attentions that OpenVINO does best itself."""
    write(lean(model, keep=(*CONVOLUTIONS, DynamicSelfAttention)), path)


def export_bf16(model: Classifier, path: Path) -> None:
    """Write an ONNX graph of products, but for dense blocks: their convolutions are faster."""
    write(lean(model, keep=(DenseNet,)), path)


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


def _compiled(path: Path, precision: str) -> Backend:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # workers of one machine would all sit on its first core
    }
    model = openvino.Core().compile_model(path, "CPU", settings)

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        # Copied: the runtime reuses the memory of its answer.
        return torch.tensor(model([ids.numpy(), mask.numpy()])[0])

    return run
