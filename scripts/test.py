"""Run all tests: style, types, behaviour."""

import argparse
import os
import signal
import subprocess
import sys

from scripts.options import ROOT, Parser, say

EXAMPLE = "./iclassifier test -k tokenizer"
# Two processes share all tests by the groups of `tests/halves.py`; more would lack work.
_HALVES = ["-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("-k", metavar="WORD", help="only behaviour tests whose name has this word")


def run(args: argparse.Namespace) -> int:
    """Run ruff, mypy and pytest in turn; the first failure ends it."""
    checks = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]]
    steps = [["pytest", "-k", args.k]] if args.k else [*checks, ["pytest", *_HALVES]]
    for step in steps:
        say("$ " + " ".join(step))
        if code := _finish([sys.executable, "-m", *step]):
            return code
    say("All tests passed. Next: git commit")
    return 0


def _finish(command: list[str]) -> int:
    """Run a command to its end; interrupted, it gets the time to stop the servers it started."""
    # One thread each: threads that wait for each other's cores take longer than one alone.
    env = {"OMP_NUM_THREADS": "1"} | os.environ if "-n" in command else None
    with subprocess.Popen(command, cwd=ROOT, env=env) as process:  # noqa: S603
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
