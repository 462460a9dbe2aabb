"""Weights in bfloat16 as safetensors; products in bf16, everything between them in fp32.

Linear layers and tables hold the weights and take the time. Norms, softmax and the
residual stream stay in fp32, where they cost little and rounding would hurt. It pays on CPUs with
AVX-512 BF16 or AMX; others emulate it slowly.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from model_src.backends.common import (
    Backend,
    by_length,
    fill,
    one_by_one,
    skeleton,
    steady,
    tensors_of,
)
from model_src.backends.jit import freeze
from model_src.backends.packed import packed
from model_src.classifier import Classifier
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle

_HALVED = (nn.Linear, nn.Embedding)


def export(classifier: Classifier, path: Path) -> None:
    """Write the weights of linear layers and tables in bf16, the rest of the lean form as it is."""
    model = lean(classifier)
    for module in model.modules():
        if isinstance(module, _HALVED):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    tensors = tensors_of(model)
    path.write_bytes(save({name: value.contiguous().clone() for name, value in tensors.items()}))


def load(bundle: "Bundle", path: Path) -> Backend:
    """Build an empty skeleton, put the weights in and convert at the edges of their layers.

    Raises:
        BundleError: when the file was made by a version with other layers.

    """
    tensors = load_file(path)
    model = skeleton(bundle, set(tensors), path)
    fill(model, tensors)
    layers = (module for module in model.modules() if isinstance(module, nn.Linear))
    shapes = {(layer.in_features, layer.out_features): layer for layer in layers}
    together = all(steady(layer, torch.bfloat16) for layer in shapes.values())
    for module in model.modules():
        if isinstance(module, _HALVED):
            module.register_forward_pre_hook(_to_bf16)
            module.register_forward_hook(_to_fp32)
    if not together:
        return one_by_one(freeze(model))
    alone, mixed = freeze(model), packed(model)
    return by_length(alone, mixed and freeze(mixed))


def _to_bf16(_: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(
        x.to(torch.bfloat16) if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in inputs
    )


def _to_fp32(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
