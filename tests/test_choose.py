"""Of all formats that work here the best that passes is kept, and nothing when none does."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from model_src.backends import FORMATS, Format
from model_src.bundle import Bundle
from model_src.errors import BundleError, RefusedError
from model_src.predictor import Predictor
from serving.choose import AIMS, choose
from serving.export import export
from serving.measure import measure_sound
from tests.conftest import verb
from tests.disturb import Disturb, a_little, late, negated, no_numbers, state

pytestmark = pytest.mark.usefixtures("two")


def test_auto_keeps_the_best_for_each_aim(
    model: Path, texts: list[str], gold: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    assert list(AIMS) == ["latency", "throughput", "portability"]
    disturb("torchscript", late)
    for aim, best in zip(AIMS, ["int8", "int8", "torchscript"], strict=True):
        tried = choose(model, aim, tmp_path / "x", texts, gold)
        assert tried[0].name == best
        assert {each.name for each in tried} == set(FORMATS)
        kept = Predictor.load(tmp_path / "x").bundle
        assert kept.metrics["export"] == tried[0].measured
        assert {path.name for path in kept.folder.iterdir()} == {
            *("config.json", "labels.json", "shape.json", "tokenizer.json", "export.json"),
            *("manifest.json", "metrics.json", FORMATS[best].file),
        }
        assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_portability_takes_what_depends_on_least(
    model: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = FORMATS["torchscript"]
    monkeypatch.setitem(
        FORMATS, "lighter", replace(entry, file="model.x", depends=entry.depends - 1)
    )
    assert choose(model, "portability", tmp_path / "x", texts)[0].name == "lighter"


def test_a_candidate_falls_out_with_its_reason(
    model: Path,
    data_dir: Path,
    tmp_path: Path,
    disturb: Disturb,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lacking(*_: object) -> None:
        raise BundleError("it needs the package xyz")

    missing = Format("model.xyz", lacking, FORMATS["int8"].load, "", exact=True, depends=0)
    monkeypatch.setitem(FORMATS, "xyz", missing)
    disturb("torchscript", a_little)
    options = ["--model_path", model, "--data_dir", data_dir, "--save_path", tmp_path / "x"]
    lines = verb(capsys, "export", *options, "--format", "auto").splitlines()
    rows = {line.split()[0]: line for line in lines[1:5]}
    assert list(rows) == ["eager", "int8", "torchscript", "xyz"]
    assert "  kept" in rows["int8"]
    assert "changes a probability by 2." in rows["torchscript"]
    assert rows["xyz"].endswith("does not work here, for it needs the package xyz")
    assert lines[5].startswith("int8: ")


def test_a_candidate_that_fails_on_the_data_stops_no_other(
    model: Path,
    data_dir: Path,
    tmp_path: Path,
    disturb: Disturb,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disturb("int8", no_numbers)
    options = ["--model_path", model, "--data_dir", data_dir, "--save_path", tmp_path / "x"]
    lines = verb(capsys, "export", *options, "--format", "auto", "--accept").splitlines()
    rows = {line.split()[0]: line for line in lines[1:4]}
    assert "  kept" in rows["torchscript"]
    assert "  does not answer this data: the model gives scores that are no numb" in rows["int8"]


def test_what_does_not_answer_is_never_accepted(
    model: Path, texts: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    for name in FORMATS:
        disturb(name, no_numbers)
    with pytest.raises(RefusedError, match=r"torchscript does not answer .*; int8 does not"):
        choose(model, "latency", tmp_path / "x", texts, accept=True)
    with pytest.raises(RefusedError, match=r"int8 does not answer this data: .* no numbers") as at:
        export(model, "int8", tmp_path / "x", texts, accept=True)
    assert "--accept" not in str(at.value)
    assert not list(tmp_path.iterdir())


def test_a_model_that_fails_itself_is_no_fault_of_its_exports(
    model: Path, texts: list[str]
) -> None:
    sound = Predictor.load(model)
    broken = Predictor(sound.bundle, lambda ids, mask: no_numbers(sound.backend(ids, mask)))
    with pytest.raises(BundleError, match="no numbers"):
        measure_sound(broken, {"same": sound}, texts, None)


def test_auto_keeps_nothing_when_no_format_passes(
    model: Path, texts: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    for name in FORMATS:
        disturb(name, negated)
    with pytest.raises(RefusedError, match=r"torchscript changes .*; int8 keeps .*--accept"):
        choose(model, "latency", tmp_path / "x", texts)
    assert not list(tmp_path.iterdir())
    best, _ = choose(model, "latency", tmp_path / "x", texts, accept=True)
    assert Bundle.read(tmp_path / "x").metrics["export"]["accepted"] == best.problem


def test_an_interrupted_choice_leaves_no_halves(
    model: Path, texts: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    def interrupted(logits: Tensor) -> Tensor:
        raise KeyboardInterrupt

    export(model, "torchscript", tmp_path / "x", texts)
    before = state(tmp_path)
    disturb("int8", interrupted)
    with pytest.raises(KeyboardInterrupt):
        choose(model, "latency", tmp_path / "x", texts)
    assert state(tmp_path) == before
