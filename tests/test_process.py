"""Who is alive: a port must not be tried before the last thread that holds it is gone."""

import platform
import subprocess
import sys
import time
from pathlib import Path

from serving.process import birth

# The number of exit(2), which ends one thread.
EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]
CHILD = f"""
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall({EXIT}, 0)
"""


def test_a_process_is_alive_until_its_last_thread_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD]) as child:
        stat, deadline = Path(f"/proc/{child.pid}/stat"), time.monotonic() + 20
        while ") Z " not in stat.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ") Z " in stat.read_text(encoding="utf-8")
        born = birth(child.pid)
        child.kill()
        while birth(child.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert born is not None
        assert birth(child.pid) is None
        assert stat.exists()  # a zombie without threads, as nobody has waited for it
