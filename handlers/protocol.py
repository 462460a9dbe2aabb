"""The serving contract: what a request may look like and what an answer looks like.

A request is raw text, ``{"text": "..."}``, ``{"instances": ["...", {"text": "..."}, ...]}`` (KServe
v1) or a body of the Open Inference Protocol (``openinference``), with ``top_k`` and ``threshold``
beside the text. An answer is ``{"label", "score", "scores"}``, of a multi-label model
``{"labels", "scores"}``; for instances ``{"predictions": [answer or error, ...]}`` in order. An
error is ``{"code", "message"}`` and never repeats what the client sent. A request to explain may
have a ``target`` beside the text instead; for instances it gets ``{"explanations": [...]}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import orjson

from handlers import openinference
from handlers.body import EXPECTED, read
from handlers.openinference import Model, Tensors
from model_src.decode import ALL, Choice, Prediction
from model_src.errors import RequestError
from model_src.explain import Explanation
from model_src.text import text_problem

# Enough for one batch to pay, few enough for several such requests to end within a time-out.
MAX_INSTANCES = 128
# Of a request to explain: each costs as much as some hundred sentences.
MAX_EXPLAINED = 16


@dataclass(frozen=True)
class Failure:
    """An error as a client sees it."""

    status: HTTPStatus
    message: str

    @classmethod
    def of(cls, error: RequestError) -> "Failure":
        """Return what a client is told of ``error``."""
        return cls(error.status, str(error))

    def as_dict(self) -> dict[str, object]:
        """Return the fields of the serving contract."""
        return {"code": self.status.value, "message": self.message}


Answer = Prediction | Explanation | Failure


class Request(NamedTuple):
    """The sentences of one request, each replaced by its failure where it breaks the contract.

    No exception is kept: through its traceback it would refer to the list that holds it, and with
    that to all bodies of its batch, which only Python's rare search for such circles would free.
    """

    texts: list[str | Failure]
    # whether the answers come as a list
    many: bool = False
    choice: Choice = ALL
    # of the Open Inference Protocol: how its answers are packed
    tensors: Tensors | None = None
    # whether words are to be explained, and for which label
    explain: bool = False
    target: str | None = None


def parse(fields: Mapping[str, object], headers: Mapping[str, str]) -> Request:
    """Read one request: the body or form as TorchServe hands it over, names of headers lower-case.

    Raises:
        RequestError: when the request as a whole breaks the contract.

    """
    body = read(fields, headers)
    explain = headers.get("explain") == "True"  # TorchServe's own header
    if "inputs" in body and not explain:
        return _tensors(body)
    sent = [name for name in ("text", "instances") if name in body]
    options = ("target",) if explain else ("top_k", "threshold")
    if len(sent) != 1 or not set(body) <= {*sent, *options}:
        raise RequestError(
            "the JSON body must have one of the keys text and instances, and beside it "
            f"{' and '.join(options)} only: {EXPECTED}"
        )
    many = "instances" in body
    texts = _instances(body["instances"], explain) if many else [_checked(body["text"])]
    if explain:
        return Request(texts, many, explain=True, target=_target(body.get("target")))
    return Request(texts, many, Choice.of(body.get("top_k"), body.get("threshold")))


def reply(request: Request, answers: list[Answer], model: Model) -> tuple[HTTPStatus, object]:
    """Return the status and the JSON value that answer one request."""
    if request.tensors:
        return _packed(request.tensors, answers, model)
    items = [
        answer.as_dict(request.choice) if isinstance(answer, Prediction) else answer.as_dict()
        for answer in answers
    ]
    if request.many:
        return HTTPStatus.OK, {"explanations" if request.explain else "predictions": items}
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    return failed[0].status if failed else HTTPStatus.OK, items[0]


def encode(value: object) -> bytes:
    """Return ``value`` as JSON bytes; it must hold no NaN, which would become null."""
    return orjson.dumps(value)


def _tensors(body: dict[str, object]) -> Request:
    try:
        texts, tensors = openinference.parse(body, MAX_INSTANCES)
    except RequestError as error:
        return Request([Failure.of(error)], tensors=Tensors())
    return Request([_checked(text) for text in texts], tensors=tensors)


def _packed(tensors: Tensors, answers: list[Answer], model: Model) -> tuple[HTTPStatus, object]:
    """Return the answers as tensors; where one failed its error, under the protocol's key too."""
    good = [answer for answer in answers if isinstance(answer, Prediction)]
    if len(good) == len(answers):
        return HTTPStatus.OK, tensors.pack(good, model)
    failed = next(answer for answer in answers if isinstance(answer, Failure))
    return failed.status, failed.as_dict() | {"error": failed.message}


def _instances(instances: object, explain: bool) -> list[str | Failure]:  # noqa: FBT001
    most = MAX_EXPLAINED if explain else MAX_INSTANCES
    if not isinstance(instances, list) or not instances:
        raise RequestError(f"instances must be a list that is not empty: {EXPECTED}")
    if len(instances) > most:
        raise RequestError(f"{len(instances)} instances are more than {most}")
    return [_instance(each) for each in instances]


def _target(target: object) -> str | None:
    if target is not None and not isinstance(target, str):
        raise RequestError("the target must be a label")
    return target


def _instance(instance: object) -> str | Failure:
    if isinstance(instance, dict):
        if set(instance) != {"text"}:
            return _refused('an instance must be "..." or {"text": "..."}')
        return _checked(instance["text"])
    return _checked(instance)


def _checked(text: object) -> str | Failure:
    """Return ``text`` if it can be classified, else what is wrong with it."""
    if not isinstance(text, str):
        return _refused("the text must be a string")
    problem = text_problem(text)
    return _refused(problem) if problem else text


def _refused(message: str) -> Failure:
    return Failure.of(RequestError(message))
