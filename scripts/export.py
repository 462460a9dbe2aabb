"""Write a trained model in a serving format and compare both."""

import argparse
from pathlib import Path

import torch

from model_src.backends import FORMATS
from model_src.bundle import EXPORT, Bundle
from model_src.errors import BundleError
from model_src.files import read_json
from scripts.options import ROOT, Parser, count, front, say, shown
from serving.export import GOLDEN, export
from train import data

EXAMPLE = "./iclassifier export --model_path models/movie_reviews-glove-cnn --format torchscript"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    formats = "; ".join(f"{name}: {entry.summary}" for name, entry in FORMATS.items())
    parser.add_argument("--model_path", type=Path, required=True, help="model directory")
    parser.add_argument("--format", default="torchscript", help=formats)
    parser.add_argument(
        "--enable_dqm",
        action="store_const",
        const="int8",
        dest="format",
        help="same as --format int8",
    )
    parser.add_argument("--data_dir", type=Path, help="compare on its valid split, not 8 sentences")
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")
    parser.add_argument("--save_path", type=Path, help="default: exports/MODEL-FORMAT")
    parser.add_argument(
        "--num_threads", type=count, default=1, help="threads (default 1, as served)"
    )


def run(args: argparse.Namespace) -> None:
    """Export and print what the comparison with the original measured."""
    torch.set_num_threads(args.num_threads)
    texts = []
    if args.data_dir:
        texts = [each.text for each in data.load(args.data_dir, skip_bad=args.skip_bad).valid]
    save_path = (
        args.save_path or ROOT / "exports" / f"{args.model_path.resolve().name}-{args.format}"
    )
    bundle = export(args.model_path, args.format, save_path, texts or list(GOLDEN))
    show(bundle)
    folder = shown(bundle.folder)
    say(f"{folder} is exported. Next: {front()} archive --model_path {folder}")


def show(bundle: Bundle) -> None:
    """Print the one line of what was measured."""
    record = read_json(bundle.folder / EXPORT, BundleError)
    m = bundle.metrics["export"]
    say(
        f"{record['format']}: {m['agreement']:.2%} of {m['sentences']} labels as before, "
        f"largest change of a probability {m['max_dp']:.1e}, {m['size_mb']:.1f} MB, "
        f"loads in {m['load_ms']:.0f} ms"
    )
