"""Training learns, is repeatable, and an interruption changes nothing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_src.bundle import WEIGHTS, Bundle
from model_src.errors import ConfigError
from model_src.predictor import Predictor
from tests.conftest import PAIRS, Models, tiny_config
from train import loop
from train.data import Data
from train.evaluate import evaluate


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_registry_entry_learns(tiny: Models, loaded: Data, pair: tuple[str, str]) -> None:
    report, answers = evaluate(Predictor.load(tiny.models[pair]), loaded.test, 8)
    assert report.accuracy >= 0.9
    assert report.sentences == len(answers) == len(loaded.test)
    assert Bundle.read(tiny.models[pair]).metrics["valid_accuracy"] >= 0.9


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a / WEIGHTS), load_file(b / WEIGHTS)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("pair", [("glove", "cnn"), ("bert", "cls")], ids="-".join)
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Models,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    pair: tuple[str, str],
) -> None:
    config = tiny_config(*pair, vectors, checkpoint)
    whole = loop._Fit._epoch
    epochs = []

    def interrupted(self: loop._Fit, epoch: int) -> float:
        epochs.append(epoch)
        if epochs == [1, 2, 3]:
            raise KeyboardInterrupt
        return whole(self, epoch)

    monkeypatch.setattr(loop._Fit, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, loaded, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    loop.train(config, loaded, tmp_path / "model")
    assert epochs == [1, 2, 3, 3, 4]
    assert same(tmp_path / "model", tiny.models[pair])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_checkpoint_of_another_config_is_not_used(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=1)
    monkeypatch.setattr(loop, "_write", lambda *_: None)  # as if killed before the last step
    loop.train(config, loaded, tmp_path / "model")
    monkeypatch.undo()
    other = tiny_config("glove", "cnn", vectors, checkpoint, epoch=1, seed=7)
    bundle = loop.train(other, loaded, tmp_path / "model")
    assert len(bundle.metrics["history"]) == 1
    assert bundle.config.seed == 7


def test_words_unseen_in_train_keep_their_vectors(tiny: Models, vectors: Path) -> None:
    """Weight decay on a trained table would fade the words that only serving meets."""
    bundle = Bundle.read(tiny.models["glove", "cnn"])
    table = load_file(bundle.folder / WEIGHTS)["embedding.table.weight"]
    rows = dict(line.split(" ", 1) for line in vectors.read_text(encoding="utf-8").splitlines())
    assert table.shape == (len(rows) + 2, 16)
    assert torch.equal(table[0], torch.zeros(16))
    (unseen,) = bundle.tokenizer.encode("do")[:1]
    expected = torch.tensor([float(value) for value in rows["do"].split()])
    assert (table[unseen] - expected).abs().max() < 0.5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"bert_model_name_or_path": "no/such-checkpoint"}, "cannot load the checkpoint"),
        ({"bert_model_name_or_path": ""}, "needs --bert_model_name_or_path"),
        ({"n_ctx": 65}, "takes at most 64 tokens"),
        ({"bert_remove_layers": [2]}, "has layers 0-1"),
        ({"bert_remove_layers": [0, 1]}, "has layers 0-1"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    more: dict[str, object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=said):
        loop.train(tiny_config("bert", "cls", vectors, checkpoint, **more), loaded, tmp_path / "m")


def test_removed_layers_are_gone_and_the_model_loads_again(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    config = tiny_config("bert", "cls", vectors, checkpoint, bert_remove_layers=[1], epoch=1)
    bundle = loop.train(config, loaded, tmp_path / "model")
    assert bundle.shape["num_hidden_layers"] == 1
    assert Predictor.load(bundle.folder).predict(["great"])


@pytest.mark.parametrize("line", ["word", "word 0.1 x", "word 0.1 0.2 0.3"])
def test_a_damaged_vector_file_is_refused_with_its_line(
    tmp_path: Path, loaded: Data, checkpoint: Path, line: str
) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(f"film 0.1 0.2\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: not a word and 2 numbers"):
        loop.train(tiny_config("glove", "cnn", path, checkpoint), loaded, tmp_path / "model")
