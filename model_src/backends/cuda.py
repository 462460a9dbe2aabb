"""The lean model on a GPU with weights and products in half precision, as safetensors.

fp16 has the finer steps, bf16 the wider range; which of them keeps the answers of a model is for
``export`` to measure.

A GPU takes other kernels for other numbers of rows, whose sums differ in the last bits, so that
mates would change an answer. It takes as long for one sentence as for many: every call has the same
number of rows, those that are lacking zeros.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from model_src.backends.common import Backend, by_length, fill, skeleton, tensors_of
from model_src.classifier import Classifier
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle


# Sentences of one length a call, as many as ``Predictor`` sends.
_ROWS = 32


def export_fp16(classifier: Classifier, path: Path) -> None:
    """Write all that the lean form computes with in fp16."""
    _export(classifier, path, torch.float16)


def export_bf16(classifier: Classifier, path: Path) -> None:
    """Write all that the lean form computes with in bf16."""
    _export(classifier, path, torch.bfloat16)


def load(bundle: "Bundle", path: Path, device: str = "cuda") -> Backend:
    """Put the weights on ``device``; ids and logits travel with every call.

    Raises:
        BundleError: when the file was made by a version with other layers.

    """
    tensors = load_file(path, device=device)
    model = skeleton(bundle, set(tensors), path)
    fill(model, tensors)

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        whole = functional.pad(ids, (0, 0, 0, -len(ids) % _ROWS)).to(device)
        real = torch.ones_like(whole, dtype=torch.bool)
        parts = zip(whole.split(_ROWS), real.split(_ROWS), strict=True)
        logits = torch.cat([model(*part) for part in parts])
        return logits[: len(ids)].float().cpu()

    return by_length(run)


def _export(classifier: Classifier, path: Path, dtype: torch.dtype) -> None:
    halved = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous().clone()
        for name, value in tensors_of(lean(classifier)).items()
    }
    path.write_bytes(save(halved))
