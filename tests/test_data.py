"""The data contract: what is fine, what is refused with its line, and what a split promises."""

from collections import Counter
from pathlib import Path

import pytest

from model_src.errors import DataError
from train import data
from train.data import Example

GOOD_FILES = {
    "plain.tsv": b"a b\tx\nc\ty\n",
    "crlf and blanks.txt": b"a b  \tx  \r\nc\ty \r\n",
    "no last newline.txt": b"a b\tx\nc\ty",
    "mark.tsv": b"\xef\xbb\xbfa b\tx\nc\ty\n",
    "blank end.txt": b"a b\tx\nc\ty\n\n \n",
    "header.tsv": b"sentence\tlabel\na b\tx\nc\ty\n",
    "table.csv": b'\xef\xbb\xbflabel,text\r\nx,a b\r\ny,"c"\r\n',
    "objects.jsonl": b'{"text": "a b", "label": "x"}\n{"label": "y", "text": "c", "id": 3}',
}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_harmless_differences_read_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD_FILES[name])
    assert data.read(tmp_path / name) == [Example("a b", "x"), Example("c", "y")]


def test_a_header_in_the_wrong_order_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"label\ttext\nx\ta film\n")
    with pytest.raises(DataError, match="line 1: the columns are the wrong way round"):
        data.read(tmp_path / "a.tsv")


def test_a_quoted_csv_field_may_hold_commas_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,label\n"one, ""two""\nthree",x\n,y\n')
    with pytest.raises(DataError, match="line 4: the text is empty"):
        data.read(tmp_path / "a.csv")
    dropped: Counter[str] = Counter()
    assert data.read(tmp_path / "a.csv", dropped) == [Example('one, "two"\nthree', "x")]
    assert dropped == {"the text is empty": 1}


BAD_LINES = {
    ("empty sentence", "a.tsv"): (b"a\tx\n\ty\n", "line 2: the text is empty"),
    ("blank line", "a.txt"): (b"a\tx\n\nb\ty\n", "line 2: the text is empty"),
    ("missing label", "a.tsv"): (b"a\tx\nb\n", "line 2: the label is missing"),
    ("blank label", "a.tsv"): (b"a\tx\nb\t \n", "line 2: the label is missing"),
    ("two tabs", "a.tsv"): (b"a\tx\nb\tc\ty\n", "line 2: 2 tabs instead of 1"),
    ("label with a tab", "a.csv"): (
        b'text,label\na,x\nb,"y\tz"\n',
        "line 3: the label holds a tab",
    ),
    ("not UTF-8", "a.txt"): (b"a\tx\n\xff\xfe\ty\n", "line 2: invalid UTF-8"),
    ("a quoted line that is not UTF-8", "a.csv"): (
        b'text,label\na,x\n"b\n\xff\nc",y\n',
        "line 3: invalid UTF-8",
    ),
    ("second header", "a.tsv"): (b"text\tlabel\na\tx\ntext\tlabel\n", "line 3: duplicate header"),
    ("second csv header", "a.csv"): (b"text,label\na,x\ntext,label\n", "line 3: duplicate header"),
    ("short csv row", "a.csv"): (b"text,label\na,x\nb\n", "line 3: 1 columns instead of 2"),
    ("broken JSON", "a.jsonl"): (b'{"text":"a","label":"x"}\n{"text":\n', "line 2: no valid JSON"),
    ("JSON list", "a.jsonl"): (b'{"text":"a","label":"x"}\n[1]\n', "line 2: no JSON object"),
    ("JSON key twice", "a.jsonl"): (
        b'{"text":"a","label":"x"}\n{"text":"a","label":"x","label":"y"}',
        "line 2: a key occurs twice",
    ),
    ("JSON no label", "a.jsonl"): (b'{"text":"a","label":"x"}\n{"text":"a"}', "line 2: the label"),
    ("JSON number text", "a.jsonl"): (
        b'{"text":"a","label":"x"}\n{"text":1,"label":"x"}',
        "line 2",
    ),
    ("half surrogate", "a.jsonl"): (
        b'{"text":"a","label":"x"}\n{"text":"\\ud800","label":"x"}',
        "line 2: the text holds half of a surrogate pair",
    ),
}


@pytest.mark.parametrize("case", BAD_LINES, ids=lambda case: case[0])
def test_a_bad_line_is_refused_with_its_number_or_dropped(
    tmp_path: Path, case: tuple[str, str]
) -> None:
    content, said = BAD_LINES[case]
    path = tmp_path / case[1]
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        data.read(path)
    assert str(path) in str(caught.value)
    dropped: Counter[str] = Counter()
    kept = data.read(path, dropped)
    assert kept[0] == Example("a", "x")
    assert dropped.total() == 1


@pytest.mark.parametrize(
    "content",
    [
        b'text,label\na,x\n"' + b"b" * 200_000,
        b"text,label\na,x\rb,y",
        b'text,label\n"good,x\nbad,y\n"nice",x\n',  # else three rows would be one
        b'text,label\ngood,x\n"bad,y\nworse,y\n',
    ],
)
def test_a_csv_that_cannot_be_parsed_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.csv, line \d+: "):
        data.read(tmp_path / "a.csv")


