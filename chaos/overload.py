"""Five times as many requests as a server can answer, and how soon it is itself again."""

import http.client
import json
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import numpy as np

from chaos.altered import SLOW, with_handler
from chaos.outcome import Outcome
from chaos.payload import KEY
from chaos.payload import NAME as MODEL
from chaos.scene import FIRST, Scene, workers
from chaos.traffic import Ask, Record
from chaos.wire import Wire
from model_src.errors import ServerError
from serving.client import AnswerError

# Seconds a batch: so slow a model that the load generator does not compete with it for the CPU.
_BATCH = 0.06
_SECONDS, _SHORT = 20.0, 3.0
_FEW, _MANY = 32, 250
_TIMES, _AGAIN = 5, 2.0
# Of the peak; and what a busy machine may add to a p99 in the short form, in ms.
_GOODPUT, _SHORT_GOODPUT, _NOISE = 0.9, 0.6, 500.0


def overload(scene: Scene) -> Outcome:
    """Measure the peak, offer five times as much, then half of the peak."""
    seconds = _SHORT if scene.short else _SECONDS
    mar = scene.archives[FIRST]
    slow = with_handler(mar, scene.folder / "slow" / mar.name, SLOW.format(seconds=_BATCH))
    found = scene.start(slow, workers=1)
    before, wire = workers(found), Wire(found)
    asks = [partial(_ask, _Line(wire)) for _ in range(_MANY)]
    peak = len(_right(_load(scene, asks[:_FEW], seconds))) / seconds
    calm = _load(scene, asks, seconds, peak / 2)
    ended = time.monotonic() + seconds
    flood = _load(scene, asks, seconds, _TIMES * peak)
    after = _load(scene, asks, 3.0, peak / 2)
    alive = workers(found) == before
    found.end()
    normal = _p99(calm)
    # a queue that is full when the flood ends is worked off first
    next_ = [each for each in after if 1.0 <= each.due - ended < 2.0]
    tallies = {
        name: scene.judge(r) for name, r in (("calm", calm), ("flood", flood), ("after", after))
    }
    goodput = sum(each.ended <= ended for each in _right(flood)) / seconds
    numbers: dict[str, float | int] = {
        "peak_a_second": round(peak, 1),
        "offered_a_second": round(len(flood) / seconds, 1),
        "answered_a_second": round(goodput, 1),
        "share_of_peak": round(goodput / peak, 3),
        "refused_503": tallies["flood"].refused,
        "failed otherwise": sum(each.failed for each in tallies.values()),
        "wrong": sum(each.wrong for each in tallies.values()),
        "p99_ms before": round(normal, 1),
        "p99_ms in the flood": round(_p99(_right(flood)), 1),
        "p99_ms one second after": round(_p99(next_), 1),
        "workers lost": int(not alive),
    }
    return Outcome(
        passed=len(flood) >= 0.9 * _TIMES * peak * seconds
        and goodput >= (_SHORT_GOODPUT if scene.short else _GOODPUT) * peak
        and tallies["flood"].refused > 0
        and numbers["failed otherwise"] == numbers["wrong"] == 0
        and bool(next_)
        and _p99(next_) <= max(_AGAIN * normal, _NOISE if scene.short else 0.0)
        and all(each.status == HTTPStatus.OK for each in next_)
        and alive,
        numbers=numbers,
        said=f"A model that takes {1000 * _BATCH:.0f} ms a batch; its peak with {_FEW} clients, "
        f"then {_TIMES} times as many requests a second from {_MANY}, then half of the peak. What "
        "finds the queue full gets a 503 at once.",
    )


def _load(scene: Scene, asks: Sequence[Ask], seconds: float, rate: float = 0.0) -> list[Record]:
    with scene.around(asks, rate=rate) as traffic:
        time.sleep(seconds)
    return traffic.records


def _right(records: list[Record]) -> list[Record]:
    return [each for each in records if each.status == HTTPStatus.OK]


def _p99(records: list[Record]) -> float:
    return float(np.percentile([1000 * (each.ended - each.due) for each in records] or [0.0], 99))


class _Line:
    """One kept connection: a fifth of what ``requests`` costs, which the flood needs."""

    def __init__(self, wire: Wire) -> None:
        self.connection = http.client.HTTPConnection(*wire.address, timeout=60)
        self.path = wire.filled(f"/predictions/{MODEL}")
        self.headers = {
            "Authorization": wire.filled(f"Bearer {KEY}"),
            "Content-Type": "application/json",
        }


def _ask(line: _Line, texts: list[str]) -> list[dict[str, Any]]:
    body = json.dumps({"text": texts[0]})
    try:
        line.connection.request("POST", line.path, body, line.headers)
        response = line.connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as reason:
        line.connection.close()
        raise ServerError(f"no answer ({type(reason).__name__})") from None
    if response.status != HTTPStatus.OK:
        raise AnswerError(line.path, response.status, answer)
    return [answer]
