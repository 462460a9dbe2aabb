"""Run all tests: style, types, behaviour."""

import argparse
import subprocess
import sys

from scripts.options import ROOT, Parser, say

EXAMPLE = "./iclassifier test -k tokenizer"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("-k", metavar="WORD", help="only behaviour tests whose name has this word")


def run(args: argparse.Namespace) -> int:
    """Run ruff, mypy and pytest in turn; the first failure ends it."""
    checks = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]]
    steps = [["pytest", "-k", args.k]] if args.k else [*checks, ["pytest"]]
    for step in steps:
        say("$ " + " ".join(step))
        code = subprocess.run([sys.executable, "-m", *step], cwd=ROOT, check=False).returncode  # noqa: S603
        if code:
            return code
    say("All tests passed. Next: git commit")
    return 0
