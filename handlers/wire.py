"""TorchServe's socket, read in a few calls and answered in one piece, without its own Python.

TorchServe 0.12.0 calls ``recv`` some fifty times a request and goes through a dozen objects to
answer it, which is most of what a busy worker does beside its model. What stands here takes what
has arrived, hands over the same fields and writes the same bytes. It is put in the place of the
other only in a worker of that very version, and ``buffered_socket: false`` in the section
``handler`` of model-config.yaml leaves TorchServe's own. Bodies are left as they were sent, as with
``decode_input_request=false``. How a worker waits for the next batch is in ``waiting``.
"""

import functools
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import NamedTuple

from handlers.waiting import Connection, receive

_VERSION = "0.12.0"
_READ, _CODEC = "retrieve_msg", "ts.protocol.otf_message_handler"
_SERVICE = "ts.service"
_PREDICT = b"I"
_CHUNK = 65_536
# Headers of up to so many bytes are kept as they came and as they were read, keys among them.
# Clients send the same again and again, but for the length of a body: hence a thousand of them,
# some megabytes.
_BLOCK, _BLOCKS = 1024, 1024
_number = struct.Struct("!i").unpack_from
_size = struct.Struct("!i").pack
_END = _size(-1)


class Call(NamedTuple):
    """A request: its id as it goes back, headers by name in lower case, the fields of its body.

    Other requests may share the headers: they can only be read.
    """

    id: bytes
    headers: Mapping[str, str]
    fields: dict[str, object]


class Reply(NamedTuple):
    """What one request gets; the first header is the content type."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Reader:
    """A batch of requests a call, in the place of ``retrieve_msg``.

    A message is the byte ``I`` and requests: an id, headers (name, value), a mark, parameters
    (name, content type, value), a mark; after the last one a mark. Each field is its length, 4
    bytes with a sign, and its bytes; the mark is the length -1.
    """

    def __init__(self) -> None:
        """Begin between two messages."""
        self._data, self._at = b"", 0

    def __call__(self, connection: Connection) -> tuple[bytes, list[Call]]:
        """Wait for a batch and return it; end the worker when the server has closed.

        Raises:
            ValueError: when something else than a batch was sent.

        """
        if len(self._data) == self._at:
            self._fill(connection, 1)
        command = self._data[self._at : self._at + 1]
        if command != _PREDICT:
            raise ValueError(f"Invalid command: {command!r}")
        self._at += 1
        batch = []
        while (name := self._name(connection)) is not None:
            headers = self._headers(connection)
            fields = self._pairs(connection, typed=True)
            batch.append(Call(name, headers, {key.decode(): value for key, value in fields}))
        return command, batch

    def _name(self, connection: Connection) -> bytes | None:
        """Return the next id with its length, or None for a mark."""
        if len(self._data) - self._at < 4:
            self._fill(connection, 4)
        (size,) = _number(self._data, self._at)
        end = self._at + 4 + max(size, 0)
        if len(self._data) < end:
            self._fill(connection, end - self._at)
            end = 4 + size
        name = self._data[self._at : end]
        self._at = end
        return None if size < 0 else name

    def _headers(self, connection: Connection) -> Mapping[str, str]:
        """Return the headers of a request; most were read before."""
        end = self._data.find(_END, self._at, self._at + _BLOCK + len(_END))
        if end >= 0 and (found := _read(self._data[self._at : end])) is not None:
            self._at = end + len(_END)
            return found
        return _named(self._pairs(connection, typed=False))

    def _pairs(self, connection: Connection, *, typed: bool) -> list[tuple[bytes, bytes]]:
        """Return names with their values up to a mark; ``typed`` ones have a content type between.

        They are read without a look at how much has arrived, and a pair for which that was too
        little is read again when there is more.
        """
        found: list[tuple[bytes, bytes]] = []
        data, at = self._data, self._at
        while True:
            self._at = at
            try:
                (size,) = _number(data, at)
                at += 4
                if size < 0:
                    self._at = at
                    return found
                name = data[at : at + size]
                at += size
                if typed:
                    at += 4 + max(_number(data, at)[0], 0)
                size = max(_number(data, at)[0], 0)
                at += 4 + size
                if at <= len(data):
                    found.append((name, data[at - size : at]))
                    continue
            except struct.error:
                at += 4  # of the length that is not there
            self._fill(connection, at - self._at)
            data, at = self._data, self._at

    def _fill(self, connection: Connection, size: int) -> None:
        """Wait until at least ``size`` bytes lie ahead."""
        parts = [self._data[self._at :]]
        lacking = size - len(parts[0])
        while lacking > 0:
            part = receive(connection, max(_CHUNK, lacking))
            if not part:
                sys.exit(0)  # as TorchServe's own reader does
            parts.append(part)
            lacking -= len(part)
        self._data, self._at = b"".join(parts), 0


def message(calls: list[Call], replies: list[Reply]) -> bytes:
    """Return what TorchServe expects for a batch that was answered, as it writes it itself."""
    parts = [_DONE]
    for call, (status, headers, body) in zip(calls, replies, strict=True):
        parts += (call.id, _head(status, headers), _size(len(body)), body)
    return b"".join((*parts, _END))


def install(answer: Callable[[list[Call]], list[Reply]]) -> bool:
    """Let the worker read and write as above; say whether it is the one that we know.

    Args:
        answer: one reply for each call in their order, and never an exception.

    """
    worker, known, service = (sys.modules.get(name) for name in ("__main__", _CODEC, _SERVICE))
    own = getattr(known, _READ, None)
    kind = getattr(service, "Service", None)
    try:
        fits = version("torchserve") == _VERSION
    except PackageNotFoundError:
        return False
    if not fits or own is None or kind is None or getattr(worker, _READ, None) is not own:
        return False
    setattr(worker, _READ, Reader())
    kind.predict = lambda _, calls: message(calls, answer(calls))
    return True


def _named(pairs: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    return MappingProxyType({name.decode().lower(): value.decode() for name, value in pairs})


@functools.lru_cache(maxsize=_BLOCKS)
def _read(block: bytes) -> Mapping[str, str] | None:
    """Return the headers of ``block``, or None where it does not end between two of them.

    Then what looked like the mark behind it was something else: a value that is null.
    """
    parts = []
    at = 0
    while at < len(block):
        size = _number(block, at)[0] if len(block) - at >= 4 else -1
        if size < 0:
            return None
        parts.append(block[at + 4 : at + 4 + size])
        at += 4 + size
    if at > len(block) or len(parts) % 2:
        return None
    return _named(zip(parts[::2], parts[1::2], strict=True))


def _field(text: str) -> bytes:
    content = text.encode()
    return _size(len(content)) + content


@functools.lru_cache(maxsize=256)
def _head(status: HTTPStatus, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return what stands between an id and a body: content type, status, phrase, headers."""
    (_, kind), *_ = headers
    phrase = "" if status == HTTPStatus.OK else status.phrase
    lines = b"".join(_field(part) for header in headers for part in header)
    return _field(kind) + _size(status) + _field(phrase) + _size(len(headers)) + lines


_DONE = _size(HTTPStatus.OK) + _field("Prediction success")
