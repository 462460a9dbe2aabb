"""Words and subwords: known pieces, limits, special tokens as text, and what cannot be labelled."""

import json
import time
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Fast
from tokenizers.normalizers import Replace, Sequence

from model_src import tokenizer
from model_src.bundle import Bundle
from model_src.embeddings import EMBEDDINGS
from model_src.errors import ConfigError
from model_src.text import text_problem
from model_src.tokenizer import (
    CHARACTERS,
    PAD,
    UNK,
    SubwordTokenizer,
    WordTokenizer,
    pad_batch,
    split,
)
from serving import sentences
from tests.conftest import ODD_TEXTS, PAIRS, Models

_BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
_BERT |= {"strip_accents": None, "lowercase": True}


@pytest.fixture
def words() -> WordTokenizer:
    vocabulary = [PAD, UNK, "do", "n't", "it", "'s", "u.s.", "film", "!", "."]
    return WordTokenizer(vocabulary, lowercase=True, n_ctx=6)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It's a FILM!", ["it", "'s", "a", "film", "!"]),
        ("don't", ["do", "n't"]),
        ("U.S. film.", ["u.s.", "film", "."]),
        ("well-made (film)", ["well", "-", "made", "(", "film", ")"]),
        ("  \u3000film\u00a0\tdo ", ["film", "do"]),
        ("한국어영화!", ["한국어영화", "!"]),
    ],
)
def test_text_becomes_the_words_that_have_vectors(
    words: WordTokenizer, text: str, pieces: list[str]
) -> None:
    assert split(text, words.words, lowercase=True) == pieces


def test_ids_are_those_of_the_words_that_a_text_is_split_into(words: WordTokenizer) -> None:
    most = words.n_ctx * CHARACTERS
    ends = [
        "film " * 6,
        "film " * 7,
        "a film's " * 4,
        "x" * most,
        "x" * most + "x",
        " " * most + "x",
    ]
    for text in (*ODD_TEXTS, *ends):
        whole = split(text[:most], words.words, lowercase=True)
        known = [words.words.index(word) if word in words.words[2:] else 1 for word in whole]
        truncated = len(whole) > words.n_ctx or len(text) > most
        assert words.read_batch([text]) == [(known[: words.n_ctx] or [1], truncated)]


def test_special_words_in_text_are_only_text(words: WordTokenizer) -> None:
    assert 0 not in words.encode("<pad> <unk> film")


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_any_text_has_ids_within_the_limit(tiny: Models, pair: tuple[str, str], text: str) -> None:
    bundle = Bundle.read(tiny.models[pair])
    ids = bundle.tokenizer.encode(text)
    assert 1 <= len(ids) <= bundle.config.n_ctx
    assert bundle.tokenizer.encode_batch([text, "a"])[0] == ids
    if pair[0] != "albert":  # its pad is a piece like any other; the mask goes by length
        assert bundle.tokenizer.pad_id not in ids


def test_a_saved_tokenizer_reads_the_same(tmp_path: Path, words: WordTokenizer) -> None:
    words.save(tmp_path)
    again = WordTokenizer.load(tmp_path)
    assert again.encode("It's a film, don't!") == words.encode("It's a film, don't!")


@pytest.mark.parametrize("kind", [k for k, f in EMBEDDINGS.items() if f.handler == "transformer"])
def test_lower_casing_can_be_forced(checkpoints: dict[str, Path], kind: str) -> None:
    file = str(checkpoints[kind] / "tokenizer.json")
    lowered = SubwordTokenizer(Fast.from_file(file), lower=True)
    assert lowered.encode("A GREAT Film") == lowered.encode("a great film")
    kept = SubwordTokenizer(Fast.from_file(file), lower=False)
    assert kept.encode("A GREAT Film") != kept.encode("a great film")


@pytest.mark.parametrize("lowering", [{"type": "Lowercase"}, _BERT], ids=lambda step: step["type"])
@pytest.mark.parametrize("deep", [False, True])
def test_only_the_lower_casing_is_taken_out(
    checkpoint: Path,
    lowering: dict[str, object],
    deep: bool,  # noqa: FBT001
) -> None:
    steps = [lowering, {"type": "StripAccents"}]
    inner = [{"type": "Sequence", "normalizers": steps}] if deep else steps
    state = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    state["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKD"}, *inner]}
    kept = SubwordTokenizer(Fast.from_str(json.dumps(state)), lower=False)
    assert kept.fast.normalizer.normalize_str("ÉTÉ ﬁn") == "ETE fin"


def test_lower_casing_that_cannot_be_taken_out_is_refused(checkpoint: Path) -> None:
    fast = Fast.from_file(str(checkpoint / "tokenizer.json"))
    fast.normalizer = Sequence([Replace("A", "a")])
    with pytest.raises(ConfigError, match=r"bert_do_lower_case is false, but .* leave the option"):
        SubwordTokenizer(fast, lower=False)


def test_a_sentence_becomes_words_within_5_microseconds() -> None:
    """The least of many rounds, which other work on the machine slows down last (1.9 alone)."""
    english = [parts for kind, parts in sentences._PHRASES.items() if kind.startswith("English")]
    texts = [f"{first} {last}" for begin, end in english for first in begin for last in end]
    texts = [text for text in texts if len(text.split()) <= 12]
    assert len(texts) > 100
    known = {word for text in texts for word in split(text, (), lowercase=True)}
    tokenizer = WordTokenizer([PAD, UNK, *sorted(known)], lowercase=True, n_ctx=100)
    rounds = []
    for _ in range(50):
        began = time.perf_counter()
        for text in texts:
            tokenizer.read_batch([text])
        rounds.append((time.perf_counter() - began) / len(texts))
    assert min(rounds) <= 5e-6


def test_padding_is_marked_by_the_mask() -> None:
    ids, mask = pad_batch([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    ids, mask = pad_batch([[1, 2], [3, 4]], 0)
    assert ids.tolist() == [[1, 2], [3, 4]]
    assert mask.tolist() == [[True, True], [True, True]]


def test_the_mask_of_a_sentence_alone_serves_training_after_answers() -> None:
    """It is kept from one call to the next; a mask made in inference mode ends a backward pass."""
    tokenizer._all.cache_clear()
    with torch.inference_mode():
        _, seen = pad_batch([[7] * 11], 0)
    ids, mask = pad_batch([[7] * 11], 0)
    assert seen.tolist() == mask.tolist() == [[True] * 11]
    weights = torch.ones(ids.shape, requires_grad=True)
    weights.masked_fill(mask, 0).sum().backward()


@pytest.mark.parametrize("text", ["", " \t\n", "\u3000", "\ud800", "a \udfff"])
def test_text_without_a_meaning_is_refused(text: str) -> None:
    assert text_problem(text)


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_text_is_accepted(text: str) -> None:
    assert text_problem(text) is None
