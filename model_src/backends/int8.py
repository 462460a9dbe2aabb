"""Dynamic int8 as a quantized state dict: one scale a weight row, one scale an input token.

A scale for each token instead of the whole tensor, which ``quantize_dynamic`` of torch has, keeps
answers closer to fp32. The format is plain safetensors: for linear layers ``X.weight`` int8
``[out, in]`` with ``X.weight_scale`` ``[out]``, the rest in fp32, and in its metadata the recipe by
which it was made. Torch's quantized tensors are deprecated but work in torch 2.13; their warning is
silenced here and only here.
"""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from model_src.backends.common import Backend, by_length, cpu_has, fill, skeleton, tensors_of
from model_src.backends.jit import freeze
from model_src.backends.packed import frozen, packed
from model_src.classifier import Classifier
from model_src.errors import BundleError
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle

_SCALE = "weight_scale"
_RECIPE = "recipe"


def export(classifier: Classifier, path: Path) -> None:
    """Quantize the linear layers of the lean form and write them with everything else."""
    model = lean(classifier)
    tensors = tensors_of(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            scale = module.weight.detach().abs().amax(dim=1).clamp_min(1e-12) / 127
            rounded = (module.weight.detach() / scale[:, None]).round().to(torch.int8)
            tensors |= {f"{name}.weight": rounded, f"{name}.{_SCALE}": scale}
    # One key, because safetensors writes several in any order, and equal models make equal files.
    metadata = {_RECIPE: json.dumps(_recipe(model))}
    whole = {name: value.contiguous().clone() for name, value in tensors.items()}
    path.write_bytes(save(whole, metadata))


def load(bundle: "Bundle", path: Path) -> Backend:
    """Build an empty skeleton and put the quantized weights in; fp32 ones never exist.

    Raises:
        BundleError: when the file was made by a version with other layers or another recipe.

    """
    tensors = load_file(path)
    names = {name for name in tensors if not name.endswith(_SCALE)}
    model = skeleton(bundle, names, path)
    _check(path, _recipe(model))
    # Levels of an input on each side of zero. Without AVX-512 VNNI the kernels add pairs of
    # products in 16 bits, which 8-bit inputs overflow; 7 bits are what torch itself uses there.
    top = 127 if cpu_has("avx512_vnni") else 63
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            weight, scale = (tensors.pop(f"{name}.{part}") for part in ("weight", _SCALE))
            bias = tensors.pop(f"{name}.bias", None)
            model.set_submodule(name, _Int8Linear(weight, scale, bias, top))
    fill(model, tensors)
    alone, mixed = freeze(model), packed(model)
    return by_length(alone, mixed and frozen(mixed))


def _recipe(model: nn.Module) -> dict[str, Any]:
    """Return how the linear layers of ``model`` are quantized, and which they are."""
    return {
        "version": 1,
        "weights": "int8, symmetric, a scale for each output row",
        "inputs": "int8, dynamic, a scale for each token",
        "layers": [name for name, part in model.named_modules() if isinstance(part, nn.Linear)],
    }


def _check(path: Path, expected: dict[str, Any]) -> None:
    """Raise BundleError where ``path`` was made by another recipe, or by none."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_RECIPE, "{}")
    try:
        found = json.loads(text)
        differ = [key for key, value in expected.items() if found.get(key) != value]
    except (ValueError, AttributeError):  # no JSON, no object
        differ = list(expected)
    if differ:
        raise BundleError(
            f"{path} is quantized by another recipe than this version has "
            f"({', '.join(differ)}): export it again"
        )


class _Int8Linear(nn.Module):
    """A linear layer with an int8 weight whose input is quantized token by token."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None, top: int) -> None:
        super().__init__()
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantized = torch._make_per_channel_quantized_tensor(weight, scale, zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(quantized, None)
        self.bias = bias
        self.top = top

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``, both fp32."""
        # Scaled to [-1, 1] token by token, the input fits one fixed quantization.
        scale = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / scale, 1 / self.top, self.top + 1, self.packed
        )
        # Into what is nobody else's: a batch pays for new memory.
        return y.mul_(scale) if self.bias is None else torch.addcmul(self.bias, y, scale, out=y)
