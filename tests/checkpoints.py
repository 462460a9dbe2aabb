"""Tiny random checkpoints, each built with the config and tokenizer classes of its own family."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "scale_embedding": True,
    "max_position_embeddings": 130,
}
_DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 130}
_FEW = {"embedding_size": 16}


def _wordpiece(special: list[str], corpus: list[str]) -> dict[str, int]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*special, *letters, *(f"##{c}" for c in letters), *" ".join(corpus).split()]
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def _bert(corpus: list[str]) -> Any:  # noqa: ANN401 - any tokenizer of transformers
    from transformers import BertTokenizer

    return BertTokenizer(vocab=_wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], corpus))


def _mpnet(corpus: list[str]) -> Any:  # noqa: ANN401
    from transformers import MPNetTokenizer

    return MPNetTokenizer(vocab=_wordpiece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"], corpus))


def _roberta(corpus: list[str]) -> Any:  # noqa: ANN401
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(corpus, vocab_size=400, special_tokens=special, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        bpe.save_model(folder)
        vocab = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
        lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    return RobertaTokenizer(vocab=vocab, merges=[tuple(line.split()) for line in lines])


def _albert(corpus: list[str]) -> Any:  # noqa: ANN401
    from tokenizers import SentencePieceUnigramTokenizer
    from transformers import AlbertTokenizer

    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    unigram = SentencePieceUnigramTokenizer()
    unigram.train_from_iterator(
        corpus, vocab_size=80, special_tokens=special, unk_token=special[1], show_progress=False
    )
    pieces = json.loads(unigram.to_str())["model"]["vocab"]
    return AlbertTokenizer(vocab=[tuple(piece) for piece in pieces])


# model type: sizes, tokenizer
_FAMILIES: dict[str, tuple[dict[str, int], Callable[[list[str]], Any]]] = {
    "bert": (_SIZES, _bert),
    "albert": (_SIZES | _FEW, _albert),
    "roberta": (_SIZES, _roberta),
    "bart": (_BART, _roberta),
    "electra": (_SIZES | _FEW, _bert),
    "distilbert": (_DISTIL, _bert),
    "mpnet": (_SIZES, _mpnet),
}


def make(kind: str, folder: Path, corpus: list[str]) -> Path:
    """Write a random checkpoint of two layers and 32 values as its library saves it."""
    from transformers import AutoConfig, AutoModel

    sizes, tokenizer_of = _FAMILIES[kind]
    tokenizer = tokenizer_of(corpus)
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
