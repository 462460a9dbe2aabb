"""The bytes of a request to one JSON object: bounded gzip, UTF-8, JSON without twin keys."""

import json
import re
import zlib
from collections.abc import Mapping

from model_src.errors import RequestError, TooLargeError

# Of a body after gzip; before it TorchServe itself refuses what is above max_request_size.
MAX_BODY = 1_048_576
# The names under which TorchServe hands over a body: plain, multipart or gRPC, form.
_BODIES = ("body", "data", "text")
# What a form may hold beside the text.
_NUMBERS = ("top_k", "threshold")
_GZIP = 16 + zlib.MAX_WBITS
# What most clients send, in which there is nothing to undo: read in a third of the time.
_PLAIN = re.compile(r'{ *"text" *: *"([^"\\\x00-\x1f]*)" *}')
EXPECTED = 'send raw text, {"text": "..."} or {"instances": [{"text": "..."}, ...]}'


def read(fields: Mapping[str, object], headers: Mapping[str, str]) -> dict[str, object]:
    """Return the JSON object of a request; raw text becomes the one that stands for it.

    Args:
        fields: the body, or the fields of a form, as TorchServe hands them over.
        headers: by name in lower case.

    Raises:
        RequestError: when there is no body or it cannot be read.

    """
    for name in _BODIES:
        if name in fields:
            break
    else:
        raise RequestError(
            "the body came as a form: add the header Content-Type: text/plain for raw text "
            f"or application/json, and {EXPECTED}"
        )
    body = fields[name]
    if isinstance(body, bytes | bytearray):
        body = _utf8(_unpacked(body, headers.get("content-encoding", "")))
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        # Clients that name no type mean JSON when they send an object.
        if kind == "application/json" or (
            not kind.startswith("text/") and name != "text" and body.lstrip().startswith("{")
        ):
            body = _json(body)
    found = body if isinstance(body, dict) else {"text": body}
    if len(fields) == 1:
        return found
    more = {key: _number(fields[key]) for key in _NUMBERS if key in fields}
    more |= {"target": _text(fields["target"])} if "target" in fields else {}
    if twice := [key for key in more if key in found]:
        raise RequestError(f"{twice[0]} stands both in the JSON and beside it")
    return found | more


def _number(value: object) -> object:
    """Return the number that a form's field spells; its text where it spells none."""
    text = _text(value)
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return text


def _text(value: object) -> object:
    return _utf8(value) if isinstance(value, bytes | bytearray) else value


def _unpacked(body: bytes | bytearray, encoding: str) -> bytes | bytearray:
    """Undo gzip, never making more than ``MAX_BODY`` bytes of it."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip"}:
        raise RequestError("the Content-Encoding must be gzip or none")
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(body, MAX_BODY + 1)
    except zlib.error:
        raise RequestError("the body is no valid gzip") from None
    if len(plain) > MAX_BODY:
        raise TooLargeError(f"the body unpacks to more than {MAX_BODY} bytes")
    if not stream.eof:
        raise RequestError("the gzip body is truncated")
    if stream.unused_data:
        raise RequestError("something follows the gzip body; send one gzip member")
    return plain


def _utf8(body: bytes | bytearray) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise RequestError(f"the body is not valid UTF-8 at byte {reason.start}") from None


def _json(text: str) -> dict[str, object]:
    if plain := _PLAIN.fullmatch(text):
        return {"text": plain[1]}
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise RequestError("the JSON body is nested too deeply") from None
    except ValueError:
        raise RequestError(f"the body is no valid JSON: {EXPECTED}") from None
    if not isinstance(value, dict):
        raise RequestError(f"the JSON body is no object: {EXPECTED}")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError("a key occurs twice in the JSON body")
    return found


# Made once: json.loads would make one a call.
_decoder = json.JSONDecoder(object_pairs_hook=_unique)
