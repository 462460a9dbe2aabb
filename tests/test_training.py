"""Training learns, is repeatable, and an interruption changes nothing."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_src.bundle import WEIGHTS, Bundle
from model_src.classifier import Classifier, state_of
from model_src.embeddings import EMBEDDINGS
from model_src.errors import ConfigError, UserError
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
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
    saved, best = load_file(bundle.folder / WEIGHTS), after[values.index(max(values)) + 1]
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


def test_subwords_unseen_in_train_keep_their_vectors(
    tiny: Models, loaded: Data, checkpoints: dict[str, Path]
) -> None:
    """What training never shows is as the checkpoint has it, and what it shows has learned."""
    bundle = Bundle.read(tiny.models["bert", "cls"])
    name = "embeddings.word_embeddings.weight"
    before = load_file(checkpoints["bert"] / "model.safetensors")[name]
    after = load_file(bundle.folder / WEIGHTS)[f"embedding.model.{name}"]
    shown = {i for each in loaded.train for i in bundle.tokenizer.encode(each.text)}
    changed = {i for i, row in enumerate(before != after) if row.any()}
    assert changed - {4} == shown - {bundle.tokenizer.pad_id}  # 4 is [MASK], which may be shown
    assert len(shown) < len(before)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"bert_model_name_or_path": "no/such-checkpoint"}, "couldn't find them in the cached"),
        ({"bert_model_name_or_path": "./no-such-folder"}, "there is no folder './no-such-folder'"),
        ({"bert_model_name_or_path": ""}, "needs --bert_model_name_or_path"),
        ({"n_ctx": 131}, "takes at most 130 tokens"),
        ({"n_ctx": 2}, "adds 2 tokens of its own"),
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
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=said):
        loop.train(tiny_config("bert", "cls", vectors, checkpoint, **more), loaded, tmp_path / "m")
    # The hub's client would tell of each of its retries.
    assert "HEAD" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", [name for name in EMBEDDINGS if name != "glove"])
def test_removed_layers_are_gone_and_the_model_loads_again(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoints: dict[str, Path], kind: str
) -> None:
    config = tiny_config(kind, "cls", vectors, checkpoints[kind], bert_remove_layers=[1], epoch=1)
    if kind == "albert":
        with pytest.raises(ConfigError, match="shares one layer"):
            loop.train(config, loaded, tmp_path / "model")
        return
    bundle = loop.train(config, loaded, tmp_path / "model")
    counts = {k: v for k, v in bundle.shape.items() if k.endswith("layers")}
    before = json.loads((checkpoints[kind] / "config.json").read_text(encoding="utf-8"))
    assert counts
    assert all(counts[key] == before[key] - 1 for key in counts if key in before)
    assert Predictor.load(bundle.folder).predict(["great"])


@pytest.mark.parametrize("removed", [0, 1])
@pytest.mark.parametrize("kind", [name for name in EMBEDDINGS if name not in {"glove", "albert"}])
def test_the_layers_removed_are_the_ones_named(
    vectors: Path, checkpoints: dict[str, Path], kind: str, removed: int
) -> None:
    config = tiny_config(kind, "cls", vectors, checkpoints[kind])
    whole = pretrained.transformer(config, []).state
    left = pretrained.transformer(replace(config, bert_remove_layers=[removed]), []).state
    expected = {}
    for name, value in whole.items():
        place = re.search(r"(?<=\.layer\.)\d+|(?<=\.layers\.)\d+", name)
        layer = int(place[0]) if place else -1
        if place and layer > removed:
            expected[f"{name[: place.start()]}{layer - 1}{name[place.end() :]}"] = value
        elif layer != removed:
            expected[name] = value
    assert left.keys() == expected.keys() < whole.keys()
    assert all(torch.equal(left[name], expected[name]) for name in expected)


def test_positions_that_begin_after_the_pad_shorten_the_limit(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoints: dict[str, Path]
) -> None:
    """RoBERTa numbers positions from 2, so 130 rows are 128 tokens."""
    config = tiny_config("roberta", "cls", vectors, checkpoints["roberta"], n_ctx=129)
    with pytest.raises(ConfigError, match="takes at most 128 tokens"):
        loop.train(config, loaded, tmp_path / "model")


@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_a_feature_based_transformer_is_left_as_it_is(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoints: dict[str, Path], kind: str
) -> None:
    more = {"bert_use_feature_based": True, "epoch": 1}
    config = tiny_config(kind, "cls", vectors, checkpoints[kind], **more)
    bundle = loop.train(config, loaded, tmp_path / "model")
    trained = load_file(bundle.folder / WEIGHTS)
    before = pretrained.PRETRAINED[kind](config, []).state
    kept = {name.removeprefix("embedding."): value for name, value in trained.items()}
    common = before.keys() & kept.keys()
    assert len(common) > 20
    assert all(torch.equal(before[name], kept[name]) for name in common)


def test_bart_classifies_by_the_state_that_its_authors_take(
    vectors: Path, checkpoints: dict[str, Path]
) -> None:
    """That of the last token, </s>, in the decoder: as transformers' own classifier finds it."""
    from transformers import BartForSequenceClassification
    from transformers.utils import logging

    config = tiny_config("bart", "cls", vectors, checkpoints["bart"])
    start = pretrained.transformer(config, [])
    ours = Classifier(config, start.shape, 2).eval()
    ours.embedding.load_state_dict(start.state)
    logging.set_verbosity_error()  # its head is new, and not looked at
    theirs = BartForSequenceClassification.from_pretrained(checkpoints["bart"]).eval()
    taken: list[torch.Tensor] = []
    theirs.classification_head.register_forward_hook(lambda _, given, __: taken.append(given[0]))
    rows = start.tokenizer.encode_batch(["the film is great", "boring", "a b c d e f"])
    ids, mask = pad_batch(rows, start.tokenizer.pad_id)
    with torch.inference_mode():
        theirs(ids, attention_mask=mask.to(torch.int64))
        state = ours.encoder(ours.embedding(ids, mask), mask)
    assert torch.allclose(state, taken[0], atol=1e-5)
    assert not torch.allclose(state[0], state[1], atol=1e-2)


def test_a_checkpoint_without_a_pooler_loads_without_a_scare(
    tmp_path: Path,
    vectors: Path,
    checkpoint: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """SpanBERT's have none; the library would report newly initialised weights."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "spanbert"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    pretrained.PRETRAINED["bert"](tiny_config("bert", "cls", vectors, folder), [])
    assert capfd.readouterr() == ("", "")


def test_a_damaged_or_foreign_checkpoint_is_refused(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoints: dict[str, Path]
) -> None:
    damaged = Path(shutil.copytree(checkpoints["bert"], tmp_path / "damaged"))
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[:1000])
    config = tiny_config("bert", "cls", vectors, damaged)
    with pytest.raises(ConfigError, match="cannot load the checkpoint"):
        loop.train(config, loaded, tmp_path / "model")
    config = tiny_config("bert", "cls", vectors, checkpoints["distilbert"])
    with pytest.raises(ConfigError, match="is of type 'distilbert'"):
        loop.train(config, loaded, tmp_path / "model")
