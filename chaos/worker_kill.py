"""Fault 2: one of two workers is killed, again and again."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from chaos.outcome import Outcome
from chaos.parts import NAME
from chaos.scene import FIRST, Scene, sockets, workers
from model_src.errors import ServerError
from serving import launch
from serving.process import birth, end
from serving.server import Server

_KILLS, _IN_SHORT = 50, 1
# Kills beforehand that tell the time of loading under the same traffic.
_BEFORE, _BEFORE_SHORT = 5, 1
# So many sentences a request that a kill finds the worker busy.
_WORKERS, _RATE, _SIZES = 2, 100.0, (1, 1, 1, 64)
# Clients that ask once, to know what others are spared.
_ONCE = 20.0
# What may be added to the time of loading until a killed worker is back, and when to give up.
# A busy machine may add as much as the tests' patience allows in the short form.
_SLACK, _SHORT_SLACK, _PATIENCE = 3.0, 15.0, 60.0
_POLL = 0.02


@dataclass(frozen=True)
class Return:
    """Seconds from the kill to a new process, and from there until that is READY."""

    started: float
    load: float
    # new workers that were seen: one, and one more for each that ended by itself
    pids: int

    @property
    def whole(self) -> float:
        """Both together."""
        return self.started + self.load


def worker_kill(scene: Scene) -> Outcome:
    """Kill some workers under load, which tells the time of loading, then many to be judged."""
    kills, before = (_IN_SHORT, _BEFORE_SHORT) if scene.short else (_KILLS, _BEFORE)
    slack = _SHORT_SLACK if scene.short else _SLACK
    with scene.server(_WORKERS) as found:
        with (
            scene.traffic(found, rate=_RATE, sizes=_SIZES, clients=16) as traffic,
            scene.traffic(found, rate=_ONCE, attempts=1) as once,
        ):
            every = range(before + kills)
            all_ = [_kill(found, i) for i in tqdm(every, desc="kills", unit=" kills")]
            time.sleep(1)
        tally, hasty = scene.judge(traffic.records), scene.judge(once.records)
        orphans = len(set(launch.leftovers(found.run_dir)) ^ {found.pid, *workers(found)})
        orphans += abs(len(workers(found)) - _WORKERS) + abs(len(sockets(found)) - _WORKERS)
    load = statistics.median(each.load for each in all_[:before])
    returns = all_[before:]
    back = max(each.whole for each in returns)
    again = sum(each.pids - 1 for each in all_)
    return Outcome(
        passed=tally.right == tally.asked
        and not hasty.wrong
        and back <= load + slack
        and not again
        and not orphans,
        numbers=tally.numbers()
        | {
            "kills": kills,
            "asked_once": hasty.asked,
            "answered_once": hasty.right,
            "load_s": round(load, 2),
            "back_s": round(statistics.median(each.whole for each in returns), 2),
            "back_within_s": round(back, 2),
            "beyond_load_s": round(back - load, 2),
            "started_again": again,
            "orphans": orphans,
        },
        said=f"One of {_WORKERS} workers was killed, {kills} times, at {_RATE:.0f} requests/s of "
        f"clients that ask again, and {_ONCE:.0f} of such that do not; {before} kills before tell "
        f"the time of loading, to which {slack:g} s may be added. {tally.complaints}",
    )


def _kill(found: Server, turn: int) -> Return:
    """Kill one of the workers and wait until there are as many as before, all of them READY."""
    before, admin = workers(found), found.admin
    victim = before[turn % len(before)]
    began, started, new = time.monotonic(), 0.0, set[int]()
    end(victim, birth(victim) or 0)
    while (now := time.monotonic()) < began + _PATIENCE:
        new |= {pid for pid in workers(found) if pid not in before and _parent(pid) == found.pid}
        if new and not started:
            started = now
        ready = admin.workers(NAME, FIRST)
        if started and victim not in ready and len(ready) == len(before):
            return Return(started - began, time.monotonic() - started, len(new | ready - {*before}))
        time.sleep(_POLL)
    raise ServerError(f"a killed worker was not READY again within {_PATIENCE:.0f} s")


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 of one that is gone: what workers start is no worker."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])
