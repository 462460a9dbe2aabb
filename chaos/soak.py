"""Memory of the workers over many minutes, and a leak on purpose that the same check must find."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import sub
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from chaos.altered import LEAKY, with_handler
from chaos.fit import Fit, fit
from chaos.outcome import Outcome
from chaos.parts import Offline
from chaos.payloads import PAYLOADS
from chaos.repeated import repeated
from chaos.scene import FIRST, Scene, workers
from chaos.traffic import Record
from chaos.wire import Wire, problem
from serving.server import Server

_CLIENTS, _RATE, _SIZES = 4, 50, (1, 1, 1, 8, 1, 40)
# Malformed requests a second, none of them longer than so many bytes; before the watch more, so
# that each has been sent several times: the first of a kind may take memory that the next ones use.
_WRONG, _FIRST_WRONG, _LONGEST = 5, 50, 20_000
# The control leaks so many bytes every so many requests, which are some 35 MB an hour of a worker,
# and is watched for a share of the minutes.
_LEAK, _SHORT_LEAK, _SHARE = (16_384, 44), (1_048_576, 1), 0.5
# A share of the time is warm-up; before it so many clients fill the batches with so many requests.
# Memory rises in ever rarer steps until some 200,000 are answered, in part since oneDNN keeps a
# kernel for every number of tokens that a batch ever had, at most 92 a layer.
_WARM, _SAMPLES = 0.25, 600
_CROWD, _CROWDED, _CROWD_SECONDS = 16, (200_000, 200), 1800.0
# MB an hour that memory may grow, and how well that must be known: one step of memory in few
# minutes may be a leak or not, which more minutes tell, up to so many times those asked for. In
# seconds no more can be told than that it is not the control's leak.
_TURNS = 3
_MOST, _SHORT_MOST = (1.0, 5.0), (40_000.0, 1_000_000.0)
# What a worker has made itself, in memory or swapped out; beside it all it has in memory, of which
# the kernel drops and reads again the pages of files, whoever leaks.
_OWN, _WHOLE = "Anonymous", "Rss"

# By worker: moments in hours, and MB by field.
_Samples = dict[int, list[tuple[float, dict[str, float]]]]


class Watch(NamedTuple):
    """A server's workers under traffic: their memory, and what became of the requests."""

    samples: _Samples
    minutes: float
    # the requests before, and those meanwhile
    crowd: list[Record]
    records: list[Record]
    # what was wrong with replies to malformed requests
    wrong: list[str]


def soak(scene: Scene) -> Outcome:
    """Watch workers under steady traffic, then those of a handler that leaks."""
    most, unsure = _SHORT_MOST if scene.short else _MOST
    size, every = _SHORT_LEAK if scene.short else _LEAK
    with scene.server() as found:
        pids = workers(found)
        good = watch(scene, found, scene.minutes, partial(_told, most, unsure))
        alive = workers(found) == pids
    mar = scene.archives[FIRST]
    leaky = with_handler(
        mar, scene.folder / "leaky" / mar.name, LEAKY.format(size=size, every=every)
    )
    control = scene.start(leaky)
    tally = scene.judge(good.crowd + good.records)
    minutes = scene.minutes * (1 if scene.short else _SHARE)
    bad = watch(scene, control, minutes, lambda each: each.least > most)
    control.end()
    fits = _fits(good.samples, _OWN)
    numbers: dict[str, float | int] = {"minutes": good.minutes}
    numbers |= {"requests before": len(good.crowd), "requests": len(good.records)}
    for number, samples in enumerate(good.samples.values(), 1):
        for field in (_OWN, _WHOLE):
            numbers |= _numbers(f"worker {number} {field}", samples, field)
    leaks = _fits(bad.samples, _OWN)
    numbers["control minutes"] = bad.minutes
    numbers[f"control {_OWN} MB/h"] = round(min(each.slope for each in leaks), 1)
    if math.isfinite(error := max(each.error for each in leaks)):
        numbers[f"control {_OWN} ± MB/h"] = round(error, 1)
    numbers |= {
        "workers of which it cannot be told": sum(each.error > unsure for each in fits),
        "not right": tally.asked - tally.right,
        "malformed, other than documented": len(good.wrong),
        "workers lost": int(not alive),
    }
    steady = all(each.steady(most, unsure) for each in fits)
    # A leak that takes the check longer would have passed in the minutes above.
    caught = all(each.least > most for each in leaks) and bad.minutes <= good.minutes
    right = tally.right == tally.asked > 0 and not good.wrong
    warm = min(len(good.crowd), len(bad.crowd)) >= _CROWDED[scene.short]
    return Outcome(
        passed=steady and caught and alive and right and warm,
        numbers=numbers,
        said=f"{_RATE} requests a second of 1 to {max(_SIZES)} sentences and {_WRONG} malformed "
        f"ones, after {_CROWDED[scene.short]:,} requests of {_CROWD} clients without a pause and "
        f"{_FIRST_WRONG} malformed ones a second; the first {_WARM:.0%} of the minutes asked for "
        "is warm-up. A worker's own memory may grow by "
        f"{most:g} MB an hour within the 95 % interval of the fit, which must be known to ± "
        f"{unsure:g}; while it is not, the watch goes on for as long again, at most {_TURNS} times "
        f"in all. The control keeps {size // 1024} KB of one in {every} requests and must be "
        "found out in no more time." + "".join(f" {each}." for each in good.wrong[:5]),
    )


