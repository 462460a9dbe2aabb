"""Start, watch and stop a TorchServe; its run folder remembers what it serves."""

import contextlib
import json
import shutil
import subprocess
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from model_src.errors import ServerError
from model_src.files import atomic_write, read_json
from serving import doors, launch
from serving.admin import Admin
from serving.client import read_key
from serving.launch import STORE
from serving.lock import locked
from serving.process import birth, end, end_group, free_ports, is_free
from serving.store import Archive, Served, find

ROOT = Path(__file__).resolve().parent.parent
_STATE, _KEYS, _HEADER = "server.json", "key_file.json", "inference.header"
# What clients know a server by, and all that it listens on.
_KNOWN = ("inference", "management", "metrics", "grpc_inference")
_ADDRESSES = (*_KNOWN, "grpc_management")
# Our own children, kept to be reaped when they end; most servers outlive the program.
_CHILDREN: dict[int, "subprocess.Popen[bytes]"] = {}


@dataclass(frozen=True)
class Server:
    """A server that was started; its run folder remembers it."""

    run_dir: Path
    pid: int
    birth: int
    ports: dict[str, int]
    served: list[Served]
    minutes: float = 0
    keeper: int = 0
    keeper_birth: int = 0

    @classmethod
    def read(cls, run_dir: Path) -> Self | None:
        """Return what ``run_dir`` remembers, alive or not; a damaged memory counts for nothing."""
        try:
            state = read_json(run_dir / _STATE, ServerError)
            return cls(run_dir, **state | {"served": [Served(**each) for each in state["served"]]})
        except (TypeError, LookupError, ServerError):
            return None

    @classmethod
    def find(cls, run_dir: Path) -> Self | None:
        """Return the live server of ``run_dir``; a stale state file counts for nothing."""
        found = cls.read(run_dir)
        return found if found and birth(found.pid) == found.birth else None

    @property
    def kept(self) -> bool:
        """Whether the process that renews its tokens is alive."""
        return birth(self.keeper) == self.keeper_birth

    @property
    def models(self) -> list[str]:
        """The names served, each once."""
        return [*dict.fromkeys(each.name for each in self.served)]

    @property
    def key_file(self) -> Path:
        """The file with the inference and management keys, readable by its owner only."""
        return self.run_dir / _KEYS

    @property
    def header_file(self) -> Path:
        """The authorization header for ``curl -H @FILE``, readable by its owner only."""
        return self.run_dir / _HEADER

    @property
    def admin(self) -> Admin:
        """The management interface."""
        return Admin(self.ports, self.key_file)

    def url(self, model: str) -> str:
        """Return where ``model`` answers."""
        return f"http://127.0.0.1:{self.ports['inference']}/predictions/{model}"

    def grpc_url(self, model: str) -> str:
        """Return the same for gRPC."""
        return f"grpc://127.0.0.1:{self.ports['grpc_inference']}/{model}"

    def workers(self, model: str) -> list[dict[str, Any]]:
        """Return TorchServe's own record of each worker of ``model``; empty when it is silent."""
        try:
            return [each for found in self.admin.versions(model) for each in found["workers"]]
        except (ServerError, ValueError, LookupError, TypeError):
            return []

    def ready(self, model: str) -> int:
        """Count the workers of ``model`` that can answer."""
        return sum(worker.get("status") == "READY" for worker in self.workers(model))

    def ready_of(self, served: Served) -> int:
        """Count those of one version."""
        try:
            return len(self.admin.workers(served.name, served.version))
        except (ServerError, ValueError, LookupError, TypeError):
            return 0

    def remember(self) -> None:
        """Write the state that ``read`` reads."""
        state = {name: value for name, value in asdict(self).items() if name != "run_dir"}
        atomic_write(self.run_dir / _STATE, json.dumps(state, indent=2) + "\n")

    def write_header(self) -> None:
        """Write the header file for the inference key of now."""
        key = read_key(self.key_file, "inference")
        scratch = self.run_dir / f".{_HEADER}"
        scratch.touch(mode=0o600)
        scratch.write_text(f"Authorization: Bearer {key}\n", encoding="utf-8")
        scratch.replace(self.header_file)

    def rotate(self) -> None:
        """Replace the tokens; clients read the key file again when theirs is refused."""
        self.admin.rotate("management")
        self.admin.rotate("inference")
        self.write_header()

    def stop(self, seconds: float = 60) -> bool:
        """Refuse new work, wait up to ``seconds`` for what is in flight, then end all processes.

        Tells whether all that was in flight is known to be answered. An interruption cuts the
        waiting short.
        """
        drained = False
        try:
            with contextlib.suppress(ServerError, OSError):
                end(self.keeper, self.keeper_birth)
                drained = doors.close(self.admin, self.run_dir / STORE, self.served, seconds)
        finally:
            self.end()
        return drained

    def end(self, *, forget: bool = True) -> None:
        """End Java and every worker at once, and remove what they left in the run folder.

        What ``restart`` needs, the state and the archives, stays unless it is to ``forget``.
        """
        try:
            end(self.keeper, self.keeper_birth)
            # Another birth is another process, to which the pid was given: not before the last of
            # our group had ended.
            if birth(self.pid) in {None, self.birth}:
                end_group(self.pid, patience=10)
        finally:
            for pid in (self.pid, self.keeper):
                if child := _CHILDREN.pop(pid, None):
                    child.wait()
            for name in (_KEYS, _HEADER, *([_STATE] if forget else [])):
                (self.run_dir / name).unlink(missing_ok=True)
            for name in ("tmp", *([STORE] if forget else [])):
                shutil.rmtree(self.run_dir / name, ignore_errors=True)


