"""The servers of ``benchmark serving``: started, asked whether they answer as offline, ended."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks import load, paused
from benchmarks.load import Target
from benchmarks.peers import Peer, common
from benchmarks.results import ROOT
from model_src.decode import Prediction
from model_src.errors import ServerError
from serving import launch, server
from serving.process import free_ports
from serving.server import Options

# What a score may differ by: JSON may be written rounded.
_CLOSE = 1e-6
_SECONDS = 120.0
# Sentences whose answers are compared before the load.
COMPARED = 100


@dataclass(frozen=True)
class Model:
    """What all serve; ``answers`` are those to the first of the ``texts``, offline."""

    export: Path
    mar: Path
    texts: list[str]
    answers: list[Prediction]


@dataclass(frozen=True)
class Contestant:
    """A server, stopped but for its turns; ``mark`` finds its processes."""

    target: Target
    mark: bytes

    def turn(self, clients: int, warm_up: int, seconds: int) -> dict[str, Any]:
        """Load it for ``seconds`` after a warm-up: the caches belonged to another server."""
        paused.resume(self.mark)
        try:
            self._press(clients, warm_up)
            return self._press(clients, seconds)
        finally:
            paused.pause(self.mark)

    def _press(self, clients: int, seconds: int) -> dict[str, Any]:
        """Load it, and let it answer what wrk left behind.

        Those requests and as many new ones can be more than a server's queue holds.
        """
        found = load.press(self.target, clients, seconds)
        time.sleep(2 * found["p99_ms"] / 1000)
        return found


@contextlib.contextmanager
def ours(model: Model, workers: int, folder: Path) -> Iterator[Contestant]:
    """Yield our archive as ``serve start`` serves it."""
    folder.mkdir()
    found = server.start(folder, [str(model.mar)], folder / "run", options=Options(workers))
    try:
        auth = found.header_file.read_text(encoding="utf-8").strip()
        url = found.url(found.models[0])
        target = _checked(url, auth, model, folder, lambda text: {"text": text}, _scores)
        mark = launch.mark(found.run_dir)
        paused.pause(mark)
        yield Contestant(target, mark)
    finally:
        try:
            paused.resume(launch.mark(found.run_dir))
        finally:
            found.end()


@contextlib.contextmanager
def peer(
    entry: Peer, wait_ms: int, python: Path, model: Model, workers: int, folder: Path
) -> Iterator[Contestant]:
    """Yield one of the others, started with its own Python and our allocator.

    Every request has our header too.
    """
    folder.mkdir()
    port = free_ports(1)[0]
    places = {"PYTHONPATH": str(ROOT), "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
    places |= {"LD_PRELOAD": launch.allocator(), common.PLACE: str(folder)}
    given = {common.EXPORT: str(model.export), common.WORKERS: str(workers)}
    given[common.WAIT_MS] = str(wait_ms)
    mark = f"{common.PLACE}={folder}".encode()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            entry.command(python, port, workers),
            cwd=folder,
            env=os.environ | places | given,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}{entry.path}"
        _wait(entry, process, url, folder / "log")
        auth = "Authorization: Bearer 01234567"
        target = _checked(url, auth, model, folder, entry.body, entry.scores)
        paused.pause(mark)
        yield Contestant(target, mark)
    finally:
        paused.finish(process.pid, mark)
        process.wait()


def _scores(answer: Any) -> dict[str, float]:  # noqa: ANN401 - JSON
    return dict(answer["scores"])


def _wait(entry: Peer, process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Return when the first request is answered."""
    deadline = time.monotonic() + _SECONDS
    with _session() as session:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if session.post(url, json=entry.body("no"), timeout=10).ok:
                    return
            time.sleep(0.2)
    said = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    raise ServerError(f"{entry.title} does not answer; its log ends:\n{said}")


def _session() -> requests.Session:
    """Return a session that asks no proxy for what is on this machine."""
    session = requests.Session()
    session.trust_env = False
    return session


def _checked(
    url: str,
    auth: str,
    model: Model,
    folder: Path,
    body: Callable[[str], dict[str, Any]],
    scores: Callable[[Any], dict[str, float]],
) -> Target:
    """Return what to load, if it answers each sentence as the model does offline."""
    name, _, value = auth.partition(": ")
    with _session() as session:
        for text, expected in zip(model.texts, model.answers, strict=False):
            response = session.post(url, json=body(text), headers={name: value}, timeout=30)
            found = scores(response.json()) if response.ok else {}
            good = found.keys() == expected.scores.keys() and all(
                abs(found[label] - score) <= _CLOSE for label, score in expected.scores.items()
            )
            if not good:
                raise ServerError(f"{url} answers {text!r} otherwise than offline: {found}")
    load.write(folder, model.texts, body, auth)
    return Target(url, folder / "headers", folder / "bodies")
