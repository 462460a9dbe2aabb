"""Weights in bfloat16 as safetensors; products in bf16, everything between them in fp32.

Linear layers and tables hold the weights and take the time. Norms, softmax and the residual stream
stay in fp32, where they cost little and rounding would hurt; so do the weights of the last layer,
since logits in bf16 have steps of up to 0.8 %. It pays on CPUs with AVX-512 BF16 or AMX; others
emulate it slowly.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from model_src.backends.common import Backend, by_length, fill, one_by_one, skeleton, tensors_of
from model_src.backends.jit import freeze
from model_src.backends.packed import frozen, packed
from model_src.backends.steady import SteadyLinear, fewest
from model_src.classifier import Classifier
from model_src.errors import BundleError
from model_src.lean import lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle

_HALVED = (nn.Linear, nn.Embedding)
_LAST = "output"


def export(classifier: Classifier, path: Path) -> None:
    """Write the weights of tables and linear layers but the last in bf16, all else as it is."""
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
    if tensors[f"{_LAST}.weight"].dtype == torch.bfloat16:
        raise BundleError(f"{path} is of a version with a last layer in bf16: export it again")
    fill(model, tensors)
    last = model.output
    layers = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    inner = {name: part for name, part in layers.items() if part is not last}
    shapes = {name: (part.in_features, part.out_features) for name, part in inner.items()}
    rows = {shape: fewest(*shape, torch.bfloat16) for shape in {*shapes.values()}}
    together = None not in rows.values()
    for name, part in inner.items():
        model.set_submodule(name, SteadyLinear(part, (together and rows[shapes[name]]) or 1))
    # Rounded to fp32, how many rows there are changes in fp64 all but never a bit.
    model.set_submodule(_LAST, SteadyLinear(last.to(torch.float64), 1))
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(_to_fp32)
    if not together:
        return one_by_one(freeze(model))
    alone, mixed = freeze(model), packed(model)
    return by_length(alone, mixed and frozen(mixed))


def _to_fp32(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
