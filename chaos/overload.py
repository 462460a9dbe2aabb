"""Five times as many requests as a server can answer, and how soon it is itself again."""

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from chaos.outcome import Outcome
from chaos.payload import KEY
from chaos.payload import NAME as MODEL
from chaos.scene import Scene, workers
from chaos.traffic import Ask, Record
from chaos.wire import Wire
from model_src.errors import ServerError
from serving.client import AnswerError

# Seconds a batch: so slow a model that the load generator does not compete with it for the CPU.
_BATCH, _SHORT_BATCH = 0.06, 0.15
_SECONDS, _SHORT = 20.0, 3.0
_FEW, _MANY = 32, 250
_TIMES, _AGAIN = 5, 2.0
_OFFERED, _GOODPUT = 0.9, 0.9
# In the short form a busy machine may leave much less of both, and add so many ms to a p99.
_SHORT_OFFERED, _SHORT_GOODPUT, _NOISE = 0.4, 0.05, 1000.0
# Seconds after the flood for what the queue still holds.
_DRAIN, _SHORT_DRAIN = 1.0, 3.0


def overload(scene: Scene) -> Outcome:
    """Measure the peak, offer five times as much, then half of the peak."""
    seconds, batch = (_SHORT, _SHORT_BATCH) if scene.short else (_SECONDS, _BATCH)
    drain = _SHORT_DRAIN if scene.short else _DRAIN
    found = scene.start(scene.slow(batch), workers=1)
    before, wire = workers(found), Wire(found)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(contextlib.closing(_Line(wire))) for _ in range(_MANY)]
        asks = [line.ask for line in lines]
        peak = len(_right(_load(scene, asks[:_FEW], seconds))) / seconds
        calm = _load(scene, asks, seconds, peak / 2)
        ended = time.monotonic() + seconds
        flood = _load(scene, asks, seconds, _TIMES * peak)
        after = _load(scene, asks, drain + 1.5, peak / 2)
    alive = workers(found) == before
    found.end()
    offered, share = (_SHORT_OFFERED, _SHORT_GOODPUT) if scene.short else (_OFFERED, _GOODPUT)
    normal = _p99(calm)
    # a queue that is full when the flood ends is worked off first
    next_ = [each for each in after if each.due - ended >= drain]
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
        f"p99_ms after {drain:g} s": round(_p99(next_), 1),
        "workers lost": int(not alive),
    }
    return Outcome(
        passed=len(flood) >= offered * _TIMES * peak * seconds
        and goodput >= share * peak
        and tallies["flood"].refused > 0
        and numbers["failed otherwise"] == numbers["wrong"] == 0
        and bool(next_)
        and _p99(next_) <= max(_AGAIN * normal, _NOISE if scene.short else 0.0)
        and all(each.status == HTTPStatus.OK for each in next_)
        and alive,
        numbers=numbers,
        said=f"A model that takes {1000 * batch:.0f} ms a batch; its peak with {_FEW} clients, "
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
        self._connection = http.client.HTTPConnection(*wire.address, timeout=60)
        self._connection.connect()
        self._path = wire.filled(f"/predictions/{MODEL}")
        self._headers = {
            "Authorization": wire.filled(f"Bearer {KEY}"),
            "Content-Type": "application/json",
        }

    def ask(self, texts: list[str]) -> list[dict[str, Any]]:
        """Ask once for one sentence."""
        body = json.dumps({"text": texts[0]})
        try:
            self._connection.request("POST", self._path, body, self._headers)
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as reason:
            self.close()
            raise ServerError(f"no answer ({type(reason).__name__})") from None
        if response.status != HTTPStatus.OK:
            raise AnswerError(self._path, response.status, answer)
        return [answer]

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()
