"""Train a model on a data directory."""

import argparse
from operator import itemgetter
from pathlib import Path

from model_src.config import Config
from scripts.options import (
    ROOT,
    Parser,
    config_path,
    count,
    front,
    overrides,
    refuse_other,
    say,
    shown,
)
from train import data

EXAMPLE = "./iclassifier train --config glove-cnn --data_dir data/movie_reviews --epoch 4"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--config", default="glove-cnn", help="file or name (default glove-cnn)")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder made by prepare")
    parser.add_argument("--save_path", type=Path, help="default: models/DATA-CONFIG")
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")
    parser.add_argument("--num_threads", type=count, help="threads (default: all cores)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default auto)")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="a trained model to learn from")
    parser.add_argument("--log_dir", type=Path, metavar="DIR", help="write TensorBoard events here")
    parser.add_config()


def run(args: argparse.Namespace) -> None:
    """Train, going on from a checkpoint if an equal run was interrupted."""
    path = config_path(args.config)
    config = Config.load(path, overrides(args))
    loaded = data.load(args.data_dir, skip_bad=args.skip_bad)
    for reason, lines in loaded.dropped.items():
        say(f"dropped {lines}: {reason}")
    # Seconds that a refusal need not wait for.
    import torch

    from model_src.classifier import family_of
    from train import loop, parallel, precision

    family_of(config)
    config.refuse_idle(overrides(args), "the command line")
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    name = f"{args.data_dir.resolve().name}-{path.stem.removeprefix('config-')}"
    save_path = args.save_path or ROOT / "models" / name
    refuse_other(save_path, "model")
    device = precision.device_of(args.device)
    on_epoch = None
    if args.log_dir:
        args.log_dir.mkdir(parents=True, exist_ok=True)  # now rather than after the first epoch
        from train.board import Board  # two seconds that others need not wait

        on_epoch = Board(args.log_dir)
    with parallel.processes(device) as device:
        bundle = loop.train(
            config, loaded, save_path, device=device, teacher=args.teacher, on_epoch=on_epoch
        )
        if parallel.rank() > 0:
            return
    folder = shown(bundle.folder)
    chosen_by, history = bundle.metrics["chosen_by"], bundle.metrics["history"]
    best = max(reversed(history), key=itemgetter(chosen_by))["epoch"]  # the last of equal ones
    if len(history) < config.epoch:
        say(f"stopped early: no better in the last {config.patience} epochs (--patience)")
    say(
        f"{folder} is trained: {chosen_by.replace('_', ' ')} {bundle.metrics[chosen_by]:.4f} "
        f"after epoch {best} of {len(history)}. "
        f"Next: {front()} evaluate --model_path {folder} --data_dir {shown(args.data_dir)}"
    )
