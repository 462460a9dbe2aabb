"""Put a new version of a model in the place of the old one, without an answer lost or wrong."""

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

from model_src.errors import ServerError, nearest
from serving import golden, launch
from serving.admin import SETTLE, Admin
from serving.launch import STORE
from serving.lock import locked
from serving.server import Server, start_keeper
from serving.store import NAME, Archive, Served, free_version

# Rounds of golden sentences: some to warm up, and enough that no worker is missed.
_WARM, _MOST = 3, 200
# Handlers report what they have counted once a second; the last report must not be lost.
_REPORT = 1.2
# Of a switch that is taken back: for what the new version was sent meanwhile.
_UNDO_SECONDS = 10.0


@dataclass(frozen=True)
class Deployed:
    """What ``deploy`` has done."""

    server: Server
    new: Served
    old: Served | None
    drained: bool


def deploy(
    run_dir: Path,
    mar: Path,
    *,
    version: str = "",
    workers: int = 0,
    threads: int = 0,
    keep: bool = False,
    seconds: float = 120,
) -> Deployed:
    """Start a version beside the old one, compare, switch the default, drain and remove the old.

    Args:
        run_dir: that of the running server.
        mar: the archive.
        version: its name; without, the archive's own or the next number.
        workers: how many; without, as many as the old version has, and so for ``threads``.
        threads: of each worker.
        keep: leave the old version where requests can name it.
        seconds: the time to get READY, and then to drain the old version.

    Raises:
        ServerError: when the new version does not start or answers otherwise than its archive says,
            or the switch fails; the old one is then as it was, and nothing is left of the new one.
            When removing the old one fails or is interrupted, which it names.

    """
    archive = Archive.read(mar)
    if not archive.golden:
        raise ServerError(f"{mar} holds no golden answers: make it with ./iclassifier archive")
    if version and not NAME.fullmatch(version):
        raise ServerError(f"the version {version!r} may hold a-z, A-Z, 0-9, - _ and . only")
    with locked(run_dir):
        server = running(run_dir)
        mates = [each for each in server.served if each.name == archive.name]
        taken = [each.version for each in mates]
        if version in taken:
            raise ServerError(f"{archive.name} {version} is served already: give another --version")
        old = next((each for each in mates if each.default), None)
        new = archive.admit(
            run_dir / STORE,
            version=version or free_version(archive.version, taken),
            workers=workers or (old.workers if old else 0),
            threads=threads or (old.threads if old else 0),
            default=not old,
        )
        since = launch.log_size(run_dir)
        try:
            server.admin.register(new)
            launch.wait(run_dir, server.pid, [new], server.ready_of, seconds, since)
            prove(server.admin, new, archive.golden)
            both = _remember(server, [*server.served, new])
            if old:
                both = _default(both, new)
        except BaseException:
            _undo(server, new, old)
            raise
        if old is None:
            return Deployed(both, new, None, drained=True)
        if keep:
            return Deployed(both, new, old, drained=False)
        try:
            after, drained = _remove(both, old, seconds)
        except (ServerError, KeyboardInterrupt) as reason:
            raise ServerError(
                f"{str(reason) or 'interrupted'}; {new.name} {new.version} is the default now, and "
                f"{old.version} is still there: ./iclassifier serve remove {old.name} {old.version}"
            ) from None
        return Deployed(after, new, old, drained)


def rotate(run_dir: Path) -> Server:
    """Replace both tokens."""
    with locked(run_dir):
        server = running(run_dir)
        server.rotate()
        return server


def keep(run_dir: Path) -> Server:
    """Start the process that renews the tokens again, if it has ended; return the server."""
    with locked(run_dir):
        server = running(run_dir)
        return server if server.kept else start_keeper(server)


def stop(run_dir: Path, seconds: float) -> bool:
    """Stop the server when no other command is changing it; see ``Server.stop``."""
    with locked(run_dir):
        return running(run_dir).stop(seconds)


def set_default(run_dir: Path, name: str, version: str) -> Server:
    """Let ``version`` answer where a request names none."""
    with locked(run_dir):
        server = running(run_dir)
        return _default(server, _one(server, name, version))


def remove(run_dir: Path, name: str, version: str, seconds: float = 120) -> tuple[Server, bool]:
    """Drain and remove a version that is not the default; tell whether it was drained in time."""
    with locked(run_dir):
        server = running(run_dir)
        found = _one(server, name, version)
        if found.default:
            raise ServerError(f"{name} {version} is the default: deploy or name another one first")
        return _remove(server, found, seconds)


def running(run_dir: Path) -> Server:
    """Return the live server of ``run_dir``; raises ServerError where there is none."""
    server = Server.find(run_dir)
    if server is None:
        raise ServerError(f"no server of {run_dir} runs: ./iclassifier serve start")
    return server


def prove(admin: Admin, new: Served, expected: list[dict[str, object]]) -> None:
    """Ask every worker the golden sentences; what they answer is their warm-up too."""
    seen = set[int | None]()
    for round_ in range(_MOST):
        answers, pids = zip(
            *(admin.ask(new.name, new.version, str(each["text"])) for each in expected),
            strict=True,
        )
        if problem := golden.problem(expected, list(answers)):
            raise ServerError(f"{new.name} {new.version} {problem}; the old version goes on")
        seen.update(pids)
        ready = admin.workers(new.name, new.version)
        if round_ + 1 >= _WARM and len(ready) >= new.workers and ready <= seen:
            return
    raise ServerError(f"{new.name} {new.version}: a worker answers nothing; the old one goes on")


def _one(server: Server, name: str, version: str) -> Served:
    known = {f"{each.name} {each.version}": each for each in server.served}
    wanted = f"{name} {version}"
    if wanted not in known:
        raise ServerError(f"{wanted} is not served{nearest(wanted, known)}")
    return known[wanted]


def _undo(server: Server, new: Served, old: Served | None) -> None:
    """Take ``new`` from ``server``, which goes on as it is, also where it was the default already.

    The reason to give up says more than what fails here.
    """
    try:
        server.remember()
        with contextlib.suppress(ServerError):
            if old and server.admin.default(new.name) == new.version:
                server.admin.set_default(old.name, old.version)
                time.sleep(SETTLE)
                server.admin.drain(new.name, new.version, _UNDO_SECONDS)
    finally:
        with contextlib.suppress(ServerError):
            server.admin.unregister(new)
        (server.run_dir / STORE / new.file).unlink(missing_ok=True)


def _default(server: Server, new: Served) -> Server:
    server.admin.set_default(new.name, new.version)
    served = [
        replace(each, default=each.version == new.version) if each.name == new.name else each
        for each in server.served
    ]
    return _remember(server, served)


def _remove(server: Server, old: Served, seconds: float) -> tuple[Server, bool]:
    time.sleep(SETTLE)
    drained = server.admin.drain(old.name, old.version, seconds)
    time.sleep(_REPORT)
    server.admin.unregister(old)
    kept = [each for each in server.served if (each.name, each.version) != (old.name, old.version)]
    changed = _remember(server, kept)
    # Last: a killed server comes back with what is remembered, for which no archive may lack.
    (server.run_dir / STORE / old.file).unlink(missing_ok=True)
    return changed, drained


def _remember(server: Server, served: list[Served]) -> Server:
    changed = replace(server, served=served)
    changed.remember()
    return changed
