"""Servers in a scratch folder that run settings of one archive side by side and are asked in turns.

All but the one that is asked are idle. Whatever else the machine does meets all of them alike.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from tqdm import tqdm

from serving import launch, server
from serving.client import read_key
from serving.launch import STORE
from serving.load import load, request
from serving.sentences import bundled
from serving.server import Options, Server
from serving.store import Archive, Served
from serving.trials import CLIENTS, Setting, Trial

ROUNDS = 3
# Seconds of one load, whatever time there is.
_SHORTEST, _LONGEST = 0.2, 3.0


@dataclass(frozen=True)
class _Target:
    """Who answers for a trial."""

    trial: Trial
    server: Server
    served: Served

    def ask(self, clients: int, seconds: float) -> None:
        """Let clients ask, and keep what they met."""
        path = f"/predictions/{self.served.name}/{self.served.version}"
        key = read_key(self.server.key_file, "inference")
        requests = [request(path, key, text) for text in bundled()]
        found = load(self.server.ports["inference"], requests, clients, seconds)
        self.trial.loads[clients].append(found)

    def warm_up(self) -> None:
        """Let every worker answer something."""
        self.ask(CLIENTS[-1], _SHORTEST)
        self.trial.loads[CLIENTS[-1]].clear()


class Testbed:
    """A server whose versions of one model are the settings of a step; used in a ``with``."""

    __test__ = False  # not pytest's

    def __init__(self, archive: Archive, scratch: Path, seconds: float, steps: int) -> None:
        """Divide ``seconds`` among so many ``steps``, with what starting takes."""
        self._archive, self._scratch = archive, scratch
        self._deadline, self._left = time.monotonic() + seconds, steps
        self._running = dict[Setting, Served]()
        self._servers = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start the archive as it is."""
        self._server = self._servers.enter_context(_started(self._archive, self._scratch / "own"))
        # The default, which TorchServe does not let go.
        (self._running[Setting.of(self._archive.settings)],) = self._server.served
        return self

    def __exit__(self, *error: object) -> None:
        """End all servers at once."""
        self._servers.close()

    def compare(self, settings: list[Setting]) -> list[Trial]:
        """Try settings, the first of which is the archive's own."""
        began = time.monotonic()
        settings = list(dict.fromkeys(settings))
        for setting in self._running.keys() - set(settings):
            self._server.admin.unregister(self._running.pop(setting))
        new = {each: self._admit(each) for each in settings if each not in self._running}
        since = launch.log_size(self._server.run_dir)
        for served in new.values():
            self._server.admin.register(served)
        ready = self._server.ready_of
        left = max(self._deadline - time.monotonic(), 120)
        run_dir, pid = self._server.run_dir, self._server.pid
        launch.wait(run_dir, pid, list(new.values()), ready, left, since)
        self._running |= new
        targets = [_Target(Trial(each), self._server, self._running[each]) for each in settings]
        return self._ask(targets, time.monotonic() - began)

    def compare_servers(self, setting: Setting, properties: list[dict[str, str]]) -> list[Trial]:
        """Try one setting, which runs already, with other lines in config.properties."""
        began = time.monotonic()
        targets = [_Target(Trial(setting), self._server, self._running[setting])]
        archive = replace(self._archive, settings=setting.into(self._archive.settings))
        for i, each in enumerate(properties):
            started = self._servers.enter_context(_started(archive, self._scratch / str(i), each))
            targets.append(_Target(Trial(setting, each), started, started.served[0]))
        return self._ask(targets, time.monotonic() - began)

    def _admit(self, setting: Setting) -> Served:
        version = f"try-{len(list((self._server.run_dir / STORE).iterdir()))}"
        archive = replace(self._archive, settings=setting.into(self._archive.settings))
        return archive.admit(self._server.run_dir / STORE, version=version, default=False)

    def _ask(self, targets: list[_Target], start: float) -> list[Trial]:
        """Ask all in turns; to start what the next steps need takes as long as it took now."""
        self._left -= 1
        loads = ROUNDS * len(targets) * len(CLIENTS)
        left = self._deadline - time.monotonic() - self._left * start
        seconds = min(max(left / (self._left + 1) / loads, _SHORTEST), _LONGEST)
        for target in targets:
            target.warm_up()
        with tqdm(total=loads, desc="measure", unit=" loads") as bar:
            for i in range(ROUNDS):
                for target in [*targets[i:], *targets[:i]]:  # nobody is always the first one
                    for clients in CLIENTS:
                        target.ask(clients, seconds)
                        bar.update()
        return [target.trial for target in targets]


@contextlib.contextmanager
def _started(
    archive: Archive, folder: Path, properties: dict[str, str] | None = None
) -> Iterator[Server]:
    """Start a server with one archive, and end it at once when it is not needed any more."""
    folder.mkdir()
    archive.save(folder / archive.path.name)
    options = Options(properties=properties or {})
    mar = str(folder / archive.path.name)  # a bare name might be found where the user stands
    started = server.start(folder, [mar], folder / "run", options=options)
    try:
        yield started
    finally:
        started.end()
