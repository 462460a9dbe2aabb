"""Formats beside their answers: packages are optional, files are the same every time."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_src import backends
from model_src.backends import (
    FORMATS,
    common,
    cuda,
    eager,
    missing,
    openvino,
    runnable,
    steady,
)
from model_src.bundle import EXPORT, Bundle, seal
from model_src.errors import BundleError, PackageError
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
from serving.export import export
from tests.conftest import ALLOWED, EXPORTS, INSTALLED, PAIRS, QUICK, ROOT, Models

NEEDY = [name for name, entry in FORMATS.items() if entry.needs or entry.export_needs]
GPU = [name for name, entry in FORMATS.items() if entry.gpu]
PACKAGES = {package for name in NEEDY for package in FORMATS[name].needs}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with requirements.txt alone."""
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.mark.usefixtures("bare")
def test_formats_without_packages_of_their_own_always_work() -> None:
    free = {name for name in runnable() if not FORMATS[name].export_tools} - set(NEEDY)
    assert {"torchscript", "int8", "bf16"} <= free
    assert all(not missing(name, to_export=True) for name in free)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", NEEDY)
def test_a_missing_package_is_one_sentence_with_its_command(
    tiny: Models, tmp_path: Path, name: str
) -> None:
    first = (FORMATS[name].needs + FORMATS[name].export_needs + FORMATS[name].export_tools)[0]
    with pytest.raises(PackageError, match=f"the format {name} needs {first}.* install .*{first}"):
        export(tiny.models["glove", "cnn"], name, tmp_path / "e", ["a"])
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("name", GPU)
def test_a_missing_gpu_is_one_sentence(
    tiny: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PackageError, match=f"{name} needs a GPU, not found here: take a machine"):
        export(tiny.models["glove", "cnn"], name, tmp_path / "e", ["a"])
    assert name not in runnable()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not missing(name, to_export=True)


@pytest.mark.parametrize("name", GPU)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_half_precision_keeps_the_answers(
    tiny: Models, texts: list[str], tmp_path: Path, name: str, pair: tuple[str, str]
) -> None:
    """On the CPU where there is no GPU: the graph and the file are the same."""
    bundle, path = Bundle.read(tiny.models[pair]), tmp_path / FORMATS[name].file
    FORMATS[name].export(eager.load(bundle), path)
    held = {value.dtype for value in load_file(path).values() if value.is_floating_point()}
    assert held == {torch.float16 if name == "cuda-fp16" else torch.bfloat16}
    backend = cuda.load(bundle, path, "cuda" if torch.cuda.is_available() else "cpu")
    halved, answers = Predictor(bundle, backend), Predictor.load(bundle.folder).predict(texts)
    for text, a, b in zip(texts, answers, halved.predict(texts), strict=True):
        label = next(iter(a.scores))
        assert a.scores[label] == pytest.approx(b.scores[label], abs=0.05)
        assert halved.predict([text])[0].scores == b.scores


