"""Fault 3: all workers are killed, then Java; what is left behind must not hinder a restart."""

import time
from functools import partial

from tqdm import tqdm

from chaos.outcome import Outcome
from chaos.parts import NAME
from chaos.scene import FIRST, SECOND, Scene, sockets, workers
from model_src.errors import ServerError
from serving import launch, server
from serving.process import birth, end
from serving.server import Server

_ROUNDS, _IN_SHORT = 10, 1
_RATE, _ATTEMPTS = 50.0, 20
_PATIENCE = 120.0


def restart(scene: Scene) -> Outcome:
    """Serve two versions; clients that have patience see none of it but the time it takes."""
    rounds = _IN_SHORT if scene.short else _ROUNDS
    found = scene.start(scene.archives[FIRST], scene.archives[SECOND], workers=1)
    changed = orphans = 0
    workers_s, java_s = [], []
    ask = partial(scene.traffic, found, rate=_RATE, clients=16, attempts=_ATTEMPTS)
    with ask() as first, ask(path=f"{NAME}/{SECOND}") as second:
        for _ in tqdm(range(rounds), desc="restarts", unit=" restarts"):
            time.sleep(0.5)
            workers_s.append(_kill_workers(found))
            time.sleep(0.5)
            before, old = _state(found), {found.pid, *workers(found)}
            java_s.append(_kill_java(found))
            found = server.restart(found.run_dir, found.ports)
            java_s[-1] = time.monotonic() - java_s[-1]
            orphans += len(set(launch.leftovers(found.run_dir)) & old)
            orphans += abs(len(sockets(found)) - len(workers(found)))
            changed += before != _state(found)
        time.sleep(1)
    tallies = scene.judge(first.records, FIRST), scene.judge(second.records, SECOND)
    found.stop()
    both = tallies[0] + tallies[1]
    return Outcome(
        passed=both.right == both.asked and not changed and not orphans,
        numbers=both.numbers()
        | {
            "restarts": rounds,
            "changed": changed,
            "orphans": orphans,
            "workers_back_within_s": round(max(workers_s), 2),
            "java_back_within_s": round(max(java_s), 2),
        },
        said=f"{rounds} times at {2 * _RATE:.0f} requests/s all workers of two versions were "
        "killed, then Java; files of a dead server were added, and the server was started again; "
        f"clients ask up to {_ATTEMPTS} times. {both.complaints}",
    )


def _state(found: Server) -> object:
    """Return what a restart must bring back."""
    ready = [len(found.admin.workers(each.name, each.version)) for each in found.served]
    return found.served, ready, found.admin.default(NAME)


def _kill_workers(found: Server) -> float:
    """Kill all workers; return the seconds until as many others are READY."""
    old, admin = workers(found), found.admin
    began = time.monotonic()
    for pid in old:
        end(pid, birth(pid) or 0)
    while time.monotonic() < began + _PATIENCE:
        ready = {pid for each in found.served for pid in admin.workers(NAME, each.version)}
        if len(ready) == len(old) and not ready & set(old):
            return time.monotonic() - began
        time.sleep(0.05)
    raise ServerError(f"killed workers were not READY again within {_PATIENCE:.0f} s")


def _kill_java(found: Server) -> float:
    """Kill Java and leave what a dead server may leave; return the moment."""
    began = time.monotonic()
    end(found.pid, found.birth)
    for i in range(2):
        (found.run_dir / "tmp" / f".ts.sock.{9000 + i}").touch()
    (found.run_dir / "tmp" / ".model_server.pid").write_text("1", encoding="utf-8")
    return began
