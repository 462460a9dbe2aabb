"""Where a fault happens: archives, servers, clients and steady traffic in one scratch folder."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos import parts
from chaos.altered import SLOW, with_handler
from chaos.parts import NAME, Offline
from chaos.tally import Tally, judge
from chaos.traffic import Ask, Record, Traffic
from serving import launch, server
from serving.client import Client
from serving.process import birth, end, group
from serving.server import Options, Server

FIRST, SECOND = parts.versions()
_SOCKETS = "tmp/.ts.sock.*"


class Scene:
    """Everything that faults share; leaving it ends every process that was started in it."""

    def __init__(self, folder: Path, *, short: bool = False, minutes: float = 20) -> None:
        """Take an empty folder.

        Args:
            folder: for archives and run folders.
            short: whether faults are to take a few seconds each, as in the tests.
            minutes: of the soak.

        """
        self.folder, self.short, self.minutes = folder, short, minutes
        self._numbers, self._runs = itertools.count(), itertools.count(1)
        self._folders: list[Path] = []
        self._lent: tuple[Path, float] | None = None
        self._clients = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what still runs; an interruption of one end leaves none of the others out."""
        with contextlib.ExitStack() as ends:
            for folder in self._folders:
                ends.callback(self.end, folder)
            ends.push(self._clients)

    @cached_property
    def _parts(self) -> dict[str, tuple[Path, Path]]:
        return {version: parts.make(self.folder, version) for version in parts.versions()}

    @property
    def archives(self) -> dict[str, Path]:
        """The archive of each version, both of the name ``parts.NAME``; made at first use."""
        return {version: made[0] for version, made in self._parts.items()}

    def slow(self, seconds: float) -> Path:
        """Return the archive of the first version, each batch of which takes ``seconds`` longer."""
        mar = self.archives[FIRST]
        if not seconds:
            return mar
        return with_handler(
            mar, self.folder / f"slow-{seconds:g}" / mar.name, SLOW.format(seconds=seconds)
        )

    @cached_property
    def offline(self) -> Offline:
        """The offline answers."""
        return Offline({version: made[1] for version, made in self._parts.items()})

    def run_dir(self) -> Path:
        """Return a new folder for a server, whose processes are ended with the scene."""
        self._folders.append(self.folder / f"run{next(self._runs)}")
        return self._folders[-1]

    def start(self, *archives: Path, workers: int = 2, token_minutes: float = 0) -> Server:
        """Start a server on free ports in a run folder of its own; the first one is the default."""
        names = [str(path) for path in archives]
        options = Options(workers=workers, token_minutes=token_minutes)
        return server.start(self.folder, names, self.run_dir(), seconds=300, options=options)

    @contextlib.contextmanager
    def server(self, workers: int = 2, *, slow: float = 0.0) -> Iterator[Server]:
        """Lend a server of the first version, to be left as it was found or ended.

        A new one, which is stopped at the end; in the short form the next fault gets it again, if
        it still is as it was. A fault that fails leaves none behind.

        Args:
            workers: how many it has.
            slow: seconds that each batch takes longer.

        """
        run_dir, as_slow = self._lent or (None, 0.0)
        found = Server.find(run_dir) if run_dir else None
        if not found or as_slow != slow or _ready(found) != [(FIRST, workers)]:
            self._leave()
            found = self.start(self.slow(slow), workers=workers)
        self._lent = found.run_dir, slow
        try:
            yield found
        except Exception:
            self.end(found.run_dir)
            raise
        if not self.short:
            self._leave()

    def _leave(self) -> None:
        if self._lent and (found := Server.find(self._lent[0])):
            found.stop()
        self._lent = None

    @staticmethod
    def end(run_dir: Path) -> None:
        """End every process of ``run_dir``, whatever state it is in."""
        try:
            if found := Server.read(run_dir):
                found.end()
        finally:
            for pid in launch.leftovers(run_dir):
                end(pid, birth(pid) or 0)

    def client(self, found: Server, path: str = NAME, **options: Any) -> Client:  # noqa: ANN401
        """Return a client of ``found`` with ``options`` of ``Client``; ``path`` is a model's."""
        client = Client(found.url(path), found.key_file, **options)
        return self._clients.enter_context(client)

    def traffic(
        self,
        found: Server,
        *,
        clients: int = 8,
        path: str = NAME,
        rate: float = 0.0,
        most: int = 0,
        sizes: tuple[int, ...] = (1,),
        **options: Any,  # noqa: ANN401
    ) -> Traffic:
        """Return traffic to ``found``, to be used in a ``with``; ``options`` are the client's."""
        asks = [ask(self.client(found, path, **options)) for _ in range(clients)]
        return self.around(asks, rate=rate, most=most, sizes=sizes)

    def around(
        self,
        asks: Sequence[Ask],
        *,
        rate: float = 0.0,
        most: int = 0,
        sizes: tuple[int, ...] = (1,),
    ) -> Traffic:
        """Return traffic of ``asks``, one a client, with sentences that nobody had before."""
        return Traffic(asks, self._numbers, rate=rate, most=most, sizes=sizes)

    def judge(self, records: Sequence[Record], *versions: str) -> Tally:
        """Compare answers with the offline ones of ``versions``, else of the first."""
        return judge(records, self.offline, versions or (FIRST,))


def _ready(found: Server) -> list[tuple[str, int]]:
    return [(each.version, found.ready_of(each)) for each in found.served]


def ask(client: Client) -> Ask:
    """Return how traffic asks through ``client``: several sentences at once in one request."""
    return partial(_ask, client)


def _ask(client: Client, texts: list[str]) -> list[dict[str, Any]]:
    return [client.predict(texts[0])] if len(texts) == 1 else client.predict_many(texts)


def workers(found: Server) -> list[int]:
    """Return the pids of the processes of ``found`` but Java, in order."""
    return sorted(pid for pid in group(found.pid) if pid != found.pid)


def sockets(found: Server) -> list[str]:
    """Return the names of the sockets between Java and workers."""
    return sorted(path.name for path in found.run_dir.glob(_SOCKETS))
