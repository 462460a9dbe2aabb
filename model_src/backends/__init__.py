"""The table of export formats, and the one interface behind which each of them runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from model_src.backends import int8, torchscript
from model_src.bundle import Bundle
from model_src.classifier import Classifier


class Backend(Protocol):
    """What a loaded model can do."""

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids ``[batch, seq]`` int64 and mask ``[batch, seq]`` bool to ``[batch, labels]``."""


@dataclass(frozen=True)
class Format:
    """One entry: the file it writes and its two functions."""

    file: str
    export: Callable[[Classifier, Path], None]
    load: Callable[[Bundle, Path], Backend]
    summary: str


FORMATS = {
    "torchscript": Format(
        "model.pt", torchscript.export, torchscript.load, "frozen TorchScript graph, fp32"
    ),
    "int8": Format(
        "model.int8.safetensors", int8.export, int8.load, "quantized state dict, dynamic int8"
    ),
}
