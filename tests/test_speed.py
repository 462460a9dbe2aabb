"""The speed of answers: its reference, its floor, its table, and a finished model is left alone."""

from pathlib import Path

import pytest
import torch

from benchmarks import floor, speed, speed_report, turns, untrained
from benchmarks.aims import AIMS, EAGER, PADDED, Aim
from benchmarks.contenders import Padded
from benchmarks.untrained import Choice, Entry
from model_src.backends import FORMATS, eager
from model_src.classifier import Classifier
from model_src.config import Config
from model_src.predictor import Predictor
from serving.measure import MAX_DP
from tests.conftest import read_json

_SIZES = {"num_filters": "3", "kernel_sizes": "2,3", "fc_hidden_size": "5", "n_ctx": "40"}


@pytest.fixture
def aims(vectors: Path, checkpoint: Path) -> dict[str, Aim]:
    """Two tiny models: random words, and a checkpoint."""
    words = _SIZES | {"embedding_path": str(vectors)}
    bert = {"n_ctx": "40", "bert_model_name_or_path": str(checkpoint)}
    return {
        "words": Aim(Entry("Tiny words", "glove-cnn", 8, options=words), 2),
        "bert": Aim(Entry("Tiny BERT", "bert-cls", options=bert), 3, batched=4),
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the machine in no time, and not well."""
    monkeypatch.setattr(floor, "_SECONDS", 0.01)
    monkeypatch.setattr(floor, "_SIZES", (32,))
    monkeypatch.setattr(floor, "_CACHE_FREE", 2**16)


@pytest.mark.parametrize("name", ["words", "bert"])
def test_the_reference_pads_to_n_ctx_and_answers_the_same(
    name: str, aims: dict[str, Aim], texts: list[str], tmp_path: Path
) -> None:
    bundle = untrained.make(aims[name].entry, tmp_path / "m", ["a", "b", "c"], texts)
    plain, model = Predictor.load(bundle.folder), eager.load(bundle)
    shapes = []
    model.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    padded = Predictor(bundle, Padded(model, bundle))
    for text in texts[:8]:
        (a,), (b,) = plain.predict([text]), padded.predict([text])
        assert a.label == b.label
        assert a.score == pytest.approx(b.score, abs=MAX_DP)
    assert shapes == [(1, bundle.config.n_ctx)] * 8


def test_a_model_needs_the_operations_and_weights_counted_by_hand() -> None:
    config = Config(
        emb_class="glove", enc_class="cnn", num_filters=3, kernel_sizes=[2, 3], fc_hidden_size=5
    )
    model = Classifier(config, {"vocab_size": 1000, "hidden_size": 8}, 4).eval()
    filters = 2 * 8 * 3 + 3 * 8 * 3
    layers = 6 * 5 + 5 * 4
    needed = floor.needs(model, tokens=7)
    # with two zeros behind the last token the kernels have 8 and 7 places
    assert needed["operations"] == 2 * (2 * 8 * 3 * 8 + 3 * 8 * 3 * 7 + layers)
    assert needed["weights"] == 7 * 8 + filters + layers + (3 + 3 + 5 + 4)


def test_the_last_layer_of_a_transformer_needs_one_position_only(checkpoint: Path) -> None:
    config = Config(
        emb_class="bert", enc_class="cls", bert_model_name_or_path=str(checkpoint), n_ctx=40
    )
    shape = untrained.start(Entry("", "bert-cls"), config, []).shape
    model = Classifier(config, shape, 4).eval()
    width, inner, tokens = shape["hidden_size"], shape["intermediate_size"], 10
    block = width * width + 2 * width * inner  # after attention
    products = tokens * (2 * 3 * width * width + block) + block + width * 4
    attention = 2 * (tokens + 1) * tokens * width
    assert floor.needs(model, tokens)["operations"] == 2 * (products + attention)


def test_the_floor_is_the_longer_of_reading_and_computing() -> None:
    needed = {"operations": 2_000_000, "weights": 1_000_000}
    rates, peak = {"fp32": 1.0, "bf16": 100.0, "int8": 10.0}, {"fp32": 1.0, "bf16": 1, "int8": 100}
    found = floor.floors(needed, rates, peak)
    assert found == pytest.approx({"fp32": 4.0, "bf16": 2.0, "int8": 0.1})


def test_the_machine_is_measured() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floor, "_SECONDS", 0.02)
        assert set(floor.peaks()) == set(floor.PRECISIONS)
        assert all(rate > 1 for rate in floor.peaks().values())
        assert floor.bandwidth(2**20) > 1


@pytest.mark.usefixtures("two", "quick")
def test_the_speed_of_a_model_is_measured_once(
    data_dir: Path, aims: dict[str, Aim], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Choice(6, entries=["words"])
    text = speed.run(data_dir, tmp_path, one, aims).read_text(encoding="utf-8")
    assert "Tiny words" in text
    assert "Tiny BERT" not in text
    text = speed.run(data_dir, tmp_path, Choice(6), aims).read_text(encoding="utf-8")
    known = read_json(tmp_path / "speed.json")["models"]
    for name, aim in aims.items():
        found = known[name]  # type: ignore[index]
        assert set(found["ms"]) == set(found["batched_ms"]) == {PADDED, EAGER, *FORMATS}
        assert found["changes"][PADDED]["max_dp"] <= MAX_DP
        assert found["ms"][found["best"]] == min(found["ms"][n] for n in (EAGER, *FORMATS))
        assert set(found["stages"]) == set(turns.STAGES)
        assert 0 < found["in_a_row_ms"] < found["ms"][found["best"]]
        assert text.count(f"| {aim.entry.title} ") == 4
        (parts,) = (line for line in text.splitlines() if line.startswith(f"| {aim.entry.title}, "))
        assert parts.startswith(f"| {aim.entry.title}, {found['best']} |")
        assert parts.endswith(f" | {found['in_a_row_ms']:.2g} |")
        times = found["ms"][PADDED] / found["ms"][found["best"]]
        same = found["changes"][found["best"]]["agreement"]
        assert f"| **{times:.1f}** | {aim.alone:g} | {same:.1%} | " in text
    monkeypatch.setattr(untrained, "make", None)
    again = speed.run(data_dir, tmp_path, Choice(6), aims)
    assert again.read_text(encoding="utf-8") == text
    with pytest.raises(TypeError, match="not callable"):
        speed.run(data_dir, tmp_path, Choice(7), aims)
    other = read_json(tmp_path / "speed.json") | {"data": "of another folder"}
    assert "Tiny words" not in "\n".join(speed_report.lines(other, aims))


@pytest.mark.usefixtures("two", "quick")
def test_a_format_that_changes_answers_is_not_the_best(
    data_dir: Path, aims: dict[str, Aim], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = FORMATS["torchscript"]

    def load(*_: object) -> object:
        return lambda ids, mask: torch.zeros(len(ids), 2)

    monkeypatch.setitem(FORMATS, "torchscript", type(wrong)(**vars(wrong) | {"load": load}))
    table = speed.run(data_dir, tmp_path, Choice(6, ["words"]), aims)
    assert " refused |" in table.read_text(encoding="utf-8")
    known = read_json(tmp_path / "speed.json")["models"]
    assert known["words"]["best"] != "torchscript"  # type: ignore[index]


def test_the_labels_of_a_random_model_differ(
    texts: list[str], tmp_path: Path, aims: dict[str, Aim]
) -> None:
    bundle = untrained.make(aims["words"].entry, tmp_path / "m", ["a", "b", "c"], texts)
    answers = Predictor.load(bundle.folder).predict(texts)
    assert len({each.label for each in answers}) > 1


def test_the_aims_are_those_of_the_issue() -> None:
    assert [aim.alone for aim in AIMS.values()] == [15, 9, 10, 14, 20, 15]
    assert AIMS["minilm-cls"].batched == 4
