"""TorchServe's gRPC under ``requests``: with this adapter a client asks ``grpc://host:port/NAME``.

The messages are those of ``inference.proto`` of TorchServe 0.12, as far as a prediction needs them.
A body is the JSON of the REST interface, so the answers are the same.
"""

import io
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import grpc
import requests
from google.protobuf import descriptor_pb2, message_factory
from requests.adapters import BaseAdapter

from handlers.body import MAX_BODY

_PACKAGE = "org.pytorch.serve.grpc.inference"
METHOD = f"/{_PACKAGE}.InferenceAPIsService/Predictions"
OPTIONS = {
    "grpc.max_receive_message_length": -1,
    "grpc.enable_http_proxy": 0,  # one of the environment must see neither sentences nor tokens
    # a server that was away is looked for as often as the client asks
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
}


def messages() -> Any:  # noqa: ANN401 - made at run time
    """Return the classes of the request and of the response."""
    made = descriptor_pb2.FileDescriptorProto(
        name="iclassifier/inference.proto", package=_PACKAGE, syntax="proto3"
    )
    kind = descriptor_pb2.FieldDescriptorProto
    asked = made.message_type.add(name="PredictionsRequest")
    entry = asked.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    said = made.message_type.add(name="PredictionResponse")
    for message, number, name, type_ in (
        (asked, 1, "model_name", kind.TYPE_STRING),
        (asked, 2, "model_version", kind.TYPE_STRING),
        (entry, 1, "key", kind.TYPE_STRING),
        (entry, 2, "value", kind.TYPE_BYTES),
        (said, 1, "prediction", kind.TYPE_BYTES),
    ):
        message.field.add(name=name, number=number, type=type_, label=kind.LABEL_OPTIONAL)
    asked.field.add(
        name="input",
        number=3,
        type=kind.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.PredictionsRequest.InputEntry",
        label=kind.LABEL_REPEATED,
    )
    found = message_factory.GetMessages([made])
    return [found[f"{_PACKAGE}.{name}"] for name in ("PredictionsRequest", "PredictionResponse")]


class GrpcAdapter(BaseAdapter):
    """One channel to one server; may be shared by threads."""

    def __init__(self, url: str) -> None:
        """Take ``grpc://host:port/NAME``, perhaps with a version; connect at the first request."""
        super().__init__()
        self._request, response = messages()
        self._channel = grpc.insecure_channel(urlsplit(url).netloc, options=[*OPTIONS.items()])
        self._call = self._channel.unary_unary(
            METHOD,
            request_serializer=self._request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - as requests calls it
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: Any = None,  # noqa: ANN401
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Ask once; an error of gRPC comes back as the HTTP status that REST has for it.

        Raises:
            requests.RequestException: when there was no answer.

        """
        name, _, version = urlsplit(str(request.url)).path.strip("/").partition("/")
        message = self._request(
            model_name=name, model_version=version, input={"data": request.body}
        )
        key = [("authorization", request.headers["Authorization"])]
        seconds = timeout[1] if isinstance(timeout, tuple) else timeout
        try:
            content = self._call(message, metadata=key, timeout=seconds).prediction
            status = _status_of(content)
        except grpc.RpcError as error:
            status = _status(error, message.ByteSize())
            content = json.dumps({"code": status, "message": error.details()}).encode()
        response = requests.Response()
        response.status_code, response.raw = status, io.BytesIO(content)
        response.request, response.url = request, str(request.url)
        return response

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _status_of(content: bytes) -> int:
    """Return the status in an answer: TorchServe sends a refused sentence as a good answer."""
    return int(json.loads(content)["code"]) if content.startswith(b'{"code":') else HTTPStatus.OK


def _status(error: grpc.RpcError, size: int) -> int:
    """Return the HTTP status of an error; raises RequestException where nobody has answered."""
    code, said = error.code(), error.details() or ""
    if code == grpc.StatusCode.CANCELLED and size > MAX_BODY:  # all that TorchServe says of it
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise requests.ReadTimeout from None
    if code in _LOST:
        raise requests.ConnectionError from None
    if "NotFoundException" in said:
        return HTTPStatus.NOT_FOUND
    return _CODES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
