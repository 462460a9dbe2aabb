"""Training learns, is repeatable, and an interruption changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_src.bundle import WEIGHTS, Bundle
from model_src.classifier import state_of
from model_src.errors import ConfigError, UserError
from model_src.predictor import Predictor
from tests.conftest import BAD, GOOD, PAIRS, REST, UNSEEN, Models, tiny_config
from tests.watch import Unsaved
from train import loop, pretrained
from train.data import Data
from train.evaluate import evaluate


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_registry_entry_learns(tiny: Models, loaded: Data, pair: tuple[str, str]) -> None:
    report, answers = evaluate(Predictor.load(tiny.models[pair]), loaded.test, 8)
    assert report.accuracy >= 0.9
    assert report.sentences == len(answers) == len(loaded.test)
    assert Bundle.read(tiny.models[pair]).metrics["valid_accuracy"] >= 0.9


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_loaded_model_answers_as_it_did_before_it_was_saved(
    tiny: Models, unsaved: Unsaved, texts: list[str], pair: tuple[str, str]
) -> None:
    predictor = Predictor.load(tiny.models[pair])
    answers = predictor.predict(texts)
    for answer, expected in zip(answers, unsaved[pair], strict=True):
        scores = [answer.scores[label] for label in predictor.bundle.labels]
        assert scores == pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_weights_and_the_measure_kept_are_those_of_the_best_epoch(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: bool,  # noqa: FBT001
) -> None:
    whole = loop._Fit._epoch
    after: dict[int, dict[str, torch.Tensor]] = {}

    def worse_from_the_third(self: loop._Fit, epoch: int) -> float:
        if interrupted and epoch == 4 and 4 not in after:
            after[4] = {}
            raise KeyboardInterrupt
        loss = whole(self, epoch)
        if epoch >= 3:
            torch.nn.init.zeros_(self.model.output.weight)
        after[epoch] = {name: value.clone() for name, value in state_of(self.model).items()}
        return loss

    monkeypatch.setattr(loop._Fit, "_epoch", worse_from_the_third)
    config = tiny_config("glove", "cnn", vectors, checkpoint)
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, loaded, tmp_path / "model")
    bundle = loop.train(config, loaded, tmp_path / "model")
    values = [entry["valid_accuracy"] for entry in bundle.metrics["history"]]
    assert len(values) == 4
    assert max(values) > max(values[2:])
    assert bundle.metrics["valid_accuracy"] == max(values)
    last = max(epoch for epoch, value in enumerate(values, 1) if value == max(values))
    saved, best = load_file(bundle.folder / WEIGHTS), after[last]
    assert saved.keys() == best.keys()
    assert all(torch.equal(saved[name], best[name]) for name in best)


@pytest.mark.parametrize("trainable", [False, True])
def test_word_vectors_change_only_where_they_are_trained(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    trainable: bool,  # noqa: FBT001
) -> None:
    more = {"embedding_trainable": trainable, "epoch": 2}
    config = tiny_config("glove", "cnn", vectors, checkpoint, **more)
    start = pretrained.glove(config, [example.text for example in loaded.train])
    folder = loop.train(config, loaded, tmp_path / "model").folder
    table = load_file(folder / WEIGHTS)["embedding.table.weight"]
    assert torch.equal(table, start.state["table.weight"]) != trainable


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


def test_an_epoch_that_was_told_is_not_trained_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
) -> None:
    """Whoever sees the line of an epoch may stop there: it is on disk already."""
    config = tiny_config("glove", "cnn", vectors, checkpoint)
    told = []

    def stopped(line: str) -> None:
        told.append(json.loads(line)["epoch"])
        if told == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.logger, "info", stopped)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, loaded, tmp_path / "model")
    monkeypatch.setattr(loop.logger, "info", lambda line, *_: told.append(line))
    loop.train(config, loaded, tmp_path / "model")
    assert told[2] == "Resumed after epoch %d."
    assert json.loads(told[3])["epoch"] == 3


def test_a_checkpoint_of_another_config_is_not_used(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=1)
    monkeypatch.setattr(loop, "_write", lambda *_: None)  # as if killed before the last step
    loop.train(config, loaded, tmp_path / "model")
    left = tmp_path / ".model.checkpoint.pt"
    content = left.read_bytes()
    monkeypatch.undo()
    other = tiny_config("glove", "cnn", vectors, checkpoint, epoch=1, seed=7)
    fresh = loop.train(other, loaded, tmp_path / "fresh")
    with caplog.at_level("INFO"):
        assert same(loop.train(other, loaded, tmp_path / "model").folder, fresh.folder)
    assert "of a run with another seed: starting anew" in caplog.text
    # the same config with other vectors in the same file
    lines = vectors.read_text(encoding="utf-8").splitlines()
    swapped = tmp_path / "vectors.txt"
    swapped.write_text("\n".join(lines), encoding="utf-8")
    config = tiny_config("glove", "cnn", swapped, checkpoint, epoch=1)
    monkeypatch.setattr(loop, "_write", lambda *_: None)
    loop.train(config, loaded, tmp_path / "model")
    monkeypatch.undo()
    swapped.write_text("\n".join(reversed(lines)), encoding="utf-8")
    fresh = loop.train(config, loaded, tmp_path / "fresh")
    assert same(loop.train(config, loaded, tmp_path / "model").folder, fresh.folder)
    # a damaged one
    left.write_bytes(content[:1000])
    assert same(loop.train(config, loaded, tmp_path / "model").folder, fresh.folder)
    assert not left.exists()


def test_a_diverging_run_says_so(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, lr=1e30)
    with pytest.raises(ConfigError, match="training diverged"):
        loop.train(config, loaded, tmp_path / "model")


def test_a_folder_with_other_things_is_refused_before_training(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    config = tiny_config("glove", "cnn", vectors, checkpoint)
    with pytest.raises(UserError, match=r"holds notes\.txt, which would be lost"):
        loop.train(config, loaded, tmp_path)


def test_words_unseen_in_train_keep_their_vectors(tiny: Models, vectors: Path) -> None:
    """Weight decay on a trained table would fade the words that only serving meets."""
    assert UNSEEN not in GOOD + BAD + REST
    bundle = Bundle.read(tiny.models["glove", "cnn"])
    table = load_file(bundle.folder / WEIGHTS)["embedding.table.weight"]
    rows = dict(line.split(" ", 1) for line in vectors.read_text(encoding="utf-8").splitlines())
    assert table.shape == (len(rows) + 2, 16)
    assert torch.equal(table[0], torch.zeros(16))
    (unseen,) = bundle.tokenizer.encode(UNSEEN)
    (seen,) = bundle.tokenizer.encode("great")
    for word, index in ((UNSEEN, unseen), ("great", seen)):
        expected = torch.tensor([float(value) for value in rows[word].split()])
        assert torch.equal(table[index], expected) == (word == UNSEEN)


@pytest.mark.parametrize("word_dropout", [0.0, 0.3])
def test_subwords_unseen_in_train_keep_their_vectors(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, word_dropout: float
) -> None:
    """What training never shows is as the checkpoint has it, and what it shows has learned."""
    config = tiny_config("bert", "cls", vectors, checkpoint, epoch=1, word_dropout=word_dropout)
    bundle = loop.train(config, loaded, tmp_path / "model")
    name = "embeddings.word_embeddings.weight"
    before = load_file(checkpoint / "model.safetensors")[name]
    after = load_file(bundle.folder / WEIGHTS)[f"embedding.model.{name}"]
    shown = {i for each in loaded.train for i in bundle.tokenizer.encode(each.text)}
    assert len(shown) < len(before) - 1
    changed = {i for i, row in enumerate(before != after) if row.any()}
    mask = {4} if word_dropout else set()
    assert changed == shown - {bundle.tokenizer.pad_id} | mask
