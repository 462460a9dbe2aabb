"""Malformed requests and naughty sentences, each with a good mate sent in the same moment."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path

from chaos.batches import batches
from chaos.naughty import STRINGS
from chaos.outcome import Outcome
from chaos.parts import Offline, sentence
from chaos.payload import GOOD, MARKER, Payload
from chaos.payloads import PAYLOADS
from chaos.scene import Scene, workers
from chaos.traffic import Record
from chaos.wire import Reply, Wire, problem
from serving.client import read_key

_THREADS, _CLIENTS, _RATE = 4, 4, 100
# Seconds a batch: so slow a model that requests wait for it, and those of one moment share a batch.
_BATCH = 0.02
# Workers count for a second before they report.
_REPORT = 1.5
# In the short form only every so many-th payload is sent.
_STEP = 8
# Characters of a sentence that are looked for in the logs.
_LEAST, _BEGIN = 12, 60
_MATE = Payload("a mate", GOOD.encode(), "text/plain", texts=(GOOD,))


def malformed(scene: Scene) -> Outcome:
    """Send every payload of the table beside steady traffic to one worker."""
    payloads = [each for make in PAYLOADS.values() for each in make()]
    payloads = payloads[:: _STEP if scene.short else 1]
    # one worker, so that mates share its batches
    with scene.server(workers=1, slow=_BATCH) as found:
        before, wire = workers(found), Wire(found)
        with (
            scene.traffic(found, clients=_CLIENTS, rate=_RATE, attempts=1) as traffic,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            replies = list(pool.map(partial(_both, wire), payloads))
        time.sleep(_REPORT)
        sizes = batches(found)
        alive = workers(found) == before
        quoted = [MARKER, *_said(payloads, traffic.records)]
        keys = [read_key(found.key_file, name) for name in ("inference", "management")]
        logs = found.run_dir / "logs"
        told = [*logged(logs, "what was sent", quoted), *logged(logs, "a key", keys)]
    good = scene.judge(traffic.records)
    wrong = [*_problems(payloads, replies, scene.offline)]
    shared = sizes.total() - sizes[1]
    numbers: dict[str, float | int] = {
        "payloads": len(payloads),
        "sentences accepted": sum(bool(each.texts) for each in payloads),
        "refused": sum(not each.texts for each in payloads),
        "other than documented": len(wrong),
        "mates": len(replies),
        "batches": sizes.total(),
        "batches of two and more": shared,
        "around": good.asked,
        "around not right": good.asked - good.right,
        "workers lost": int(not alive),
        "sentences looked for in logs": len(quoted),
        "logs that quote": len(told),
        "5xx": sum(own.status >= HTTPStatus.INTERNAL_SERVER_ERROR for own, _ in replies),
    }
    return Outcome(
        passed=not wrong
        and good.right == good.asked > 0
        and shared > sizes[1]
        and alive
        and not told,
        numbers=numbers,
        said="Every request of chaos/payloads.py with a good mate in the same moment, beside "
        f"{_RATE} requests a second, to one worker that takes {1000 * _BATCH:.0f} ms a batch: most "
        "batches must have two requests and more. A wrong token is 400, a version or path that is "
        "not there 404 or 405, what is no HTTP 400 or a closed connection, or silence where it is "
        "not whole." + "".join(f" {each}." for each in (*wrong[:5], *told)),
    )


def _both(wire: Wire, payload: Payload) -> tuple[Reply, Reply]:
    """Send a payload and a mate before either is answered."""
    own, mate = wire.send(payload), wire.send(_MATE)
    return own(), mate()


def _problems(
    payloads: list[Payload], replies: list[tuple[Reply, Reply]], offline: Offline
) -> Iterator[str]:
    for payload, (own, mate) in zip(payloads, replies, strict=True):
        for sent, reply in ((payload, own), (_MATE, mate)):
            if said := problem(sent, reply, offline):
                yield said if sent is payload else f"beside {payload.name}: {said}"


def _said(payloads: Sequence[Payload], records: Sequence[Record]) -> set[str]:
    """Return how sentences begin, taken or refused, that a log can hold by quoting only."""
    texts = {*STRINGS, *(text for each in payloads for text in each.texts if text)}
    texts |= {sentence(number) for each in records for number in each.numbers}
    begun = {text.strip()[:_BEGIN] for text in texts}
    return {text for text in begun if len(text) >= _LEAST}


def logged(logs: Path, what: str, secrets: Sequence[str]) -> Iterator[str]:
    """Yield the files of the folder ``logs`` that hold one of ``secrets``."""
    for path in logs.iterdir():
        content = path.read_text(encoding="utf-8", errors="replace")
        if any(secret in content for secret in secrets):
            yield f"{path.name} quotes {what}"