def watch(scene: Scene, found: Server, minutes: float, told: Callable[[Fit], bool]) -> Watch:
    """Sample the memory of each worker while it is asked; the warm-up is left out.

    Args:
        scene: gives the traffic.
        found: the server, whose workers are all asked.
        minutes: how long, and how long again, up to ``_TURNS`` times, until all is told.
        told: says of a fit whether it is enough.

    """
    seconds, samples = 60 * minutes, _Samples()
    most = _CROWDED[scene.short]
    with (
        scene.traffic(found, clients=_CROWD, most=most, sizes=_SIZES, attempts=1) as crowd,
        _malformed(Wire(found), scene.offline, _FIRST_WRONG) as first_wrong,
    ):
        crowd.spend(_CROWD_SECONDS)
    began = time.monotonic()
    with (
        scene.traffic(found, clients=_CLIENTS, rate=_RATE, sizes=_SIZES, attempts=1) as traffic,
        _malformed(Wire(found), scene.offline, _WRONG) as wrong,
        tqdm(total=round(seconds), desc="soak", unit=" s") as bar,
    ):
        for turns in range(1, _TURNS + 1):
            bar.total = round(turns * seconds)
            while (passed := time.monotonic() - began) < turns * seconds:
                if passed >= _WARM * seconds:
                    for pid in workers(found):
                        samples.setdefault(pid, []).append((passed / 3600, memory(pid)))
                time.sleep(max(0.1, seconds / _SAMPLES))
                bar.update(min(round(time.monotonic() - began), bar.total) - bar.n)
            if samples and all(told(each) for each in _fits(samples, _OWN)):
                break
    wrong = first_wrong + wrong
    return Watch(samples, round(turns * minutes, 3), crowd.records, traffic.records, wrong)


def _told(most: float, unsure: float, found: Fit) -> bool:
    """Tell whether more minutes would change nothing: it is known well, or it grows for sure."""
    return found.error <= unsure or found.least > most


def _fits(samples: _Samples, field: str) -> list[Fit]:
    """Return how fast the ``field`` of each worker grows, in MB an hour."""
    return [_fit(each, field) for each in samples.values()]


def _fit(samples: list[tuple[float, dict[str, float]]], field: str) -> Fit:
    return fit([at for at, _ in samples], [values[field] for _, values in samples])


def _numbers(
    name: str, samples: list[tuple[float, dict[str, float]]], field: str
) -> dict[str, float]:
    """Return what is told of one worker: MB in the end, the largest step, and the fit."""
    values = [found[field] for _, found in samples]
    line = _fit(samples, field)
    numbers = {
        f"{name} MB": round(values[-1], 1),
        f"{name} largest step MB": round(max(map(sub, values[1:], values), default=0.0), 2),
        f"{name} MB/h": round(line.slope, 2),
    }
    return numbers | ({f"{name} ± MB/h": round(line.error, 2)} if math.isfinite(line.error) else {})


def memory(pid: int) -> dict[str, float]:
    """Return MB of a process by field of the kernel's own sum; what is swapped out is its own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:])
    mb = {name: int(value.split()[0]) / 1024 for name, value in fields.items()}
    return {_OWN: mb[_OWN] + mb["Swap"], _WHOLE: mb[_WHOLE]}


@contextmanager
def _malformed(wire: Wire, offline: Offline, rate: float) -> Iterator[list[str]]:
    """Send ``rate`` malformed requests a second in a thread; yield where complaints come."""
    all_ = (each for make in PAYLOADS.values() for each in make())
    payloads = itertools.cycle([each for each in all_ if len(each.body) <= _LONGEST])
    wrong = list[str]()

    def send() -> None:
        payload = next(payloads)
        if said := problem(payload, wire.send(payload)(), offline):
            wrong.append(said)

    with repeated(1 / rate) as each:
        each(send)
        yield wrong
