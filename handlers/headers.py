"""The headers of a request, and those that TorchServe or our own management reads."""

import os
from collections.abc import Mapping
from typing import Any

# A request with this header learns the pid of its worker, which is how a server is drained.
WORKER = "x-worker"
# Of an answer over gRPC: no more follows. Without it one call of StreamPredictions, which asks for
# many, ends in an error of Java's own, with the worker and all that it was answering.
LAST = ("ts_stream_next", "false")
_JSON = (("content-type", "application/json"),)


def headers_of(context: Any, i: int) -> dict[str, str]:  # noqa: ANN401 - TorchServe's own class
    """Return the headers of request ``i`` by name in lower case; they arrive in any case."""
    found = context.get_all_request_header(i)
    return {name.lower(): value for name, value in found.items() if isinstance(value, str)}


def answer_headers(asked: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the headers of the answer to a request with the headers ``asked``."""
    if not asked:  # as over gRPC
        return (*_JSON, LAST)
    return (*_JSON, (WORKER, str(os.getpid()))) if WORKER in asked else _JSON
