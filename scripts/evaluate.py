"""Measure accuracy, F1, AUROC and time of a model or an export."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model_src.bundle import manifest_of
from model_src.files import atomic_write
from scripts.options import Parser, count, front, say, shown
from train import data

if TYPE_CHECKING:
    from model_src.predictor import Predictor
    from train.evaluate import Report

EXAMPLE = """./iclassifier evaluate --model_path models/movie_reviews-glove-cnn \\
      --data_dir data/movie_reviews"""


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--model_path", type=Path, required=True, help="model or export directory")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder made by prepare")
    parser.add_argument("--split", choices=data.SPLITS, default="test", help="default: test")
    parser.add_argument("--batch_size", type=count, default=1, help="sentences at once (default 1)")
    parser.add_argument("--num_examples", type=count, help="only the first so many sentences")
    parser.add_argument(
        "--num_threads", type=count, default=1, help="threads (default 1, as served)"
    )
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")


def run(args: argparse.Namespace) -> None:
    """Evaluate and write ``metrics.json`` and the predictions beside the model."""
    manifest_of(args.model_path)
    loaded = data.load(args.data_dir, skip_bad=args.skip_bad)
    # Seconds that a refusal need not wait for.
    import torch

    from model_src.predictor import Predictor

    torch.set_num_threads(args.num_threads)
    predictor = Predictor.load(args.model_path)
    report = measure(predictor, loaded, args.split, args.batch_size, args.num_examples)
    show(report)
    folder = shown(args.model_path)
    verb = "archive"
    if predictor.bundle.kind == "model":
        verb = f"export --data_dir {shown(args.data_dir)}"
    say(
        f"{shown(args.model_path / f'{args.split}.pred.tsv')} has the predictions. "
        f"Next: {front()} {verb} --model_path {folder}"
    )


def measure(
    predictor: "Predictor",
    loaded: data.Data,
    split: str,
    batch_size: int = 1,
    num_examples: int | None = None,
) -> "Report":
    """Evaluate and keep the report and the predictions in the bundle's folder."""
    from train.evaluate import evaluate
    from train.task import settle

    settle(predictor.bundle.config, loaded)
    data.refuse_unknown_labels(loaded, predictor.bundle.labels)
    examples = getattr(loaded, split)[:num_examples]
    report, predictions = evaluate(predictor, examples, batch_size)
    known = {"data": loaded.fingerprint, "report": report.as_dict()}
    predictor.bundle.add_metrics(**{split: known})
    lines = [
        f"{' '.join(example.text.split())}\t{example.label}\t{answer.label}\t{answer.score:.6f}\n"
        for example, answer in zip(examples, predictions, strict=True)
    ]
    atomic_write(predictor.bundle.folder / f"{split}.pred.tsv", "".join(lines))
    return report


def show(report: "Report") -> None:
    """Print the measures as the original did, with F1, AUROC and fractions of milliseconds."""
    say(f"[Accuracy] : {report.accuracy:.4f}, {report.correct:>5}/{report.sentences:>5}")
    say(f"[Macro F1] : {report.macro_f1:.4f}")
    if report.micro_f1 is not None:
        _show_multi_label(report)
    total = report.ms_mean * report.sentences
    say(f"[Elapsed Time] : {total:.0f}ms, {report.ms_mean:.3f}ms on average")


def _show_multi_label(report: "Report") -> None:
    say(f"[Micro F1] : {report.micro_f1:.4f}")
    if report.mean_auroc is not None:
        say(f"[Mean AUROC] : {report.mean_auroc:.4f}")
    if report.no_auroc:
        say(f"no AUROC, for they lack positives or negatives: {', '.join(report.no_auroc)}")
    width = max(map(len, report.labels), default=0)
    for label, entry in report.labels.items():
        rates = (f"{name} {value:.4f}" for name, value in entry.items() if name != "support")
        say(f"{label:>{width}}: {', '.join(rates)}, in {entry['support']} sentences")
