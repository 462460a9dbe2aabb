"""Bring faults about in a real server under load, and judge every answer."""

import argparse
import shlex
import tempfile
from pathlib import Path

from benchmarks import results
from benchmarks.results import FRONT
from chaos import report
from chaos.scene import Scene
from chaos.table import FAULTS
from model_src.errors import ConfigError, nearest
from scripts.options import ROOT, Parser, front, say, shown

EXAMPLE = "./iclassifier chaos --fault worker-kill --short"
_MINUTES, _SHORT = 20.0, 0.1


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--fault",
        action="append",
        help=f"only this one, may be repeated ({', '.join(FAULTS)}); without, all that the results "
        "lack",
    )
    parser.add_argument(
        "--short", action="store_true", help="a few seconds each; prints, and keeps nothing"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"of the soak, up to three times as long where that tells too little "
        f"(default {_MINUTES:.0f}, with --short {_SHORT:g})",
    )
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="default: results")


def run(args: argparse.Namespace) -> int:
    """Run what the results lack; the exit code is 1 when a fault is not survived."""
    only = [*dict.fromkeys(args.fault or [])]
    for name in only:
        if name not in FAULTS:
            raise ConfigError(f"unknown fault {name!r}{nearest(name, FAULTS)}")
    if args.minutes is None:
        args.minutes = _SHORT if args.short else _MINUTES
    if args.minutes <= 0:
        raise ConfigError(f"--minutes {args.minutes}: give more than 0")
    path = None if args.short else args.results / report.FILE
    with (
        tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch,
        Scene(Path(scratch), short=args.short, minutes=args.minutes) as scene,
    ):
        found, ran = report.run(FAULTS, only, scene, path, _command(args), say)
    lost = [name for name, entry in found.items() if not entry["passed"]]
    for line in report.table(FAULTS, found):
        say(line)
    if not ran:
        say("Nothing was left to run: this very code has survived it all. --fault runs one again.")
    elif path:
        say(f"{shown(path.with_suffix('.md'))} is written.")
    if lost:
        again = " ".join(f"--fault {name}" for name in lost)
        say(f"Not survived: {', '.join(lost)}. Next: {front()} chaos {again}")
        return 1
    say(f"Survived: {', '.join(found)}. Next: {front()} test")
    return 0


def _command(args: argparse.Namespace) -> str:
    """Return the command as typed in the project's folder."""
    words = [FRONT, "chaos"]
    for name in args.fault or []:
        words += ["--fault", name]
    if args.short:
        words.append("--short")
    if args.minutes != (_SHORT if args.short else _MINUTES):
        words += ["--minutes", f"{args.minutes:g}"]
    if args.results != ROOT / "results":
        words += ["--results", str(results.typed(args.results))]
    return shlex.join(words)
