"""Clients that hold a server up without asking much of it: slow, silent or gone in between."""

import contextlib
import itertools
import socket
import struct
from collections.abc import Callable, Iterator

from chaos.payload import GOOD
from chaos.repeated import repeated
from chaos.wire import Wire
from handlers.body import MAX_BODY

SLOW, IDLE, PAUSE = 100, 1000, 0.1
# A connection closed with this ends with a reset.
_RESET = struct.pack("ii", 1, 0)


@contextlib.contextmanager
def _slow(wire: Wire) -> Iterator[None]:
    """Send a whole header, then the body byte by byte, each on time for the connection to live."""
    header = wire.begin(MAX_BODY)
    with _connections(wire, SLOW) as sockets, repeated(PAUSE) as each:
        for one in sockets:
            one.sendall(header)

        def send() -> None:
            for one in sockets:
                one.sendall(b"a")

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

    with repeated(PAUSE / 5) as each:
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
