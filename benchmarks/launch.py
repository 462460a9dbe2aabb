"""What each setting of a worker's process is worth for the worker's own work, measured in turns."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tqdm import tqdm

from benchmarks import machine
from model_src.bundle import WEIGHTS, Bundle, seal
from model_src.classifier import Classifier, state_of
from model_src.config import Config
from model_src.files import atomic_write
from serving.export import export
from serving.sentences import bundled
from train.pretrained import PRETRAINED

ROOT = Path(__file__).resolve().parent.parent
_ROUNDS = 5
# Worth something: better by this much in one of the measures and worse by as much in none.
_WORTH = 0.03
# The values of the PyTorch performance guide for jemalloc.
_TUNED = "oversize_threshold:1,background_thread:true,metadata_thp:auto,dirty_decay_ms:-1"
# The most that every glibc accepts, so that no batch gives back what the next one needs.
_KEEP = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


def library(name: str) -> str:
    """Return the path of an installed shared library, empty where there is none."""
    folders = (Path("/usr/lib"), Path("/usr/local/lib"), *Path("/usr/lib").glob("*-linux-gnu"))
    found = (path for folder in folders for path in sorted(folder.glob(f"lib{name}.so.*")))
    return str(next(found, ""))


_JEMALLOC, _TCMALLOC = library("jemalloc"), library("tcmalloc_minimal")


@dataclass(frozen=True)
class Setting:
    """One row: the environment of the process, its threads, and whether it stays on one core."""

    title: str
    env: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    pinned: bool = False


SETTINGS = {
    "plain": Setting("1 thread, set by the handler"),
    "omp": Setting("OMP_NUM_THREADS=1 too", {"OMP_NUM_THREADS": "1"}),
    "pinned": Setting("pinned to one core", pinned=True),
    "kept": Setting("glibc keeps freed memory", _KEEP),
    "jemalloc": Setting("jemalloc", {"LD_PRELOAD": _JEMALLOC}),
    "jemalloc-tuned": Setting(
        "jemalloc, never giving back", {"LD_PRELOAD": _JEMALLOC, "MALLOC_CONF": _TUNED}
    ),
    "tcmalloc": Setting("tcmalloc", {"LD_PRELOAD": _TCMALLOC}),
    "thp": Setting("huge pages for tensors", {"THP_MEM_ALLOC_ENABLE": "1"}),
    "two": Setting("2 threads", threads=2),
    "two-bound": Setting(
        "2 threads, bound to cores", {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}, 2
    ),
    "two-active": Setting("2 threads, spinning", {"OMP_WAIT_POLICY": "ACTIVE"}, 2),
}
# Name of the model: its config and its format.
MODELS = {"GloVe-CNN": ("glove-cnn", "torchscript"), "MiniLM int8": ("bert-cls", "int8")}


def run(results: Path) -> Path:
    """Measure all settings in turns; write ``results``/launch.json and .md, return the latter."""
    usable = {
        name: setting
        for name, setting in SETTINGS.items()
        if setting.env.get("LD_PRELOAD", "here") and setting.threads <= (os.cpu_count() or 1)
    }
    measured: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
        exports = {title: _export(title, Path(scratch) / title) for title in MODELS}
        total = _ROUNDS * len(exports) * len(usable)
        with tqdm(total=total, desc="launch", unit=" processes") as bar:
            for i in range(_ROUNDS):
                # Nobody is always the first one, which finds the disk's caches cold.
                order = [*list(usable)[i:], *list(usable)[:i]]
                for title, folder in exports.items():
                    own = measured.setdefault(title, {name: [] for name in usable})
                    for name in order:
                        own[name].append(_one(folder, usable[name]))
                        bar.update()
    found = {
        "machine": machine.describe(),
        "command": "./iclassifier benchmark launch",
        "settings": {name: asdict(setting) for name, setting in usable.items()},
        "measured": measured,
        "gain": {
            title: {name: _gain(rows["plain"], own) for name, own in rows.items()}
            for title, rows in measured.items()
        },
    }
    path = results / "launch.json"
    atomic_write(path, json.dumps(found, indent=2) + "\n")
    atomic_write(path.with_suffix(".md"), markdown(found))
    return path.with_suffix(".md")


def _one(folder: Path, setting: Setting) -> dict[str, float]:
    """Return what one process measures; the last core is the least busy with interrupts."""
    core = max(os.sched_getaffinity(0)) if setting.pinned else -1
    words = [str(folder), str(setting.threads), str(core)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP")}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.launched", *words],
        cwd=ROOT,
        env=clean | setting.env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _gain(plain: list[dict[str, float]], own: list[dict[str, float]]) -> dict[str, float]:
    """Return how many times faster, the median over rounds, each against the plain of its round."""
    pairs = list(zip(plain, own, strict=True))
    return {
        "alone": round(statistics.median(a["alone_ms"] / b["alone_ms"] for a, b in pairs), 3),
        "rate": round(statistics.median(b["rate"] / a["rate"] for a, b in pairs), 3),
    }


def worth(gains: list[float]) -> str:
    """Say whether a setting is worth it, from how many times faster it makes the measures."""
    best, least = max(gains), min(gains)
    if best >= 1 + _WORTH and least > 1 - _WORTH:
        return "yes"
    return "mixed" if best >= 1 + _WORTH else "no"


def markdown(found: dict[str, Any]) -> str:
    """Return the table of ``run``."""
    gain, measured = found["gain"], found["measured"]
    head, base = [], []
    for title in gain:
        head += [f"{title}, one sentence", f"{title}, batches of 32"]
        plain = measured[title]["plain"]
        alone, rate = (statistics.median(one[key] for one in plain) for key in ("alone_ms", "rate"))
        base.append(f"{title} {alone:.3f} ms a sentence, {rate:.0f} sentences/s in batches")
    rows = []
    for name, setting in found["settings"].items():
        cells = [gain[title][name][key] for title in gain for key in ("alone", "rate")]
        said = "-" if name == "plain" else worth(cells)
        rows.append(f"| {setting['title']} | {' | '.join(f'{x:.2f}' for x in cells)} | {said} |")
    intro = "How many times faster a worker's own work gets, text to label, than in the first row"
    rule = f"{_WORTH:.0%} faster in one measure and slower by as much in none"
    lines = [
        f"{intro} ({'; '.join(base)}).",
        "",
        f"| setting | {' | '.join(head)} | worth it |",
        "|---|" + "---|" * (len(head) + 1),
        *rows,
        "",
        f"`{found['command']}` on {found['machine']}.",
        f"Medians of {_ROUNDS} rounds, each setting in a process of its own; worth it: {rule}.",
        "",
    ]
    return "\n".join(lines)


def _export(title: str, folder: Path) -> Path:
    """Export a model with pretrained words or checkpoint and a random head."""
    name, form = MODELS[title]
    config = Config.load(ROOT / "configs" / f"config-{name}.json")
    texts, labels = bundled(), ["a", "b"]
    start = PRETRAINED[config.emb_class](config, texts)
    torch.manual_seed(0)
    model = Classifier(config, start.shape, len(labels)).eval()
    model.embedding.load_state_dict(start.state)
    source = folder.with_name(f"{folder.name} model")
    source.mkdir()
    bundle = Bundle(source, "model", config, labels, start.shape, start.tokenizer)
    bundle.write_common(source)
    weights = {key: value.contiguous() for key, value in state_of(model).items()}
    (source / WEIGHTS).write_bytes(save(weights))
    seal(source, "model", (WEIGHTS,))
    # A random head is undecided: its labels flip at nothing.
    return export(source, form, folder, texts[:64], accept=True).folder
