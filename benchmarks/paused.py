"""Stop the processes of a server while another is measured: an idle one may poll, or spin."""

import contextlib
import os
import signal
import time
from pathlib import Path

from serving.process import birth, end, end_group, marked

# For a signal to arrive before the next one is sent.
_MOMENT = 0.002


def pause(mark: bytes) -> None:
    """Stop all processes with ``mark``; parents first, who may wait for what a child answers."""
    while running := [pid for pid in marked(mark) if not is_stopped(pid)]:
        _send(running, signal.SIGSTOP)


def resume(mark: bytes) -> None:
    """Let them go on, children first."""
    _send(marked(mark)[::-1], signal.SIGCONT)


def finish(leader: int, mark: bytes) -> None:
    """End a process group, and by force whoever has ``mark`` and left it; stopped ones too."""
    try:
        resume(mark)
        end_group(leader, patience=10)
    finally:
        while rest := marked(mark):
            for pid in rest:
                end(pid, birth(pid) or 0)


def is_stopped(pid: int) -> bool:
    """Tell whether a process takes no time: stopped, or gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "TtZX"


def _send(pids: list[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        time.sleep(_MOMENT)
