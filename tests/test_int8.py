"""An int8 file carries the recipe it was made by, and loads without its fp32 weights."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model_src.backends import FORMATS, eager, int8
from model_src.backends.common import EXAMPLE, Backend, RunRows, by_length, cpu_has
from model_src.bundle import Bundle
from model_src.errors import BundleError
from model_src.lean import lean
from model_src.tokenizer import pad_batch
from tests.conftest import PAIRS as EVERY
from tests.conftest import Models

PAIRS = [("glove", "cnn"), ("bert", "cls")]


def file_of(tiny: Models, pair: tuple[str, str]) -> tuple[Bundle, Path]:
    folder = tiny.exports[f"{pair[0]}-{pair[1]}-int8"]
    return Bundle.read(folder), folder / FORMATS["int8"].file


def linear(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}


class Watch(TorchDispatchMode):
    """Notes the shape of every fp32 tensor that is made, but on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(  # noqa: D105
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and each.dtype == torch.float32 and not each.is_meta:
                self.shapes.add(tuple(each.shape))
        return made


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_no_fp32_weight_of_a_linear_layer_exists_while_int8_loads(
    tiny: Models, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It only tries the loaded model, on batches whose states are as large as a weight here.
    monkeypatch.setattr(int8, "by_length", lambda run, _: run)
    bundle, path = file_of(tiny, pair)
    with Watch() as before:
        model = lean(eager.load(Bundle.read(tiny.models[pair])))
    weights = {tuple(part.weight.shape) for part in linear(model).values()}
    # Two vectors of the sentences that the graph is traced with may look like two rows of weights.
    weights = {shape for shape in weights if shape[0] != len(EXAMPLE[0])}
    assert weights
    assert before.shapes >= weights  # so it would be seen
    with Watch() as during:
        int8.load(bundle, path)
    assert during.shapes  # biases and scales
    assert not during.shapes & weights


@pytest.mark.parametrize("pair", EVERY, ids="-".join)
def test_a_mixed_batch_is_one_run_with_the_bits_of_its_sentences_alone(
    tiny: Models, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But of BART, which has no packed form and a run for each length."""
    given: list[RunRows | None] = []

    def spied(run: Backend, mixed: RunRows | None) -> Backend:
        given.append(mixed)
        return by_length(run, mixed)

    monkeypatch.setattr(int8, "by_length", spied)
    backend = int8.load(*file_of(tiny, pair))
    assert (given == [None]) == (pair[0] == "bart")
    rows = [list(range(5, 5 + length)) for length in (4, 1, 9, 9, 4, 20)]
    with torch.inference_mode():
        alone = torch.cat([backend(*pad_batch([row], 0)) for row in rows])
        assert torch.equal(backend(*pad_batch(rows, 0)), alone)
        mixed = given[0]
        if mixed is not None and cpu_has("avx512_vnni"):  # elsewhere it may be left
            assert torch.equal(mixed(rows), alone)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_an_int8_file_names_its_recipe_and_its_layers(tiny: Models, pair: tuple[str, str]) -> None:
    _, path = file_of(tiny, pair)
    with safe_open(path, framework="pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert (recipe["version"], recipe["weights"], recipe["inputs"]) == (
        1,
        "int8, symmetric, a scale for each output row",
        "int8, dynamic, a scale for each token",
    )
    tensors = load_file(path)
    quantized = {name for name, value in tensors.items() if value.dtype == torch.int8}
    assert quantized == {f"{layer}.weight" for layer in recipe["layers"]}
    model = lean(eager.load(Bundle.read(tiny.models[pair])))
    for name, part in linear(model).items():
        rows = tensors[f"{name}.weight"] * tensors[f"{name}.weight_scale"][:, None]
        step = part.weight.abs().amax(dim=1, keepdim=True) / 127
        assert ((rows - part.weight).abs() <= step * 0.501).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": "int8, dynamic, a scale for the whole tensor"}, r"\(inputs\)"),
        ({"version": 2}, r"\(version\)"),
        ({"layers": []}, r"\(layers\)"),
        (None, r"\(version, weights, inputs, layers\)"),
        ("no JSON", r"\(version, weights, inputs, layers\)"),
        ("[]", r"\(version, weights, inputs, layers\)"),
    ],
)
def test_an_int8_file_of_another_recipe_is_refused(
    tiny: Models, tmp_path: Path, change: dict[str, Any] | str | None, said: str
) -> None:
    """None is a file of a version that wrote no recipe."""
    bundle, path = file_of(tiny, ("glove", "cnn"))
    with safe_open(path, framework="pt") as file:
        known = json.loads(file.metadata()["recipe"])
    text = json.dumps(known | change) if isinstance(change, dict) else change
    save_file(load_file(path), tmp_path / "x", {"recipe": text} if text else None)
    with pytest.raises(BundleError, match=f"another recipe .*{said}: export it again"):
        int8.load(bundle, tmp_path / "x")
    save_file(load_file(path), tmp_path / "x", {"recipe": json.dumps(known)})
    assert int8.load(bundle, tmp_path / "x")
