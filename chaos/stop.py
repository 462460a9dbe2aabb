"""Fault 5: the server is stopped while it is asked."""

import contextlib
import http.client
import json
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from tqdm import tqdm

from chaos.outcome import Outcome
from chaos.parts import NAME, sentence
from chaos.scene import FIRST, Scene
from chaos.tally import Tally
from chaos.traffic import Record
from model_src.errors import ServerError
from serving import deploy, launch
from serving.client import AnswerError, read_key
from serving.process import group, is_free
from serving.server import Server

_ROUNDS, _IN_SHORT = 10, 1
_RATE, _SIZES, _CLIENTS = 60.0, (1, 1, 1, 128), 16
_REST, _SECONDS = 1.0, 60.0
# Seconds a batch: so slow a model that some requests are under way at any moment.
_BATCH = 0.05
# Requests without a version and such with one are refused in different ways.
_PATHS = (NAME, f"{NAME}/{FIRST}")
# The door is shut: no worker has this version, or the key is void.
_SHUT = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_REQUEST}


def stop(scene: Scene) -> Outcome:
    """Stop with requests under way, half of which name the version; clients ask once."""
    rounds = _IN_SHORT if scene.short else _ROUNDS
    tally, away, under_way, left, slowest = Tally(), 0, 0, 0, 0.0
    for _ in tqdm(range(rounds), desc="stops", unit=" stops"):
        with scene.server(slow=_BATCH) as found:
            sent: dict[str, float] = {}
            callers = [[Caller(found, path, sent) for _ in range(_CLIENTS)] for path in _PATHS]
            plain, named = (
                scene.around([each.ask for each in group_], rate=_RATE, sizes=_SIZES)
                for group_ in callers
            )
            with plain, named:
                time.sleep(_REST)
                began = time.monotonic()
                deploy.stop(found.run_dir, _SECONDS)
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(_REST / 2)
            for traffic in (plain, named):
                taken = accepted(traffic.records, sent, began)
                tally += scene.judge(taken)
                away += len(traffic.records) - len(taken)
                under_way += sum(each.began < began < each.ended for each in taken)
            left += _left(found)
    return Outcome(
        passed=tally.right == tally.asked and under_way >= rounds and not left,
        numbers=tally.numbers()
        | {"stops": rounds, "under_way": under_way, "turned_away": away, "left_behind": left}
        | {"stopped_within_s": round(slowest, 2)},
        said=f"Stopped {rounds} times at {2 * _RATE:.0f} requests/s of a model that takes "
        f"{1000 * _BATCH:.0f} ms a batch; as many requests as stops at least must be under way. "
        "Asked are the requests that were accepted: sent before the stop began or before one that "
        f"was answered, or answered with anything but that the door is shut. {tally.complaints}",
    )


class Caller:
    """A client without mercy: it asks once, and notes when all of a request was sent."""

    def __init__(self, found: Server, path: str, sent: dict[str, float]) -> None:
        """Note in ``sent`` the moment for the first sentence of each request."""
        self._path, self._sent = f"/predictions/{path}", sent
        self._key = read_key(found.key_file, "inference")
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", found.ports["inference"], timeout=_SECONDS
        )

    def ask(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return the answers; raises ServerError where there are none."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        body = json.dumps({"instances": texts})
        try:
            self._connection.request("POST", self._path, body, headers)
            self._sent[texts[0]] = time.monotonic()
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as reason:
            self._connection.close()
            raise ServerError(f"no answer ({type(reason).__name__})") from None
        found: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            found = json.loads(content)
        if answer.status != HTTPStatus.OK:
            raise AnswerError(self._path, answer.status, found)
        predictions: list[dict[str, Any]] = found["predictions"]
        return predictions


def accepted(records: Sequence[Record], sent: Mapping[str, float], stopped: float) -> list[Record]:
    """Return the requests that the server must have answered with a 200.

    What was sent before the moment ``stopped``, when the stop began, found the door open. So did
    what was sent before a request began that has been answered, unless it was told that the door
    is shut; of what has no answer nothing else is known. One that could not even be sent counts
    from when it failed.
    """
    last = max((each.began for each in records if each.status == HTTPStatus.OK), default=stopped)

    def must(each: Record) -> bool:
        moment = sent.get(sentence(each.numbers[0]), each.ended)
        if each.status in _SHUT:
            return moment < stopped
        return each.status != 0 or moment < max(last, stopped)

    return [each for each in records if must(each)]


def _left(found: Server) -> int:
    """Count the processes, ports and folders that a stopped server has left."""
    taken = sum(not is_free(port) for port in found.ports.values())
    folders = sum((found.run_dir / name).exists() for name in ("tmp", launch.STORE))
    processes = {*group(found.pid), *launch.leftovers(found.run_dir)}
    return len(processes) + taken + folders + (Server.find(found.run_dir) is not None)
