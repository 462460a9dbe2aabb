"""Text to ids: words for GloVe, subwords for transformers; the same in training and serving."""

import functools
import json
import re
import string
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from tokenizers import Tokenizer as Fast
from tokenizers.normalizers import BertNormalizer, Lowercase, Normalizer, Sequence
from torch import Tensor

from model_src.errors import BundleError, ConfigError

FILE = "tokenizer.json"

PAD, UNK = "<pad>", "<unk>"

# Characters of a text that are looked at for each token of ``n_ctx``: more than any language has in
# a word. Splitting a text of 1 MB into subwords, of which a hundred are read, would take seconds.
CHARACTERS = 64

# Pieces of a chunk that is not a known word as a whole: the clitics of the Penn Treebank, which
# the GloVe vectors were trained on, then runs of letters and digits, then single signs.
_PIECES = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|m|d|ll|re|ve)\b|\w+|[^\w\s]")


class Encoded(NamedTuple):
    """The ids that the model reads, and whether it had to leave something of the text out."""

    ids: list[int]
    truncated: bool


class Tokenizer(Protocol):
    """What the rest of the code needs of a tokenizer."""

    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, at most ``n_ctx`` of them and at least one."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return ``encode`` of each text."""

    def read_batch(self, texts: list[str]) -> list[Encoded]:
        """Return ``encode`` of each text, and for which of them that is not the whole text."""

    def read_words(self, text: str) -> list[tuple[str, list[int]]]:
        """Return the words that the model reads, each with its positions among the ids."""

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` into ``folder``."""


def split(text: str, known: Container[str], *, lowercase: bool) -> list[str]:
    """Return the words to look up among the ``known``."""
    words: list[str] = []
    for chunk in (text.lower() if lowercase else text).split():
        if chunk in known:
            words.append(chunk)
        else:
            words += _PIECES.findall(chunk)
    return words


class WordTokenizer:
    """Split on blanks; a chunk that is no known word is split once more into its pieces."""

    pad_id = 0

    def __init__(self, words: list[str], *, lowercase: bool, n_ctx: int) -> None:
        """Take the words in the order of their ids, the pad and the unknown word first."""
        if words[:2] != [PAD, UNK]:
            raise BundleError(f"the word list must begin with {PAD} {UNK}, not {words[:2]}")
        self.words, self.lowercase, self.n_ctx = words, lowercase, n_ctx
        # Text that spells a special token is only text: it must not become padding.
        # Of a word listed twice the first row, the more frequent spelling, counts. Put in from the
        # most frequent on, they are found faster where other work has emptied the caches.
        self._ids: dict[str, int] = {}
        for i, word in enumerate(words[2:], start=2):
            self._ids.setdefault(word, i)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, at most ``n_ctx``; words without a vector are 1."""
        return self._read(text).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return ``encode`` of each text."""
        return [self.encode(text) for text in texts]

    def read_batch(self, texts: list[str]) -> list[Encoded]:
        """Return ``encode`` of each text, and for which of them that is not the whole text."""
        return [self._read(text) for text in texts]

    def read_words(self, text: str) -> list[tuple[str, list[int]]]:
        """Return the words looked up, known or not; a text without any is one."""
        words = split(text[: self.n_ctx * CHARACTERS], self._ids, lowercase=self.lowercase)
        words = words[: self.n_ctx] or [text]
        return [(word, [i]) for i, word in enumerate(words)]

    def _read(self, text: str) -> Encoded:
        """Look up each chunk once: a quarter less time than to ``split`` first."""
        get, n_ctx = self._ids.get, self.n_ctx
        most = n_ctx * CHARACTERS
        seen = text[:most]
        ids: list[int] = []
        for chunk in (seen.lower() if self.lowercase else seen).split():
            found = get(chunk)
            if found is None:
                ids += [get(piece, 1) for piece in _PIECES.findall(chunk)]
            else:
                ids.append(found)
        return Encoded(ids[:n_ctx] or [1], len(ids) > n_ctx or len(text) > most)

    def save(self, folder: Path) -> None:
        """Write the word list with its settings."""
        state = {"lowercase": self.lowercase, "n_ctx": self.n_ctx, "words": self.words}
        text = json.dumps(state, ensure_ascii=False)
        (folder / FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what ``save`` wrote."""
        state = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(state["words"], lowercase=state["lowercase"], n_ctx=state["n_ctx"])


class SubwordTokenizer:
    """A Hugging Face ``tokenizer.json``, called without the transformers wrappers (3x faster)."""

    def __init__(self, fast: Fast, *, n_ctx: int | None = None, lower: bool | None = None) -> None:
        """Wrap ``fast``; ``n_ctx`` and ``lower`` override what it says about them.

        Raises:
            ConfigError: when ``lower`` is false and its lower-casing cannot be taken out.

        """
        self.fast = fast
        self.pad_id: int = _pad_id(fast)
        fast.no_padding()
        if n_ctx is not None:
            fast.enable_truncation(n_ctx)
        limit = fast.truncation
        self._most: int = limit["max_length"] * CHARACTERS if limit else sys.maxsize
        normalizer = fast.normalizer
        if lower is not None and isinstance(normalizer, BertNormalizer):
            normalizer.lowercase = lower
            fast.normalizer = normalizer
        elif lower:
            fast.normalizer = Sequence([Lowercase(), *([normalizer] if normalizer else [])])
        elif lower is False and normalizer:
            fast.normalizer = _cased(normalizer)
        # Text that spells a special token is only text: it must not become a mask or a separator.
        fast.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` with its special tokens, at most ``n_ctx``."""
        ids: list[int] = self.fast.encode(text[: self._most]).ids
        return ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return ``encode`` of each text."""
        return [encoded.ids for encoded in self.read_batch(texts)]

    def read_batch(self, texts: list[str]) -> list[Encoded]:
        """Return ``encode`` of each text, and for which of them that is not the whole text."""
        cut = [text[: self._most] for text in texts]
        # One alone is not worth handing to the library's threads.
        encodings = [self.fast.encode(cut[0])] if len(cut) == 1 else self.fast.encode_batch(cut)
        return [
            Encoded(encoding.ids, bool(encoding.overflowing) or len(text) > self._most)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def read_words(self, text: str) -> list[tuple[str, list[int]]]:
        """Return the pieces of the text between which no subword reaches, as they stand there."""
        text = text[: self._most]
        encoding = self.fast.encode(text)
        places: dict[int, list[int]] = {}
        for i, word in enumerate(encoding.word_ids):
            if word is not None:  # as special tokens are
                places.setdefault(word, []).append(i)
        spans = [[encoding.offsets[i] for i in positions] for positions in places.values()]
        texts = [text[min(a for a, _ in span) : max(b for _, b in span)].strip() for span in spans]
        return list(zip(texts, places.values(), strict=True))

    def save(self, folder: Path) -> None:
        """Write the tokenizer with its truncation and normalizer."""
        self.fast.save(str(folder / FILE))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a ``tokenizer.json``; raises BundleError when the library cannot read it."""
        try:
            return cls(Fast.from_file(str(folder / FILE)))
        except Exception as reason:  # noqa: BLE001 - the library raises bare Exception
            raise BundleError(f"cannot read {folder / FILE}: {reason}") from None


def _cased(normalizer: Normalizer) -> Normalizer:
    """Return ``normalizer`` without its lower-casing; all its other steps stay."""
    # By its JSON: the library hands out a sequence within a sequence as a copy without an end.
    made = Sequence([])
    made.__setstate__(
        json.dumps(_without_lowercase(json.loads(normalizer.__getstate__()))).encode()
    )
    if any(letter.islower() for letter in made.normalize_str(string.ascii_uppercase)):
        raise ConfigError(
            "bert_do_lower_case is false, but the checkpoint's tokenizer lower-cases in a step "
            f"that cannot be taken out ({made}): leave the option out, or take a cased checkpoint"
        )
    return made


def _without_lowercase(step: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a normalizer that keeps the case, steps within steps included."""
    match step["type"]:
        case "Lowercase":
            return {"type": "Sequence", "normalizers": []}
        case "BertNormalizer":
            return step | {"lowercase": False}
        case "Sequence":
            return step | {"normalizers": [_without_lowercase(s) for s in step["normalizers"]]}
        case _:
            return step


def _pad_id(fast: Fast) -> int:
    """Return the id that pads; the mask hides it, so 0 serves where none is named."""
    named = [fast.token_to_id(token) for token in ("[PAD]", "<pad>")]
    return next((i for i in named if i is not None), 0)


def pad_batch(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad to the longest row: ids ``[batch, seq]`` int64 and mask ``[batch, seq]`` bool.

    The mask may be shared by all batches of its shape: nobody may write into it.
    """
    lengths = {*map(len, rows)}
    # By numpy, which reads lists in a third of the time that torch takes.
    if len(lengths) == 1:
        return torch.from_numpy(np.array(rows, dtype=np.int64)), _all(len(rows), *lengths)
    ids = np.full((len(rows), max(lengths)), pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=np.bool_)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    return torch.from_numpy(ids), torch.from_numpy(mask)


@functools.lru_cache(maxsize=1024)
def _all(batch: int, length: int) -> Tensor:
    """Return a mask that hides nothing.

    A tenth of a lone answer's time is saved by not making it: other work in between leaves the
    caches without torch's code.
    """
    with torch.inference_mode(mode=False):  # so that training may use it too
        return torch.from_numpy(np.ones((batch, length), dtype=np.bool_))
