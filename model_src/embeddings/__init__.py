"""The table of embedding families: how each turns ids into vectors and text into ids."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model_src.config import Config
from model_src.embeddings.glove import GloveEmbedding
from model_src.embeddings.transformer import BartEmbedding, TransformerEmbedding
from model_src.interfaces import Embedding
from model_src.tokenizer import SubwordTokenizer, WordTokenizer


@dataclass(frozen=True)
class Family:
    """One entry: everything that differs between embedding families at run time."""

    build: Callable[[Config, dict[str, Any]], Embedding]
    tokenizer: type[WordTokenizer] | type[SubwordTokenizer]
    encoders: tuple[str, ...]
    handler: str


_WORDS = Family(GloveEmbedding, WordTokenizer, ("cnn", "densenet-cnn", "densenet-dsa"), "glove")
_SUBWORDS = Family(TransformerEmbedding, SubwordTokenizer, ("cnn", "cls"), "transformer")

# SpanBERT checkpoints are of the class bert; the names are the model types of transformers.
EMBEDDINGS = {
    "glove": _WORDS,
    "bert": _SUBWORDS,
    "albert": _SUBWORDS,
    "roberta": _SUBWORDS,
    "bart": Family(BartEmbedding, SubwordTokenizer, ("cnn", "cls"), "transformer"),
    "electra": _SUBWORDS,
    "distilbert": _SUBWORDS,
    "mpnet": _SUBWORDS,
}
