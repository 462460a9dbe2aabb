"""Measure accuracy, parity, exports, speed, settings or serving; write the table to results/."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import accuracy, agreement, formats, launch, parity, serving, speed, training
from benchmarks.aims import AIMS
from benchmarks.entries import ENTRIES
from benchmarks.untrained import Choice
from model_src.backends import FORMATS
from model_src.errors import ConfigError, nearest
from scripts.options import ROOT, Parser, count, front, say, shown

EXAMPLE = "./iclassifier benchmark accuracy --data_dir ../shared/data/snips"


def _accuracy(args: argparse.Namespace) -> Path:
    _check("row", args.row, accuracy.ROWS)
    return accuracy.run(args.data_dir, _folders(args), accuracy.ROWS, args.row or [], say)


def _agreement(args: argparse.Namespace) -> Path:
    _check("row", args.row, accuracy.ROWS)
    _check("format", args.format, [name for name, form in FORMATS.items() if not form.exact])
    choice = args.row or [], args.format or []
    return agreement.run(args.data_dir, _folders(args), accuracy.ROWS, choice, say)


def _training(args: argparse.Namespace) -> Path:
    return training.run(args.data_dir, args.results)


def _speed(args: argparse.Namespace) -> Path:
    return speed.run(args.data_dir, args.results, _choice(args, AIMS, 200))


def _formats(args: argparse.Namespace) -> Path:
    return formats.run(args.results, _choice(args, ENTRIES, 64))


def _launch(args: argparse.Namespace) -> Path:
    return launch.run(args.results)


def _parity(args: argparse.Namespace) -> Path:
    _check("entry", args.entry, parity.MODELS)
    return parity.run(args.results, Choice(args.sentences or 0, args.entry or []))


def _serving(args: argparse.Namespace) -> Path:
    _check("entry", args.entry, serving.MODELS)
    plan = serving.Plan(args.seconds) if args.seconds else serving.Plan()
    return serving.run(args.results, args.entry or [], plan)


@dataclass(frozen=True)
class Kind:
    """One entry: what is measured, and the options it needs and takes beside --results."""

    summary: str
    run: Callable[[argparse.Namespace], Path]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


_CHOICE = ("entry", "format", "sentences")
KINDS = {
    "accuracy": Kind("of every model", _accuracy, ("data_dir",), ("row",)),
    "agreement": Kind(
        "what reduced precision costs trained models",
        _agreement,
        ("data_dir",),
        ("row", "format"),
    ),
    "training": Kind("seconds an epoch", _training, ("data_dir",)),
    "speed": Kind("text to label, beside padded and the floor", _speed, ("data_dir",), _CHOICE),
    "formats": Kind("every model in every format", _formats, (), _CHOICE),
    "launch": Kind("what settings of a worker's process are worth", _launch),
    "parity": Kind("what padding and other sentences change", _parity, (), ("entry", "sentences")),
    "serving": Kind("our server beside others, under load", _serving, (), ("entry", "seconds")),
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "data_dir": {"type": Path, "help": "e.g. Snips or SST-2"},
    "row": {"action": "append", "help": f"only this one ({', '.join(accuracy.ROWS)})"},
    "entry": {"action": "append", "help": "only this model; a wrong name lists them"},
    "format": {"action": "append", "help": f"only this format ({', '.join(FORMATS)})"},
    "sentences": {
        "type": count,
        "help": "how many are answered (default 200; formats 64, parity 10000 or 1000)",
    },
    "seconds": {"type": count, "help": f"of one measure (default {serving.Plan.seconds})"},
}


def add_options(parser: Parser) -> None:
    """Declare the options."""
    kinds = "; ".join(f"{name}: {kind.summary}" for name, kind in KINDS.items())
    parser.add_argument("what", choices=KINDS, metavar="KIND", help=kinds)
    for name, settings in _OPTIONS.items():
        users = [kind for kind, entry in KINDS.items() if name in entry.needs + entry.takes]
        again = ", may be repeated" if "action" in settings else ""
        text = f"{', '.join(users)}: {settings['help']}{again}"
        parser.add_argument(f"--{name}", **settings | {"help": text})
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="default: results")


def run(args: argparse.Namespace) -> None:
    """Run what the results lack and print the table."""
    kind = KINDS[args.what]
    for name in _OPTIONS:
        given = getattr(args, name) is not None
        if given and name not in kind.needs + kind.takes:
            raise ConfigError(f"benchmark {args.what} takes no --{name}")
        if not given and name in kind.needs:
            raise ConfigError(f"benchmark {args.what} needs --{name}")
    table = kind.run(args)
    say(table.read_text(encoding="utf-8"))
    say(f"{shown(table)} is written. Next: git add {shown(table.parent)}, or {front()} test")


def _folders(args: argparse.Namespace) -> accuracy.Folders:
    return accuracy.Folders(args.results, ROOT / "models" / "benchmark")


def _choice(args: argparse.Namespace, entries: Iterable[str], sentences: int) -> Choice:
    _check("entry", args.entry, entries)
    _check("format", args.format, FORMATS)
    return Choice(args.sentences or sentences, args.entry or [], args.format or [])


def _check(what: str, names: list[str] | None, known: Iterable[str]) -> None:
    for name in names or []:
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}{nearest(name, known)}")
