"""Fetch a named data set, split one file, or check a data directory."""

import argparse
import json
from collections import Counter
from pathlib import Path

from model_src.errors import ConfigError, DataError
from model_src.files import atomic_dir, read_json, sha256
from scripts.options import ROOT, Parser, front, say, shown
from train import data, datasets

# Beside the splits that this verb wrote: their digests, so that a user's own are never replaced.
_MARK = "prepared.json"
EXAMPLE = "./iclassifier prepare --input reviews.csv --data_dir data/reviews"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    names = ", ".join(datasets.DATASETS)
    parser.add_argument(
        "--dataset", nargs="?", const="", metavar="NAME", help=f"fetch a data set: {names}"
    )
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="the folder that has the files of --dataset"
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="split this file 80/10/10")
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="the folder to make or check")
    parser.add_argument("--seed", type=int, default=42, help="seed of the split (default 42)")
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")


def run(args: argparse.Namespace) -> None:
    """Make or check a data directory."""
    if args.dataset == "":
        rows = (f"\n  {name:<14} {entry}" for name, entry in datasets.DATASETS.items())
        raise ConfigError(f"--dataset needs a name:{''.join(rows)}")
    if args.source and not args.dataset:
        raise ConfigError("--source has the files of a named data set: add --dataset NAME")
    if args.dataset and args.input:
        raise ConfigError("--dataset and --input exclude each other")
    if not args.data_dir and not args.dataset:
        raise ConfigError("give --dataset NAME, or --data_dir DIR to make from --input or to check")
    folder = args.data_dir or ROOT / "data" / args.dataset
    if args.dataset or args.input:
        make(folder, args.dataset, args.input, args.seed, args.source, skip_bad=args.skip_bad)
    counts(data.load(folder, skip_bad=args.skip_bad))
    say(
        f"{shown(folder)} is ready. "
        f"Next: {front()} train --config glove-cnn --data_dir {shown(folder)}"
    )


def make(
    folder: Path,
    dataset: str,
    file: Path | None,
    seed: int,
    source: Path | None = None,
    *,
    skip_bad: bool,
) -> None:
    """Write the three splits of a named data set or of one file into ``folder``.

    An official split is kept; what it lacks is cut off its train.
    """
    dropped: Counter[str] = Counter()
    if file and file.resolve().parent == folder.resolve():
        raise DataError(f"{file} lies in {folder}, which prepare replaces: name another --data_dir")
    if file:
        parts = {"train": data.read(file, dropped if skip_bad else None)}
    else:
        parts = datasets.fetch(dataset, ROOT / ".cache", source)
    for reason, count in dropped.items():
        say(f"dropped {count}: {reason}")
    _refuse_own_work(folder)
    with atomic_dir(folder, (*data.OWN, _MARK)) as scratch:
        held_out = tuple(name for name in ("test", "valid") if name not in parts)
        cut = data.split(parts["train"], seed, held_out) if held_out else {}
        data.write_splits(scratch, parts | cut)
        digests = {path.name: sha256(path) for path in sorted(scratch.iterdir())}
        (scratch / _MARK).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def _refuse_own_work(folder: Path) -> None:
    """Raise DataError when ``folder`` holds splits that this verb did not write as they are."""
    made = read_json(folder / _MARK, DataError) if (folder / _MARK).exists() else {}
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.name != _MARK and (not path.is_file() or made.get(path.name) != sha256(path)):
            raise DataError(
                f"{path} would be lost, and prepare did not write it: name a new folder"
            )


def counts(loaded: data.Data) -> None:
    """Print how many sentences a data directory has, and how many lines were dropped."""
    for reason, count in loaded.dropped.items():
        say(f"dropped {count}: {reason}")
    for split in data.SPLITS:
        part = getattr(loaded, split)
        found = Counter(label for example in part for label in example.labels)
        shares = ", ".join(f"{label} {found[label]}" for label in loaded.labels)
        say(f"{split:>6}: {len(part):>6} sentences ({shares})")
