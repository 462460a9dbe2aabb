"""Each fault in its short form against a real TorchServe, and that none can pass unseen."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from chaos import clients as many
from chaos import defaults, malformed, soak
from chaos.fit import Fit
from chaos.parts import Offline, sentence
from chaos.report import survive
from chaos.scene import FIRST, SECOND, Scene
from chaos.table import FAULTS
from chaos.traffic import Traffic
from chaos.wire import Wire
from model_src.errors import ServerError
from serving import deploy
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


@pytest.mark.parametrize(("least", "turns"), [(1, 1), (2, 2), (99, 3)])
def test_the_soak_goes_on_while_it_cannot_tell(scene: Scene, least: int, turns: int) -> None:
    seen: list[Fit] = []

    def told(found: Fit) -> bool:
        seen.append(found)
        return len(seen) >= least

    with scene.server() as found:
        watched = soak.watch(scene, found, 0.02, told)
    assert watched.minutes == 0.02 * turns
    assert len(watched.samples) == 2
    for samples in watched.samples.values():
        first, last = 60 * samples[0][0], 60 * samples[-1][0]
        assert first < 0.02
        assert 0.02 * (turns - 1) < last <= watched.minutes


def test_the_soak_tells_of_malformed_requests_before_the_watch_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind takes memory when it first comes, which must not look like a leak."""

    @contextmanager
    def malformed(wire: Wire, offline: Offline, rate: float) -> Iterator[list[str]]:
        yield [str(rate)]

    monkeypatch.setattr(soak, "_malformed", malformed)
    with scene.server() as found:
        watched = soak.watch(scene, found, 0.02, lambda _: True)
    assert watched.wrong == [str(soak._FIRST_WRONG), str(soak._WRONG)]


@pytest.mark.parametrize(
    ("slope", "error", "told"),
    [(0.0, 4.0, True), (9.0, 4.0, True), (9.0, 7.0, True), (4.0, 12.0, False), (0.0, 6.0, False)],
)
def test_a_soak_is_told_once_its_growth_is_known_or_sure(
    slope: float, error: float, *, told: bool
) -> None:
    assert soak._told(1.0, 5.0, Fit(slope, error)) is told


def test_a_stop_that_only_kills_is_not_survived(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "stop", lambda run_dir, _: deploy.running(run_dir).end())
    outcome = survive(FAULTS["stop"], scene)
    assert not outcome.passed
    assert outcome.numbers["under_way"] > 0
    assert outcome.numbers["failed"] > 0


def test_mates_that_never_share_a_batch_prove_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(malformed, "_STEP", 100)
    monkeypatch.setattr(malformed, "batches", lambda _: Counter({1: 10, 2: 1}))
    outcome = survive(FAULTS["malformed"], scene)
    assert not outcome.passed
    assert outcome.numbers["batches of two and more"] == 1
    assert outcome.numbers["other than documented"] == 0


def test_every_answer_is_judged_by_its_own_sentence(scene: Scene) -> None:
    def ask(texts: list[str]) -> list[dict[str, object]]:
        """Answer the first as offline, the second as the third; and so on, five wrongs in all."""
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
        by_label = {f"kind{i}": float(value) for i, value in enumerate(scores)}
        order = sorted(by_label, key=by_label.__getitem__)
        label = order[0] if number == 8 else order[-1]
        score = by_label[label] + (0.1 if number == 9 else 0.0)
        return [{"label": label, "score": score, "scores": by_label}]

    numbers = {sentence(i): i for i in range(10)}
    assert len(numbers) == 10
    with Traffic([ask], iter(range(10)), most=10) as traffic:
        assert traffic.wait(20)
    found = scene.judge(traffic.records)
    assert (found.asked, found.right, found.wrong, found.swapped) == (10, 2, 5, 1)
    assert (found.refused, found.failed) == (1, 2)
    both = scene.judge(traffic.records, FIRST, SECOND)
    assert both.versions == {FIRST: 2, SECOND: 1}
    assert (found + both).numbers()["right"] == 5
    assert (found + both).versions == {FIRST: 4, SECOND: 1}


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


def test_a_confinement_that_this_machine_forbids_is_not_tried(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", forbid)
    assert defaults._confined(scene, ["no network"]) is None
    assert defaults._untried({"a": None, "b": "", "c": "mount: not permitted"}) == ["a"]
