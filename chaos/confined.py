"""Serve where little is allowed: no network, a project that cannot be written, another user.

Usage: unshare NAMESPACES python -m chaos.confined RUN_DIR ARCHIVE CONFINEMENT... < JSON list of
sentences > JSON object of answers and of what was not allowed
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import server
from serving.client import Client

ROOT = Path(__file__).resolve().parent.parent
# The exit code where this machine does not let us into a confinement.
NOT_LET = 77
NOBODY = 65534
# From linux/sockios.h and linux/if.h.
_SET_FLAGS, _UP = 0x8914, 0x1
# Fails for a user who may not read where this Python is, as where that is the home of root.
_STARTS = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'], check=True)"
# An address for documentation, which no network leads to.
_ELSEWHERE = ("192.0.2.1", 9)


def _no_network() -> None:
    """Bring up loopback, which a new network namespace has down."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


def _read_only() -> None:
    for options in ("bind", "remount,bind,ro"):
        subprocess.run(  # noqa: S603
            ["mount", "-o", options, str(ROOT), str(ROOT)],  # noqa: S607
            check=True,
        )


def _nobody() -> None:
    """Begin again as another user; one who may not read this interpreter may read, not write."""
    if os.getuid() != 0:
        return
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    reads = [*user, sys.executable, "-c", _STARTS]
    if subprocess.run(reads, capture_output=True, check=False).returncode:  # noqa: S603
        user += [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    again = [sys.executable, "-m", "chaos.confined", *sys.argv[1:3], "not root"]
    os.execvp(user[0], [*user, *again])  # noqa: S606


# By name: the namespaces it needs, and how to enter it. The user comes last, who can enter no more.
CONFINEMENTS: dict[str, tuple[tuple[str, ...], Callable[[], None]]] = {
    "no network": (("--net",), _no_network),
    "read-only project": (("--mount",), _read_only),
    "not root": ((), _nobody),
}


def barred() -> dict[str, bool]:
    """Tell by trying what this process cannot do."""
    try:
        (ROOT / "confined").touch()
        (ROOT / "confined").unlink()
    except OSError:
        writable = False
    else:
        writable = True
    with socket.socket() as probe:
        probe.settimeout(1)
        reached = probe.connect_ex(_ELSEWHERE)
    unreachable = reached in {101, 113}  # no route to the network, to the host
    return {
        "no network": unreachable,
        "read-only project": not writable,
        "not root": os.getuid() != 0,
    }


def main(run_dir: Path, mar: Path, confinements: list[str]) -> dict[str, Any]:
    """Enter the confinements, serve the archive, ask it, and stop."""
    try:
        for name in confinements:
            CONFINEMENTS[name][1]()
    except (OSError, subprocess.CalledProcessError) as reason:
        sys.stderr.write(f"{reason}\n")
        sys.exit(NOT_LET)
    texts = json.load(sys.stdin)
    found = server.start(mar.parent, [str(mar)], run_dir)
    try:
        with Client(found.url(found.models[0]), found.key_file) as client:
            answers = client.predict_many(texts)
    finally:
        found.stop()
    return {"answers": answers, "barred": barred()}


if __name__ == "__main__":
    folder, archive, *wanted = sys.argv[1:]
    json.dump(main(Path(folder), Path(archive), wanted), sys.stdout)
