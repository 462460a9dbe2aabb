"""The lean model on a GPU in the two precisions that GPUs are good at, where torch finds one."""

import time

import torch
from torch import Tensor

from model_src.backends import eager
from model_src.bundle import Bundle
from model_src.lean import lean
from model_src.predictor import Predictor
from serving.export import Candidate

_TYPES = {"cuda-fp16": torch.float16, "cuda-bf16": torch.bfloat16}


def columns() -> list[str]:
    """Return the names of what can be measured here."""
    return list(_TYPES) if torch.cuda.is_available() else []


def load(bundle: Bundle, name: str, device: str = "cuda") -> Candidate:
    """Put the model directory ``bundle`` on the GPU; ids and logits travel with every call."""
    began = time.perf_counter()
    model = lean(eager.load(bundle)).to(device, _TYPES[name])

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = model(ids.to(device), mask.to(device))
        return logits.float().cpu()

    load_ms = round((time.perf_counter() - began) * 1000, 1)
    held = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    measured = {"size_mb": round(held / 1e6, 2), "load_ms": load_ms}
    return Candidate(name, Predictor(bundle, run), measured)
