"""The table of export formats, and the one interface behind which each of them runs."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from model_src.backends import bf16, cuda, int8, onnx, openvino, pt2, torchscript
from model_src.backends.common import Backend
from model_src.bundle import Bundle
from model_src.classifier import Classifier
from model_src.embeddings import Family
from model_src.errors import PackageError


@dataclass(frozen=True)
class Format:
    """One entry: the file it writes, its two functions, what to expect of it and what it needs.

    ``exact`` says that it computes in fp32, and so must keep every probability to 1e-4; others may
    change them a little, but not the labels. ``depends`` orders formats by what they need where
    they run: 0 a small runtime on any processor, 1 torch, 2 torch and our classes, 3 the kind of
    processor that it was made on.
    """

    file: str
    export: Callable[[Classifier, Path], None]
    load: Callable[[Bundle, Path], Backend]
    summary: str
    exact: bool
    depends: int
    # beyond requirements.txt; loading needs the first, exporting both
    needs: tuple[str, ...] = ()
    export_needs: tuple[str, ...] = ()
    export_tools: tuple[str, ...] = ()
    gpu: bool = False
    # families, by their handler, whose batches it computes without padding although it is exact
    packs: tuple[str, ...] = ()

    def pads(self, family: Family) -> bool:
        """Tell whether the padding of a batch is computed; never in reduced precision."""
        return self.exact and family.handler not in self.packs


FORMATS = {
    "torchscript": Format(
        "model.pt",
        torchscript.export,
        torchscript.load,
        "frozen TorchScript graph, fp32",
        exact=True,
        depends=1,
        packs=("glove",),
    ),
    "int8": Format(
        "model.int8.safetensors",
        int8.export,
        int8.load,
        "quantized state dict, dynamic int8",
        exact=False,
        depends=2,
    ),
    "bf16": Format(
        "model.bf16.safetensors",
        bf16.export,
        bf16.load,
        "state dict, products in bf16",
        exact=False,
        depends=2,
    ),
    "onnx": Format(
        "model.onnx",
        onnx.export,
        onnx.load,
        "ONNX Runtime, fp32",
        exact=True,
        depends=0,
        needs=("onnxruntime",),
        export_needs=("onnx",),
    ),
    "onnx-int8": Format(
        "model.int8.onnx",
        onnx.export_int8,
        onnx.load_int8,
        "ONNX Runtime, dynamic int8",
        exact=False,
        depends=0,
        needs=("onnxruntime",),
        export_needs=("onnx",),
    ),
    "openvino": Format(
        "model.onnx",
        openvino.export,
        openvino.load,
        "OpenVINO, fp32",
        exact=True,
        depends=0,
        needs=("openvino",),
        export_needs=("onnx",),
    ),
    "openvino-bf16": Format(
        "model.onnx",
        openvino.export_bf16,
        openvino.load_bf16,
        "OpenVINO, products in bf16",
        exact=False,
        depends=0,
        needs=("openvino",),
        export_needs=("onnx",),
    ),
    "openvino-int8": Format(
        "model.int8.onnx",
        openvino.export_int8,
        openvino.load_int8,
        "OpenVINO, dynamic int8",
        exact=False,
        depends=0,
        needs=("openvino",),
        export_needs=("onnx",),
    ),
    "pt2": Format(
        "model.pt2",
        pt2.export,
        pt2.load,
        "native code by AOTInductor, fp32, for CPUs like this one",
        exact=True,
        depends=3,
        export_tools=(os.environ.get("CXX", "g++"),),
    ),
    "cuda-fp16": Format(
        "model.fp16.safetensors",
        cuda.export_fp16,
        cuda.load,
        "state dict in fp16, on a GPU",
        exact=False,
        depends=3,
        gpu=True,
    ),
    "cuda-bf16": Format(
        "model.bf16.safetensors",
        cuda.export_bf16,
        cuda.load,
        "state dict in bf16, on a GPU",
        exact=False,
        depends=3,
        gpu=True,
    ),
}
_GPU = "a GPU"


def runnable() -> list[str]:
    """Return the formats for the processors of this machine, whatever their packages."""
    return [name for name, entry in FORMATS.items() if not entry.gpu or torch.cuda.is_available()]


def missing(name: str, *, to_export: bool = False) -> list[str]:
    """Return what the format ``name`` needs and this machine lacks: packages, tools, a GPU."""
    entry = FORMATS[name]
    packages = entry.needs + (entry.export_needs if to_export else ())
    tools = entry.export_tools if to_export else ()
    return [
        *(each for each in packages if not find_spec(each)),
        *(each for each in tools if not shutil.which(each)),
        *([_GPU] if name not in runnable() else []),
    ]


def require(name: str, *, to_export: bool = False) -> None:
    """Raise PackageError when anything is ``missing``."""
    lacking = missing(name, to_export=to_export)
    if not lacking:
        return
    entry = FORMATS[name]
    packages = [each for each in lacking if each in entry.needs + entry.export_needs]
    tools = [each for each in lacking if each in entry.export_tools]
    install = f".venv/bin/pip install {' '.join(packages)} (exact versions: requirements-extra.txt)"
    ways = {
        install: packages,
        f"apt-get install {' '.join(tools)}, or set CXX": tools,
        "take a machine with one and a build of torch for it": _GPU in lacking,
    }
    raise PackageError(
        f"the format {name} needs {' and '.join(lacking)}, not found here: "
        + "; ".join(way for way, wanted in ways.items() if wanted)
    )
