"""The table of verbs, and the one place where errors become messages and exit codes."""

import importlib
import logging
import os
import signal
import sys
import threading
from types import FrameType

from model_src.errors import UserError, nearest
from scripts.options import Parser

VERBS = {
    "quickstart": "from nothing to two served models, checked against offline answers",
    "prepare": "fetch a named data set, split one file, or check a data directory",
    "train": "train a model on a data directory",
    "search": "try many settings of a config and keep the best",
    "evaluate": "measure accuracy, F1, AUROC and time of a model or an export",
    "export": "write a trained model in a serving format and compare both",
    "archive": "pack an export as a TorchServe archive that has proven itself",
    "serve": "start, change, stop or look at a TorchServe with archives",
    "predict": "label sentences with a model, an export or a running server",
    "benchmark": "measure accuracy, parity, training, speed, formats, settings; write to results/",
    "chaos": "bring faults about in a real server under load, and judge every answer",
    "test": "run all tests: style, types, behaviour",
}

# Seconds until a dropped interruption comes again: the destructor that it met has ended by then.
_SOON = 0.05


def usage() -> str:
    """Return the overview that stands for a verb."""
    rows = "\n".join(f"  {name:<11} {summary}" for name, summary in VERBS.items())
    return (
        "Train text classifiers and serve them with TorchServe.\n\n"
        f"usage: ./iclassifier VERB [options]\n\n{rows}\n\n"
        "start here: ./iclassifier quickstart\n"
        "more on a verb: ./iclassifier VERB --help"
    )


def main(argv: list[str]) -> int:
    """Run one verb; return the exit code."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        sys.stdout.write(usage() + "\n")
        return 0
    name, *rest = argv
    if name not in VERBS:
        sys.stderr.write(f"error: unknown verb {name!r}{nearest(name, VERBS)}\n")
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("train").setLevel(logging.INFO)
    _listen()
    try:
        return _run(name, rest)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BrokenPipeError:
        # The reader of our output left (as head does): end quietly, and let nothing be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        sys.stderr.write(f"error: {error.strerror or error}{where}\n")
        return 1
    except (MemoryError, RuntimeError) as error:
        # torch has classes of its own for a GPU, and none for the CPU
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not named and "can't allocate memory" not in str(error):
            raise
        sys.stderr.write("error: the memory is full: lower batch_size or n_ctx\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing half done is left, and the same command goes on\n")
        # Python notes an interruption inside exec of a string, as dataclasses do, even where it is
        # handled, and would kill itself with SIGINT at the end; the next exec clears the note.
        exec("")  # noqa: S102
        return 130


def _run(name: str, words: list[str]) -> int:
    """Run one verb; an interruption leaves it as one."""
    try:
        verb = importlib.import_module(f"scripts.{name}")
        parser = Parser(name, VERBS[name], verb.EXAMPLE)
        verb.add_options(parser)
        return int(verb.run(parser.parse(words)) or 0)
    except Exception as error:
        if _began_as_interruption(error):
            raise KeyboardInterrupt from error
        raise


def _listen() -> None:
    """Let SIGTERM, and the end of a terminal unless nohup has it ignored, do as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _began_as_interruption(error: BaseException | None) -> bool:
    """Tell whether an interruption is at the root of ``error``.

    One that comes while Python 3.11 makes a class, as imports do by the thousand, reaches us as a
    RuntimeError, and as the file that cannot be loaded where somebody takes it for that.
    """
    while error:
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _again(lost: "sys.UnraisableHookArgs") -> None:
    """Interrupt once more where Python has dropped an interruption, as it does in destructors."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        # A signal, which also ends a wait; this one is never ignored.
        threading.Timer(_SOON, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(lost)


if __name__ == "__main__":
    sys.unraisablehook = _again
    sys.exit(main(sys.argv[1:]))
