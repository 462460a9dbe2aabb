"""Any number of labels a sentence: read, split, trained, measured, exported and served."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model_src.bundle import Bundle
from model_src.decode import decode
from model_src.errors import ConfigError, DataError
from model_src.predictor import Predictor
from serving.archive import archive
from serving.client import Client
from serving.server import Server
from tests.conftest import (
    ALLOWED,
    MULTI,
    ODD_TEXTS,
    QUICK,
    TRIGGERS,
    Models,
    read_json,
    tiny_config,
    verb,
)
from train import data
from train.data import Data, Example
from train.evaluate import evaluate
from train.task import TASKS, settle

TEXT = "a dull , charming film"
PAIRS = [("glove", "cnn"), ("bert", "cls")]
EXPORTS = [f"{a}-{b}-{form}" for a, b in PAIRS for form in QUICK]

TABLE = b"id,comment_text,toxic,insult\n1,a b,1,1\n2,c,0,0\n3,d,0,1\n"
ROWS = [
    Example("a b", "insult|toxic", multi=True),
    Example("c", "", multi=True),
    Example("d", "insult", multi=True),
]
SAME = {
    "jigsaw.csv": TABLE,
    "text.csv": b"toxic,insult,text\r\n1, 1,a b\r\n0,0,c\r\n0,1,d",
    "index.csv": b",text,insult,toxic\n0,a b,1,1\n1,c,0,0\n2,d,1,0\n",
    "lists.jsonl": b'{"text": "a b", "labels": ["toxic", "insult"]}\n{"text": "c", "labels": []}\n'
    b'{"labels": ["insult", "insult"], "text": "d"}',
}


@pytest.mark.parametrize("name", SAME)
def test_columns_and_lists_read_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(SAME[name])
    found = data.read(tmp_path / name)
    assert found == ROWS
    assert [example.labels for example in found] == [["insult", "toxic"], [], ["insult"]]


def test_one_label_a_sentence_may_hold_the_mark_that_joins_many(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tx|y\n", encoding="utf-8")
    assert data.read(tmp_path / "a.tsv")[0].labels == ["x|y"]


BAD_LINES = {
    ("neither 0 nor 1", "a.csv"): (
        b"text,sentiment,source\na,positive,web\n",
        "line 2: without a column 'label' every column is .* sentiment is 'positive'",
    ),
    ("not scored", "a.csv"): (b"text,x,y\na,-1,0\n", "line 2: .* x is '-1'"),
    ("short row", "a.csv"): (b"text,x,y\na,1\n", "line 2: 2 columns instead of 3"),
    ("one column", "a.csv"): (b"text,x\na,1\n", "line 1: the header lacks the column 'label'"),
    ("twice", "a.csv"): (b"text,x,x\na,1,1\n", "more than once the column 'x'"),
    ("mark", "a.csv"): (b"text,x|z,y\na,1,0\n", r"line 2: the label holds \|"),
    ("no list", "a.jsonl"): (b'{"text": "a", "labels": "x"}', "line 1: labels is no list"),
    ("both", "a.jsonl"): (b'{"text": "a", "label": "x", "labels": []}', "both label and labels"),
    ("odd label", "a.jsonl"): (b'{"text": "a", "labels": ["x", null]}', "the label is missing"),
    ("list as label", "a.jsonl"): (b'{"text": "a", "label": ["x"]}', "the label is missing"),
    ("mixed", "a.jsonl"): (
        b'{"text": "a", "label": "x"}\n{"text": "b", "labels": ["x"]}',
        "line 2: any number of labels, where others have one",
    ),
}


@pytest.mark.parametrize("case", BAD_LINES, ids=lambda case: case[0])
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, case: tuple[str, str]) -> None:
    content, said = BAD_LINES[case]
    (tmp_path / case[1]).write_bytes(content)
    with pytest.raises(DataError, match=said):
        data.read(tmp_path / case[1])


def test_all_splits_must_be_of_one_kind(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / f"{name}.csv").write_bytes(TABLE)
    (tmp_path / "test.tsv").write_text("a\ttoxic\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv .*\n.*line 1: one label, where others have"):
        data.load(tmp_path)


def test_a_split_keeps_label_sets_together_and_rare_ones_apart(tmp_path: Path) -> None:
    """A set too rare to be split must take its rarest label into train."""
    sets = ["toxic"] * 500 + [""] * 400 + ["insult|toxic"] * 100 + ["threat|toxic"] * 4
    sets += ["insult|threat|toxic"] * 3 + ["hate|toxic"]
    examples = [Example(f"text {i}", label, multi=True) for i, label in enumerate(sets)]
    examples += [Example("text  0", "toxic", multi=True)]  # a repetition but for blanks
    parts = data.split(examples, 42)
    count = {
        name: [sum(e.label == label for e in part) for label in ("", "insult|toxic")]
        for name, part in parts.items()
    }
    assert count == {"train": [320, 80], "valid": [40, 10], "test": [40, 10]}
    assert {label for e in parts["train"] for label in e.labels} >= {"threat", "hate"}
    assert (
        len({name for name, part in parts.items() for e in part if e.text.split()[1] == "0"}) == 1
    )
    data.write_splits(tmp_path, parts)
    loaded = data.load(tmp_path)
    assert loaded.multi_label
    assert loaded.labels == ["hate", "insult", "threat", "toxic"]
    assert loaded.train == [e._replace(text=" ".join(e.text.split())) for e in parts["train"]]


def test_the_loss_is_binary_cross_entropy_with_smooth_targets() -> None:
    task = TASKS[True]
    targets = task.targets(ROWS, ["insult", "toxic"])
    assert targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    logits = torch.tensor([[2.0, -1.0], [0.0, 3.0], [-4.0, 0.5]])
    p, smooth = logits.sigmoid(), torch.where(targets > 0, 0.9, 0.1)
    by_hand = -(smooth * p.log() + (1 - smooth) * (1 - p).log()).mean()
    assert torch.allclose(task.loss(logits, targets, 0.2, None), by_hand)


@pytest.mark.parametrize("multi_label", TASKS)
def test_a_student_is_at_no_distance_from_a_teacher_of_equal_answers(
    multi_label: bool,  # noqa: FBT001
) -> None:
    task, generator = TASKS[multi_label], torch.Generator().manual_seed(0)
    teacher = torch.randn(9, 4, generator=generator) * 3
    student = teacher.clone().requires_grad_()
    distance = task.distance(student, teacher)
    distance.backward()
    assert float(distance.detach()) == pytest.approx(0, abs=1e-6)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-6
    assert float(task.distance(teacher.flip(0), teacher)) > 0.1


def test_valid_without_positives_still_chooses_an_epoch() -> None:
    task = TASKS[True]
    logits = torch.tensor([[2.0, -1.0], [3.0, 1.0]])
    assert task.measure(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == ("macro_f1", 0.5)
    assert task.measure(logits, torch.tensor([[0.0, 0.0], [1.0, 0.0]])) == ("mean_auroc", 1.0)


def test_labels_are_those_from_one_half_on_and_the_rest_has_scores_too() -> None:
    logits = torch.tensor([[-3.0, 0.0, 2.0], [-3.0, -1.0, -2.0]])
    some, none = decode(logits, ["a", "b", "c"], multi_label=True)
    assert some.as_dict()["labels"] == ["c", "b"]
    assert list(some.scores) == ["c", "b", "a"]
    assert some.label == "b|c"
    assert none.as_dict()["labels"] == []
    assert none.label == ""
    assert none.score == pytest.approx(1 / (1 + np.e))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_multi_label_model_learns(multi: Models, multi_data: Path, pair: tuple[str, str]) -> None:
    bundle = Bundle.read(multi.models[pair])
    assert bundle.config.multi_label is True  # as the data is: the config did not say
    assert bundle.metrics["chosen_by"] == "valid_mean_auroc"
    assert bundle.metrics["valid_mean_auroc"] >= 0.95
    predictor = Predictor(bundle, Predictor.load(bundle.folder).backend)
    report, _ = evaluate(predictor, data.load(multi_data).test, 8)
    assert report.mean_auroc is not None
    assert report.mean_auroc >= 0.95
    assert report.macro_f1 >= 0.85


def test_a_config_that_contradicts_the_data_is_refused(
    multi_data: Path, loaded: Data, vectors: Path
) -> None:
    for found, given in ((data.load(multi_data), False), (loaded, True)):
        config = tiny_config("glove", "cnn", vectors, vectors, multi_label=given)
        with pytest.raises(ConfigError, match="both must agree"):
            settle(config, found)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_format_keeps_the_answers_in_any_batch(multi: Models, name: str) -> None:
    family, encoder, form = name.split("-", 2)
    predictor = Predictor.load(multi.exports[name])
    texts = [TEXT, *ODD_TEXTS]
    together = predictor.predict(texts)
    for text, answer in zip(texts, together, strict=True):
        (alone,) = predictor.predict([text])
        assert max(abs(alone.scores[k] - p) for k, p in answer.scores.items()) <= 1e-5
    before = Predictor.load(multi.models[family, encoder]).predict(texts)
    allowed = ALLOWED[form]
    for a, b in zip(before, together, strict=True):
        assert max(abs(a.scores[k] - p) for k, p in b.scores.items()) <= allowed
    assert predictor.bundle.metrics["export"]["agreement"] >= 0.9


def test_an_archive_with_a_transformer_proves_itself(multi: Models, tmp_path: Path) -> None:
    assert archive(multi.exports["bert-cls-int8"], "many", tmp_path).exists()


def test_served_equals_offline(
    multi: Models, multi_data: Path, live: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [text for text in (TEXT, *ODD_TEXTS) if len(text) < 1000]
    folder = multi.exports["glove-cnn-torchscript"]
    predictor = Predictor.load(folder)
    offline = predictor.predict(texts)
    client = Client(live.url(MULTI), live.key_file)
    for known, answer in zip(offline, client.predict_many(texts), strict=True):
        assert list(answer) == ["labels", "scores"]
        assert answer["labels"] == known.labels
        assert list(answer["scores"]) == list(known.scores)
        assert max(abs(answer["scores"][k] - p) for k, p in known.scores.items()) <= 1e-5
    address = ["--url", live.url(MULTI), "--key_file", live.key_file]
    test = [example.text for example in data.load(multi_data).test]
    plain = next(text for text in test if not predictor.predict([text])[0].labels)
    served = verb(capsys, "predict", *address, TEXT, plain)
    assert served.startswith(f"{TEXT}\tbore|joy\t0.")
    assert served.splitlines()[1].startswith(f"{plain}\t\t0.")
    assert served == verb(capsys, "predict", "--model_path", folder, TEXT, plain)


def test_the_verbs_work_on_multi_label_data(
    multi_data: Path, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder, model = tmp_path / "all.jsonl", tmp_path / "data", tmp_path / "model"
    parts = [(multi_data / f"{name}.jsonl").read_text("utf-8") for name in data.SPLITS]
    source.write_text("".join(parts), encoding="utf-8")
    made = verb(capsys, "prepare", "--input", source, "--data_dir", folder)
    assert "(bore " in made
    sizes = ["--embedding_path", vectors, "--epoch", "2", "--num_filters", "8"]
    trained = verb(capsys, "train", "--data_dir", folder, "--save_path", model, *sizes)
    assert "model is trained: valid mean auroc " in trained
    done = verb(capsys, "evaluate", "--model_path", model, "--data_dir", folder)
    assert "[Mean AUROC] : " in done
    assert "[Micro F1] : " in done
    assert all(f"{label}: precision " in done for label in TRIGGERS)
    report = read_json(model / "metrics.json")["test"]["report"]  # type: ignore[index]
    assert set(report["labels"]["joy"]) == {"precision", "recall", "f1", "auroc", "support"}
    rows = (model / "test.pred.tsv").read_text(encoding="utf-8").splitlines()
    assert all(len(row.split("\t")) == 4 for row in rows)
