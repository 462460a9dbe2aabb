"""What the verb keeps of faults: verdicts, errors, minutes, machines; and what it runs again."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import machine
from chaos import report
from chaos.outcome import Outcome
from chaos.report import code
from chaos.scene import Scene
from chaos.table import Fault
from model_src.errors import ServerError
from scripts import chaos
from scripts.options import Parser
from tests.conftest import ROOT


def _run(*options: object) -> int:
    parser = Parser("chaos", "chaos", chaos.EXAMPLE)
    chaos.add_options(parser)
    return chaos.run(parser.parse([str(option) for option in options]))


@pytest.mark.parametrize(
    "reason", [OSError("gone"), KeyError("workers"), ValueError("no JSON"), ConnectionError("cut")]
)
def test_an_error_of_a_fault_is_recorded_with_its_type_and_the_others_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: Exception,
) -> None:
    def lost(scene: Scene) -> Outcome:
        raise reason

    def won(scene: Scene) -> Outcome:
        return Outcome(passed=True, numbers={})

    faults = {"lost": Fault("A loss.", lost), "won": Fault("A win.", won)}
    monkeypatch.setattr(chaos, "FAULTS", faults)
    assert _run("--results", tmp_path) == 1
    kept = json.loads((tmp_path / "chaos.json").read_text(encoding="utf-8"))["faults"]
    assert [each["passed"] for each in kept.values()] == [False, True]
    assert kept["lost"]["said"] == f"{type(reason).__name__}: {reason}"
    assert "lost: FAIL" in capsys.readouterr().out


def test_a_pass_of_fewer_minutes_and_other_settings_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = list[str]()

    def won(scene: Scene) -> Outcome:
        met.append(f"{scene.minutes:g}")
        return Outcome(passed=True, numbers={})

    monkeypatch.setattr(chaos, "FAULTS", {"a": Fault("", won, timed=True), "b": Fault("", won)})
    for minutes in (5, 4, 6):
        assert _run("--results", tmp_path, "--minutes", minutes) == 0
    assert met == ["5", "5", "6"]
    markdown = (tmp_path / "chaos.md").read_text(encoding="utf-8")
    assert markdown.count(f"On {machine.describe()}:") == 1
    assert "--minutes 5" in markdown
    path = tmp_path / "chaos.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["faults"]["a"]["machine"] = "another machine"
    path.write_text(json.dumps(kept), encoding="utf-8")
    assert _run("--results", tmp_path, "--fault", "b") == 0
    markdown = (tmp_path / "chaos.md").read_text(encoding="utf-8")
    assert "On another machine:\n\n```text\n./iclassifier chaos --minutes 6" in markdown


def test_the_short_form_takes_no_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met = list[float]()

    def won(scene: Scene) -> Outcome:
        met.append(scene.minutes)
        return Outcome(passed=True, numbers={})

    monkeypatch.setattr(chaos, "FAULTS", {"soak": Fault("", won, timed=True)})
    for options in (["--short"], ["--short", "--minutes", 2], []):
        assert _run("--results", tmp_path, *options) == 0
    assert met == [0.1, 2, 20]


@pytest.mark.parametrize("name", ["config.properties", "serving/log4j2.xml", "chaos/fit.py"])
def test_code_changes_with_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for each in (*report._FILES, *report._JUDGED):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / each).is_dir():
            shutil.copytree(ROOT / each, tmp_path / each, dirs_exist_ok=True)
        else:
            shutil.copyfile(ROOT / each, tmp_path / each)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    before = code()
    with (tmp_path / name).open("a", encoding="utf-8") as stream:
        stream.write("\n")
    assert code() != before


def test_a_fault_that_is_not_survived_fails_the_verb_and_is_met_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    met = []

    def lost(scene: Scene) -> Outcome:
        met.append("lost")
        raise ServerError("no READY | worker\nwithin 3 s")

    def won(scene: Scene) -> Outcome:
        met.append("won")
        return Outcome(passed=True, numbers={"asked": 12345}, said="nothing was done")

    monkeypatch.setattr(
        chaos, "FAULTS", {"lost": Fault("A loss.", lost), "won": Fault("A win.", won)}
    )
    assert _run("--short", "--results", tmp_path) == 1
    assert not [*tmp_path.iterdir()]
    assert _run("--results", tmp_path) == 1
    assert "Not survived: lost." in capsys.readouterr().out
    markdown = (tmp_path / "chaos.md").read_text(encoding="utf-8")
    assert "| `lost` | A loss. | no READY \\| worker within 3 s |  | 0 | **FAIL** |" in markdown
    assert "| `won` | A win. | nothing was done | asked 12,345 | 0 | **pass** |" in markdown
    met.clear()
    assert _run("--results", tmp_path) == 1
    assert met == ["lost"]
    kept = json.loads((tmp_path / "chaos.json").read_text(encoding="utf-8"))
    assert kept["faults"]["won"]["code"] == code()
    met.clear()
    assert _run("--results", tmp_path, "--fault", "won") == 0
    assert met == ["won"]
    kept["faults"]["won"]["code"] = "of older code"
    (tmp_path / "chaos.json").write_text(json.dumps(kept), encoding="utf-8")
    met.clear()
    assert _run("--results", tmp_path) == 1
    assert met == ["lost", "won"]


def test_the_table_is_printed_and_says_what_was_not_run_or_is_of_older_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def won(scene: Scene) -> Outcome:
        return Outcome(passed=True, numbers={"asked": 1}, said="nothing was done")

    monkeypatch.setattr(chaos, "FAULTS", {"a": Fault("A.", won), "b": Fault("B.", won)})
    row = "| `a` | A. | nothing was done | asked 1 | 0 | **pass** |"
    assert _run("--short", "--results", tmp_path) == 0
    said = capsys.readouterr().out
    assert row in said
    assert "is written" not in said
    assert _run("--results", tmp_path) == 0
    said = capsys.readouterr().out
    assert row in said
    assert "chaos.md is written." in said
    assert _run("--results", tmp_path) == 0
    said = capsys.readouterr().out
    assert row in said
    assert "Nothing was left to run" in said
    assert "is written" not in said
    monkeypatch.setattr(report, "code", lambda: "of newer code")
    assert _run("--results", tmp_path, "--fault", "b") == 0
    markdown = (tmp_path / "chaos.md").read_text(encoding="utf-8")
    assert row.replace("**pass**", "**pass** (older code)") in markdown
    assert "| `b` | B. | nothing was done | asked 1 | 0 | **pass** |" in markdown
