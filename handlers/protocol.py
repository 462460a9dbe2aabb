"""The serving contract: what a request may look like and what an answer looks like.

A request is raw text, ``{"text": "..."}``, ``{"instances": ["...", {"text": "..."}, ...]}`` (KServe
v1) or a body of the Open Inference Protocol (``openinference``), with ``top_k`` and ``threshold``
beside the text. An answer is ``{"label", "score", "scores"}``, of a multi-label model
``{"labels", "scores"}``; for instances ``{"predictions": [answer or error, ...]}`` in order. An
error is ``{"code", "message"}`` and never repeats what the client sent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from handlers import openinference
from handlers.body import EXPECTED, read
from handlers.openinference import Model, Tensors
from model_src.decode import ALL, Choice, Prediction
from model_src.errors import RequestError
from model_src.tokenizer import text_problem

# Enough for one batch to pay, few enough for eight such requests to end within a time-out.
MAX_INSTANCES = 128


@dataclass(frozen=True)
class Failure:
    """An error as a client sees it."""

    status: HTTPStatus
    message: str

    @classmethod
    def of(cls, error: RequestError) -> "Failure":
        """Return what a client is told of ``error``."""
        return cls(error.status, str(error))

    def as_dict(self, choice: Choice = ALL) -> dict[str, object]:
        """Return the fields of the serving contract."""
        return {"code": self.status.value, "message": self.message}


Answer = Prediction | Failure


@dataclass(frozen=True)
class Request:
    """The sentences of one request, each replaced by its error where it breaks the contract."""

    texts: list[str | RequestError]
    # whether the answers come as a list
    many: bool = False
    choice: Choice = ALL
    # of the Open Inference Protocol: how its answers are packed
    tensors: Tensors | None = None


def parse(fields: Mapping[str, object], headers: Mapping[str, str]) -> Request:
    """Read one request: the body or form as TorchServe hands it over, names of headers lower-case.

    Raises:
        RequestError: when the request as a whole breaks the contract.

    """
    body = read(fields, headers)
    if "inputs" in body:
        return _tensors(body)
    sent = [name for name in ("text", "instances") if name in body]
    if len(sent) != 1 or not set(body) <= {*sent, "top_k", "threshold"}:
        raise RequestError(
            "the JSON body must have one of the keys text and instances, and beside it top_k and "
            f"threshold only: {EXPECTED}"
        )
    choice = Choice.of(body.get("top_k"), body.get("threshold"))
    if "text" in body:
        return Request([_checked(body["text"])], choice=choice)
    instances = body["instances"]
    if not isinstance(instances, list) or not instances:
        raise RequestError(f"instances must be a list that is not empty: {EXPECTED}")
    if len(instances) > MAX_INSTANCES:
        raise RequestError(f"{len(instances)} instances are more than {MAX_INSTANCES}")
    return Request([_instance(each) for each in instances], many=True, choice=choice)


def reply(request: Request, answers: list[Answer], model: Model) -> tuple[HTTPStatus, object]:
    """Return the status and the JSON value that answer one request."""
    if request.tensors:
        return _packed(request.tensors, answers, model)
    items = [answer.as_dict(request.choice) for answer in answers]
    if request.many:
        return HTTPStatus.OK, {"predictions": items}
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    return failed[0].status if failed else HTTPStatus.OK, items[0]


def encode(value: object) -> bytes:
    """Return ``value`` as JSON bytes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _tensors(body: dict[str, object]) -> Request:
    try:
        texts, tensors = openinference.parse(body, MAX_INSTANCES)
    except RequestError as error:
        return Request([error], tensors=Tensors())
    return Request([_checked(text) for text in texts], tensors=tensors)


def _packed(tensors: Tensors, answers: list[Answer], model: Model) -> tuple[HTTPStatus, object]:
    """Return the answers as tensors; where one failed its error, under the protocol's key too."""
    good = [answer for answer in answers if isinstance(answer, Prediction)]
    if len(good) == len(answers):
        return HTTPStatus.OK, tensors.pack(good, model)
    failed = next(answer for answer in answers if isinstance(answer, Failure))
    return failed.status, failed.as_dict() | {"error": failed.message}


def _instance(instance: object) -> str | RequestError:
    if isinstance(instance, dict):
        if set(instance) != {"text"}:
            return RequestError('an instance must be "..." or {"text": "..."}')
        return _checked(instance["text"])
    return _checked(instance)


def _checked(text: object) -> str | RequestError:
    """Return ``text`` if it can be classified, else what is wrong with it."""
    if not isinstance(text, str):
        return RequestError("the text must be a string")
    problem = text_problem(text)
    return RequestError(problem) if problem else text
