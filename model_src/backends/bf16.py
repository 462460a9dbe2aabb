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
    fewest,
    fill,
    one_by_one,
    skeleton,
    tensors_of,
)
from model_src.backends.jit import freeze, script
from model_src.backends.packed import packed
from model_src.classifier import Classifier
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle

_HALVED = (nn.Linear, nn.Embedding)


def export(classifier: Classifier, path: Path) -> None:
    """Write the weights of linear layers and tables in bf16, the rest of the lean form as it is.

    So stays the last layer, which takes no time: logits in bf16 have steps of up to 0.8 %.
    """
    model = lean(classifier)
    for module in model.modules():
        if isinstance(module, _HALVED) and module is not model.output:
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
    steady: dict[tuple[int, int], int | None] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(_to_fp32)
        elif isinstance(module, nn.Linear):
            shape = (module.in_features, module.out_features)
            half = module.weight.dtype == torch.bfloat16
            if not half:
                module.to(torch.float64)  # the last: how many rows it has changes no bit of fp32
            elif shape not in steady:
                steady[shape] = fewest(*shape, torch.bfloat16)
            model.set_submodule(name, _Linear(module, (half and steady[shape]) or 1))
    if None in steady.values():
        return one_by_one(freeze(model))
    alone, mixed = freeze(model), packed(model)
    return by_length(alone, mixed and freeze(mixed))


class _Linear(nn.Module):
    """A linear layer in the precision of its weights between states in fp32."""

    def __init__(self, layer: nn.Linear, rows: int) -> None:
        """Share the weights of ``layer``; ``rows`` is what ``fewest`` says of it."""
        super().__init__()
        self.weight, self.bias, self.rows = layer.weight, layer.bias, rows

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``, both fp32."""
        y: Tensor = script(_product)(x, self.weight, self.bias, self.rows)
        return y


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, fewest: int) -> Tensor:
    """Fill fewer rows than ``fewest`` up with zeros, so that each has the bits of a batch."""
    count = x.numel() // x.shape[-1]
    if count >= fewest:
        return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).float()
    rows = torch.constant_pad_nd(x.flatten(0, -2), [0, 0, 0, fewest - count])
    y = torch.nn.functional.linear(rows.to(weight.dtype), weight, bias).float()
    return y[:count].view(x.shape[:-1] + y.shape[1:])


def _to_fp32(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
