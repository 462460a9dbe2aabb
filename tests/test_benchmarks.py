"""The benchmarks run for real on tiny parts, and a finished run is not run again."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest

from benchmarks import accuracy, machine, padded, training
from benchmarks.accuracy import Folders, Row
from model_src.config import Config
from scripts import paste_readme
from scripts.paste_readme import tables
from tests.conftest import ROOT, verb


def test_the_accuracy_table_is_made_once_and_only_its_changed_rows_again(
    tmp_path: Path,
    data_dir: Path,
    vectors: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # one thread, as this process has, so that both compute the same weights
    options = f"--embedding_path {vectors} --epoch 2 --lr 5e-3 --num_threads 1"
    row = Row("Tiny", "glove-cnn", options, seeds=2, target={"data": 97.9})
    rows = {"tiny": row, "taught": dataclasses.replace(row, seeds=1, teacher="tiny")}
    said: list[str] = []
    folders = Folders(tmp_path / "results", tmp_path / "models")
    table = accuracy.run(data_dir, folders, rows, ["taught"], said.append)
    assert [command.count("--teacher") for command in said] == [0, 1]  # its teacher first
    said.clear()
    monkeypatch.chdir(ROOT)
    # The other commands run in this process, which has imported what each would for seconds.
    monkeypatch.setattr(accuracy, "_do", lambda line: verb(capsys, *shlex.split(line)[1:]))
    table = accuracy.run(data_dir, folders, rows, [], said.append)
    assert len(said) == 1
    known = json.loads((tmp_path / "results" / "accuracy-data.json").read_text(encoding="utf-8"))
    assert set(known["runs"]) == {"tiny-1", "tiny-2", "taught-1"}
    for run in known["runs"].values():
        assert 0 < run["test"] <= 1
        assert run["peak_memory_mb"] > 100
    text = table.read_text(encoding="utf-8")
    mean = 50 * (known["runs"]["tiny-1"]["test"] + known["runs"]["tiny-2"]["test"])
    assert f"| **{mean:.2f}** |" in text
    assert known["runs"]["taught-1"]["command"] in text
    assert f"- {machine.describe()}: Tiny, Tiny\n" in text

    said.clear()
    accuracy.run(data_dir, folders, rows, [], said.append)
    assert said == []
    rows["taught"] = dataclasses.replace(rows["taught"], more={"data": "--lr 1e-3"})
    accuracy.run(data_dir, folders, rows, [], said.append)
    assert [command.endswith("--lr 1e-3") for command in said] == [True]
    found = accuracy.trained(data_dir, folders, rows, "tiny", said.append)
    assert found.samefile(folders.models / "data-tiny-1")
    assert len(said) == 1  # it was there
    (found / "manifest.json").write_text("{}", encoding="utf-8")  # of other data
    table.unlink()
    assert (accuracy.trained(data_dir, folders, rows, "tiny", said.append) / "labels.json").exists()
    assert len(said) == 2
    assert table.exists()
    # a row for other data is run where it is named only
    rows["other"] = dataclasses.replace(row, seeds=1, sets=("elsewhere",))
    said.clear()
    accuracy.run(data_dir, folders, rows, [], said.append)
    assert said == []
    accuracy.run(data_dir, folders, rows, ["other"], said.append)
    assert len(said) == 1
    # a teacher whose model is gone is trained again when a student needs it
    said.clear()
    shutil.rmtree(folders.models / "data-tiny-1")
    accuracy.run(data_dir, folders, rows, [], said.append)
    assert said == []
    rows["taught"] = dataclasses.replace(rows["taught"], more={"data": "--lr 2e-3"})
    accuracy.run(data_dir, folders, rows, ["taught"], said.append)
    assert [command.count("--teacher") for command in said] == [0, 1]
    # one mean is of one recipe: of the teacher's new one only the first seed was needed
    rows["tiny"] = dataclasses.replace(row, more={"data": "--lr 1e-3"})
    table = accuracy.run(data_dir, folders, rows, ["taught"], said.append)
    tiny = next(x for x in table.read_text(encoding="utf-8").splitlines() if "| Tiny |" in x)
    assert len(tiny.split(" | ")[3].split()) == 1


def test_every_row_of_the_table_can_be_run() -> None:
    for name, row in accuracy.ROWS.items():
        assert (ROOT / "configs" / f"config-{row.config}.json").is_file(), name
        assert not row.teacher or row.teacher in accuracy.ROWS, name
    # a teacher is trained before its students
    order = list(accuracy.ROWS)
    assert all(
        order.index(r.teacher) < order.index(n) for n, r in accuracy.ROWS.items() if r.teacher
    )


def test_the_reference_loop_takes_steps_of_one_size(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Config.load(ROOT / "configs" / "config-bert-cls.json", {"batch_size": "8"})
    monkeypatch.setattr(Config, "load", lambda _: small)
    found = padded.main(data_dir, 1, anomaly=False)
    assert found["seconds_a_step"] > 0.01


def test_an_interrupted_benchmark_of_training_goes_on_where_it_was(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Config.load(ROOT / "configs" / "config-bert-cls.json", {"batch_size": "8"})
    monkeypatch.setattr(Config, "load", lambda _: small)
    monkeypatch.setattr(training, "_loading", lambda: {"words": 2, "seconds": 0.5})
    called: list[str] = []

    def loop(name: str, seconds: float, *, breaks: bool = False) -> training.Loop:
        def measure(_: Path, steps: int) -> dict[str, float]:
            called.append(name)
            if breaks:
                raise KeyboardInterrupt
            return {"seconds": seconds * steps, "memory": 9}

        return measure

    loops = {"padded": loop("padded", 4), "ours": loop("ours", 2, breaks=True)}
    with pytest.raises(KeyboardInterrupt):
        training.run(data_dir, tmp_path, loops)
    loops["ours"] = loop("ours", 2)
    table = training.run(data_dir, tmp_path, loops)
    assert called == ["padded", "ours", "ours", "padded", "ours"]
    assert " | 2.0 | 9 |" in table.read_text(encoding="utf-8")
    training.run(data_dir, tmp_path, loops)
    assert len(called) == 5
    monkeypatch.setattr(training, "_CODE", ("configs",))  # as if it had changed
    training.run(data_dir, tmp_path, loops)
    assert len(called) == 9


def test_the_reference_loop_is_short() -> None:
    text = (ROOT / "benchmarks" / "padded.py").read_text(encoding="utf-8")
    assert len(text.partition("def main")[2].splitlines()) <= 40


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables(readme) == readme
    assert "<!-- copy of: results/accuracy-snips.md before" in readme


def test_the_beginning_of_a_table_keeps_what_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big.md").write_text("first\n\nsecond:\n\nmore\n\nby a command\n", encoding="utf-8")
    monkeypatch.setattr(paste_readme, "ROOT", tmp_path)
    copy = "<!-- copy of: big.md before: {} -->\nold\n<!-- end of copy -->\n"
    text = tables(copy.format("second:"))
    assert text == copy.format("second:").replace("old", "first\n\nby a command")
    with pytest.raises(SystemExit, match="no line 'third:'"):
        tables(copy.format("third:"))
