"""The big table: every pair has a row of published shape, and a finished cell is left alone."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import contenders, formats, machine, plot, untrained
from benchmarks.entries import ENTRIES
from benchmarks.formats_report import MEASURES
from benchmarks.untrained import SHAPES, Choice, Entry
from model_src import backends
from model_src.backends import FORMATS
from model_src.bundle import Bundle
from model_src.classifier import Classifier
from model_src.errors import ConfigError, PackageError
from tests.conftest import PAIRS, ROOT, read_json, verb

# Millions of weights that the published encoders have, without poolers.
_MILLIONS = {
    "bert": 108.9,
    "roberta": 124.1,
    "albert": 11.1,
    "bart": 139.4,
    "electra": 108.9,
    "distilbert": 66.4,
    "mpnet": 108.9,
    "spanbert": 107.7,
}


@pytest.fixture
def entries(vectors: Path) -> dict[str, Entry]:
    """Two tiny models of word vectors."""
    options = {"embedding_path": str(vectors), "num_filters": "4", "fc_hidden_size": "4"}
    kernels = [("narrow", "2"), ("wide", "2,3")]
    return {
        name: Entry(f"Tiny {name}", "glove-cnn", 8, options=options | {"kernel_sizes": sizes})
        for name, sizes in kernels
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Draw nothing, on a machine that could."""
    paths: list[Path] = []
    monkeypatch.setattr(formats, "find_spec", lambda name: name)
    monkeypatch.setattr(plot, "draw", lambda path, *_: paths.append(path))
    return paths


def cells(folder: Path) -> dict[str, Any]:
    """Return what was measured."""
    return read_json(folder / "formats.json")["cells"]  # type: ignore[return-value]


def test_every_pair_of_the_registries_has_a_row() -> None:
    configs = [untrained.config_of(entry) for entry in ENTRIES.values()]
    assert {(config.emb_class, config.enc_class) for config in configs} == set(PAIRS)
    assert len({entry.title for entry in ENTRIES.values()}) == len(ENTRIES)
    for count, head in itertools.product((4, 6, 8), ("cls", "cnn")):
        shape = ENTRIES[f"bert-{head}-minus-{count}"].shape
        assert shape == SHAPES["bert"] | {"num_hidden_layers": 12 - count}


@pytest.mark.parametrize("family", SHAPES)
def test_random_models_have_the_published_size(family: str) -> None:
    entry = ENTRIES[f"{family}-cls"]
    config = untrained.config_of(entry)
    begin = untrained.start(entry, config, [])
    with torch.device("meta"):
        embedding = Classifier(config, begin.shape, 7).embedding
    tables = [m for m in embedding.modules() if isinstance(m, nn.Embedding)]
    words = next(m for m in tables if m.num_embeddings == begin.shape["vocab_size"])
    # the tokenizer at hand may have more words than the published one
    more = begin.shape["vocab_size"] - entry.shape.get("vocab_size", begin.shape["vocab_size"])
    assert 0 <= more < 2000
    found = sum(value.numel() for value in embedding.parameters()) - more * words.embedding_dim
    assert found / 1e6 == pytest.approx(_MILLIONS[family], abs=0.1)


@pytest.mark.usefixtures("two")
def test_a_cell_is_measured_once_and_only_changed_ones_again(
    entries: dict[str, Entry], drawn: list[Path], tmp_path: Path, tried: list[str]
) -> None:
    formats.run(tmp_path, Choice(8, ["narrow"], ["int8"]), entries)
    assert tried == ["int8"]
    assert list(cells(tmp_path)) == ["narrow"]
    text = formats.run(tmp_path, Choice(8), entries).read_text(encoding="utf-8")
    assert sorted(tried) == ["int8", "int8", "torchscript", "torchscript"]
    assert all(text.count(f"| {e.title} |") == len(MEASURES) for e in entries.values())
    for row in cells(tmp_path).values():
        for cell in row.values():
            assert cell["against"] == ""
            assert {"latency_ms", "size_mb", "load_ms", "agreement", "max_dp"} <= set(cell)
    assert formats.run(tmp_path, Choice(8), entries).read_text(encoding="utf-8") == text
    assert len(tried) == 4
    wider = {"narrow": entries["wide"]}
    formats.run(tmp_path, Choice(8, ["narrow"], ["int8"]), wider)
    assert len(tried) == 5
    assert set(drawn) == {tmp_path / "formats.svg"}


