"""One command at a time for a run folder."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from model_src.errors import ServerError

_LOCK = ".lock"


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run folder's lock, which also marks the folder as made by this program."""
    lock = run_dir / _LOCK
    if run_dir.exists() and not lock.exists() and any(run_dir.iterdir()):
        raise ServerError(f"{run_dir} is no run folder of a server: name a new or an empty one")
    run_dir.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"another command is changing the server of {run_dir}") from None
        yield
