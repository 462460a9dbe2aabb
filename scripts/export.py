"""Write a trained model in a serving format and compare both."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_src.bundle import EXPORT, Bundle, manifest_of
from model_src.errors import BundleError, ConfigError, nearest
from model_src.files import read_json
from scripts.options import ROOT, Parser, count, front, refuse_other, say, shown
from serving.sentences import bundled
from train import data

if TYPE_CHECKING:
    from serving.export import Candidate

EXAMPLE = """./iclassifier export --model_path models/movie_reviews-glove-cnn \\
      --data_dir data/movie_reviews --format torchscript"""
AUTO = "auto"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--model_path", type=Path, required=True, help="model directory")
    parser.add_argument("--format", default="torchscript", late_help=_formats)
    parser.add_argument("--for", dest="aim", late_help=_aims)
    parser.add_argument(
        "--enable_dqm",
        action="store_const",
        const="int8",
        dest="format",
        help="same as --format int8",
    )
    parser.add_argument(
        "--data_dir", type=Path, help="compare on its valid split, not 500 sentences of ours"
    )
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")
    parser.add_argument(
        "--accept", action="store_true", help="keep an export that changes answers too much"
    )
    parser.add_argument("--save_path", type=Path, help="default: exports/MODEL-FORMAT")
    parser.add_argument(
        "--num_threads", type=count, default=1, help="threads (default 1, as served)"
    )


def run(args: argparse.Namespace) -> None:
    """Export and print what the comparison with the original measured."""
    manifest_of(args.model_path)
    loaded = data.load(args.data_dir, skip_bad=args.skip_bad) if args.data_dir else None
    # Seconds that a refusal need not wait for.
    import torch

    from model_src.backends import FORMATS
    from serving.choose import AIMS, choose
    from serving.export import export

    if args.format not in (AUTO, *FORMATS):
        raise ConfigError(f"unknown format {args.format!r}{nearest(args.format, [AUTO, *FORMATS])}")
    if args.aim and args.format != AUTO:
        raise ConfigError(f"--for {args.aim} goes with --format {AUTO}, not {args.format}")
    aim = args.aim or "latency"
    if aim not in AIMS:
        raise ConfigError(f"unknown aim --for {aim}{nearest(aim, AIMS)}")
    torch.set_num_threads(args.num_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as in a served worker
    texts, gold = _sample(args.model_path, loaded)
    save_path = args.save_path or ROOT / "exports" / f"{_name(args.model_path)}-{args.format}"
    refuse_other(save_path, "export")
    if args.format == AUTO:
        _table(choose(args.model_path, aim, save_path, texts, gold, accept=args.accept))
    else:
        export(args.model_path, args.format, save_path, texts, gold, accept=args.accept)
    show(Bundle.read(save_path))
    folder = shown(save_path)
    say(f"{folder} is exported. Next: {front()} archive --model_path {folder}")


def _name(model_dir: Path) -> str:
    """Return what an export is called after: of the best of a search, the search."""
    folder = model_dir.resolve()
    best = folder.name == "best" and (folder.parent / "study.db").exists()
    return folder.parent.name if best else folder.name


def show(bundle: Bundle) -> None:
    """Print the one line of what was measured."""
    from serving.measure import loss, slower

    record = read_json(bundle.folder / EXPORT, BundleError)
    m = bundle.metrics["export"]
    short, ms = next(iter(m["latency_ms"].items()))
    points = loss(m)
    parts = [
        f"{m['agreement']:.2%} of {m['sentences']} labels as before",
        "no gold labels and so no accuracy"
        if points is None
        else f"accuracy {0 - points:+.2f} points",
        f"largest change of a probability {m['max_dp']:.1e}",
        f"{m['size_mb']:.1f} MB",
        f"loads in {m['load_ms']:.0f} ms",
        f"{_ms(ms)} ms a sentence of {short} tokens (eager {m['eager']['latency_ms'][short]:.2g})",
    ]
    if where := slower(m):
        parts.append(f"SLOWER than eager {' and '.join(where)}")
    if "accepted" in m:
        parts.append(f"accepted although it {m['accepted']}")
    say(f"{record['format']}: {', '.join(parts)}")


def _formats() -> str:
    from model_src.backends import FORMATS

    formats = "; ".join(f"{name}: {entry.summary}" for name, entry in FORMATS.items())
    return f"{formats}; {AUTO}: try them all, keep the best (default torchscript)"


def _aims() -> str:
    from serving.choose import AIMS

    aims = "; ".join(f"{name}: {aim.summary}" for name, aim in AIMS.items())
    return f"what {AUTO} chooses for (latency). {aims}"


def _sample(model_dir: Path, loaded: data.Data | None) -> tuple[list[str], list[str] | None]:
    """Return the sentences to compare on and, where there are any, their labels."""
    if not loaded:
        return bundled(), None
    from train.task import settle

    bundle = Bundle.read(model_dir)
    settle(bundle.config, loaded)
    data.refuse_unknown_labels(loaded, bundle.labels)
    return [each.text for each in loaded.valid], [each.label for each in loaded.valid]


def _ms(ms: float) -> str:
    return f"{ms:.2f}" if ms < 1 else f"{ms:.1f}"


def _table(tried: list["Candidate"]) -> None:
    """Print eager, the kept format and the others: what each measured and why it is not kept."""
    from serving.measure import slower

    kept = tried[0].measured
    lengths = (f"ms at {length}" for length in kept["latency_ms"])
    heads = (*lengths, "sentences/s", "labels", "max |Δp|", "MB")
    say(f"{'format':<12} " + " ".join(f"{head:>11}" for head in heads))
    dashes = ["-"] * len(kept["latency_ms"])
    say(_row("eager", kept["eager"], "the model as trained", dashes))
    for i, each in enumerate(tried):
        verdict = each.problem or ("passes" if i else "kept")
        if each.measured and (where := slower(each.measured)):
            verdict += f", slower than eager {' and '.join(where)}"
        say(_row(each.name, each.measured, verdict, dashes))


def _row(name: str, m: dict[str, Any], verdict: str, dashes: list[str]) -> str:
    """Return one line of the table; what was not measured is a dash, ``dashes`` for latencies."""
    ways = {
        "sentences_per_second": "{:.0f}",
        "agreement": "{:.2%}",
        "max_dp": "{:.1e}",
        "size_mb": "{:.1f}",
    }
    cells = [_ms(ms) for ms in m["latency_ms"].values()] if m else dashes
    cells += [way.format(m[key]) if key in m else "-" for key, way in ways.items()]
    return f"{name:<12} " + " ".join(f"{cell:>11}" for cell in cells) + f"  {verdict}"
