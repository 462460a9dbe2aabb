"""The one typed configuration: a JSON file from configs/ plus ``--key=value`` overrides."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from model_src.errors import ConfigError, nearest

_COUNTS = (
    *("n_ctx", "num_filters", "fc_hidden_size"),
    *("densenet_first_num_filters", "densenet_num_filters", "densenet_last_num_filters"),
    *("dsa_num_attentions", "dsa_dim", "dsa_r"),
    *("batch_size", "gradient_accumulation_steps", "epoch", "patience", "lr_decay_steps"),
)


def _odd_rows(rows: list[list[int]]) -> bool:
    sizes = [size for row in rows for size in row]
    return len({len(row) for row in rows}) == 1 and all(s > 0 and s % 2 for s in sizes or [0])


# Which values fit which keys, and how to say it.
_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (_COUNTS, lambda v: 1 <= v < 2**31, "at least 1"),
    (
        ("seed", "vocab_size", "min_count", "weight_decay", "r_drop", "distill_copies"),
        lambda v: 0 <= v < 2**31,
        "0 or more",
    ),
    (
        ("dropout", "embedding_dropout", "word_dropout", "label_smoothing", "warmup_ratio"),
        lambda v: 0 <= v < 1,
        "in [0, 1)",
    ),
    (("distill_weight",), lambda v: 0 <= v <= 1, "in [0, 1]"),
    (
        ("lr", "max_grad_norm", "lr_decay_rate", "distill_temperature"),
        lambda v: 0 < v < math.inf,
        "above 0 and finite",
    ),
    (("amp_dtype",), lambda v: v in {"bfloat16", "float16"}, "bfloat16 or float16"),
    (("kernel_sizes",), lambda v: v and min(v) >= 1, "sizes of 1 or more"),
    (("densenet_kernels",), _odd_rows, "rows of equally many odd sizes"),
)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class _Readers(NamedTuple):
    """Who reads a key: a title for help and errors, and the values of emb_class or enc_class."""

    title: str
    classes: frozenset[str]


_CONVOLUTIONS = _Readers("cnn, densenet-cnn", frozenset({"cnn", "densenet-cnn"}))
_HIDDEN = _Readers("cnn, densenet-dsa", frozenset({"cnn", "densenet-dsa"}))
_DENSENET = _Readers("densenet-cnn, densenet-dsa", frozenset({"densenet-cnn", "densenet-dsa"}))
_ATTENTION = _Readers("densenet-dsa", frozenset({"densenet-dsa"}))
_GLOVE = _Readers("GloVe", frozenset({"glove"}))
# The table of families would say it, but imports torch; a test holds both against each other.
_BERT = _Readers(
    "transformers",
    frozenset({"bert", "albert", "roberta", "bart", "electra", "distilbert", "mpnet"}),
)


def _key(
    default: Any,  # noqa: ANN401 - a field default is of any type
    text: str,
    readers: _Readers | None = None,
) -> Any:  # noqa: ANN401
    """Declare a key with its default, its one line of help and who reads it (None: all)."""
    about = {"help": f"{readers.title}: {text}" if readers else text, "readers": readers}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a model is and how it is trained; names follow the original iclassifier."""

    # the model
    emb_class: str = field(metadata={"help": "embedding family, e.g. glove or bert"})
    enc_class: str = field(metadata={"help": "encoder on top of it, e.g. cnn or cls"})
    multi_label: bool | None = _key(
        None, "any number of labels a sentence, not exactly one; by default as the data has them"
    )
    n_ctx: int = _key(100, "longest input in tokens; the rest is cut off")
    dropout: float = _key(0.2, "dropout before the last layer")
    num_filters: int = _key(256, "filters for each kernel size", _CONVOLUTIONS)
    kernel_sizes: list[int] = _key([2, 3, 4, 5, 6], "kernel sizes in tokens", _CONVOLUTIONS)
    fc_hidden_size: int = _key(256, "width of the hidden layer", _HIDDEN)
    densenet_kernels: list[list[int]] = _key(
        [[1, 1], [3, 3], [3, 5], [3, 7], [3, 9]],
        "a row a depth, a size a column",
        _DENSENET,
    )
    densenet_first_num_filters: int = _key(200, "filters of the first row", _DENSENET)
    densenet_num_filters: int = _key(100, "filters of the other rows", _DENSENET)
    densenet_last_num_filters: int = _key(400, "filters that join the columns", _DENSENET)
    dsa_num_attentions: int = _key(8, "attentions side by side", _ATTENTION)
    dsa_dim: int = _key(300, "values an attention", _ATTENTION)
    dsa_r: int = _key(2, "iterations", _ATTENTION)

    # word vectors
    embedding_path: str = _key(
        "glove.6B.50d",
        "text file, or the packaged glove.6B.50d or glove.6B.100d",
        _GLOVE,
    )
    lowercase: bool = _key(True, "lower-case the text", _GLOVE)
    vocab_size: int = _key(
        50_000,
        "most frequent words kept beside those of train; all if the file has fewer",
        _GLOVE,
    )
    min_count: int = _key(
        0,
        "words without a vector get one if this often in train; 0: they share one",
        _GLOVE,
    )
    embedding_trainable: bool = _key(False, "train the vectors too", _GLOVE)
    embedding_dropout: float = _key(0.0, "dropout on the vectors", _GLOVE)

    # transformers
    bert_model_name_or_path: str = _key(
        "", "folder, packaged name or hub name of the checkpoint", _BERT
    )
    bert_do_lower_case: bool | None = _key(None, "override the checkpoint's lower-casing", _BERT)
    bert_use_feature_based: bool = _key(False, "leave the transformer as it is", _BERT)
    bert_remove_layers: list[int] = _key([], "indexes of layers to drop, e.g. 8,9,10,11", _BERT)

    # training
    batch_size: int = _key(64, "sentences a batch, over all processes")
    gradient_accumulation_steps: int = _key(1, "batches a step")
    epoch: int = _key(8, "most epochs")
    patience: int = _key(7, "epochs without gain on valid before stopping")
    lr: float = _key(1e-3, "peak learning rate")
    lr_decay_rate: float = _key(1.0, "factor on lr after lr_decay_steps epochs without gain")
    lr_decay_steps: int = _key(2, "epochs without gain on valid before that")
    warmup_ratio: float = _key(0.1, "share of all steps that warm up")
    weight_decay: float = _key(0.01, "AdamW weight decay")
    max_grad_norm: float = _key(1.0, "gradient clipping")
    label_smoothing: float = _key(0.0, "label smoothing")
    word_dropout: float = _key(0.0, "share of words replaced by the mask or unknown word")
    r_drop: float = _key(
        0.0, "R-Drop: weight of the agreement of two passes, each with its own dropout; 0: one pass"
    )
    class_weights: bool = _key(False, "weigh labels by the inverse of their frequency")
    distill_weight: float = _key(1.0, "teacher: its share in the loss; at 1 labels play no part")
    distill_temperature: float = _key(2.0, "teacher: softness of both distributions")
    distill_copies: int = _key(0, "teacher: altered copies of each sentence that it labels too")
    use_amp: bool | None = _key(None, "autocast; by default on a GPU, and on a CPU with bf16")
    amp_dtype: str = _key("bfloat16", "autocast to bfloat16 or float16")
    seed: int = _key(42, "seed of initialisation, order and dropout")

    @classmethod
    def load(cls, path: Path, overrides: dict[str, str] | None = None) -> Self:
        """Read ``path`` and apply ``overrides`` (key to its text form).

        Raises:
            ConfigError: for an unreadable file, an unknown key or a value of another type.

        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            siblings = [p.name for p in path.parent.glob("*.json")]
            raise ConfigError(f"no config file {path}{nearest(path.name, siblings)}") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read {path} as JSON: {error}") from None
        if not isinstance(raw, dict):
            raise ConfigError(f"{path} must hold one JSON object, not {type(raw).__name__}")
        values: dict[str, Any] = {
            key: _typed(cls, key, value, str(path)) for key, value in raw.items()
        }
        for key, text in (overrides or {}).items():
            values[key] = _typed(cls, key, text, "the command line")
        missing = [f.name for f in dataclasses.fields(cls) if _required(f) and f.name not in values]
        if missing:
            raise ConfigError(f"{path} lacks the key {missing[0]!r}")
        return cls(**values)

    def with_text(self, overrides: dict[str, str]) -> Self:
        """Return a copy with ``overrides`` (key to its text form); raises ConfigError."""
        cls, source = type(self), "the command line"
        typed: dict[str, Any] = {k: _typed(cls, k, text, source) for k, text in overrides.items()}
        return dataclasses.replace(self, **typed)

    def refuse_idle(
        self, keys: Collection[str], source: str, classes: Collection[str] | None = None
    ) -> None:
        """Refuse what was asked for by name and has no effect on this model.

        Args:
            keys: the keys asked for, not those of a file: that of a model directory has them all.
            source: where they were asked for.
            classes: all that emb_class and enc_class may be, as in a search; else those here.

        Raises:
            ConfigError: for the first key that none of these classes reads.

        """
        classes = classes or {self.emb_class, self.enc_class}
        for f in dataclasses.fields(self):
            readers = f.metadata.get("readers")
            if f.name in keys and readers and readers.classes.isdisjoint(classes):
                raise ConfigError(
                    f"{f.name} from {source} is for {readers.title} only and has no effect on "
                    f"{', '.join(sorted(classes))}: leave it out"
                )

    def __post_init__(self) -> None:
        """Refuse values outside their range; raises ConfigError."""
        for keys, fits, text in _RANGES:
            for key in keys:
                if not fits(getattr(self, key)):
                    raise ConfigError(f"{key} is {getattr(self, key)}, but must be {text}")

    def to_json(self) -> str:
        """Return the JSON text that ``load`` reads back as an equal config."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def _required(f: "dataclasses.Field[Any]") -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _typed(cls: type, key: str, value: object, source: str) -> object:
    """Return ``value`` (JSON, or text from an override) as the type of ``key``."""
    hints = typing.get_type_hints(cls)
    if key not in hints:
        raise ConfigError(f"unknown key {key!r} in {source}{nearest(key, hints)}")
    hint = hints[key]
    is_text = source == "the command line"
    try:
        return _from_text(hint, str(value)) if is_text else _from_json(hint, value)
    except (KeyError, TypeError, ValueError):
        name = getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
        name = "true, false or none" if hint == bool | None else f"of type {name}"
        raise ConfigError(f"{key} from {source} is {value!r}, but must be {name}") from None


def _from_json(hint: Any, value: Any) -> object:  # noqa: ANN401 - any JSON value
    if isinstance(hint, types.UnionType):
        return None if value is None else _from_json(typing.get_args(hint)[0], value)
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            raise TypeError
        return [_from_json(typing.get_args(hint)[0], item) for item in value]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value


def _from_text(hint: Any, text: str) -> object:  # noqa: ANN401 - any type hint
    if isinstance(hint, types.UnionType):
        return None if text.lower() == "none" else _from_text(typing.get_args(hint)[0], text)
    if typing.get_origin(hint) is list:
        inner = typing.get_args(hint)[0]
        mark = ";" if typing.get_origin(inner) is list else ","
        return [_from_text(inner, part) for part in text.split(mark) if part.strip()]
    if hint is bool:
        return _BOOLEANS[text.lower()]
    return hint(text)
