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
    """One entry: the file it writes, its two functions, and what to expect of it.

    ``exact`` says that it computes in fp32, and so must keep every probability to 1e-4; others may
    change them a little, but not the labels. ``depends`` orders formats by what they need
    where they run: 0 a small runtime on any processor, 1 torch, 2 torch and our classes, 3 the kind
    of processor that it was made on.
    """

    file: str
    export: Callable[[Classifier, Path], None]
    load: Callable[[Bundle, Path], Backend]
    summary: str
    exact: bool
    depends: int


FORMATS = {
    "torchscript": Format(
        "model.pt",
        torchscript.export,
        torchscript.load,
        "frozen TorchScript graph, fp32",
        exact=True,
        depends=1,
    ),
    "int8": Format(
        "model.int8.safetensors",
        int8.export,
        int8.load,
        "quantized state dict, dynamic int8",
        exact=False,
        depends=2,
    ),
}
