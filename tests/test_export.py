"""An export is measured beside its model, refused when it changes answers, and well chosen."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_src.backends import FORMATS
from model_src.backends.common import Backend
from model_src.bundle import Bundle
from model_src.decode import decode
from model_src.errors import BundleError, ConfigError, DataError, RefusedError
from model_src.predictor import Predictor
from scripts.export import _name
from scripts.quickstart import ROADS, _write_export
from serving.export import export
from serving.measure import compare, problem, slower
from serving.sentences import bundled
from tests.conftest import verb
from tests.disturb import Disturb, a_little, late, negated, state
from train.data import Data

pytestmark = pytest.mark.usefixtures("two")


def test_an_export_says_what_it_measured(
    model: Path, texts: list[str], gold: list[str], tmp_path: Path
) -> None:
    measured = export(model, "torchscript", tmp_path / "x", texts, gold).metrics["export"]
    assert measured["sentences"] == len(texts)
    assert measured["agreement"] == 1
    assert 0 <= measured["mean_dp"] <= measured["max_dp"] <= 1e-5
    report = [a.label for a in Predictor.load(model).predict(texts)]
    right = sum(a == b for a, b in zip(report, gold, strict=True)) / len(gold)
    assert measured["accuracy"] == pytest.approx(right, abs=1e-6)
    assert measured["threads"] == 1
    assert measured["size_mb"] > 0
    assert measured["load_ms"] > 0
    for each in (measured, measured["eager"]):
        assert list(each["latency_ms"]) == ["12", "30"]
        assert all(0 < ms < 1000 for ms in each["latency_ms"].values())
        assert each["sentences_per_second"] > 0
    assert "accepted" not in measured


def test_without_labels_only_the_answers_are_compared(
    model: Path, texts: list[str], tmp_path: Path
) -> None:
    measured = export(model, "torchscript", tmp_path / "x", texts).metrics["export"]
    assert "accuracy" not in measured
    assert measured["agreement"] == 1


def test_latency_is_taken_at_12_and_at_30_tokens(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One text of a single token is enough to make sentences of 12 and 30."""
    seen = set()
    entry = FORMATS["torchscript"]

    def load(bundle: Bundle, path: Path) -> Backend:
        backend = entry.load(bundle, path)

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            seen.add(tuple(ids.shape))
            return backend(ids, mask)

        return run

    monkeypatch.setitem(FORMATS, "torchscript", replace(entry, load=load))
    export(model, "torchscript", tmp_path / "x", ["great"])
    assert {(1, 12), (1, 30)} <= seen


