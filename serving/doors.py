"""Shut the doors of a running server, so that whoever was in before is answered."""

import time
from pathlib import Path

from serving.admin import SETTLE, Admin
from serving.store import Served, stub

# No archive can have this version.
_GATE = "_stopping"


def close(admin: Admin, store: Path, served: list[Served], seconds: float) -> bool:
    """Shut one door after the other; False when not all that was in is known to be answered.

    TorchServe cannot refuse, but a version without workers answers 503 at once, and that one
    becomes the default. Who names a version is refused by a key that nobody else can read.

    Args:
        admin: of the server; afterwards it alone holds the keys.
        store: the folder of the server's archives.
        served: what is to be idle.
        seconds: the time for all of them.

    Raises:
        ServerError: when the server does not do as it is told.

    """
    deadline = time.monotonic() + seconds
    for name in dict.fromkeys(each.name for each in served):
        admin.register(stub(store, name, _GATE))
        admin.set_default(name, _GATE)
    drained = _drain(admin, served, deadline)
    admin.rotate("inference")
    admin.hold()
    return _drain(admin, served, deadline) and drained


def _drain(admin: Admin, served: list[Served], deadline: float) -> bool:
    time.sleep(SETTLE)
    idle = [
        admin.drain(each.name, each.version, max(0.0, deadline - time.monotonic()))
        for each in served
    ]
    return all(idle)
