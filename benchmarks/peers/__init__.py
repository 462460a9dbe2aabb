"""The servers that ``benchmark serving`` compares ours with: how each is started, asked and read.

Each has a small file here and a complete, exact list of what it needs beside the project's own
packages; their needs exclude one another, so that each has an environment of its own.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.common import BATCH

_BATCHES = f"batches of up to {BATCH}"
# LitServe's default and what ours does, or long enough for some more to come.
_WAITS = (0, 1)


@dataclass(frozen=True)
class Peer:
    """One server.

    ``command`` makes the command line of (Python, port, workers); the app reads the export
    directory from the environment. ``body`` makes a request of a sentence, ``scores`` reads its
    answer. ``setting`` says how it was set. ``waits`` are the ms that a batch waits to be filled,
    where that can be chosen: each is measured, and the better one counts.
    """

    title: str
    command: Callable[[Path, int, int], list[str]]
    path: str
    body: Callable[[str], dict[str, Any]]
    scores: Callable[[Any], dict[str, float]]
    setting: str
    waits: tuple[int, ...] = ()

    def ways(self, name: str) -> dict[str, int]:
        """Return what each way to run the server ``name`` is called, and its wait."""
        return {f"{name}/{wait}": wait for wait in self.waits} or {name: 0}


def _text(text: str) -> dict[str, Any]:
    return {"text": text}


def _fastapi(python: Path, port: int, workers: int) -> list[str]:
    # it has no process in front of the model, where ours has Java: one more that has the model
    count = str(workers + 1)
    options = ["--workers", count, "--port", str(port), "--no-access-log", "--log-level", "warning"]
    return [str(python), "-m", "uvicorn", "benchmarks.peers.fastapi_app:app", *options]


def _litserve(python: Path, port: int, workers: int) -> list[str]:
    return [str(python), "-m", "benchmarks.peers.litserve_app", str(port), str(workers)]


def _bentoml(python: Path, port: int, workers: int) -> list[str]:
    app = "benchmarks.peers.bentoml_app:Classifier"
    options = ["--host", "127.0.0.1", "--port", str(port), "--quiet"]
    return [str(python), "-m", "bentoml", "serve", app, *options]


def _mlserver(python: Path, port: int, workers: int) -> list[str]:
    return [str(python), "-m", "benchmarks.peers.mlserver_app", str(port), str(workers)]


def _tensor(text: str) -> dict[str, Any]:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    return {"inputs": [tensor]}


def _packed(answer: Any) -> dict[str, float]:  # noqa: ANN401 - JSON
    return dict(json.loads(answer["outputs"][0]["data"][0])["scores"])


PEERS = {
    "litserve": Peer(
        "LitServe",
        _litserve,
        "/predict",
        _text,
        lambda answer: dict(answer["scores"]),
        f"a process for HTTP and {{workers}} for the model, ZeroMQ queues, {_BATCHES}",
        _WAITS,
    ),
    "bentoml": Peer(
        "BentoML",
        _bentoml,
        "/predict",
        lambda text: {"texts": [text]},
        lambda answer: dict(answer[0]["scores"]),
        f"{{more}} processes for HTTP and model, adaptive {_BATCHES}",
    ),
    "mlserver": Peer(
        "MLServer",
        _mlserver,
        "/v2/models/model/infer",
        _tensor,
        _packed,
        f"a process for HTTP and {{workers}} for the model, adaptive {_BATCHES}",
        _WAITS,
    ),
    "fastapi": Peer(
        "FastAPI",
        _fastapi,
        "/predict",
        _text,
        lambda answer: dict(answer["scores"]),
        "{more} uvicorn processes for HTTP and model, uvloop and httptools; it has no batching",
    ),
}
