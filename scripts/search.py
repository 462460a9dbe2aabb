"""Try many settings of a config and keep the best."""

import argparse
from pathlib import Path

from model_src.config import Config
from scripts.options import ROOT, Parser, config_path, count, front, overrides, say, shown
from train import data

EXAMPLE = """./iclassifier search --config glove-cnn --data_dir data/movie_reviews \\
      --trials 20 --space lr=3e-4..3e-3 --space batch_size=32,64"""


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--config", default="glove-cnn", help="file or name (default glove-cnn)")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder made by prepare")
    parser.add_argument("--save_path", type=Path, help="default: models/DATA-CONFIG-search")
    parser.add_argument("--trials", type=count, default=20, help="how many in all (default 20)")
    parser.add_argument(
        "--space",
        action="append",
        metavar="KEY=LOW..HIGH|A,B,C",
        help="what to vary, again for each key (default: lr, dropout and the like)",
    )
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")
    parser.add_argument("--num_threads", type=count, help="threads (default: all cores)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default auto)")
    parser.add_config()


def run(args: argparse.Namespace) -> None:
    """Search, going on from the trials of an equal search."""
    path = config_path(args.config)
    config = Config.load(path, overrides(args))
    loaded = data.load(args.data_dir, skip_bad=args.skip_bad)
    # Seconds that a refusal need not wait for.
    import torch

    from model_src.classifier import family_of
    from train import precision
    from train.search import SPACES, classes, distributions, search

    family = family_of(config)
    space = args.space or SPACES[family.handler]
    tried = classes(config, distributions(config, space))
    config.refuse_idle(overrides(args), "the command line", tried)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    name = f"{args.data_dir.resolve().name}-{path.stem.removeprefix('config-')}-search"
    folder = args.save_path or ROOT / "models" / name
    device = precision.device_of(args.device)
    found = search(config, loaded, folder, space, args.trials, device)
    say(
        f"{found.trials} trials ({found.pruned} pruned): the best has "
        f"{found.value:.4f} on valid with {shown(found.config)}. Next: {front()} evaluate "
        f"--model_path {shown(found.model)} --data_dir {shown(args.data_dir)}"
    )
