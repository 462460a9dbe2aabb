"""Requests at each limit, and what the others notice of clients that hold a server up."""

import contextlib
import gzip
import itertools
import json
import statistics
import time
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from chaos.nuisances import IDLE, NUISANCES, PAUSE, SLOW
from chaos.outcome import Outcome
from chaos.parts import Offline
from chaos.payload import GOOD, Payload
from chaos.repeated import repeated
from chaos.scene import FIRST, Scene, ask, workers
from chaos.tally import Tally
from chaos.traffic import Ask
from chaos.wire import Reply, Wire, problem
from handlers.body import MAX_BODY
from handlers.protocol import MAX_INSTANCES
from serving.server import Server

_CLIENTS, _RATE = 4, 100
# Seconds of traffic at a time, and how often before and during each nuisance.
_SECONDS, _ROUNDS = (2.0, 1), (15.0, 3)
# Of the short form: what a busy machine may add to a p99, in ms.
_NOISE = 500.0
_TIMES = 2.0
# Seconds between two requests at a limit.
_PAUSE = 0.5


def limits(scene: Scene) -> Outcome:
    """Measure others' p99 beside each nuisance, requests at every limit among them."""
    seconds, rounds = _SECONDS if scene.short else _ROUNDS
    with scene.server(workers=2) as found:
        before, wire = workers(found), Wire(found)
        wrong: list[str] = []
        edges = partial(_edges, mar=scene.archives[FIRST], offline=scene.offline, wrong=wrong)
        nuisances = NUISANCES | {"requests at limits": edges}
        asks = [ask(scene.client(found, attempts=1)) for _ in range(_CLIENTS)]
        files = _open_files(found)
        tallies: dict[str, list[Tally]] = {}
        for _ in range(rounds):
            for name in ("alone", *nuisances):
                nuisance = nuisances.get(name)
                with nuisance(wire) if nuisance else contextlib.nullcontext():
                    tallies.setdefault(name, []).append(_measure(scene, asks, seconds))
        left = _settled(found, files)
        alive = workers(found) == before
    every = [tally for group in tallies.values() for tally in group]
    p99 = {
        name: statistics.median(each.numbers()["p99_ms"] for each in group)
        for name, group in tallies.items()
    }
    most = max(_TIMES * p99["alone"], _NOISE if scene.short else 0.0)
    not_right = sum(each.asked - each.right for each in every)
    numbers: dict[str, float | int] = {
        "limits": len([*_limits(1)]),
        "other than documented": len(wrong),
        **{f"p99_ms {name}": value for name, value in p99.items()},
        "requests beside": sum(each.asked for each in every),
        "not right": not_right,
        "workers lost": int(not alive),
        "sockets left open": left,
    }
    return Outcome(
        passed=not wrong and max(p99.values()) <= most and not not_right and alive and not left,
        numbers=numbers,
        said=f"{SLOW} clients that send a header and then a byte each {PAUSE} s, {IDLE} that send "
        "nothing, ones that leave in the middle of a request or before its answer, and each limit "
        f"less one, itself and one more (TorchServe's own 413 is empty), one in {_PAUSE} s, beside "
        f"{_RATE} requests a second; p99 may be {most:.1f} ms."
        + "".join(f" {each}." for each in wrong[:5]),
    )


def _measure(scene: Scene, asks: Sequence[Ask], seconds: float) -> Tally:
    with scene.around(asks, rate=_RATE, most=round(_RATE * seconds)) as traffic:
        traffic.wait(seconds + 60)
    return scene.judge(traffic.records)


def _limits(tokens: int) -> Iterator[tuple[Payload, bool]]:
    """Yield each with whether its answer must say that the text was cut."""
    for more in (-1, 0, 1):
        good = more <= 0
        text = "a " * ((MAX_BODY + more - 12) // 2) + "a" * ((MAX_BODY + more) % 2)
        body = b'{"text": "' + text.encode() + b'"}'
        too_large = frozenset({413})
        texts = (text,) if good else ()
        yield Payload(f"{len(body)} bytes", body, texts=texts, statuses=too_large), good
        packed, gz = gzip.compress(body, 1), {"Content-Encoding": "gzip"}
        name = f"{len(body)} bytes in gzip"
        yield Payload(name, packed, headers=gz, texts=texts, statuses=too_large), good
        count = MAX_INSTANCES + more
        many = json.dumps({"instances": [GOOD] * count}).encode()
        yield Payload(f"{count} instances", many, texts=(GOOD,) * count if good else ()), False
        words = "film " * (tokens + more)
        body = json.dumps({"text": words}).encode()
        yield Payload(f"{tokens + more} tokens", body, texts=(words,)), not good
    words = "film " * 100_000
    yield Payload("100000 tokens", words.encode(), "text/plain", texts=(words,)), True


@contextlib.contextmanager
def _edges(wire: Wire, mar: Path, offline: Offline, wrong: list[str]) -> Iterator[None]:
    """Ask at each limit in turn, at the end what is left of the first turn; add what is wrong."""
    with zipfile.ZipFile(mar) as packed:
        tokens = json.loads(packed.read("model/config.json"))["n_ctx"]
    every = [*_limits(tokens)]
    first = iter(every)
    turns = itertools.chain(first, itertools.cycle(every))

    def send(payload: Payload, cut: bool) -> None:  # noqa: FBT001
        wrong.extend(_problems(payload, wire.send(payload)(), offline, cut=cut))

    with repeated(_PAUSE) as each:
        each(lambda: send(*next(turns)))
        yield
    for left in first:
        send(*left)


def _problems(payload: Payload, reply: Reply, offline: Offline, *, cut: bool) -> Iterator[str]:
    if payload.statuses == {reply.status} and not payload.texts and not reply.body:
        return
    if said := problem(payload, reply, offline):
        yield said
    elif payload.texts and cut != bool(json.loads(reply.body).get("truncated")):
        yield f"{payload.name}: truncated is not {cut}"


def _open_files(found: Server) -> int:
    return len([*Path(f"/proc/{found.pid}/fd").iterdir()])


def _settled(found: Server, files: int) -> int:
    """Return the connections that the server holds for clients that are gone, after a while."""
    for _ in range(50):
        if (left := _open_files(found) - files) <= 2 * _CLIENTS:
            return 0
        time.sleep(0.1)
    return left
