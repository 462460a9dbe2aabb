"""AOTInductor: the graph compiled to native code by torch.export and the machine's C++ compiler.

Loading needs no compiler and unpickles nothing, but the file holds a shared library: whoever wrote
it decides what runs, so load only what you exported. It wants the kind of CPU it was compiled on.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.export import Dim

from model_src.backends.common import EXAMPLE, Backend
from model_src.classifier import Classifier
from model_src.encoders.dsa import DynamicSelfAttention
from model_src.lean import CONVOLUTIONS, lean

if TYPE_CHECKING:
    from model_src.bundle import Bundle


def export(model: Classifier, path: Path) -> None:
    """Compile ``model`` with a dynamic batch and length and write it to ``path``: half a minute.

    Windows of a sentence are gathered value by value there, so convolutions stay what they are.
    """
    from torch._inductor import aoti_compile_and_package

    shapes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = lean(model, keep=(*CONVOLUTIONS, DynamicSelfAttention))
        graph = torch.export.export(kept, EXAMPLE, dynamic_shapes=(shapes, shapes))
        aoti_compile_and_package(graph, package_path=str(path))


def load(bundle: "Bundle", path: Path) -> Backend:
    """Load the native code.

    Raises:
        RuntimeError: when it was compiled for a CPU that this one is not.

    """
    from torch._inductor import aoti_load_package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = aoti_load_package(str(path))
    made_for = compiled.get_metadata().get("AOTI_CPU_ISA", "").split()
    here = torch.backends.cpu.get_cpu_capability()
    if "AVX512" in made_for and here != "AVX512":
        raise RuntimeError(f"it is compiled for a CPU with AVX512, this one has {here}")

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = compiled(ids.contiguous(), mask.contiguous())
        return logits

    return run
