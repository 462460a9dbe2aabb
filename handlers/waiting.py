"""Waiting for a socket so that a worker goes on where it was: its core still holds its model.

Linux wakes a reader on the core of the writer if it can, here that of TorchServe's Java: the worker
moves with almost every batch, and a small model is read from far away again. Neither worker nor
model is bound to a core: while it computes, the worker may be moved as ever.
"""

import contextlib
import ctypes
import os
import socket
from typing import Protocol

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
    with contextlib.suppress(BlockingIOError):
        return connection.recv(size, socket.MSG_DONTWAIT)
    if _core is None:
        return connection.recv(size)
    cores = os.sched_getaffinity(0)  # of this thread alone
    try:
        os.sched_setaffinity(0, {_core()})
    except OSError:  # where a container forbids it
        return connection.recv(size)
    try:
        return connection.recv(size)
    finally:
        with contextlib.suppress(OSError):  # the cores have been taken away meanwhile
            os.sched_setaffinity(0, cores)
