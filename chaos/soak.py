"""Memory of the workers over many minutes, and a leak on purpose that the same check must find."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.altered import LEAKY, with_handler
from chaos.fit import Fit, fit
from chaos.outcome import Outcome
from chaos.payload import Payload
from chaos.payloads import PAYLOADS
from chaos.scene import FIRST, Scene, workers
from chaos.tally import Tally
from chaos.wire import Wire
from serving.server import Server

_CLIENTS, _RATE, _SIZES = 4, 50, (1, 1, 1, 8, 1, 40)
# Malformed requests a second, none of them longer than so many bytes.
_WRONG, _LONGEST = 5, 20_000
# The control leaks so many bytes a request, and is watched for a share of the minutes.
_LEAK, _SHORT_LEAK, _SHARE = 16_384, 1_048_576, 0.25
# A share of the time is warm-up.
_WARM, _SAMPLES = 0.25, 600
# MB an hour; in seconds no more can be told than that it is not the control's leak.
_MOST, _SHORT_MOST = 1.0, 20_000.0
_FIELDS = ("Rss", "Pss")

# By worker: moments in hours, and MB by field.
_Samples = dict[int, list[tuple[float, dict[str, float]]]]


def soak(scene: Scene) -> Outcome:
    """Watch workers under steady traffic, then those of a handler that leaks."""
    most, leak = (_SHORT_MOST, _SHORT_LEAK) if scene.short else (_MOST, _LEAK)
    with scene.server() as found:
        pids = workers(found)
        good, tally = _watched(scene, found, scene.minutes)
        alive = workers(found) == pids
    mar = scene.archives[FIRST]
    leaky = with_handler(mar, scene.folder / "leaky" / mar.name, LEAKY.format(size=leak))
    control = scene.start(leaky)
    bad, _ = _watched(scene, control, scene.minutes * (1 if scene.short else _SHARE))
    control.end()
    numbers: dict[str, float | int] = {"minutes": scene.minutes, "requests": tally.asked}
    for number, pid in enumerate(good, 1):
        for field in _FIELDS:
            found_ = _fit(good[pid], field)
            numbers[f"worker {number} {field} MB"] = round(good[pid][-1][1][field], 1)
            numbers[f"worker {number} {field} MB/h"] = round(found_.slope, 2)
            numbers[f"worker {number} {field} ± MB/h"] = round(found_.error, 2)
    leaks = [_fit(samples, "Rss") for samples in bad.values()]
    numbers["control Rss MB/h"] = round(min(each.slope for each in leaks), 1)
    numbers["control Rss ± MB/h"] = round(max(each.error for each in leaks), 1)
    numbers |= {"not right": tally.asked - tally.right, "workers lost": int(not alive)}
    steady = all(_fit(samples, "Rss").least <= most for samples in good.values())
    caught = all(each.least > most for each in leaks)
    return Outcome(
        passed=steady and caught and alive and tally.right == tally.asked > 0,
        numbers=numbers,
        said=f"{_RATE} requests a second of 1 to {max(_SIZES)} sentences and {_WRONG} malformed "
        f"ones; the first {_WARM:.0%} of the time is warm-up. A worker's Rss may grow by "
        f"{most:g} MB an hour within the 95 % interval of the fit. The control keeps "
        f"{leak // 1024} KB of each request and must be found out.",
    )


def _watched(scene: Scene, found: Server, minutes: float) -> tuple[_Samples, Tally]:
    """Sample the memory of each worker while it is asked; the warm-up is left out."""
    seconds, samples = 60 * minutes, _Samples()
    began = time.monotonic()
    with (
        scene.traffic(found, clients=_CLIENTS, rate=_RATE, sizes=_SIZES, attempts=1) as traffic,
        _malformed(Wire(found)),
    ):
        while (passed := time.monotonic() - began) < seconds:
            if passed >= _WARM * seconds:
                for pid in workers(found):
                    samples.setdefault(pid, []).append((passed / 3600, memory(pid)))
            time.sleep(max(0.1, seconds / _SAMPLES))
    return samples, scene.judge(traffic.records)


def _fit(samples: list[tuple[float, dict[str, float]]], field: str) -> Fit:
    return fit([at for at, _ in samples], [values[field] for _, values in samples])


def memory(pid: int) -> dict[str, float]:
    """Return MB of a process by field of the kernel's own sum."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:])
    return {name: int(fields[name].split()[0]) / 1024 for name in _FIELDS}


@contextmanager
def _malformed(wire: Wire) -> Iterator[None]:
    """Send malformed requests, one after the other, in a thread."""
    every = (each for make in PAYLOADS.values() for each in make())
    payloads = [each for each in every if len(each.body) <= _LONGEST]
    over = threading.Event()

    def work(sent: Iterator[Payload]) -> None:
        while not over.wait(1 / _WRONG):
            wire.send(next(sent))()

    thread = threading.Thread(target=work, args=(itertools.cycle(payloads),), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