@pytest.mark.parametrize("name", [name for name in NEEDY if FORMATS[name].needs])
def test_an_export_whose_package_is_missing_says_so(
    tiny: Models, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name not in INSTALLED:
        pytest.skip(f"the format {name} needs {' and '.join(missing(name, to_export=True))}")
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(PackageError, match=rf"pip install {FORMATS[name].needs[0]} \(exact"):
        Predictor.load(tiny.exports[f"glove-cnn-{name}"])


def test_native_code_for_another_cpu_is_refused(
    tiny: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "pt2" not in INSTALLED or torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("needs a C++ compiler and a CPU with AVX-512")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with pytest.raises(BundleError, match="compiled for a CPU with AVX512, this one has AVX2"):
        Predictor.load(tiny.exports["glove-cnn-pt2"])


def test_native_code_needs_no_compiler_to_load(
    tiny: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "pt2" not in INSTALLED:
        pytest.skip(f"the format pt2 needs {' and '.join(missing('pt2', to_export=True))}")
    monkeypatch.setenv("PATH", "/nowhere")
    assert Predictor.load(tiny.exports["glove-cnn-pt2"]).predict(["great"])


def test_the_list_of_extra_packages_is_that_of_the_table() -> None:
    lines = (ROOT / "requirements-extra.txt").read_text(encoding="utf-8").splitlines()
    listed = {line.split("==")[0] for line in lines if "==" in line}
    assert listed >= {p for e in FORMATS.values() for p in (*e.needs, *e.export_needs)}
    always = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert all(f"\n{package}==" not in always for package in listed)


# TorchScript numbers its classes by how many the process has seen; compilers write paths and times.
@pytest.mark.parametrize("name", [name for name in QUICK if name != "torchscript"])
def test_equal_models_give_equal_files(tiny: Models, tmp_path: Path, name: str) -> None:
    again = export(tiny.models["bert", "cls"], name, tmp_path / "again", ["a"]).folder
    file = FORMATS[name].file
    assert (again / file).read_bytes() == (tiny.exports[f"bert-cls-{name}"] / file).read_bytes()


@pytest.mark.parametrize("name", INSTALLED)
def test_a_file_that_is_no_model_is_refused(tiny: Models, tmp_path: Path, name: str) -> None:
    """With a manifest that knows no better, as a damaged export of another program has it."""
    folder = shutil.copytree(tiny.exports[f"glove-cnn-{name}"], tmp_path / "broken")
    path = folder / FORMATS[name].file
    path.write_bytes(path.read_bytes()[:1000])
    seal(folder, "export", (EXPORT, path.name))
    with pytest.raises(BundleError, match=f"{path.name} cannot be loaded"):
        Predictor.load(folder)


@pytest.mark.parametrize(
    "name", ["onnx", "onnx-int8", "openvino", "openvino-bf16", "openvino-int8"]
)
def test_only_int8_of_onnx_runtime_is_given_its_own_attention(tiny: Models, name: str) -> None:
    """One operation for each layer, which is what makes the graph faster there."""
    if name not in INSTALLED:
        pytest.skip(f"the format {name} needs {' and '.join(missing(name, to_export=True))}")
    import onnx

    own = name == "onnx-int8"
    made = [pair for pair in PAIRS if f"{'-'.join(pair)}-{name}" in EXPORTS]
    for pair in (pair for pair in made if pair[0] in {"bert", "mpnet", "bart"}):
        folder = tiny.exports[f"{'-'.join(pair)}-{name}"]
        graph = onnx.load(folder / FORMATS[name].file).graph
        count = [node.op_type for node in graph.node].count("MultiHeadAttention")
        shape = Bundle.read(folder).shape
        if pair[0] == "bart":  # its decoder's layers look at the encoder too
            layers = shape["encoder_layers"] + 2 * shape["decoder_layers"]
        else:
            layers = shape["num_hidden_layers"]
        assert count == (layers if own else 0)


def test_a_cnn_in_int8_of_onnx_runtime_reads_its_windows_at_once(tiny: Models) -> None:
    """One look-up for the windows of all words, instead of a copy for each place in a window."""
    if "onnx-int8" not in INSTALLED:
        pytest.skip("the format onnx-int8 needs onnx and onnxruntime")
    import onnx

    graph = onnx.load(tiny.exports["glove-cnn-onnx-int8"] / FORMATS["onnx-int8"].file).graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("UnfoldTensor"), kinds.count("Gather")) == (1, 1)


@pytest.mark.parametrize("name", ["bert-cls", "albert-cls", "glove-cnn"])
def test_onnx_runtime_computes_all_products_but_the_last_in_int8(tiny: Models, name: str) -> None:
    """Those of layers that share their weights too."""
    if "onnx-int8" not in INSTALLED:
        pytest.skip("the format onnx-int8 needs onnx and onnxruntime")
    import onnx

    graph = onnx.load(tiny.exports[f"{name}-onnx-int8"] / FORMATS["onnx-int8"].file).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulInteger") >= (8 if name != "glove-cnn" else 1)
    assert kinds.count("MatMul") + kinds.count("Gemm") == 1


@pytest.mark.parametrize("name", ["bert-cls", "albert-cls", "glove-cnn"])
def test_openvino_holds_int8_weights_of_all_products_but_the_last(tiny: Models, name: str) -> None:
    if "openvino-int8" not in INSTALLED:
        pytest.skip("the format openvino-int8 needs onnx and openvino")
    import onnx
    from openvino import Core

    path = tiny.exports[f"{name}-openvino-int8"] / FORMATS["openvino-int8"].file
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    rounded = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    fp32 = {
        out
        for n in graph.node
        if n.op_type == "MatMul" and n.input[1] in weights
        for out in n.output
    }
    assert rounded and fp32 <= {"logits"}
    assert not any(node.op_type == "Identity" for node in graph.node)  # before a shared weight
    uses = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in rounded]
    as_loaded = {"INFERENCE_PRECISION_HINT": "f32"}  # CPUs with AMX would take bf16
    ops = Core().compile_model(path, "CPU", as_loaded).get_runtime_model().get_ops()
    held = [op for op in ops if op.get_rt_info()["runtimePrecision"].astype(str) == "i8"]
    products = [op for op in held if op.get_rt_info()["layerType"].astype(str) == "FullyConnected"]
    assert len(products) == len(uses)


def test_openvino_computes_in_int8_on_cpus_with_vnni_alone(
    tiny: Models, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it int8 weights are multiplied in fp32."""
    if "openvino-int8" not in INSTALLED or not common.cpu_has("avx512_vnni", "avx_vnni"):
        pytest.skip("the format openvino-int8 needs onnx and openvino, and VNNI for its speed")
    bundle = Bundle.read(tiny.exports["glove-cnn-openvino-int8"])
    batch = pad_batch(bundle.tokenizer.encode_batch(texts[:1]), bundle.tokenizer.pad_id)
    path = bundle.folder / FORMATS["openvino-int8"].file
    with_vnni = openvino.load_int8(bundle, path)(*batch)
    monkeypatch.setattr(openvino, "cpu_has", lambda *flags: False)
    without = openvino.load_int8(bundle, path)(*batch)
    assert not torch.equal(with_vnni, without)
    assert torch.allclose(with_vnni, without, atol=0.1)


def test_no_graph_depends_on_the_length_or_batch_it_was_traced_with(tiny: Models) -> None:
    assert not {1, 3, 13, 64} & {*common.EXAMPLE[0].shape}
    for name in (n for n, form in EXPORTS.items() if form in INSTALLED and n.startswith("glove")):
        backend = Predictor.load(tiny.exports[name]).backend
        for shape in ((1, 1), (1, 64), (13, 1), (3, 13)):
            some = torch.ones(shape, dtype=torch.int64)
            assert backend(some, some.bool()).shape == (shape[0], 2)


@pytest.mark.parametrize("name", QUICK)
def test_no_length_spoils_the_answers_of_later_ones(tiny: Models, name: str) -> None:
    """As attention without a mask does in OpenVINO, where a longer sentence follows a shorter."""
    backend = Predictor.load(tiny.exports[f"bert-cls-{name}"]).backend
    model = eager.load(Bundle.read(tiny.models["bert", "cls"]))
    for length in (*range(1, 40), 3, 33):
        ids = torch.full((1, length), 5)
        with torch.inference_mode():
            ours, theirs = (run(ids, ids.bool()).softmax(dim=1) for run in (model, backend))
        assert torch.allclose(ours, theirs, atol=ALLOWED[name]), length


@pytest.mark.parametrize(
    ("noise", "shapes"), [(0, {(2, 2), (1, 1), (1, 3)}), (1e-6, {(1, 2), (1, 1), (1, 3)})]
)
def test_sentences_run_together_only_where_that_changes_nothing(
    noise: float, shapes: set[tuple[int, int]]
) -> None:
    calls = []

    def run(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(ids.shape))
        assert mask.all()
        return ids[:, :1].float() + len(ids) * noise  # the last bits depend on the batch

    ids = torch.tensor([[3, 1, 0], [4, 0, 0], [5, 1, 0], [6, 1, 1]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    wrapped = common.by_length(run)
    calls.clear()
    assert torch.allclose(wrapped(ids, mask)[:, 0], torch.tensor([3.0, 4, 5, 6]), atol=1e-5)
    assert set(calls) == shapes


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_graph_for_several_lengths_is_taken_only_where_it_has_the_same_bits(noise: float) -> None:
    def run(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert mask.all()
        return ids[:, :1].float()

    def mixed(rows: list[list[int]]) -> torch.Tensor:
        calls.append(rows)
        return torch.tensor([[float(row[0])] for row in rows]) + noise

    calls: list[list[list[int]]] = []
    ids = torch.tensor([[3, 1, 0], [4, 0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    wrapped = common.by_length(run, mixed)
    calls.clear()
    assert torch.equal(wrapped(ids, mask)[:, 0], torch.tensor([3.0, 4]))
    assert calls == ([] if noise else [[[3, 1], [4]]])


@pytest.mark.parametrize(
    ("other", "found"), [((), 1), ((1, 2), 3), ((1, 15), 16), ((1, 64), None), ((16,), None)]
)
def test_a_product_is_filled_up_to_the_rows_from_which_it_is_steady(
    other: tuple[int, ...], found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), len(weight)), float(len(x) in other)) + bias

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    assert steady.fewest(7, 3, torch.bfloat16) == found


def test_sums_of_nothing_show_in_which_order_they_are_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounded to bf16, sums of other values hide it but for one of thousands."""

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x, weight = x.float(), weight.float()
        order = range(x.shape[1]) if len(x) > 1 else reversed(range(x.shape[1]))
        y = bias.float().repeat(len(x), 1)
        for i in order:
            y += x[:, i : i + 1] * weight[:, i]
        return y.bfloat16()

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    assert steady.fewest(64, 32, torch.bfloat16) == 2


def test_packages_are_imported_on_use_only() -> None:
    code = "import sys; import model_src.predictor; sys.exit(bool({PACKAGES} & set(sys.modules)))"
    code = code.replace("{PACKAGES}", repr(PACKAGES))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
