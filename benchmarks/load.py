"""Load on a server by wrk: sentences posted over kept connections, counted and timed by it."""

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_src.errors import PackageError, ServerError

_SCRIPT = Path(__file__).with_name("wrk.lua")
_TIMEOUT = 10


@dataclass(frozen=True)
class Target:
    """What wrk asks: an address, and the files of headers and of bodies, a line each."""

    url: str
    headers: Path
    bodies: Path


def require() -> str:
    """Return the version of wrk; raises PackageError where there is none."""
    if not shutil.which("wrk"):
        raise PackageError("benchmark serving needs wrk, which is not here: apt-get install wrk")
    done = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)  # noqa: S607
    return done.stdout.split()[1].split("/")[-1]


def write(folder: Path, texts: Sequence[str], body: Callable[[str], object], auth: str) -> None:
    """Write the files of a ``Target`` into ``folder``; ``auth`` is a header or empty."""
    headers = folder / "headers"
    headers.touch(mode=0o600)
    lines = ["Content-Type: application/json", *([auth] if auth else [])]
    headers.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    bodies = "".join(f"{json.dumps(body(text))}\n" for text in texts)
    (folder / "bodies").write_text(bodies, encoding="utf-8")


def press(target: Target, clients: int, seconds: int) -> dict[str, Any]:
    """Keep ``clients`` connections busy for ``seconds``; one thread is enough for them.

    Returns:
        requests, seconds, p50_ms and p99_ms, the answers above 399 (refused), and what was not
        answered at all (lost).

    Raises:
        ServerError: when wrk cannot reach the server.

    """
    options = ["-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", f"{_TIMEOUT}s"]
    files = [str(target.headers), str(target.bodies)]
    done = subprocess.run(  # noqa: S603
        ["wrk", *options, "-s", str(_SCRIPT), target.url, "--", *files],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"wrk cannot load {target.url}: {(done.stderr or done.stdout).strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
