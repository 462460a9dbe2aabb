"""OpenVINO: runs the ONNX graph itself, in fp32 or with its products in bf16."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model_src.backends.common import Backend, by_length, one_by_one

if TYPE_CHECKING:
    from model_src.bundle import Bundle


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
