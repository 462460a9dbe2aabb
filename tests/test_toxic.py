"""Jigsaw's three files become a data directory, and other files are refused."""

import json
from pathlib import Path

import pytest

from model_src.errors import DataError
from train import data, toxic
from train.datasets import DATASETS, fetch


def put(folder: Path, name: str, header: str, rows: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


COLUMNS = ",".join(toxic.LABELS)


@pytest.fixture
def jigsaw(tmp_path: Path) -> Path:
    """The three files in Jigsaw's shape with few rows: 40 to train on, 3 of 4 to test scored."""
    folder = tmp_path / "toxic"
    rows = [f'{i:x},"comment ""{i}"",\n\nnext line",{i % 2},0,{i % 2},0,0,0' for i in range(40)]
    put(folder, "train.csv", f"id,comment_text,{COLUMNS}", rows)
    put(folder, "test.csv", "id,comment_text", ["a,one", "b,two", "c,three", "d,four"])
    labels = ["d,0,0,0,0,0,0", "c,1,0,1,0,0,0", "b,-1,-1,-1,-1,-1,-1", "a,1,0,0,0,0,0"]
    put(folder, "test_labels.csv", f"id,{COLUMNS}", labels)
    return folder


FEW = toxic.Rows(train=40, test=4, scored=3)


def files(folder: Path) -> list[Path]:
    return [folder / name for name in DATASETS["toxic"].files]


def test_toxic_joins_test_with_its_labels_and_splits_valid_off(
    jigsaw: Path, tmp_path: Path
) -> None:
    parts = toxic.parts(files(jigsaw), FEW)
    parts |= data.split(parts["train"], 42, ("valid",))
    assert [example[:2] for example in parts["test"]] == [
        ("four", ""),
        ("three", "obscene|toxic"),
        ("one", "toxic"),
    ]
    assert {name: len(part) for name, part in parts.items()} == {"train": 36, "valid": 4, "test": 3}
    assert sorted(example.label for example in parts["valid"]) == ["", ""] + ["obscene|toxic"] * 2
    assert 'comment "7", next line' in {e.text for e in parts["train"] + parts["valid"]}
    data.write_splits(tmp_path, parts)
    assert data.load(tmp_path).labels == ["obscene", "toxic"]


def test_toxic_files_that_are_others_are_refused(jigsaw: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv has 40 rows instead of 159571"):
        toxic.parts(files(jigsaw))
    with pytest.raises(DataError, match="has 3 scored rows instead of 2"):
        toxic.parts(files(jigsaw), FEW._replace(scored=2))
    wrong = {
        "swapped": ("train.csv", f"comment_text,id,{COLUMNS}", [], "has the header"),
        "short": ("test.csv", "id,comment_text", ["a"], "line 2: not 2 columns"),
        "odd": ("test_labels.csv", f"id,{COLUMNS}", ["a,2,0,0,0,0,0"], "toxic of a is '2'"),
        "foreign": ("test_labels.csv", f"id,{COLUMNS}", ["x,0,0,0,0,0,0"], "has the id 'x'"),
        "open": ("test.csv", "id,comment_text", ['a,"one'], "cannot be read as CSV"),
    }
    for name, header, rows, said in wrong.values():
        content = (jigsaw / name).read_bytes()
        put(jigsaw, name, header, rows)
        with pytest.raises(DataError, match=said):
            toxic.parts(files(jigsaw), FEW)
        (jigsaw / name).write_bytes(content)


def test_toxic_says_which_files_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="jigsaw-toxic-comment-classification-challenge") as caught:
        fetch("toxic", tmp_path)
    assert "put train.csv, test.csv, test_labels.csv from" in str(caught.value)
    assert str(tmp_path / "toxic") in str(caught.value)
    assert json.dumps(toxic.ROWS) == "[159571, 153164, 63978]"
