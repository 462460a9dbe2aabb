"""Waiting for a socket so that a worker goes on at once, and where it was.

A core that has fallen asleep may take as long to wake as a small model takes to answer. So a worker
that has answered looks for the next batch again and again for a moment (busy polling), and between
two looks gives its core to whoever wants it. Then it sleeps: an idle server costs nothing.
``ICLASSIFIER_BUSY_POLL=off`` in the environment lets it sleep at once.

Linux may wake a sleeper on the core of the writer, here that of TorchServe's Java: the worker
moves, and what its core had of the model is read from further away again. So it sleeps on its core.
Neither worker nor model is bound to a core: while it computes, the worker may be moved as ever.
Cores that a container gets later on are used by workers started from then on.
"""

import contextlib
import ctypes
import os
import socket
import time
from typing import Protocol

# Seconds: a little more than a lone client takes to read an answer of a small model and ask again.
BUSY_POLL = 0.0 if os.environ.get("ICLASSIFIER_BUSY_POLL") == "off" else 400e-6
# None where there are no cores to choose from, as on macOS
_core = (
    getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
)


class Connection(Protocol):
    """What is needed of a socket."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return at most ``size`` bytes, none when the other side has closed."""


def receive(connection: Connection, size: int) -> bytes:
    """Return at most ``size`` bytes of a blocking ``connection``, none when it was closed."""
    end = time.perf_counter() + BUSY_POLL
    while True:
        with contextlib.suppress(BlockingIOError):
            return connection.recv(size, socket.MSG_DONTWAIT)
        if time.perf_counter() >= end:
            break
        os.sched_yield()
    cores = _narrow()
    try:
        return connection.recv(size)
    finally:
        if cores and len(os.sched_getaffinity(0)) == 1:  # else somebody has given it others
            with contextlib.suppress(OSError):  # those have been taken away
                os.sched_setaffinity(0, cores)


def _narrow() -> set[int]:
    """Keep this thread, of all that there are, to its core; return those it had, if it changed."""
    if _core is None:
        return set()
    try:
        cores = os.sched_getaffinity(0)
        if len(cores) > 1:
            os.sched_setaffinity(0, {_core()})
            return cores
    except (OSError, ValueError):  # where a container forbids it, or to ask which core this is
        pass
    return set()
