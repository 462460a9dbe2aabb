"""Clients of our own that ask without a pause: how many answers a second, and how long each took.

One thread on raw sockets, so that little of the cores is taken from the server it measures.
"""

import contextlib
import itertools
import re
import selectors
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

# What is still under way at the end may take this many seconds.
_PATIENCE = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"
_GOOD = b"HTTP/1.1 200 "


@dataclass(frozen=True)
class Load:
    """What some clients have met in some seconds."""

    seconds: float
    # milliseconds of each answer with status 200
    times: list[float]
    # other answers, connections that were lost and not made again, answers that never came
    errors: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.times) / self.seconds

    def at(self, share: float) -> float:
        """Return the milliseconds within which this share (0..1) of the answers came."""
        if len(self.times) <= 1:
            return self.times[0] if self.times else float("inf")
        return statistics.quantiles(self.times, n=1000, method="inclusive")[round(share * 1000) - 1]


def request(path: str, key: str, text: str) -> bytes:
    """Return the bytes that ask for the label of one sentence."""
    body = text.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def load(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Let each of ``clients`` ask as soon as it is answered, for ``seconds``.

    Args:
        port: of a server on this machine.
        requests: asked in turn, over and over.
        clients: connections, each with one request under way.
        seconds: after them nothing more is asked, and what is under way is waited for.

    Raises:
        OSError: when nobody listens.

    """
    times, errors, next_ones = list[float](), 0, itertools.cycle(requests)
    with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as opened:
        for _ in range(clients):
            client = _Client(opened.enter_context(_connected(port)))
            waiting.register(client.socket, selectors.EVENT_READ, client)
        began = time.perf_counter()
        for key in waiting.get_map().values():
            key.data.ask(next(next_ones))
        over = began + seconds
        while waiting.get_map() and (left := over + _PATIENCE - time.perf_counter()) > 0:
            for key, _ in waiting.select(left):
                client = key.data
                if (answer := client.read()) is None:
                    continue
                now = time.perf_counter()
                if answer.startswith(_GOOD):
                    times.append((now - client.began) * 1000)
                else:
                    errors += 1
                if answer and now < over:
                    client.ask(next(next_ones))
                else:
                    waiting.unregister(client.socket)
        errors += len(waiting.get_map())
        return Load(time.perf_counter() - began, times, errors)


def _connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
    made.settimeout(None)  # reads wait for the selector, and what is sent is short
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


@dataclass
class _Client:
    """One connection and the answer that is arriving on it."""

    socket: socket.socket
    began: float = 0.0
    answer: bytes = b""

    def ask(self, content: bytes) -> None:
        """Send a request; that the connection is lost shows at the next reading."""
        self.answer, self.began = b"", time.perf_counter()
        with contextlib.suppress(OSError):
            self.socket.sendall(content)

    def read(self) -> bytes | None:
        """Return the whole answer, nothing of a lost connection, None while it is arriving."""
        try:
            more = self.socket.recv(65536)
        except OSError:
            more = b""
        if not more:
            return b""
        self.answer += more
        end = self.answer.find(_END)
        if end < 0:
            return None
        length = _LENGTH.search(self.answer, 0, end + 2)
        whole = end + len(_END) + (int(length[1]) if length else 0)
        return self.answer if len(self.answer) >= whole else None