def test_blanks_at_the_ends_of_csv_lines_are_harmless(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'"text","label" \r\n"a ""film""","x" \n"two\nlines","y"\t\n')
    found = data.read(tmp_path / "a.csv")
    assert found == [Example('a "film"', "x"), Example("two\nlines", "y")]


def test_a_text_of_a_csv_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\n{'b' * 200_000},x\n", encoding="utf-8")
    assert len(data.read(tmp_path / "a.csv")[0].text) == 200_000


def test_only_the_first_five_offenders_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tx\n" + "no label\n" * 8, encoding="utf-8")
    with pytest.raises(DataError, match="8 bad lines") as caught:
        data.read(tmp_path / "a.tsv")
    assert "line 6" in str(caught.value)
    assert "line 7" not in str(caught.value)
    assert "and 3 more" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"text,label,text\n", "more than once the column 'text'"),
        (b"text,lable\n", "lacks the column 'label'"),
        (b"", "lacks the column 'text'"),
        (b"text,label,\xff\n", "invalid UTF-8"),
    ],
)
def test_a_wrong_csv_header_is_refused(tmp_path: Path, header: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(header + b"a,x,b\n" * bool(header))
    with pytest.raises(DataError, match=said):
        data.read(tmp_path / "a.csv")


def directory(tmp_path: Path, **splits: str) -> Path:
    for name, content in {"train": "a\tx\nb\ty\n", "valid": "a\tx\n", "test": "b\ty\n"}.items():
        (tmp_path / f"{name}.tsv").write_text(splits.get(name, content), encoding="utf-8")
    return tmp_path


def test_a_label_unseen_in_train_is_refused_or_dropped(tmp_path: Path) -> None:
    folder = directory(tmp_path, test="b\ty\nc\tz\n")
    with pytest.raises(DataError, match="line 2: label unseen in train: 'z'"):
        data.load(folder)
    assert data.load(folder, skip_bad=True).dropped == {"label unseen in train": 1}


def test_a_directory_with_holes_or_doubles_is_refused(tmp_path: Path) -> None:
    folder = directory(tmp_path)
    (folder / "test.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv and test\.csv"):
        data.load(folder)
    (folder / "test.csv").unlink()
    (folder / "test.tsv").unlink()
    with pytest.raises(DataError, match="lacks its test split"):
        data.load(folder)
    with pytest.raises(DataError, match="there is no data directory"):
        data.load(folder / "nowhere")


def test_too_few_sentences_are_not_split() -> None:
    with pytest.raises(DataError, match="too few to split"):
        data.split([Example("a", "x"), Example("b", "y")], 0)


def test_labels_of_few_sentences_are_in_every_part() -> None:
    """As intents often are; one of each is learned."""
    many = [Example(f"text {i} of {j}", f"label {j}") for j in range(200) for i in range(5)]
    parts = data.split(many, 0)
    assert {each.label for each in parts["train"]} == {each.label for each in many}
    assert all(len(parts[name]) == 80 for name in ("valid", "test"))
    rare = [Example(f"more {i} of {j}", f"{j}") for j in range(80) for i in range(5)]
    frequent = [Example(f"text {i}", str(i % 2 + 100)) for i in range(600)]
    assert len({each.label for each in data.split(rare + frequent, 0)["test"]}) > 20


def test_a_label_that_only_one_of_two_equal_sentences_has_is_learned() -> None:
    clear = [Example(f"{label} {i}", label) for label in "xy" for i in range(40)]
    for seed in range(20):
        train = data.split([*clear, Example("x 3", "z")], seed)["train"]
        assert Example("x 3", "z") in train


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_header_counts_however_it_is_spelt(tmp_path: Path, name: str, mark: str) -> None:
    (tmp_path / name).write_text(f"Text{mark}Label\nfine{mark}x\n", encoding="utf-8")
    assert data.read(tmp_path / name) == [Example("fine", "x")]


@pytest.mark.parametrize("label", ["true", "1.5"])
def test_a_label_of_another_type_is_named(tmp_path: Path, label: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "label": {label}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"the label is (True|1\.5), but must be text"):
        data.read(tmp_path / "a.jsonl")


def test_labels_a_model_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data has the label 'y'"):
        data.refuse_unknown_labels(data.load(directory(tmp_path)), ["x", "z"])


def test_one_label_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 2 are needed"):
        data.load(directory(tmp_path, train="a\tx\n"))


def test_a_split_is_deterministic_stratified_and_free_of_leaks() -> None:
    # the last hundred repeat the first but for blanks, which writing would make equal
    examples = [
        Example(" " * (i // 900) + f"{i % 900}", "rare" if i % 900 < 90 else "often")
        for i in range(1000)
    ]
    parts = data.split(examples, 42)
    assert parts == data.split(examples, 42) != data.split(examples, 43)
    assert sorted(example for part in parts.values() for example in part) == sorted(examples)
    texts = [{example.text.strip() for example in part} for part in parts.values()]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    distinct = {
        name: {e.text.strip() for e in part if e.label == "rare"} for name, part in parts.items()
    }
    assert {name: len(found) for name, found in distinct.items()} == {
        "train": 72,
        "valid": 9,
        "test": 9,
    }
