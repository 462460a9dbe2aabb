"""The benchmarks run for real on tiny parts, and a finished run is not run again."""

import dataclasses
import json
from pathlib import Path

from benchmarks import accuracy, padded
from benchmarks.accuracy import Row
from scripts.paste_readme import tables
from tests.conftest import ROOT, tiny_config


def test_the_accuracy_table_is_made_once_and_only_its_changed_rows_again(
    tmp_path: Path, data_dir: Path, vectors: Path, checkpoint: Path
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=2)
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    row = Row("Tiny", str(tmp_path / "config.json"), seeds=2, target={"data": 97.9})
    rows = {"tiny": row, "taught": dataclasses.replace(row, seeds=1, teacher="tiny")}
    said: list[str] = []
    places = (data_dir, tmp_path / "results", tmp_path / "models")
    table = accuracy.run(*places, rows, said.append)
    assert [command.count("--teacher") for command in said] == [0, 0, 1]
    known = json.loads((tmp_path / "results" / "accuracy-data.json").read_text(encoding="utf-8"))
    assert set(known["runs"]) == {"tiny-1", "tiny-2", "taught-1"}
    for run in known["runs"].values():
        assert run["test"] > 0.5
        assert run["peak_memory_mb"] > 100
    text = table.read_text(encoding="utf-8")
    mean = 50 * (known["runs"]["tiny-1"]["test"] + known["runs"]["tiny-2"]["test"])
    assert f"| **{mean:.2f}** |" in text
    assert said[0].removeprefix("$ ") in text

    said.clear()
    accuracy.run(*places, rows, said.append)
    assert said == []
    changed = {"taught": dataclasses.replace(rows["taught"], more={"data": "--lr 1e-3"})}
    accuracy.run(*places, changed, said.append)
    assert len(said) == 1
    assert said[0].endswith("--lr 1e-3")


def test_every_row_of_the_table_can_be_run() -> None:
    for name, row in accuracy.ROWS.items():
        assert (ROOT / "configs" / f"config-{row.config}.json").is_file(), name
        assert not row.teacher or row.teacher in accuracy.ROWS, name
    # a teacher is trained before its students
    order = list(accuracy.ROWS)
    assert all(
        order.index(r.teacher) < order.index(n) for n, r in accuracy.ROWS.items() if r.teacher
    )


def test_the_reference_loop_takes_steps_of_one_size(data_dir: Path) -> None:
    found = padded.main(data_dir, 1, anomaly=False)
    assert found["seconds_a_step"] > 0.01


def test_the_reference_loop_is_short() -> None:
    text = (ROOT / "benchmarks" / "padded.py").read_text(encoding="utf-8")
    assert len(text.partition("def main")[2].splitlines()) <= 40


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables(readme) == readme
    assert "<!-- copy of: results/accuracy-snips.md -->" in readme
