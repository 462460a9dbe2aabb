"""One request, malformed or with a sentence that it may hold, and what must come of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from model_src.text import text_problem

JSON, TEXT, FORM = "application/json", "text/plain", "application/x-www-form-urlencoded"
GOOD = "a great film"
# In payloads that are refused: must reach no log.
MARKER = "quokkaquokka"
# Stand for what only a running server knows.
NAME, KEY, MANAGEMENT = "{name}", "{key}", "{management}"
_REFUSED = frozenset({400})


@dataclass(frozen=True)
class Payload:
    """One request and what must come of it.

    ``texts`` are the sentences that must be answered as offline, None for one that gets an error
    of its own; without any the whole request is refused with one of ``statuses``.
    """

    name: str
    body: bytes
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    path: str = f"/predictions/{NAME}"
    method: str = "POST"
    key: str | None = f"Bearer {KEY}"
    texts: tuple[str | None, ...] = ()
    statuses: frozenset[int] = _REFUSED
    # the body is the whole message, of which a server that cannot read it may close
    raw: bool = False
    # the beginning of such a message only: a server may wait for the rest
    partial: bool = False
    # TorchServe's error of it has no message, only a type
    bare: bool = False


def refused(name: str, *bodies: str | bytes, kind: str = JSON, **more: str) -> Iterator[Payload]:
    """Yield requests that must be refused as a whole, with ``more`` headers.

    Where they hold a sentence, it begins with the marker.
    """
    for number, body in enumerate(bodies):
        raw = marked(body if isinstance(body, bytes) else body.encode())
        yield Payload(f"{name} {number}", raw, kind, dict(more))


def marked(body: bytes) -> bytes:
    """Return ``body`` with the marker in the sentences of this table: "a", and the good one."""
    for sentence in (b'"a', GOOD.encode()):
        at = sentence.index(b"a")
        body = body.replace(sentence, sentence[:at] + MARKER.encode() + b" " + sentence[at:])
    return body


def plain(name: str, body: bytes, kind: str) -> Payload:
    """Return raw text with what must come of it."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Payload(name, MARKER.encode() + body, kind)
    return Payload(name, body, kind, texts=() if text_problem(text) else (text,))
