"""The headers of a request, and the one that only the server's own management sends."""

from typing import Any

# A request with this header learns the pid of its worker, which is how a server is drained.
WORKER = "x-worker"


def headers_of(context: Any, i: int) -> dict[str, str]:  # noqa: ANN401 - TorchServe's own class
    """Return the headers of request ``i`` by name in lower case; they arrive in any case."""
    found = context.get_all_request_header(i)
    return {name.lower(): value for name, value in found.items() if isinstance(value, str)}
