"""Send payloads as they are, well made or not, and judge what comes back."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np

from chaos.parts import LABELS, NAME, Offline, chosen, same, table
from chaos.payload import KEY, MANAGEMENT, Payload
from chaos.payload import NAME as MODEL
from chaos.scene import FIRST
from serving.client import read_key
from serving.server import Server

# The longest wait for an answer, and for one to what is not whole, which has none.
_SECONDS, _PATIENCE = 20.0, 0.5


class Reply(NamedTuple):
    """What came back; status 0 stands for a connection that was closed without an answer.

    It is ``silent`` where that was not closed either, for as long as it was waited for.
    """

    status: int = 0
    body: bytes = b""
    silent: bool = False


class Wire:
    """Connections to one server; each thread takes its own."""

    def __init__(self, found: Server) -> None:
        """Read the keys of ``found``."""
        self.address = ("127.0.0.1", found.ports["inference"])
        self._values = {
            MODEL: NAME,
            KEY: read_key(found.key_file, "inference"),
            MANAGEMENT: read_key(found.key_file, "management"),
        }

    def send(self, payload: Payload) -> Callable[[], Reply]:
        """Send on a connection of its own; return how to wait for what comes back."""
        try:
            return self._message(payload) if payload.raw else self._request(payload)
        except (OSError, http.client.HTTPException):
            return Reply

    def begin(self, length: int) -> bytes:
        """Return what stands before a sentence of ``length`` bytes."""
        return self.filled(
            f"POST /predictions/{MODEL} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    def connect(self) -> socket.socket:
        """Return a bare connection."""
        return socket.create_connection(self.address, _SECONDS)

    def filled(self, text: str) -> str:
        """Put in what only a running server knows."""
        for place, value in self._values.items():
            text = text.replace(place, value)
        return text

    def _request(self, payload: Payload) -> Callable[[], Reply]:
        headers = dict(payload.headers)
        if payload.kind:
            headers["Content-Type"] = payload.kind
        if payload.key is not None:
            headers["Authorization"] = self.filled(payload.key)
        connection = http.client.HTTPConnection(*self.address, timeout=_SECONDS)
        # a server that refuses before it has read all closes, and its answer can be read still
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(payload.method, self.filled(payload.path), payload.body, headers)
        return partial(_read, connection, connection.getresponse)

    def _message(self, payload: Payload) -> Callable[[], Reply]:
        connection = self.connect()
        connection.sendall(self.filled(payload.body.decode("latin-1")).encode("latin-1"))
        connection.settimeout(_PATIENCE if payload.partial else _SECONDS)
        return partial(_read, connection, partial(_begun, connection))


def _begun(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def _read(
    connection: http.client.HTTPConnection | socket.socket,
    response: Callable[[], http.client.HTTPResponse],
) -> Reply:
    with contextlib.closing(connection):
        try:
            found = response()
            return Reply(found.status, found.read())
        except TimeoutError:
            return Reply(silent=True)
        except (OSError, http.client.HTTPException):
            return Reply()


def problem(payload: Payload, reply: Reply, offline: Offline) -> str:
    """Say what is wrong with ``reply``, or nothing."""
    if not payload.texts:
        return _refusal(payload, reply)
    value = _value(reply.body)
    if reply.status != HTTPStatus.OK or not isinstance(value, dict):
        return f"{payload.name}: {reply.status} for a good request"
    answers = value.get("predictions", [value])
    if len(answers) != len(payload.texts):
        return f"{payload.name}: {len(answers)} answers"
    for answer, text in zip(answers, payload.texts, strict=True):
        if text is None:
            if not is_error(answer):
                return f"{payload.name}: an answer to what is no sentence"
        elif not equal(answer, offline.scores(FIRST, [text])):
            return f"{payload.name}: another answer than offline"
    return ""


def _refusal(payload: Payload, reply: Reply) -> str:
    if reply.silent:
        return "" if payload.partial else f"{payload.name}: no answer in time"
    if payload.raw and not reply.status:
        return ""
    if reply.status not in payload.statuses:
        return f"{payload.name}: {reply.status}"
    good = is_error(_value(reply.body), bare=payload.bare)
    return "" if good else f"{payload.name}: no JSON error"


def equal(answer: dict[str, Any], known: np.ndarray) -> bool:
    """Tell whether an answer is the ``known`` one: scores, of shape ``[1, labels]``, and label."""
    scores = answer.get("scores") or {}
    return set(scores) == set(LABELS) and same(table([scores]), chosen([answer]), known)


def is_error(value: object, *, bare: bool = False) -> bool:
    """Tell whether ``value`` is ``{"code", "message"}``, perhaps with more.

    A ``bare`` one may have its type instead: TorchServe leaves out the message of an error of Java
    that has none.
    """
    if not isinstance(value, dict):
        return False
    said = value.get("message", value.get("type") if bare else None)
    return isinstance(value.get("code"), int) and isinstance(said, str)


def _value(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
