"""The table of malformed requests and naughty sentences."""

from collections.abc import Callable, Iterator

from chaos import bodies, envelopes
from chaos.payload import Payload

PAYLOADS: dict[str, Callable[[], Iterator[Payload]]] = {
    "types": bodies.types,
    "numbers": bodies.numbers,
    "keys": bodies.keys,
    "syntax": bodies.syntax,
    "empty": bodies.empty,
    "nesting": bodies.nesting,
    "encodings": bodies.encodings,
    "truncated": bodies.truncated,
    "tensors": bodies.tensors,
    "sentences": bodies.sentences,
    "content types": envelopes.content_types,
    "gzip": envelopes.packed,
    "tokens": envelopes.tokens,
    "paths": envelopes.paths,
    "multipart": envelopes.multipart,
    "broken forms": envelopes.broken_forms,
    "messages": envelopes.messages,
}
