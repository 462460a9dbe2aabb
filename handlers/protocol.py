"""The serving contract: what a request may look like and what an answer looks like.

A request is raw text, ``{"text": "..."}`` or ``{"instances": [{"text": "..."}, ...]}``. An answer
is ``{"label", "score", "scores"}``, of a multi-label model ``{"labels", "scores"}``; for instances
``{"predictions": [answer or error, ...]}`` in order. An error is ``{"code", "message"}`` and never
repeats what the client sent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from model_src.decode import Prediction
from model_src.errors import RequestError
from model_src.tokenizer import text_problem

# Enough for one batch to pay, few enough for eight such requests to end within a time-out.
MAX_INSTANCES = 128
# The names under which TorchServe hands over a body: plain, multipart or gRPC, form or query.
_BODIES = ("body", "data", "text")
_EXPECTED = 'send raw text, {"text": "..."} or {"instances": [{"text": "..."}, ...]}'


@dataclass(frozen=True)
class Request:
    """The sentences of one request, each replaced by its error where it breaks the contract."""

    texts: list[str | RequestError]
    many: bool


@dataclass(frozen=True)
class Failure:
    """An error as a client sees it."""

    status: HTTPStatus
    message: str

    def as_dict(self) -> dict[str, object]:
        """Return the fields of the serving contract."""
        return {"code": self.status.value, "message": self.message}


Answer = Prediction | Failure


def parse(fields: Mapping[str, object], content_type: str) -> Request:
    """Read one request as TorchServe hands it over: body fields and the content type of the body.

    Raises:
        RequestError: when the request as a whole breaks the contract.

    """
    name = next((name for name in _BODIES if name in fields), None)
    if name is None:
        raise RequestError(
            "the body came as a form: add the header Content-Type: text/plain for raw text "
            f"or application/json, and {_EXPECTED}"
        )
    body = fields[name]
    if isinstance(body, bytes | bytearray):
        try:
            body = body.decode("utf-8")
        except UnicodeDecodeError as reason:
            raise RequestError(f"the body is not valid UTF-8 at byte {reason.start}") from None
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/json":
            body = _json(body)
        elif not kind.startswith("text/") and name != "text" and body.lstrip().startswith("{"):
            # Clients that name no type mean JSON when they send an object.
            body = _json(body)
    if isinstance(body, str):
        return Request([_checked(body)], many=False)
    return _structured(body)


def encode(answers: list[Answer], *, many: bool) -> bytes:
    """Return the JSON bytes of the answers to one request."""
    items = [answer.as_dict() for answer in answers]
    value = {"predictions": items} if many else items[0]
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _json(text: str) -> object:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise RequestError("the JSON body is nested too deeply") from None
    except ValueError:
        raise RequestError(f"the body is no valid JSON: {_EXPECTED}") from None
    if not isinstance(value, dict):
        raise RequestError(f"the JSON body is no object: {_EXPECTED}")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError("a key occurs twice in the JSON body")
    return found


def _structured(body: object) -> Request:
    if not isinstance(body, dict) or len(body) != 1:
        raise RequestError(f"the JSON body must have one key: {_EXPECTED}")
    if "text" in body:
        return Request([_checked(body["text"])], many=False)
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise RequestError(f"the JSON body has no text and no list of instances: {_EXPECTED}")
    if len(instances) > MAX_INSTANCES:
        raise RequestError(f"{len(instances)} instances are more than {MAX_INSTANCES}")
    return Request([_instance(instance) for instance in instances], many=True)


def _instance(instance: object) -> str | RequestError:
    if not isinstance(instance, dict) or set(instance) != {"text"}:
        return RequestError('an instance must be {"text": "..."}')
    return _checked(instance["text"])


def _checked(text: object) -> str | RequestError:
    if not isinstance(text, str):
        return RequestError("the text must be a string")
    problem = text_problem(text)
    return RequestError(problem) if problem else text
