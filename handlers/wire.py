"""TorchServe's requests off the worker's socket in a few reads, instead of one for each number.

The reader of TorchServe 0.12.0 calls ``recv`` some fifty times a request, which is most of what a
busy worker does beside its model. This one takes what has arrived and hands over the same fields.
It is put in the place of the other only in a worker of that very version, and ``buffered_socket:
false`` in the section ``handler`` of model-config.yaml leaves TorchServe's own.
"""

import struct
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

_VERSION = "0.12.0"
_NAME, _MODULE = "retrieve_msg", "ts.protocol.otf_message_handler"
_PREDICT = b"I"
_CHUNK = 65_536
_number = struct.Struct("!i").unpack_from


class Connection(Protocol):
    """What is needed of a socket."""

    def recv(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none when the other side has closed."""


class Reader:
    """A batch of requests a call, as ``retrieve_msg`` returns it.

    A message is the byte ``I`` and requests: an id, headers (name, value), a mark, parameters
    (name, content type, value), a mark; after the last one a mark. Each field is its length, 4
    bytes with a sign, and its bytes; the mark is the length -1.
    """

    def __init__(self) -> None:
        """Begin between two messages."""
        self._data, self._at = b"", 0

    def __call__(self, connection: Connection) -> tuple[bytes, list[dict[str, Any]]]:
        """Wait for a batch and return it; end the worker when the server has closed.

        Raises:
            ValueError: when something else than a batch was sent.

        """
        command = self._take(connection, 1)
        if command != _PREDICT:
            raise ValueError(f"Invalid command: {command!r}")
        batch = []
        while (name := self._field(connection)) is not None:
            headers: list[dict[str, bytes]] = []
            parameters: list[dict[str, Any]] = []
            batch.append({"requestId": name, "headers": headers, "parameters": parameters})
            while (name := self._field(connection)) is not None:
                headers.append({"name": name, "value": self._field(connection) or b""})
            while (name := self._field(connection)) is not None:
                kind = self._field(connection) or b""
                value = self._field(connection) or b""
                parameter = {"name": name.decode(), "contentType": kind.decode(), "value": value}
                parameters.append(parameter)
        return command, batch

    def _field(self, connection: Connection) -> bytes | None:
        """Return the next field, or None for a mark."""
        at = self._at
        if len(self._data) - at < 4:
            self._fill(connection, 4)
            at = 0
        (size,) = _number(self._data, at)
        self._at = at + 4
        return None if size < 0 else self._take(connection, size)

    def _take(self, connection: Connection, size: int) -> bytes:
        if len(self._data) - self._at < size:
            self._fill(connection, size)
        at = self._at
        self._at = at + size
        return self._data[at : self._at]

    def _fill(self, connection: Connection, size: int) -> None:
        """Wait until at least ``size`` bytes lie ahead."""
        parts = [self._data[self._at :]]
        lacking = size - len(parts[0])
        while lacking > 0:
            part = connection.recv(max(_CHUNK, lacking))
            if not part:
                sys.exit(0)  # as TorchServe's own reader does
            parts.append(part)
            lacking -= len(part)
        self._data, self._at = b"".join(parts), 0


def install() -> bool:
    """Put ``Reader`` in the place of the worker's own; say whether it is the one that we know."""
    worker, known = sys.modules["__main__"], sys.modules.get(_MODULE)
    own = getattr(known, _NAME, None)
    try:
        fits = version("torchserve") == _VERSION
    except PackageNotFoundError:
        return False
    if not fits or own is None or getattr(worker, _NAME, None) is not own:
        return False
    setattr(worker, _NAME, Reader())
    return True
