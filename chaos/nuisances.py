"""Clients that hold a server up without asking much of it: slow, silent or gone in between."""

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from chaos.payload import GOOD
from chaos.wire import Wire
from handlers.body import MAX_BODY

SLOW, IDLE, PAUSE = 100, 1000, 0.1
# A connection closed with this ends with a reset.
_RESET = struct.pack("ii", 1, 0)


@contextlib.contextmanager
def _slow(wire: Wire) -> Iterator[None]:
    """Send requests byte by byte, each on time for the connection to live."""
    message = wire.begin(MAX_BODY) + b"a" * 100_000
    with _connections(wire, SLOW) as sockets, _thread(PAUSE) as each:
        places = itertools.count()

        def send() -> None:
            at = next(places)
            for one in sockets:
                one.sendall(message[at : at + 1])

        each(send)
        yield


@contextlib.contextmanager
def _idle(wire: Wire) -> Iterator[None]:
    with _connections(wire, IDLE):
        yield


@contextlib.contextmanager
def _leaving(wire: Wire) -> Iterator[None]:
    """Leave with half of a body sent, or all of it, closing in order or not."""
    text = GOOD.encode() * 20
    whole = wire.begin(len(text)) + text
    cuts = itertools.cycle([len(whole), len(whole) - 100, 20, len(whole)])

    def leave() -> None:
        for order in (True, False):
            with wire.connect() as connection:
                connection.sendall(whole[: next(cuts)])
                if not order:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    with _thread(PAUSE / 5) as each:
        each(leave)
        yield


NUISANCES: dict[str, Callable[[Wire], contextlib.AbstractContextManager[None]]] = {
    "slow senders": _slow,
    "idle sockets": _idle,
    "clients that leave": _leaving,
}


@contextlib.contextmanager
def _connections(wire: Wire, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(wire.connect()) for _ in range(count)]


@contextlib.contextmanager
def _thread(pause: float) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Yield how to begin to do something again and again; an error of it is raised at the end."""
    over, errors = threading.Event(), list[Exception]()

    def work(do: Callable[[], None]) -> None:
        try:
            while not over.wait(pause):
                do()
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = list[threading.Thread]()

    def begin(do: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work, args=(do,), daemon=True))
        threads[-1].start()

    try:
        yield begin
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for error in errors:
        raise error
