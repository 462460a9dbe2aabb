"""Run all tests: style, types, behaviour."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from typing import IO

from scripts.options import ROOT, Parser, say

EXAMPLE = "./iclassifier test -k tokenizer"
# These need none of the models, exports and archives that the other tests share, and wait for
# servers half of their time: a process of their own runs them beside the others.
_BESIDE = ("road", "chaos", "deploy", "deploy_interrupted", "benchmark_serving")


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("-k", metavar="WORD", help="only behaviour tests whose name has this word")


def run(args: argparse.Namespace) -> int:
    """Run ruff, mypy and pytest in turn; the first failure ends it."""
    if args.k:
        return _run(["pytest", "-k", args.k])
    for check in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        if code := _run(check):
            return code
    files = [f"tests/test_{name}.py" for name in _BESIDE]
    others = [f"--ignore={file}" for file in files]
    code = _run(["pytest", *others], beside=["pytest", "-p", "no:cacheprovider", *files])
    if not code:
        say("All tests passed. Next: git commit")
    return code


def _run(module: list[str], beside: list[str] | None = None) -> int:
    """Run a Python module, and another ``beside`` it whose output is told when both have ended.

    Interrupted, they get the time to stop the servers that they started.
    """
    processes = []
    with tempfile.TemporaryFile() as told:
        try:
            if beside:
                processes.append(_start(beside, told))
            processes.append(_start(module))
            return max(abs(process.wait()) for process in processes)
        except KeyboardInterrupt:
            for process in processes:
                process.send_signal(signal.SIGINT)
            for process in processes:
                process.wait()
            raise
        finally:
            told.seek(0)
            sys.stdout.write(told.read().decode(errors="replace"))


def _start(module: list[str], out: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
    say("$ " + " ".join(module) + (" # beside the next, told at its end" if out else ""))
    # One thread each: threads that wait for each other's cores take longer than one alone.
    env = {"OMP_NUM_THREADS": "1"} | os.environ
    command = [sys.executable, "-m", *module]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)  # noqa: S603
