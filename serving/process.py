"""Processes and ports of this machine: who is alive, what is free, how to end a whole group."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path


def free_ports(count: int) -> list[int]:
    """Return ``count`` different loopback ports that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the loopback ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def birth(pid: int) -> int | None:
    """Return when a live process started, in clock ticks since boot, or None.

    A pid alone may have been given to another process since; with its birth it is unique. Of a
    process that was killed the first thread may be gone while others still hold its ports.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    return None if state == "Z" and threads <= 1 else started


def environment(pid: int) -> bytes:
    """Return the environment a process was started with; empty when it is gone or not ours."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def marked(mark: bytes) -> list[int]:
    """Return the live processes, parents first, that were started with ``mark`` (``NAME=value``).

    Who starts processes with a mark finds them all again, also those that left their group.
    """
    pids = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
    found = ((birth(pid), pid) for pid in pids if mark in environment(pid).split(b"\0"))
    return [pid for _, pid in sorted((at, pid) for at, pid in found if at is not None)]


def group(leader: int) -> list[int]:
    """Return the live processes of the group of ``leader``."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(entry.name)) == leader and birth(int(entry.name)) is not None:
                members.append(int(entry.name))
    return members


def end(pid: int, born: int) -> None:
    """End one process by force, unless its pid has been given to another one."""
    with contextlib.suppress(ProcessLookupError):
        if birth(pid) == born:
            os.kill(pid, signal.SIGKILL)
    while birth(pid) == born:
        time.sleep(0.01)


def end_group(leader: int, patience: float) -> None:
    """Ask the leader of a process group to end, then end what is left of the group by force.

    An interruption (a second Ctrl-C) cuts the patience short, not the end.
    """
    try:
        with contextlib.suppress(ProcessLookupError):
            os.kill(leader, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while group(leader) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        while group(leader):
            time.sleep(0.02)
