"""Bodies of the Open Inference Protocol v2: one BYTES tensor in, labels and scores out.

``{"id", "parameters": {"threshold"}, "inputs": [{"name", "shape", "datatype": "BYTES", "data"}],
"outputs": [{"name"}]}`` becomes ``{"model_name", "model_version", "id", "outputs": [label BYTES
[n], scores FP32 [n, labels]]}``. The label is ``""`` below the threshold; several are joined by
``|``. ``parameters`` of the scores name their columns. The protocol has no error for one sentence,
so one that cannot be labelled is an error of the whole request.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from model_src.decode import ALL, Choice, Prediction, joined
from model_src.errors import RequestError
from model_src.text import text_problem

_OUTPUTS = ("label", "scores")
_LONGEST_ID = 256
_EXPECTED = '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["..."]}]}'


class Model(NamedTuple):
    """What an answer says of the model."""

    name: str
    version: str
    labels: list[str]


@dataclass(frozen=True)
class Tensors:
    """How the answers to one request are packed."""

    id: str | None = None
    outputs: tuple[str, ...] = _OUTPUTS
    choice: Choice = ALL

    def pack(self, answers: list[Prediction], model: Model) -> dict[str, Any]:
        """Return the answers as tensors, a row each."""
        made = {"label": _labels, "scores": _scores}
        packed: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
        if self.id is not None:
            packed["id"] = self.id
        if any(answer.truncated for answer in answers):
            packed["parameters"] = {"truncated": [answer.truncated for answer in answers]}
        outputs = [made[name](answers, model.labels, self.choice) for name in self.outputs]
        return packed | {"outputs": outputs}


def parse(body: dict[str, object], most: int) -> tuple[list[object], Tensors]:
    """Return the elements of the one input tensor, at most ``most``, and how to pack the answers.

    Raises:
        RequestError: when the body breaks the protocol.

    """
    if not set(body) <= {"id", "parameters", "inputs", "outputs"}:
        raise RequestError("beside inputs there may be id, parameters and outputs only")
    identity = body.get("id")
    if identity is not None and not _is_id(identity):
        raise RequestError(f"the id must be a text of 1 to {_LONGEST_ID} characters")
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict) or not set(parameters) <= {"threshold"}:
        raise RequestError("parameters may hold a threshold only")
    choice = Choice.of(threshold=parameters.get("threshold"))
    return _elements(body["inputs"], most), Tensors(identity, _wanted(body.get("outputs")), choice)


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= _LONGEST_ID and text_problem(value) is None


def _wanted(outputs: object) -> tuple[str, ...]:
    if outputs is None:
        return _OUTPUTS
    rows = outputs if isinstance(outputs, list) else [None]
    names = [row.get("name") if isinstance(row, dict) else None for row in rows]
    known = tuple(name for name in names if isinstance(name, str) and name in _OUTPUTS)
    if not known or len(set(known)) < len(names):
        raise RequestError(f"outputs may name {' and '.join(_OUTPUTS)}, each once")
    return known


def _elements(inputs: object, most: int) -> list[object]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(f"there must be one input: {_EXPECTED}")
    tensor = inputs[0]
    data, shape = tensor.get("data"), tensor.get("shape")
    if tensor.get("datatype") != "BYTES" or not isinstance(data, list) or not data:
        raise RequestError(f"the input must be a list of BYTES that is not empty: {_EXPECTED}")
    if len(data) > most:
        raise RequestError(f"{len(data)} elements are more than {most}")
    sizes = shape if isinstance(shape, list) and 1 <= len(shape) <= 2 else [-1]
    if any(type(size) is not int or size < 1 for size in sizes) or math.prod(sizes) != len(data):
        raise RequestError(f"the shape must be [n] or [n, 1], for n elements: {_EXPECTED}")
    return data


def _labels(answers: list[Prediction], labels: list[str], choice: Choice) -> dict[str, Any]:
    data = [joined(answer.given(choice)) for answer in answers]
    return {"name": "label", "shape": [len(data)], "datatype": "BYTES", "data": data}


def _scores(answers: list[Prediction], labels: list[str], choice: Choice) -> dict[str, Any]:
    return {
        "name": "scores",
        "shape": [len(answers), len(labels)],
        "datatype": "FP32",
        "parameters": {"labels": labels},
        "data": [answer.scores[label] for answer in answers for label in labels],
    }
