"""How a worker waits for its next batch: it looks for a moment, then sleeps where it was."""

import os
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

from handlers import waiting
from tests.conftest import ROOT


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="this process has one core",
)
def test_who_waits_goes_on_at_its_own_core_and_may_be_moved_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(waiting, "_core", lambda: max(cores))
    threads: list[int] = []
    found: list[object] = []
    mine, theirs = socket.socketpair()
    with mine, theirs:

        def read() -> None:
            threads.append(threading.get_native_id())
            found.append(waiting.receive(mine, 100))
            found.append(os.sched_getaffinity(0))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not threads or os.sched_getaffinity(threads[0]) != {max(cores)}:
            assert time.monotonic() < deadline, "it waits with all of its cores"
            time.sleep(0.01)
        theirs.sendall(b"later")
        thread.join(20)
        assert found == [b"later", cores]
        theirs.sendall(b"now")
        assert waiting.receive(mine, 100) == b"now"
        theirs.close()
        assert waiting.receive(mine, 100) == b""
    assert os.sched_getaffinity(0) == cores


@pytest.mark.parametrize("core", [None, lambda: 100_000, lambda: -1])
def test_where_no_core_can_be_chosen_it_only_waits(
    core: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_core", core)
    mine, theirs = socket.socketpair()
    with mine, theirs:
        threading.Timer(0.2, theirs.sendall, [b"later"]).start()
        assert waiting.receive(mine, 100) == b"later"


class Slow:
    """A socket without a byte until ``late`` looks at it were in vain."""

    def __init__(self, late: int) -> None:
        self.late, self.slept = late, False

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Have nothing to read when somebody only looks too early."""
        self.slept |= not flags
        self.late -= 1
        if self.late >= 0 and flags:
            raise BlockingIOError
        return b"here"


@pytest.mark.parametrize("late", [0, 4, 5])
def test_who_waits_looks_for_a_moment_before_it_sleeps(
    late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0

    def sched_yield() -> None:
        nonlocal now
        now += 0.25

    monkeypatch.setattr(waiting, "BUSY_POLL", 1.0)
    monkeypatch.setattr(waiting, "time", types.SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(os, "sched_yield", sched_yield)
    connection = Slow(late)
    assert waiting.receive(connection, 100) == b"here"
    assert connection.slept == (late > 4)
    assert now == 100 + 0.25 * min(late, 4)


@pytest.mark.parametrize(("switch", "seconds"), [("off", 0.0), ("", 400e-6)])
def test_the_looks_can_be_switched_off(switch: str, seconds: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from handlers import waiting; print(waiting.BUSY_POLL)"],
        cwd=ROOT,
        env=os.environ | {"ICLASSIFIER_BUSY_POLL": switch},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert float(done.stdout) == seconds
