"""What each setting of a worker's process is worth for the worker's own work, measured in turns."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import machine, results, untrained
from benchmarks.untrained import Entry
from serving.export import export
from serving.launch import ALLOCATORS, library
from serving.measure import BATCH
from serving.sentences import bundled

_ROUNDS = 5
# Worth something: better by this much on average and worse by as much in no measure.
_WORTH = 0.03
# The values of the PyTorch performance guide for jemalloc.
_TUNED = "oversize_threshold:1,background_thread:true,metadata_thp:auto,dirty_decay_ms:-1"
# So that no batch gives back what the next one needs, as `./iclassifier` sets it.
KEEP = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


_TCMALLOC, _JEMALLOC = map(library, ALLOCATORS)


@dataclass(frozen=True)
class Setting:
    """One row: the environment of the process, its threads, and whether it stays on one core.

    ``base`` is the row that it is compared with.
    """

    title: str
    env: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    pinned: bool = False
    base: str = "plain"


SETTINGS = {
    "plain": Setting("1 thread, set by the handler"),
    "again": Setting("the same again"),
    "omp": Setting("OMP_NUM_THREADS=1 too", {"OMP_NUM_THREADS": "1"}),
    "pinned": Setting("pinned to one core", pinned=True),
    "kept": Setting("glibc keeps freed memory", KEEP),
    "jemalloc": Setting("jemalloc", {"LD_PRELOAD": _JEMALLOC}),
    "jemalloc-tuned": Setting(
        "jemalloc, never giving back", {"LD_PRELOAD": _JEMALLOC, "MALLOC_CONF": _TUNED}
    ),
    "thp": Setting("huge pages for tensors", {"THP_MEM_ALLOC_ENABLE": "1"}),
    "tcmalloc": Setting("tcmalloc", {"LD_PRELOAD": _TCMALLOC}),
    # what is left of the others with it, since `serve start` sets it
    "tcmalloc-omp": Setting(
        "OMP_NUM_THREADS=1, beside tcmalloc",
        {"LD_PRELOAD": _TCMALLOC, "OMP_NUM_THREADS": "1"},
        base="tcmalloc",
    ),
    "tcmalloc-pinned": Setting(
        "pinned to one core, beside tcmalloc",
        {"LD_PRELOAD": _TCMALLOC},
        pinned=True,
        base="tcmalloc",
    ),
    "tcmalloc-thp": Setting(
        "huge pages for tensors, beside tcmalloc",
        {"LD_PRELOAD": _TCMALLOC, "THP_MEM_ALLOC_ENABLE": "1"},
        base="tcmalloc",
    ),
    "two": Setting("2 threads", threads=2),
    "two-bound": Setting(
        "2 threads, bound to cores", {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}, 2
    ),
    "two-active": Setting("2 threads, spinning", {"OMP_WAIT_POLICY": "ACTIVE"}, 2),
}
# Each model and its format.
MODELS = {
    "GloVe-CNN": (Entry("GloVe-CNN", "glove-cnn"), "torchscript"),
    "MiniLM int8": (Entry("MiniLM", "bert-cls"), "int8"),
}
_CODE = (
    *("model_src", "train", "configs"),
    *(f"serving/{name}.py" for name in ("export", "measure", "sentences")),
    *(f"benchmarks/{name}.py" for name in ("launch", "launched", "untrained")),
)
# By model and setting: what each process measured.
_Measured = dict[str, dict[str, list[dict[str, float]]]]
# What the environment of this program must not bring into that of a row.
_SETTINGS_OF = ("OMP", "KMP", "GOMP", "MKL", "MALLOC", "LD_PRELOAD", "THP", "TORCH")


def run(folder: Path) -> Path:
    """Measure all settings in turns; write ``folder``/launch.json and .md, return the latter.

    What was measured already, of the same code on the same machine, is not measured again.
    """
    usable = {
        name: setting
        for name, setting in SETTINGS.items()
        if setting.env.get("LD_PRELOAD", "here") and setting.threads <= (os.cpu_count() or 1)
    }
    path = folder / "launch.json"
    made_with = {
        "machine": machine.describe(),
        "versions": machine.versions(("transformers", "tokenizers")),
        "command": f"{results.FRONT} benchmark launch",
        "settings": {name: asdict(setting) for name, setting in usable.items()},
        "code": results.code(_CODE),
    }
    found = results.begun(path, made_with)
    empty: _Measured = {title: {name: [] for name in usable} for title in MODELS}
    measured = found.setdefault("measured", empty)
    with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
        exports = dict[str, Path]()
        total = _ROUNDS * len(MODELS) * len(usable)
        with tqdm(total=total, desc="launch", unit=" processes") as bar:
            for i in range(_ROUNDS):
                # Nobody is always the first one, which finds the disk's caches cold.
                order = [*list(usable)[i:], *list(usable)[:i]]
                for title, name in itertools.product(MODELS, order):
                    own = measured[title][name]
                    if len(own) <= i:
                        exports[title] = exports.get(title) or _export(title, Path(scratch) / title)
                        own.append(_one(exports[title], usable[name]))
                        results.save(path, found)
                    bar.update()
    found["gain"] = {
        title: {name: _gain(rows[usable[name].base], own) for name, own in rows.items()}
        for title, rows in measured.items()
    }
    results.save(path, found)
    return results.report(path, lines(found))


def _one(exported: Path, setting: Setting) -> dict[str, float]:
    """Return what one process measures; the last core is the least busy with interrupts."""
    core = max(os.sched_getaffinity(0)) if setting.pinned else -1
    words = [str(exported), str(setting.threads), str(core)]
    own = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS_OF)}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.launched", *words],
        cwd=results.ROOT,
        env=own | setting.env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _gain(base: list[dict[str, float]], own: list[dict[str, float]]) -> dict[str, float]:
    """Return how many times faster, the median over rounds, each against the base of its round."""
    pairs = list(zip(base, own, strict=True))
    return {
        "alone": round(statistics.median(a["alone_ms"] / b["alone_ms"] for a, b in pairs), 3),
        "rate": round(statistics.median(b["rate"] / a["rate"] for a, b in pairs), 3),
    }


def worth(gains: list[float], again: list[float]) -> str:
    """Say whether a setting is worth it, from how many times faster it makes each measure.

    What the first row gains when it is measured ``again`` is noise.
    """
    level = max(_WORTH, *(abs(each - 1) for each in again))
    if statistics.geometric_mean(gains) > 1 + level and min(gains) > 1 - level:
        return "yes"
    return "mixed" if max(gains) > 1 + level else "no"


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of ``run``."""
    made, gain, measured = found["made_with"], found["gain"], found["measured"]
    heads, base = [], []
    for title in gain:
        heads += [f"{title}, one sentence", f"{title}, batches of {BATCH}"]
        plain = measured[title]["plain"]
        alone, rate = (statistics.median(one[key] for one in plain) for key in ("alone_ms", "rate"))
        base.append(f"{title} {alone:.3f} ms a sentence, {rate:.0f} sentences/s in batches")
    rows, noise = [], [gain[title]["again"][key] for title in gain for key in ("alone", "rate")]
    for name, setting in made["settings"].items():
        cells = [gain[title][name][key] for title in gain for key in ("alone", "rate")]
        said = "-" if name in ("plain", "again") else worth(cells, noise)
        rows.append([setting["title"], *(f"{x:.2f}" for x in cells), said])
    intro = (
        "How many times faster a worker's own work gets, text to label, than in the first row; "
        "in rows 'beside tcmalloc', than with tcmalloc alone"
    )
    rule = (
        f"on average faster by {_WORTH:.0%} and by any difference in the second row, and nowhere "
        "slower by as much"
    )
    yield f"{intro} ({'; '.join(base)})."
    yield ""
    yield from results.table(("setting", *heads, "worth it"), rows)
    yield ""
    yield f"`{made['command']}` on {made['machine']}."
    yield f"Medians of {_ROUNDS} rounds, each setting in a process of its own; worth it: {rule}."


def _export(title: str, folder: Path) -> Path:
    """Export a model with pretrained words or checkpoint and a random head."""
    entry, form = MODELS[title]
    texts, source = bundled(), folder.with_name(f"{folder.name} model")
    untrained.make(entry, source, ["a", "b"], texts)
    # A random head is undecided: its labels flip at nothing.
    return export(source, form, folder, texts[:64], accept=True).folder