@dataclass(frozen=True)
class Options:
    """What one server may have other than its archives say; 0 leaves it to them."""

    workers: int = 0
    threads: int = 0
    token_minutes: float = 0
    # lines of config.properties in the place of the project's, for as long as this server runs
    properties: dict[str, str] = field(default_factory=dict)


def start(
    model_store: Path,
    models: list[str],
    run_dir: Path,
    ports: dict[str, int] | None = None,
    seconds: float = 120,
    options: Options = Options(),
) -> Server:
    """Start a server and wait until each of its models has all of its workers READY.

    Args:
        model_store: the folder of ``.mar`` files.
        models: names of archives in it, or paths; of several versions the first is the default.
        run_dir: where the server keeps its state, keys, archives, logs and temporary files.
        ports: some of ``inference management metrics grpc_inference``; free ones are taken
            for the others, and for 0.
        seconds: the time within which all models must be READY.
        options: workers and threads a model, and the life of a token.

    Raises:
        ServerError: for an archive that is missing or in the server's own store, a port in use, a
            server that runs already, or a worker that fails, with its traceback.

    """
    archives = [Archive.read(find(model_store, name)) for name in models]
    if not archives:
        raise ServerError(
            f"no model to serve in {model_store}; make one with ./iclassifier archive"
        )
    known = [(each.name, each.version) for each in archives]
    for name, version in known:
        if known.count((name, version)) > 1:
            raise ServerError(
                f"the model {name} {version} is named twice: give one of the archives another "
                "version with archive --model_version"
            )
    launch.refuse_long(run_dir)
    store = (run_dir / STORE).resolve()
    for each in archives:
        if store in (each.path.resolve().parent, each.path.parent.resolve()):  # a link, or its end
            raise ServerError(
                f"{each.path} lies in the server's own store, which a start empties: copy it to "
                "another folder first"
            )
    with locked(run_dir):
        chosen = _ports(run_dir, ports or {})
        _clear(run_dir)
        names = [name for name, _ in known]
        served = [
            each.admit(
                run_dir / STORE,
                version=each.version,
                workers=options.workers,
                threads=options.threads,
                default=names.index(each.name) == i,
            )
            for i, each in enumerate(archives)
        ]
        return _start(run_dir, served, chosen, seconds, options)