def test_an_fp32_format_that_changes_a_probability_is_refused(
    model: Path, texts: list[str], gold: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    disturb("torchscript", a_little)
    said = "torchscript changes a probability by .*, where fp32 allows 1e-04: .*--accept"
    with pytest.raises(RefusedError, match=said):
        export(model, "torchscript", tmp_path / "x", texts, gold)
    assert not list(tmp_path.iterdir())


def test_a_reduced_format_may_change_a_probability_a_little(
    model: Path, texts: list[str], gold: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    disturb("int8", a_little)
    measured = export(model, "int8", tmp_path / "x", texts, gold).metrics["export"]
    assert measured["max_dp"] > 1e-4


def test_a_reduced_format_that_changes_labels_is_refused(
    model: Path, texts: list[str], gold: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    disturb("int8", negated)
    with pytest.raises(
        RefusedError, match=r"points of accuracy .* and keeps .* of 32 labels"
    ) as at:
        export(model, "int8", tmp_path / "x", texts, gold)
    assert "--data_dir" not in str(at.value)
    with pytest.raises(RefusedError, match=r"int8 keeps .*, where 99% are asked: .*--data_dir"):
        export(model, "int8", tmp_path / "x", texts)
    assert not list(tmp_path.iterdir())


RULES = [
    ({"max_dp": 9e-5}, True, ""),
    ({"max_dp": 2e-4}, True, "2.0e-04"),
    ({"max_dp": float("nan")}, True, "changes a probability"),
    ({"max_dp": 0.3, "agreement": 0.99}, False, ""),
    ({"agreement": 0.989}, False, "98.90% of 1000 labels, where 99% are asked"),
    ({"accuracy": 0.895}, False, ""),
    ({"accuracy": 0.894}, False, "loses 0.60 points of accuracy on 1000 sentences"),
    ({"accuracy": 1.0}, False, ""),
]


@pytest.mark.parametrize(("change", "exact", "said"), RULES)
def test_each_rule_has_its_limit(change: dict[str, float], exact: bool, said: str) -> None:  # noqa: FBT001
    fine = {"sentences": 1000, "agreement": 1.0, "max_dp": 0.0, "accuracy": 0.9}
    found = problem(fine | change | {"eager": {"accuracy": 0.9}}, exact=exact)
    assert said in found
    assert bool(said) == bool(found)


def test_a_refused_export_leaves_the_old_one_untouched(
    model: Path, texts: list[str], tmp_path: Path, disturb: Disturb
) -> None:
    export(model, "torchscript", tmp_path / "x", texts)
    before = state(tmp_path)
    disturb("torchscript", negated)
    with pytest.raises(RefusedError):
        export(model, "torchscript", tmp_path / "x", texts)
    assert state(tmp_path) == before


def test_an_accepted_export_says_against_which_rule(
    model: Path,
    data_dir: Path,
    tmp_path: Path,
    disturb: Disturb,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disturb("int8", negated)
    options = ["--model_path", model, "--data_dir", data_dir, "--save_path", tmp_path / "x"]
    said = verb(capsys, "export", *options, "--format", "int8", "--accept")
    broken = Bundle.read(tmp_path / "x").metrics["export"]["accepted"]
    assert "of 32 labels, where 99% are asked" in broken
    assert f"accepted although it {broken}" in said
    assert Predictor.load(tmp_path / "x").predict(["great"])


def test_a_slow_export_says_so(
    model: Path,
    data_dir: Path,
    tmp_path: Path,
    disturb: Disturb,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disturb("torchscript", late)
    options = ["--model_path", model, "--data_dir", data_dir, "--save_path", tmp_path / "x"]
    said = verb(capsys, "export", *options)
    assert "SLOWER than eager at 12 tokens and at 30 tokens and at batch 32" in said
    quick = {"latency_ms": {"12": 1.0, "30": 2.0}, "sentences_per_second": 100.0}
    assert not slower(quick | {"eager": quick})
    slow = {"latency_ms": {"12": 1.0, "30": 2.2}, "sentences_per_second": 90.0}
    assert slower(slow | {"eager": quick}) == ["at 30 tokens", "at batch 32"]


def test_sets_of_labels_agree_when_they_are_equal() -> None:
    def answers(*rows: list[float]) -> list[Any]:
        return decode(torch.tensor(rows).logit(), ["a", "b", "c"], multi_label=True)

    before = answers([0.9, 0.8, 0.1], [0.1, 0.2, 0.3], [0.9, 0.8, 0.1])
    after = answers([0.8, 0.9, 0.1], [0.2, 0.1, 0.3], [0.9, 0.4, 0.1])
    found = compare(before, after)
    assert found["agreement"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["max_dp"] == pytest.approx(0.4, abs=1e-3)
    assert found["mean_dp"] == pytest.approx(0.8 / 9, abs=1e-3)


def test_the_bundled_sentences_are_many_different_and_mixed() -> None:
    texts = bundled()
    assert len(texts) == len(set(texts)) == 500
    assert texts == bundled()
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) == 1
    assert max(lengths) > 50
    assert sum(not text.isascii() for text in texts) > 50
    assert sum("가" <= sign <= "힣" for sign in "".join(texts)) > 100


def test_the_verb_compares_on_bundled_sentences_without_data(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = verb(capsys, "export", "--model_path", model, "--save_path", tmp_path / "x")
    assert "100.00% of 500 labels as before, no gold labels and so no accuracy" in said
    assert "ms a sentence of 12 tokens (eager " in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "int8", "--for", "latency"], "--for latency goes with --format auto"),
        (["--format", "auto", "--for", "latnecy"], "did you mean 'latency'"),
        (["--format", "aut"], "did you mean 'auto'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    model: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=said):
        verb(capsys, "export", "--model_path", model, *options)


def test_data_of_other_labels_is_refused(
    model: Path, multi_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model_path", model, "--save_path", tmp_path / "x"]
    with pytest.raises(ConfigError, match="both must agree"):
        verb(capsys, "export", *options, "--data_dir", multi_data)
    other = tmp_path / "data"
    other.mkdir()
    for split in ("train", "valid", "test"):
        (other / f"{split}.tsv").write_text("a film\tx\nno film\ty\n", encoding="utf-8")
    with pytest.raises(DataError, match="the data has the label 'x'"):
        verb(capsys, "export", *options, "--data_dir", other)


def test_a_model_is_not_lost_to_an_export_nor_an_export_to_a_model(
    model: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = shutil.copytree(model, tmp_path / "mine")
    with pytest.raises(BundleError, match="holds a whole model, which would be lost"):
        verb(capsys, "export", "--model_path", model, "--save_path", mine)
    verb(capsys, "export", "--model_path", model, "--save_path", tmp_path / "x", "--accept")
    with pytest.raises(BundleError, match="holds a whole export, which would be lost"):
        verb(capsys, "train", "--data_dir", data_dir, "--save_path", tmp_path / "x")
    assert Bundle.read(mine).kind == "model"


def test_the_best_of_a_search_gives_its_export_the_name_of_the_search(tmp_path: Path) -> None:
    found = tmp_path / "news-search" / "best"
    assert _name(found) == "best"  # somebody's own
    found.mkdir(parents=True)
    (found.parent / "study.db").touch()
    assert _name(found) == "news-search"
    assert _name(tmp_path / "news") == "news"


def test_quickstart_takes_torchscript_where_int8_is_refused(
    model: Path,
    loaded: Data,
    tmp_path: Path,
    disturb: Disturb,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disturb("int8", negated)
    road = next(road for road in ROADS if road.format == "int8")
    made = _write_export(road, Bundle.read(model), loaded, tmp_path / "x")
    assert (made.folder / FORMATS["torchscript"].file).exists()
    assert "refused: int8 loses" in capsys.readouterr().out


@pytest.mark.parametrize("reason", [ImportError("no libx.so"), RuntimeError("no such op\nat ...")])
def test_a_format_that_is_installed_but_does_not_work_is_one_sentence(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Exception
) -> None:
    """A package whose library is missing, a compiler that fails."""

    def broken(*_: object) -> None:
        raise reason

    monkeypatch.setitem(FORMATS, "int8", replace(FORMATS["int8"], export=broken))
    first = str(reason).partition("\n")[0]
    with pytest.raises(RefusedError, match=f"^the format int8 cannot be made .*: {first}$"):
        export(model, "int8", tmp_path / "made", ["great"], None)
    assert not (tmp_path / "made").exists()
