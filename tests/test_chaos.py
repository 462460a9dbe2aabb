"""Each fault in its short form against a real TorchServe, and that none can pass unseen."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chaos import clients as many
from chaos import traffic as traffic_module
from chaos.outcome import Outcome
from chaos.parts import Offline, sentence
from chaos.report import code, survive
from chaos.scene import FIRST, SECOND, Scene
from chaos.stop import accepted
from chaos.table import FAULTS, Fault
from chaos.traffic import Record, Traffic
from model_src.errors import ServerError
from scripts import chaos
from scripts.options import Parser
from serving.client import AnswerError
from serving.process import birth, group
from serving.server import Server
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One scene for all, whose server is lent from fault to fault."""
    with Scene(tmp_path_factory.mktemp("chaos"), short=True, minutes=0.1) as made:
        yield made


def test_a_server_that_answers_otherwise_than_offline_does_not_pass(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Offline):
        def scores(self, version: str, texts: list[str]) -> np.ndarray:
            return honest.scores(SECOND, texts)

    honest = scene.offline
    monkeypatch.setattr(scene, "offline", Other({}))
    monkeypatch.setattr(many, "_IN_SHORT", 100)
    outcome = survive(FAULTS["clients"], scene)
    assert not outcome.passed
    assert (outcome.numbers["asked"], outcome.numbers["wrong"]) == (100, 100)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_survived(scene: Scene, name: str) -> None:
    outcome = survive(FAULTS[name], scene)
    assert outcome.passed, outcome
    assert outcome.numbers
    assert outcome.said


def test_every_answer_is_judged_by_its_own_sentence(scene: Scene) -> None:
    def ask(texts: list[str]) -> list[dict[str, object]]:
        """Answer the first as offline, the second as the third; and so on, three wrongs in all."""
        number = numbers[texts[0]]
        if number == 3:
            raise AnswerError("url", 503, {})
        if number == 4:
            raise AnswerError("url", 500, {})
        if number == 5:
            raise ServerError("no answer")
        if number == 6:
            return [{"label": None}]
        version, other = {1: (FIRST, 2), 7: (SECOND, 7)}.get(number, (FIRST, number))
        scores = scene.offline.scores(version, [sentence(other)])[0]
        return [{"scores": {f"kind{i}": value for i, value in enumerate(scores)}}]

    numbers = {sentence(i): i for i in range(8)}
    assert len(numbers) == 8
    with Traffic([ask], iter(range(8)), most=8) as traffic:
        assert traffic.wait(20)
    found = scene.judge(traffic.records)
    assert (found.asked, found.right, found.wrong, found.swapped) == (8, 2, 3, 1)
    assert (found.refused, found.failed) == (1, 2)
    both = scene.judge(traffic.records, FIRST, SECOND)
    assert both.versions == {FIRST: 2, SECOND: 1}
    assert (found + both).numbers()["right"] == 5
    assert (found + both).versions == {FIRST: 4, SECOND: 1}


def test_a_request_that_was_sent_before_an_answered_one_counts_as_accepted() -> None:
    def record(number: int, began: float, status: int) -> Record:
        return Record(range(number, number + 1), began, began, began + 1, status, np.empty(0))

    records = [record(0, 1.0, 0), record(1, 2.0, 200), record(2, 2.5, 0), record(3, 3, 503)]
    sent = {sentence(number): moment for number, moment in {0: 1.5, 1: 2.1, 2: 2.6}.items()}
    assert [each.numbers[0] for each in accepted(records, sent)] == [0, 1]
    assert [each.numbers[0] for each in accepted(records, sent | {sentence(0): 2.2})] == [1]
    broken = record(4, 9, 500)
    assert accepted([broken], {}) == [broken]


def test_traffic_keeps_its_rate_and_counts_lateness() -> None:
    def ask(texts: list[str]) -> list[dict[str, object]]:
        return []

    with Traffic([ask] * 2, iter(range(100)), rate=50, most=20) as traffic:
        assert traffic.wait(20)
    due = sorted(each.due for each in traffic.records)
    assert len(due) == 20
    assert 0.37 < due[-1] - due[0] < 0.39
    assert all(each.began >= each.due for each in traffic.records)


def test_an_interruption_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts", "chaos", "--short", "--fault", "worker-kill"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE) as process:
        assert process.stderr
        shown = b""
        while b"kills:" not in shown and (more := os.read(process.stderr.fileno(), 2**16)):
            shown += more
        (state,) = tmp_path.glob("*/run1/server.json")
        found = Server.read(state.parent)
        assert found
        alive = group(found.pid)
        process.send_signal(signal.SIGINT)
        shown += process.stderr.read()
    assert process.returncode == 130, shown
    assert len(alive) > 1
    assert not any(birth(pid) for pid in [*alive, found.keeper])
    assert not [*tmp_path.iterdir()]


def test_a_request_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(texts: list[str]) -> list[dict[str, object]]:
        asked.wait(20)
        released.wait(20)
        return []

    asked, released = threading.Barrier(3), threading.Event()
    monkeypatch.setattr(traffic_module, "_LAST", 0.1)
    with Traffic([ask] * 2, iter(range(100))) as traffic:
        asked.wait(20)
    released.set()
    assert traffic.wait(20)
    assert [each.status for each in traffic.records] == [0, 0]
    assert "no answer after" in traffic.records[0].said


def _run(*options: object) -> int:
    parser = Parser("chaos", "chaos", chaos.EXAMPLE)
    chaos.add_options(parser)
    return chaos.run(parser.parse([str(option) for option in options]))


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
