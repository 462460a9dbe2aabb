"""Seconds an epoch of MiniLM + CLS, ours and padded to 100 in fp32, and to load word vectors."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, results
from benchmarks.results import FRONT, ROOT, typed
from model_src.bundle import Bundle
from model_src.config import Config
from model_src.errors import DataError
from train import data, vectors

_ROUNDS = 2
_STEPS = 8
_VECTORS = "glove.6B.50d"


def run(data_dir: Path, folder: Path) -> Path:
    """Time both in turn, ``_ROUNDS`` times; write ``folder``/training-DATA.json and .md.

    The reference takes a few steps and counts for an epoch of them, since all have one size;
    ours trains whole epochs, its pass over valid included.
    """
    config = Config.load(ROOT / "configs" / "config-bert-cls.json")
    loaded = data.load(data_dir)
    if loaded.multi_label or len(loaded.train) < (_STEPS + 1) * config.batch_size:
        fewest = (_STEPS + 1) * config.batch_size
        raise DataError(f"{data_dir}: one label a sentence and {fewest} of them are needed")
    steps = -(-len(loaded.train) // config.batch_size)
    measured: dict[str, list[dict[str, float]]] = {"padded": [], "padded_anomaly": [], "ours": []}
    for _ in range(_ROUNDS):
        for name, words in (("padded", []), ("padded_anomaly", ["anomaly"])):
            command = ["benchmarks.padded", str(data_dir.resolve()), str(_STEPS), *words]
            one = json.loads(_python(*command))
            seconds = one["seconds_a_step"] * steps
            measured[name].append({"seconds": seconds, "memory": one["peak_memory_mb"]})
        measured["ours"].append(_ours(data_dir))
    found: dict[str, Any] = {
        name: {key: statistics.median(one[key] for one in runs) for key in ("seconds", "memory")}
        for name, runs in measured.items()
    }
    name = data_dir.resolve().name
    found |= {
        "vectors": _loading(),
        "machine": machine.describe(),
        "command": f"{FRONT} benchmark training --data_dir {typed(data_dir)}",
    }
    path = folder / f"training-{name}.json"
    results.save(path, found)
    return results.report(path, _markdown(name, found))


def _ours(data_dir: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        options = ["--data_dir", str(data_dir.resolve()), "--save_path", str(model), "--epoch", "2"]
        _python("scripts", "train", "--config", "bert-cls", *options)
        metrics = Bundle.read(model).metrics
    seconds = statistics.median(entry["seconds"] for entry in metrics["history"])
    return {"seconds": seconds, "memory": metrics["peak_memory_mb"]}


def _loading() -> dict[str, float]:
    """Return how many words the packaged vectors have, and the seconds that they take to load."""
    seconds, words = [], len(vectors.read(_VECTORS).words)  # for the first time
    for _ in range(5):
        began = time.perf_counter()
        vectors.read(_VECTORS)
        seconds.append(time.perf_counter() - began)
    return {"words": words, "seconds": statistics.median(seconds)}


def _python(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return done.stdout


def _markdown(name: str, found: dict[str, Any]) -> list[str]:
    ours, loading = found["ours"]["seconds"], found["vectors"]
    titles = {
        "padded": "padded to 100, fp32",
        "padded_anomaly": "the same with anomaly detection, as the original had it",
        "ours": "this project",
    }
    rows = [
        (
            title,
            f"{found[key]['seconds']:.0f}",
            f"{found[key]['seconds'] / ours:.1f}",
            f"{found[key]['memory']:.0f}",
        )
        for key, title in titles.items()
    ]
    return [
        f"Training MiniLM + CLS on {name}, batches of 64.",
        "",
        *results.table(("loop", "seconds an epoch", "times ours", "peak MB"), rows),
        "",
        f"`{_VECTORS}`, {loading['words']:,} words, loads in {loading['seconds']:.2f} s once read.",
        "",
        f"`{found['command']}` on {found['machine']}.",
    ]
