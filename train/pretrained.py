"""Where training starts: word vectors and checkpoints become an embedding with its tokenizer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from model_src.config import Config
from model_src.embeddings import EMBEDDINGS
from model_src.errors import ConfigError
from model_src.tokenizer import FILE, SubwordTokenizer, Tokenizer, WordTokenizer
from train import checkpoints, vectors


@dataclass(frozen=True)
class Pretrained:
    """What an embedding is built from, and the weights it starts with."""

    shape: dict[str, Any]
    tokenizer: Tokenizer
    state: dict[str, Tensor]


def glove(config: Config, texts: list[str]) -> Pretrained:
    """Start with the vectors of the words that ``config`` and ``texts`` choose."""
    vocabulary, rows = vectors.table(config, texts)
    tokenizer = WordTokenizer(vocabulary, lowercase=config.lowercase, n_ctx=config.n_ctx)
    shape = {"vocab_size": len(vocabulary), "hidden_size": rows.shape[1]}
    return Pretrained(shape, tokenizer, {"table.weight": torch.from_numpy(rows)})


def transformer(config: Config, texts: list[str]) -> Pretrained:
    """Read a checkpoint from a folder, by a packaged name or from the hub.

    Raises:
        ConfigError: when it is not there, lacks weights, or is shorter than ``n_ctx``.

    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    name = config.bert_model_name_or_path
    if not name:
        raise ConfigError(f"{config.emb_class} needs --bert_model_name_or_path: a folder or a name")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, local = checkpoints.find(name)
    place: dict[str, Any] = {"local_files_only": local}
    try:
        place["config"] = _settings(source, config.emb_class, local=local)
        model, info = AutoModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, **place
        )
        path = Path(source)
        if (path / FILE).exists():
            tokenizer = SubwordTokenizer.load(path)
        else:
            found = AutoTokenizer.from_pretrained(source, **place)
            tokenizer = SubwordTokenizer(found.backend_tokenizer)
    except (
        # the last four are of tokenizers in Python, which need packages or have no fast form
        *(OSError, RuntimeError, ValueError, SafetensorError),
        *(ImportError, AttributeError, KeyError, TypeError),
    ) as reason:
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


def _settings(source: str, kind: str, *, local: bool) -> Any:  # noqa: ANN401 - any config of transformers
    """Return the config of a checkpoint that does not name its type as one of ``kind``, else None.

    Those of 2019 and 2020, such as SpanBERT's, name none, and transformers refuses them.
    """
    from transformers import AutoConfig, PreTrainedConfig

    raw, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local)
    return None if "model_type" in raw else AutoConfig.for_model(kind, **raw)


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
