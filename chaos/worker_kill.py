"""Fault 2: one of two workers is killed, again and again."""

import statistics
import time
from dataclasses import dataclass

from tqdm import tqdm

from chaos.outcome import Outcome
from chaos.parts import NAME
from chaos.scene import FIRST, Scene, sockets, workers
from model_src.errors import ServerError
from serving import launch
from serving.process import birth, end
from serving.server import Server

_KILLS, _IN_SHORT = 50, 1
# So many sentences a request that a kill finds the worker busy.
_WORKERS, _RATE, _SIZES = 2, 100.0, (1, 1, 1, 64)
# Clients that ask once, to know what others are spared.
_ONCE = 20.0
# What may be added to the time of loading until a killed worker is back, and when to give up.
_SLACK, _PATIENCE = 3.0, 60.0
_POLL = 0.02


@dataclass(frozen=True)
class Return:
    """Seconds from the kill to a new process, and from there until that is READY."""

    started: float
    load: float

    @property
    def whole(self) -> float:
        """Both together."""
        return self.started + self.load


def worker_kill(scene: Scene) -> Outcome:
    """Kill one worker with nobody asking, which tells the time of loading, then many under load."""
    kills = _IN_SHORT if scene.short else _KILLS
    with scene.server(_WORKERS) as found:
        idle = _kill(found, 0)
        with (
            scene.traffic(found, rate=_RATE, sizes=_SIZES, clients=16) as traffic,
            scene.traffic(found, rate=_ONCE, attempts=1) as once,
        ):
            returns = [_kill(found, i) for i in tqdm(range(kills), desc="kills", unit=" kills")]
            time.sleep(1)
        tally, hasty = scene.judge(traffic.records), scene.judge(once.records)
        orphans = len(set(launch.leftovers(found.run_dir)) ^ {found.pid, *workers(found)})
        orphans += abs(len(workers(found)) - _WORKERS) + abs(len(sockets(found)) - _WORKERS)
    back = max(each.whole for each in returns)
    # Loading takes longer where others compute, which is nothing that a restart could mend.
    late = max(each.whole - max(each.load, idle.load) for each in returns)
    return Outcome(
        passed=tally.right == tally.asked and not hasty.wrong and late <= _SLACK and not orphans,
        numbers=tally.numbers()
        | {
            "kills": kills,
            "asked_once": hasty.asked,
            "answered_once": hasty.right,
            "idle_load_s": round(idle.load, 2),
            "load_s": round(statistics.median(each.load for each in returns), 2),
            "back_s": round(statistics.median(each.whole for each in returns), 2),
            "back_within_s": round(back, 2),
            "beyond_load_s": round(late, 2),
            "orphans": orphans,
        },
        said=f"One of {_WORKERS} workers was killed, {kills} times, at {_RATE:.0f} requests/s of "
        f"clients that ask again, and {_ONCE:.0f} of such that do not. {tally.complaints}",
    )


def _kill(found: Server, turn: int) -> Return:
    """Kill one of the workers and wait until there are as many as before, all of them READY."""
    before, admin = workers(found), found.admin
    victim = before[turn % len(before)]
    began, started = time.monotonic(), 0.0
    end(victim, birth(victim) or 0)
    while (now := time.monotonic()) < began + _PATIENCE:
        if not started and set(workers(found)) - set(before):
            started = now
        ready = admin.workers(NAME, FIRST)
        if started and victim not in ready and len(ready) == len(before):
            return Return(started - began, time.monotonic() - started)
        time.sleep(_POLL)
    raise ServerError(f"a killed worker was not READY again within {_PATIENCE:.0f} s")
