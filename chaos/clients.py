"""Fault 1: many clients at once, each of which must get its own answers."""

import time

from chaos.outcome import Outcome
from chaos.scene import Scene

_CLIENTS, _REQUESTS, _IN_SHORT = 64, 200_000, 1_000
# Every sixteenth request holds eight sentences.
_SIZES = (*(1,) * 15, 8)
_SECONDS = 3600.0


def clients(scene: Scene) -> Outcome:
    """Let all clients ask without a pause until the requests are spent; none asks twice."""
    most = _IN_SHORT if scene.short else _REQUESTS
    with scene.server() as found:
        began = time.monotonic()
        with scene.traffic(found, clients=_CLIENTS, most=most, sizes=_SIZES, attempts=1) as traffic:
            traffic.spend(_SECONDS)
            seconds = time.monotonic() - began
        tally = scene.judge(traffic.records)
    sentences = sum(len(each.numbers) for each in traffic.records)
    numbers = {"clients": _CLIENTS, "sentences": sentences} | tally.numbers()
    return Outcome(
        passed=tally.right == tally.asked == most,
        numbers=numbers | {"requests_a_second": round(most / seconds)},
        said=f"{_CLIENTS} clients asked without a pause, each request once and no sentence "
        f"twice. {tally.complaints}",
    )
