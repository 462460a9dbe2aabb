"""Seconds an epoch of MiniLM + CLS, ours and padded to 100 in fp32, and to load word vectors."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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
_CODE = ("train", "model_src", "configs", "benchmarks/padded.py", "benchmarks/training.py")
_TITLES = {
    "padded": "padded to 100, fp32",
    "padded_anomaly": "the same with anomaly detection, as the original had it",
    "ours": "this project",
}
# From the data and the steps of an epoch to its seconds and the peak memory in MB.
Loop = Callable[[Path, int], dict[str, float]]


def run(data_dir: Path, folder: Path, loops: Mapping[str, Loop] | None = None) -> Path:
    """Time the loops in turn, ``_ROUNDS`` times; write ``folder``/training-DATA.json and .md.

    The reference takes a few steps and counts for an epoch of them, since all have one size;
    ours trains whole epochs, its pass over valid included. What was measured already, of the same
    code on the same machine, is not measured again.

    Args:
        data_dir: one label a sentence.
        folder: of the results.
        loops: ``LOOPS``.

    Raises:
        DataError: when the data are not enough, or of another kind.

    """
    config = Config.load(ROOT / "configs" / "config-bert-cls.json")
    loaded = data.load(data_dir)
    if loaded.multi_label or len(loaded.train) < (_STEPS + 1) * config.batch_size:
        fewest = (_STEPS + 1) * config.batch_size
        raise DataError(f"{data_dir}: one label a sentence and {fewest} of them are needed")
    name = data_dir.resolve().name
    path = folder / f"training-{name}.json"
    made_with = {
        "machine": machine.describe(),
        "versions": machine.versions(("transformers",)),
        "command": f"{FRONT} benchmark training --data_dir {typed(data_dir)}",
        "data": loaded.fingerprint,
        "code": results.code(_CODE),
    }
    found = results.begun(path, made_with)
    measured = found.setdefault("measured", {})
    steps = -(-len(loaded.train) // config.batch_size)
    for number in range(_ROUNDS):
        for loop, measure in (loops or LOOPS).items():
            own = measured.setdefault(loop, [])
            if len(own) <= number:
                own.append(measure(data_dir, steps))
                results.save(path, found)
    if "vectors" not in found:
        found["vectors"] = _loading()
        results.save(path, found)
    return results.report(path, _markdown(name, found))


def _padded(data_dir: Path, steps: int, *words: str) -> dict[str, float]:
    one = json.loads(_python("benchmarks.padded", str(data_dir.resolve()), str(_STEPS), *words))
    return {"seconds": one["seconds_a_step"] * steps, "memory": one["peak_memory_mb"]}


def _ours(data_dir: Path, _steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        options = ["--data_dir", str(data_dir.resolve()), "--save_path", str(model), "--epoch", "2"]
        _python("scripts", "train", "--config", "bert-cls", *options)
        metrics = Bundle.read(model).metrics
    seconds = statistics.median(entry["seconds"] for entry in metrics["history"])
    return {"seconds": seconds, "memory": metrics["peak_memory_mb"]}


LOOPS: dict[str, Loop] = {
    "padded": _padded,
    "padded_anomaly": lambda data_dir, steps: _padded(data_dir, steps, "anomaly"),
    "ours": _ours,
}


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
    made, loading = found["made_with"], found["vectors"]
    middle = {
        loop: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "memory")}
        for loop, runs in found["measured"].items()
    }
    rows = [
        (
            _TITLES[loop],
            f"{own['seconds']:.0f}",
            f"{own['seconds'] / middle['ours']['seconds']:.1f}",
            f"{own['memory']:.0f}",
        )
        for loop, own in middle.items()
    ]
    return [
        f"Training MiniLM + CLS on {name}, batches of 64.",
        "",
        *results.table(("loop", "seconds an epoch", "times ours", "peak MB"), rows),
        "",
        f"`{_VECTORS}`, {loading['words']:,} words, loads in {loading['seconds']:.2f} s once read.",
        "",
        f"`{made['command']}` on {made['machine']}.",
    ]
