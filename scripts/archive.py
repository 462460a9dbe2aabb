"""Pack an export as a TorchServe archive that has proven itself."""

import argparse
from pathlib import Path

from model_src.bundle import manifest_of
from scripts.options import ROOT, Parser, front, say, shown
from serving.store import FIRST

EXAMPLE = "./iclassifier archive --model_path exports/movie_reviews-glove-cnn-torchscript"


STORE = ROOT / "model_store"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--model_path", type=Path, required=True, help="export directory")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="MODEL_DIR",
        help="pack the model it was made from too, for /explanations",
    )
    parser.add_argument("--model_name", help="name to serve it under (default: the folder's)")
    parser.add_argument("--model_version", default=FIRST, help=f"default: {FIRST}")
    parser.add_argument("--model_store", type=Path, default=STORE, help="default: model_store")


def run(args: argparse.Namespace) -> None:
    """Pack, re-open, ask, compare, and only then put it into the model store."""
    manifest_of(args.model_path)
    # Seconds that a refusal need not wait for.
    from serving.archive import archive, served_name

    name = args.model_name or served_name(args.model_path.resolve().name)
    mar = archive(args.model_path, name, args.model_store, args.model_version, explain=args.explain)
    place = "" if args.model_store == STORE else f" --model_store {shown(args.model_store)}"
    say(
        f"{shown(mar)} answers as its export does ({mar.stat().st_size / 1e6:.1f} MB). "
        f"Next: {front()} serve start {mar.stem}{place}"
    )
