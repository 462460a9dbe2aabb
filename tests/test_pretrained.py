"""Checkpoints of transformers: found, read, shortened, or refused in one sentence."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_src.bundle import WEIGHTS
from model_src.classifier import Classifier
from model_src.embeddings import EMBEDDINGS
from model_src.errors import ConfigError
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
from tests.conftest import tiny_config
from train import loop, pretrained
from train.data import Data


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


def test_a_hub_name_fetched_before_is_found_when_the_hub_is_out_of_reach(
    tmp_path: Path, vectors: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the hub's client keeps it: a commit by name, and a folder for each."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept, commit = tmp_path / "models--some--checkpoint", 40 * "a"
    shutil.copytree(checkpoint, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit, encoding="utf-8")
    found, expected = (
        pretrained.transformer(tiny_config("bert", "cls", vectors, name), [])
        for name in (Path("some/checkpoint"), checkpoint)
    )
    assert found.state.keys() == expected.state.keys()
    assert all(torch.equal(value, expected.state[name]) for name, value in found.state.items())
    assert found.tokenizer.encode("great food") == expected.tokenizer.encode("great food")


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
