"""Fetch a named data set, split one file, or check a data directory."""

import argparse
from collections import Counter
from pathlib import Path

from model_src.errors import ConfigError, DataError
from model_src.files import atomic_dir
from scripts.options import ROOT, Parser, say, shown
from train import data, datasets

EXAMPLE = "./iclassifier prepare --input reviews.csv --data_dir data/reviews"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    names = "; ".join(f"{name}: {entry.summary}" for name, entry in datasets.DATASETS.items())
    parser.add_argument("--dataset", metavar="NAME", help=f"fetch a data set ({names})")
    parser.add_argument("--input", type=Path, metavar="FILE", help="split this file 80/10/10")
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="the folder to make or check")
    parser.add_argument("--seed", type=int, default=42, help="seed of the split (default 42)")
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")


def run(args: argparse.Namespace) -> None:
    """Make or check a data directory."""
    if args.dataset and args.input:
        raise ConfigError("--dataset and --input exclude each other")
    if not args.data_dir and not args.dataset:
        raise ConfigError("give --dataset NAME, or --data_dir DIR to make from --input or to check")
    folder = args.data_dir or ROOT / "data" / args.dataset
    if args.dataset or args.input:
        make(folder, args.dataset, args.input, args.seed, skip_bad=args.skip_bad)
    counts(data.load(folder, skip_bad=args.skip_bad))
    say(
        f"{shown(folder)} is ready. "
        f"Next: ./iclassifier train --config glove-cnn --data_dir {shown(folder)}"
    )


def make(folder: Path, dataset: str, source: Path | None, seed: int, *, skip_bad: bool) -> None:
    """Write the three splits of a named data set or of one file into ``folder``."""
    dropped: Counter[str] = Counter()
    if source and source.resolve().parent == folder.resolve():
        raise DataError(
            f"{source} lies in {folder}, which prepare replaces: name another --data_dir"
        )
    if source:
        examples = data.read(source, dropped if skip_bad else None)
    else:
        examples = datasets.fetch(dataset, ROOT / ".cache")
    for reason, count in dropped.items():
        say(f"dropped {count}: {reason}")
    with atomic_dir(folder, data.OWN) as scratch:
        for name, part in data.split(examples, seed).items():
            data.write(scratch / f"{name}.tsv", part)


def counts(loaded: data.Data) -> None:
    """Print how many sentences a data directory has, and how many lines were dropped."""
    for reason, count in loaded.dropped.items():
        say(f"dropped {count}: {reason}")
    for split in data.SPLITS:
        part = getattr(loaded, split)
        found = Counter(example.label for example in part)
        shares = ", ".join(f"{label} {found[label]}" for label in loaded.labels)
        say(f"{split:>6}: {len(part):>6} sentences ({shares})")
