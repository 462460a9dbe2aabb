"""Measure accuracy, training time or launch settings and write the table under results/."""

import argparse
from pathlib import Path

from benchmarks import accuracy, launch, training
from model_src.errors import ConfigError, nearest
from scripts.options import ROOT, Parser, front, say, shown

EXAMPLE = "./iclassifier benchmark accuracy --data_dir ../shared/data/snips"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument(
        "what",
        choices=("accuracy", "training", "launch"),
        help="the table of models, seconds an epoch, or the settings of a worker's process",
    )
    parser.add_argument("--data_dir", type=Path, help="accuracy, training: e.g. Snips or SST-2")
    rows = ", ".join(accuracy.ROWS)
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME",
        help=f"accuracy: only this row, may be repeated ({rows})",
    )
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="default: results")


def run(args: argparse.Namespace) -> None:
    """Run what the results lack and print the table."""
    if args.what == "launch":
        table = launch.run(args.results)
    elif args.data_dir is None:
        raise ConfigError(f"benchmark {args.what} needs --data_dir")
    elif args.what == "accuracy":
        for name in args.row:
            if name not in accuracy.ROWS:
                raise ConfigError(f"unknown row {name!r}{nearest(name, accuracy.ROWS)}")
        folders = accuracy.Folders(args.results, ROOT / "models" / "benchmark")
        table = accuracy.run(args.data_dir, folders, accuracy.ROWS, args.row, say)
    else:
        table = training.run(args.data_dir, args.results)
    say(table.read_text(encoding="utf-8"))
    say(f"{shown(table)} is written. Next: git add {shown(table.parent)}, or {front()} test")
