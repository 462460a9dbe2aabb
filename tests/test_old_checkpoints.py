"""Checkpoints of 2019 and 2020, whose folders say less than transformers asks for today."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_src.config import Config
from model_src.predictor import Predictor
from tests.conftest import ODD_TEXTS, ROOT, tiny_config
from train import loop, pretrained
from train.data import Data


def old_form(checkpoint: Path, folder: Path, words: list[str]) -> Path:
    """Write a checkpoint as those of 2019 are; the last rows of the vocabulary become ``words``."""
    folder.mkdir()
    weights = load_file(checkpoint / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    torch.save(kept, folder / "pytorch_model.bin")
    settings = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    for key in ("model_type", "architectures", "dtype", "transformers_version"):
        settings.pop(key, None)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    state = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    ids = state["model"]["vocab"]
    vocabulary = sorted(ids, key=ids.__getitem__)
    vocabulary[len(vocabulary) - len(words) :] = words
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")
    return folder


def test_a_checkpoint_that_does_not_name_its_type_loads(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As SpanBERT's and the small ones of Google: transformers refuses a config without one."""
    config = tiny_config("bert", "cls", vectors, old_form(checkpoint, tmp_path / "old", []))
    old = pretrained.PRETRAINED["bert"](config, [])
    assert capfd.readouterr() == ("", "")
    new = pretrained.PRETRAINED["bert"](tiny_config("bert", "cls", vectors, checkpoint), [])
    texts = [*ODD_TEXTS, *(example.text for example in loaded.train)]
    assert old.tokenizer.encode_batch(texts) == new.tokenizer.encode_batch(texts)
    assert old.state.keys() == new.state.keys()
    assert all(torch.equal(value, new.state[name]) for name, value in old.state.items())
    loop.train(dataclasses.replace(config, epoch=1), loaded, tmp_path / "model")
    assert Predictor.load(tmp_path / "model").predict(["great"])


@pytest.mark.parametrize("name", ["spanbert-cls", "spanbert-cnn"])
def test_spanbert_is_read_as_cased(tmp_path: Path, checkpoint: Path, name: str) -> None:
    """Its checkpoint does not say so, and transformers would lower-case."""
    folder = old_form(checkpoint, tmp_path / "old", ["Paris", "paris"])
    more = {"bert_model_name_or_path": str(folder), "n_ctx": "40"}
    config = Config.load(ROOT / "configs" / f"config-{name}.json", more)
    upper, lower = pretrained.PRETRAINED["bert"](config, []).tokenizer.encode_batch(
        ["Paris", "paris"]
    )
    assert len(upper) == len(lower) == 3
    assert upper != lower
