"""The accuracy table: every row trained with several seeds, chosen on valid, test read once.

Each run is a command of its own that a user can repeat; what is in the results already, for the
same command and data, is not run again.
"""

import itertools
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, results
from benchmarks.results import FRONT, ROOT, typed
from model_src.bundle import MANIFEST, Bundle
from model_src.errors import ConfigError
from model_src.files import sha256
from train import data

Say = Callable[[str], None]


class Folders(NamedTuple):
    """Where a benchmark writes."""

    results: Path
    models: Path


@dataclass(frozen=True)
class Row:
    """One model of the table; ``more`` has options for one data set, ``teacher`` names a row.

    ``sets`` are the data sets that it is run on unless it is named; all when empty.
    """

    title: str
    config: str
    options: str = ""
    seeds: int = 3
    teacher: str = ""
    more: dict[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    # what the original reports for it (with 300-d vectors) or for ``stand_in``, and what we aim at
    published: dict[str, float] = field(default_factory=dict)
    stand_in: str = ""
    target: dict[str, float] = field(default_factory=dict)


# Chosen on valid: SST-2 is five times as large as Snips, and its phrases repeat each other.
_GENTLE = {"sst2": "--epoch 2 --word_dropout 0.1"}
_MINILM = {"snips": 98.2, "sst2": 91.5}
# The original has neither MiniLM nor MPNet.
_BERT_CLS: dict[str, Any] = {"stand_in": "BERT-base", "published": {"snips": 97.43, "sst2": 92.42}}
_BERT_CNN: dict[str, Any] = {"stand_in": "BERT-base", "published": {"snips": 97.57, "sst2": 92.04}}
_100D = "--embedding_path glove.6B.100d"
# By config: title, what the original has on Snips and SST-2, what we aim at.
_GLOVE = {
    "glove-cnn": ("CNN", (97.86, 82.81), (97.9, 84.5)),
    "densenet-cnn": ("DenseNet-CNN", (97.57, 86.38), (97.6, 86.4)),
    "densenet-dsa": ("DenseNet-DSA", (97.43, 85.34), (97.5, 85.4)),
}
_SETS = ("snips", "sst2")
# Options that say where something lies: what lies there is compared by its digest.
_PLACES = ("--data_dir", "--save_path", "--teacher")

# A teacher comes before its students.
ROWS = {
    "mpnet-cls": Row(
        "MPNet-base + CLS",
        "mpnet-cls",
        seeds=1,
        more={"sst2": "--lr 3e-5 --epoch 2", "snips": "--lr 5e-5 --epoch 5"},
        target={"snips": 98.6, "sst2": 94.0},
        **_BERT_CLS,
    ),
    "minilm-cls": Row("MiniLM + CLS", "bert-cls", more=_GENTLE, target=_MINILM, **_BERT_CLS),
    "minilm-cnn": Row("MiniLM + CNN", "bert-cnn", more=_GENTLE, target=_MINILM, **_BERT_CNN),
}
for _config, (_title, *_figures) in _GLOVE.items():
    _published, _target = (dict(zip(_SETS, pair, strict=True)) for pair in _figures)
    ROWS[_config] = Row(
        f"GloVe 100d + {_title}",
        _config,
        _100D,
        # The DenseNets take a minute and more for each pass over SST-2.
        more={} if _config == "glove-cnn" else {"sst2": "--epoch 3"},
        published=_published,
        target=_target,
    )
# Held out of Snips' train, a student made 162 errors with three copies and 151 with twenty, its
# teacher 144; ten take half the time of twenty.
ROWS["glove-cnn-taught"] = replace(
    ROWS["glove-cnn"],
    title=f"{ROWS['glove-cnn'].title}, taught by MPNet",
    teacher="mpnet-cls",
    more={"snips": "--distill_copies 10 --epoch 6", "sst2": "--distill_copies 1 --epoch 5"},
)
for _config in ("minilm-cls", "minilm-cnn"):
    _plain = ROWS[_config]
    # Chosen on sentences held out of Snips' train.
    ROWS[f"{_config}-r-drop"] = replace(
        _plain, title=f"{_plain.title}, R-Drop", options="--r_drop 1", sets=("snips",)
    )
    ROWS[f"{_config}-taught"] = replace(
        _plain,
        title=f"{_plain.title}, taught by MPNet",
        teacher="mpnet-cls",
        more={"snips": "--distill_copies 1 --epoch 5", "sst2": "--distill_copies 1 --epoch 2"},
    )
# MiniLM teaches the DenseNets: MPNet takes hours to train on SST-2, and its answers long as well.
for _config in ("densenet-cnn", "densenet-dsa"):
    ROWS[f"{_config}-taught"] = replace(
        ROWS[_config],
        title=f"{ROWS[_config].title}, taught by MiniLM",
        options=f"{_100D} --distill_copies 1",
        teacher="minilm-cls",
        more={"snips": "--epoch 8", "sst2": "--epoch 3"},
    )


def run(data_dir: Path, folders: Folders, rows: dict[str, Row], only: list[str], say: Say) -> Path:
    """Fill accuracy-DATA.json with the runs it lacks; return the Markdown table beside it.

    Args:
        data_dir: the data; its folder's name says which options and targets hold.
        folders: where the results and the trained models go.
        rows: the whole table.
        only: the rows to run; those for these data when empty.
        say: told the command of each run.

    Raises:
        ConfigError: when a command fails.

    """
    table = _Table(data_dir, folders, rows, say)
    for name in only or meant(rows, data_dir):
        for seed in range(1, rows[name].seeds + 1):
            table.fill(name, seed)
    return table.write()


def meant(rows: dict[str, Row], data_dir: Path) -> list[str]:
    """Return the names of the rows that are for the data set in ``data_dir``."""
    name = data_dir.resolve().name
    return [key for key, row in rows.items() if not row.sets or name in row.sets]


def trained(data_dir: Path, folders: Folders, rows: dict[str, Row], name: str, say: Say) -> Path:
    """Return the model of the first seed of the row ``name``; train it where it is not at hand.

    Raises:
        ConfigError: when a command fails.

    """
    table = _Table(data_dir, folders, rows, say)
    table.fill(name, 1, keep_model=True)
    table.write()
    return ROOT / table.folder(name, 1)


class _Table:
    """The rows with the runs known so far."""

    def __init__(self, data_dir: Path, folders: Folders, rows: dict[str, Row], say: Say) -> None:
        self.rows, self.say, self.models = rows, say, folders.models
        self.data = data_dir.resolve().name
        self.source = typed(data_dir)
        self.path = folders.results / f"accuracy-{self.data}.json"
        fingerprint = data.load(data_dir).fingerprint
        known = results.load(self.path)
        same = known.get("data") == fingerprint
        self.known: dict[str, Any] = known if same else {"data": fingerprint, "runs": {}}
        self.runs = self.known["runs"]

    def fill(self, name: str, seed: int, *, keep_model: bool = False) -> None:
        """Run one seed unless its equal is known; ``keep_model`` asks for the model as well."""
        row, label, folder = self.rows[name], f"{name}-{seed}", self.folder(name, seed)
        if row.teacher:
            self.fill(row.teacher, 1)
        if self._known(name, seed) and (
            not keep_model or self._at_hand(ROOT / folder / MANIFEST, label)
        ):
            return
        if row.teacher:
            self.fill(row.teacher, 1, keep_model=True)
        wanted = self._wanted(name, seed)
        self.say(f"$ {wanted['command']}")
        _do(wanted["command"])
        _do(f"{FRONT} evaluate --model_path {folder} --data_dir {self.source} --batch_size 32")
        self.runs[label] = wanted | _found(ROOT / folder) | {"machine": machine.describe()}
        results.save(self.path, self.known)

    def _at_hand(self, manifest: Path, label: str) -> bool:
        """Tell whether the model is the one of the table: other data may have the same name."""
        return manifest.exists() and sha256(manifest) == self.runs[label]["model"]

    def folder(self, name: str, seed: int) -> Path:
        """Return where the model of one seed lies, as typed in the project's folder."""
        return typed(self.models / f"{self.data}-{name}-{seed}")

    def _known(self, name: str, seed: int) -> bool:
        """Tell whether one run of the present recipe is known, wherever data and models lay."""
        run, wanted = self.runs.get(f"{name}-{seed}", {}), self._wanted(name, seed)
        return _recipe(run) == _recipe(wanted)

    def _wanted(self, name: str, seed: int) -> dict[str, str]:
        """Return the command of one run, as typed in the project's folder, and what it reads."""
        row, folder = self.rows[name], self.folder(name, seed)
        words = [FRONT, "train", "--config", row.config, "--data_dir", str(self.source)]
        words += ["--save_path", str(folder), "--seed", str(seed)]
        if row.teacher:
            words += ["--teacher", str(folder.with_name(f"{self.data}-{row.teacher}-1"))]
        words += [*row.options.split(), *row.more.get(self.data, "").split()]
        return {
            "command": shlex.join(words),
            "config": sha256(ROOT / "configs" / f"config-{row.config}.json"),
            "teacher": self.runs.get(f"{row.teacher}-1", {}).get("model", ""),
        }

    def write(self) -> Path:
        """Write the Markdown table of the known runs, but for those of an earlier recipe."""
        runs = {
            name: [
                self.runs[f"{name}-{seed}"]
                for seed in range(1, row.seeds + 1)
                if self._known(name, seed)
            ]
            for name, row in self.rows.items()
        }
        return results.report(self.path, _markdown(self.data, self.source, self.rows, runs))


def _recipe(run: dict[str, Any]) -> tuple[list[str], str, str]:
    """Return what makes two runs the same: options but places, config and teacher."""
    words = shlex.split(run.get("command", ""))
    options = [word for before, word in itertools.pairwise(["", *words]) if before not in _PLACES]
    return options, run.get("config", ""), run.get("teacher", "")


def _do(command: str) -> None:
    words = [sys.executable, "-m", "scripts", *shlex.split(command)[1:]]
    if subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603
        raise ConfigError(f"this command failed: {command}")


def _found(folder: Path) -> dict[str, Any]:
    """Return what training and evaluation measured about the model in ``folder``."""
    metrics = Bundle.read(folder).metrics
    seconds = [entry["seconds"] for entry in metrics["history"]]
    return {
        "model": sha256(folder / MANIFEST),
        "valid": metrics[metrics["chosen_by"]],
        "test": metrics["test"]["report"]["accuracy"],
        "epochs": len(seconds),
        "seconds_an_epoch": round(statistics.median(seconds), 1),
        "peak_memory_mb": metrics["peak_memory_mb"],
    }


def _markdown(
    name: str, source: Path, rows: dict[str, Row], known: dict[str, list[dict[str, Any]]]
) -> list[str]:
    heads = ("model", "valid", "test", "each seed", "aim", "original", "s an epoch", "epochs")
    lines, commands = [], []
    machines: dict[str, list[str]] = {}
    for key, row in rows.items():
        if not (runs := known[key]):
            continue
        test = [100 * run["test"] for run in runs]
        middle = {
            field: statistics.median(run[field] for run in runs)
            for field in ("seconds_an_epoch", "epochs", "peak_memory_mb")
        }
        cells = [
            row.title,
            f"{statistics.fmean(100 * run['valid'] for run in runs):.2f}",
            f"**{statistics.fmean(test):.2f}**",
            " ".join(f"{value:.2f}" for value in test),
            f"{row.target[name]:.1f}" if name in row.target else "",
            f"{row.published[name]:.2f} {row.stand_in}".strip() if name in row.published else "",
            *(f"{value:.0f}" for value in middle.values()),
        ]
        lines.append(cells)
        commands.append(runs[0]["command"])
        for place in dict.fromkeys(run["machine"] for run in runs):
            machines.setdefault(place, []).append(row.title)
    again = f"{FRONT} benchmark accuracy --data_dir {source}"
    return [
        f"Accuracy on {name}, in %: mean over seeds, chosen on valid, test read once.",
        "",
        *results.table((*heads, "peak MB"), lines),
        "",
        "Measured on:",
        "",
        *(f"- {place}: {', '.join(titles)}" for place, titles in machines.items()),
        "",
        "The first seed of each row:",
        "",
        *("```text", *commands, "```"),
        "",
        f"`{again}` remakes the table.",
    ]