def restart(
    run_dir: Path,
    ports: dict[str, int] | None = None,
    seconds: float = 120,
    options: Options = Options(),
) -> Server:
    """Start what a server of ``run_dir`` that was killed has served, where it was served.

    That is models, versions, workers and ports. What ``options`` say holds for all models; what
    they and ``ports`` leave out is as it was. One that fails leaves what it was to bring back for
    the next.

    Raises:
        ServerError: as ``start``, or when ``run_dir`` remembers none or has lost its archives.

    """
    launch.refuse_long(run_dir)
    with locked(run_dir):
        killed = Server.read(run_dir)
        if killed is None:
            raise ServerError(f"{run_dir} remembers no server: ./iclassifier serve start NAME")
        before = {name: killed.ports[name] for name in _KNOWN if name in killed.ports}
        chosen = _ports(run_dir, before | (ports or {}))
        store = run_dir / STORE
        lost = [each.file for each in killed.served if not (store / each.file).is_file()]
        if lost:
            raise ServerError(
                f"{store} has lost {' and '.join(lost)}: ./iclassifier serve start NAME"
            )
        archives = [(Archive.read(store / each.file), each) for each in killed.served]
        _clear(run_dir, keep=[each.file for each in killed.served])
        served = [
            archive.admit(
                store,
                version=each.version,
                workers=options.workers or each.workers,
                threads=options.threads or each.threads,
                default=each.default,
            )
            for archive, each in archives
        ]
        options = replace(options, token_minutes=options.token_minutes or killed.minutes)
        return _start(run_dir, served, chosen, seconds, options, killed)


def _start(
    run_dir: Path,
    served: list[Served],
    ports: dict[str, int],
    seconds: float,
    options: Options,
    killed: Server | None = None,
) -> Server:
    """Launch, and wait for all workers; where that fails end all, and remember ``killed`` again."""
    minutes = options.token_minutes
    life = {"token_expiration_min": str(minutes)} if minutes else {}
    launch.prepare(run_dir, served, ports, options.properties | life)
    started = None
    try:
        process = launch.launch(run_dir, served)
        _CHILDREN[process.pid] = process
        started = Server(run_dir, process.pid, birth(process.pid) or 0, ports, served, minutes)
        started = start_keeper(started)
        launch.wait(run_dir, process.pid, served, started.ready_of, seconds)
        started.write_header()
    except BaseException:
        if started:
            started.end(forget=killed is None)
        if killed:
            killed.remember()
        raise
    return started


def start_keeper(server: Server) -> Server:
    """Start the process that renews the tokens of ``server``, and remember both."""
    if ended := _CHILDREN.pop(server.keeper, None):
        ended.wait()
    server.remember()  # the process ends where it finds no server
    process = launch.keep(server.run_dir)
    _CHILDREN[process.pid] = process
    kept = replace(server, keeper=process.pid, keeper_birth=birth(process.pid) or 0)
    kept.remember()
    return kept


def _ports(run_dir: Path, given: dict[str, int]) -> dict[str, int]:
    """Return all ports, the ``given`` among them, if a server may be started on them."""
    if Server.find(run_dir):
        raise ServerError(f"a server of {run_dir} runs already: ./iclassifier serve stop")
    named = {name: port for name, port in given.items() if port}
    free = [port for port in free_ports(2 * len(_ADDRESSES)) if port not in named.values()]
    chosen = dict(zip(_ADDRESSES, free, strict=False)) | named
    if len(set(chosen.values())) < len(chosen):
        raise ServerError(f"two of the ports are the same: {given}; 0 takes a free one")
    for name, port in chosen.items():
        if not is_free(port):
            raise ServerError(
                f"port {port} for {name} is in use: give --{name}_port, 0 for a free one"
            )
    return chosen


def _clear(run_dir: Path, keep: list[str] | None = None) -> None:
    """Remove what a killed server left: processes, keys, archives but those to ``keep``."""
    for pid in launch.leftovers(run_dir):
        end(pid, birth(pid) or 0)
    for name in (_KEYS, _HEADER):
        (run_dir / name).unlink(missing_ok=True)
    for path in (run_dir / STORE).glob("*"):
        if path.name not in (keep or []):
            path.unlink()
