"""Model directories of real shapes with random weights: latency does not depend on values."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from benchmarks.results import ROOT
from model_src.bundle import WEIGHTS, Bundle, seal
from model_src.classifier import Classifier, state_of
from model_src.config import Config
from model_src.tokenizer import SubwordTokenizer, WordTokenizer, pad_batch
from train import checkpoints, vectors
from train.pretrained import PRETRAINED, Pretrained

_MINILM = "all-MiniLM-L6-v2"
# Sentences that settle the last layer.
_SETTLING = 16
# One filter, attention or value of each kind: what is left is calling the operations.
_ONE = "1"
_BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_BART = {
    "d_model": 768,
    "max_position_embeddings": 1024,
    "vocab_size": 50265,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
}
# The published base models.
SHAPES: dict[str, dict[str, Any]] = {
    "bert": _BASE | {"vocab_size": 30522},
    "spanbert": _BASE | {"vocab_size": 28996},
    "roberta": _BASE | {"vocab_size": 50265, "max_position_embeddings": 514},
    "albert": _BASE | {"vocab_size": 30000, "embedding_size": 128},
    "bart": _BART,
    "electra": _BASE | {"vocab_size": 30522, "embedding_size": 768},
    "distilbert": {"dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12},
    "mpnet": _BASE | {"vocab_size": 30527, "max_position_embeddings": 514},
}
_THIN = {
    "num_filters": _ONE,
    "fc_hidden_size": _ONE,
    "densenet_first_num_filters": _ONE,
    "densenet_num_filters": _ONE,
    "densenet_last_num_filters": _ONE,
    "dsa_dim": _ONE,
}


@dataclass(frozen=True)
class Entry:
    """One model of a table.

    ``config`` is the name of one in configs/, ``options`` override its keys. ``width`` is that of
    random word vectors. ``shape`` is what a transformer of random weights has where the class of
    transformers has another default; without it the checkpoint of the config is read.
    """

    title: str
    config: str
    width: int = 0
    shape: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What of a whole table to measure (all where nothing is named), on how many sentences."""

    sentences: int
    entries: list[str] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)


def config_of(entry: Entry) -> Config:
    """Return the whole config of ``entry``."""
    return Config.load(ROOT / "configs" / f"config-{entry.config}.json", entry.options)


def digest(entry: Entry) -> str:
    """Return the SHA-256 of all that makes the model."""
    parts = {"shape": entry.shape, "width": entry.width, "config": config_of(entry).to_json()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def make(entry: Entry, folder: Path, labels: list[str], texts: list[str]) -> Bundle:
    """Write the model directory ``folder``; ``texts`` choose the words of a word-vector model."""
    config = config_of(entry)
    begin = start(entry, config, texts)
    torch.manual_seed(0)
    model = Classifier(config, begin.shape, len(labels)).eval()
    if begin.state:
        model.embedding.load_state_dict(begin.state)
    _settle(model, begin, texts[:_SETTLING])
    return _write(Bundle(folder, "model", config, labels, begin.shape, begin.tokenizer), model)


def thin(bundle: Bundle, folder: Path) -> Bundle:
    """Write a twin of ``bundle`` with the same operations on hardly any values."""
    shape = dict(bundle.shape)
    if "num_attention_heads" in shape:  # one value a head
        wanted = {"hidden_size", "intermediate_size", "embedding_size"} & set(shape)
        shape |= dict.fromkeys(wanted, shape["num_attention_heads"])
    else:
        shape["hidden_size"] = 1
    config = bundle.config.with_text(_THIN)
    twin = replace(bundle, folder=folder, config=config, shape=shape)
    torch.manual_seed(0)
    return _write(twin, Classifier(config, shape, len(bundle.labels)))


def start(entry: Entry, config: Config, texts: list[str]) -> Pretrained:
    """Return the shape and the tokenizer, and the weights where there is a checkpoint."""
    if entry.width:
        words, _ = vectors.table(config, texts)
        tokenizer = WordTokenizer(words, lowercase=config.lowercase, n_ctx=config.n_ctx)
        return Pretrained({"vocab_size": len(words), "hidden_size": entry.width}, tokenizer, {})
    if not entry.shape:
        return PRETRAINED[config.emb_class](config, texts)
    from transformers import AutoConfig

    # Of all vocabularies this one is at hand; a table has a row for each of its words at least.
    fast = SubwordTokenizer.load(checkpoints.PACKAGED[_MINILM]()).fast
    shape = json.loads(AutoConfig.for_model(config.emb_class, **entry.shape).to_json_string())
    size = max(shape["vocab_size"], fast.get_vocab_size())
    subwords = SubwordTokenizer(fast, n_ctx=config.n_ctx)
    return Pretrained(shape | {"vocab_size": size, "pad_token_id": subwords.pad_id}, subwords, {})


def _settle(model: Classifier, begin: Pretrained, texts: list[str]) -> None:
    """Scale the last layer so that the labels of ``texts`` differ, as those of a trained one do."""
    batch = pad_batch(begin.tokenizer.encode_batch(texts), begin.tokenizer.pad_id)
    with torch.inference_mode():
        logits = model(*batch)
        factor = 2 / logits.std(dim=0).mean()
        model.output.weight.mul_(factor)
        model.output.bias.sub_(logits.mean(dim=0)).mul_(factor)


def _write(bundle: Bundle, model: Classifier) -> Bundle:
    bundle.folder.mkdir(parents=True)
    bundle.write_common(bundle.folder)
    weights = {name: value.contiguous() for name, value in state_of(model).items()}
    (bundle.folder / WEIGHTS).write_bytes(save(weights))
    seal(bundle.folder, "model", (WEIGHTS,))
    return bundle