@pytest.mark.usefixtures("two", "drawn")
def test_cells_of_another_machine_are_not_shown(
    entries: dict[str, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats.run(tmp_path, Choice(8, ["narrow"]), entries)
    monkeypatch.setattr(machine, "describe", lambda: "another machine")
    text = formats.run(tmp_path, Choice(8, ["wide"]), entries).read_text(encoding="utf-8")
    shown = {line.count("|  ") for line in text.splitlines() if "Tiny narrow" in line}
    assert shown == {2, 3}  # nothing but empty cells, with a column of eager and without


@pytest.mark.usefixtures("two", "drawn")
def test_an_interruption_keeps_the_rows_before_it(
    entries: dict[str, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = contenders.attempt

    def attempt(source: Bundle, name: str, folder: Path) -> Any:  # noqa: ANN401
        if (tmp_path / "formats.json").exists():
            raise KeyboardInterrupt
        return original(source, name, folder)

    monkeypatch.setattr(contenders, "attempt", attempt)
    with pytest.raises(KeyboardInterrupt):
        formats.run(tmp_path, Choice(8), entries)
    assert list(cells(tmp_path)) == ["narrow"]
    assert set(cells(tmp_path)["narrow"]) == {"torchscript", "int8"}


@pytest.mark.usefixtures("two", "drawn")
def test_a_cell_that_fails_says_why_in_a_word(
    entries: dict[str, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> object:
        raise RuntimeError("no such instruction")

    old = FORMATS["torchscript"]
    monkeypatch.setitem(FORMATS, "torchscript", type(old)(**vars(old) | {"load": load}))
    monkeypatch.setitem(FORMATS, "int8", type(old)(**vars(old) | {"needs": ("no_such",)}))
    table = formats.run(tmp_path, Choice(8, ["narrow"]), entries).read_text(encoding="utf-8")
    assert "| Tiny narrow | failed | package |" in table
    assert "no such instruction" in cells(tmp_path)["narrow"]["torchscript"]["against"]
    monkeypatch.setitem(FORMATS, "torchscript", old)
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    formats.run(tmp_path, Choice(8, ["narrow"]), entries)
    assert not any(cell["against"] for cell in cells(tmp_path)["narrow"].values())


def test_a_missing_plotter_is_one_sentence_before_anything_is_measured(
    entries: dict[str, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(PackageError, match=r"needs matplotlib, .*pip install matplotlib"):
        formats.run(tmp_path, Choice(8), entries)
    assert not list(tmp_path.iterdir())
    listed = (ROOT / "requirements-extra.txt").read_text(encoding="utf-8")
    assert "\nmatplotlib==" in listed


def test_the_plot_has_a_row_for_each_model(entries: dict[str, Entry], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    one = {"latency_ms": {"12": 1.5}, "sentences_per_second": 100.0}
    known = {name: {"int8": one | {"eager": one}, "onnx": {"against": "x"}} for name in entries}
    for path in (tmp_path / "formats.svg", tmp_path / "again" / "formats.svg"):
        plot.draw(path, known, entries)
    text = (tmp_path / "formats.svg").read_text(encoding="utf-8")
    assert all(entry.title in text for entry in entries.values())
    assert "eager" in text
    assert path.read_text(encoding="utf-8") == text


def test_a_kind_takes_its_own_options_only(capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (["training", "--data_dir", "x", "--row", "y"], "training takes no --row"),
        (["formats", "--data_dir", "x"], "formats takes no --data_dir"),
        (["speed"], "speed needs --data_dir"),
        (["formats", "--entry", "bert-cl"], "unknown entry 'bert-cl'; did you mean 'bert-cls'"),
        (["formats", "--format", "int9"], "unknown format 'int9'; did you mean 'int8'"),
        (["speed", "--data_dir", "x", "--entry", "y"], "choose from .*bert-base-cls"),
    ):
        with pytest.raises(ConfigError, match=said):
            verb(capsys, "benchmark", *options)
