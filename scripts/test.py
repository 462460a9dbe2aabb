"""Run all tests: style, types, behaviour."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.options import ROOT, Parser, say

EXAMPLE = "./iclassifier test -k tokenizer"
# Near half of all work, and none that needs the models, exports and archives that the other tests
# share, which would be made twice: a process of their own runs them beside the others.
_BESIDE = ("road", "chaos", "deploy", "deploy_interrupted", "benchmark_serving")


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("-k", metavar="WORD", help="only behaviour tests whose name has this word")


def run(args: argparse.Namespace) -> int:
    """Run ruff, mypy and pytest in turn, pytest in two processes; the first failure ends it."""
    # Ignored, as in the background of a script, it would be for all that we start, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if args.k:
        return _run(["pytest", "-k", args.k])
    for check in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        if code := _run(check):
            return code
    files = [f"tests/test_{name}.py" for name in _BESIDE]
    others = [f"--ignore={file}" for file in files]
    # One of two keeps pytest's cache: both would write the same files.
    code = _run(["pytest", *others], beside=["pytest", "-p", "no:cacheprovider", *files])
    if not code:
        say("All tests passed. Next: git commit")
    return code


def _run(module: list[str], beside: list[str] | None = None) -> int:
    """Run a Python module, and another ``beside`` it whose output is told when both have ended.

    Returns the exit code, the worse one of two. Interrupted, they get the time to stop the servers
    that they started.
    """
    modules = [beside, module] if beside else [module]
    # Threads that wait for each other's cores take longer than one alone.
    env = {"OMP_NUM_THREADS": "1"} | os.environ if beside else None
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.NamedTemporaryFile() as told:
        try:
            for each in modules:
                out = told if each is beside else None
                say("$ " + " ".join(each) + (" # beside the next, told at its end" if out else ""))
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-m", *each],
                    cwd=ROOT,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    process_group=0,  # else a terminal would interrupt it, too, a second time
                )
                processes.append(process)
            codes = [process.wait() for process in processes]
        except BaseException:
            _stop(processes)
            raise
        finally:
            sys.stdout.write(Path(told.name).read_text(encoding="utf-8", errors="replace"))
    for each, code in zip(modules, codes, strict=True):
        if code:
            say("failed: " + " ".join(each))
    return max(abs(code) for code in codes)


def _stop(processes: "list[subprocess.Popen[bytes]]") -> None:
    """Interrupt processes, again with each further interruption, and wait for their end."""
    while alive := [process for process in processes if process.poll() is None]:
        with contextlib.suppress(KeyboardInterrupt):
            for process in alive:
                os.killpg(process.pid, signal.SIGINT)
            for process in alive:
                process.wait()
