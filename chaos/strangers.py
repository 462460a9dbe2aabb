"""What strangers may try: to ask without a port's key, and to have archives of addresses served."""

import contextlib
import shutil
import socket
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import grpc
import requests

from chaos.parts import NAME
from serving import grpc_client
from serving.client import read_key
from serving.server import Server

# A model that nobody asked for.
_STRANGER = "stranger"
_REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_DENIED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
_LIST = "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels"
_SECONDS = 20.0


def over_rest(found: Server) -> Iterator[str]:
    """Ask both ports without their key; yield what was answered."""
    session = _session()
    asked = {"inference": ("POST", f"predictions/{NAME}"), "management": ("GET", "models")}
    for port, (method, path) in asked.items():
        for whose, key in _keys(found, port).items():
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            url = f"http://127.0.0.1:{found.ports[port]}/{path}"
            answer = session.request(method, url, headers=headers, data=b"a", timeout=_SECONDS)
            if answer.status_code not in _REFUSED or "scores" in answer.text:
                yield f"{port} with {whose}: {answer.status_code}"


def over_grpc(found: Server, name: str) -> Iterator[str]:
    """Ask both gRPC ports, one of them for the model ``name``, and yield what was answered.

    With its own key each must answer: else nothing but the key is known to be why it refuses.
    """
    request, _ = grpc_client.messages()
    predict = request(model_name=name, input={"data": b"a"}).SerializeToString()
    asked = {"inference": (grpc_client.METHOD, predict), "management": (_LIST, b"")}
    for port, (method, message) in asked.items():
        address = f"127.0.0.1:{found.ports[f'grpc_{port}']}"
        with grpc.insecure_channel(address, options=[*grpc_client.OPTIONS.items()]) as channel:
            for whose, key in _keys(found, port).items():
                code = _code(channel, method, message, key)
                if code not in _DENIED:
                    yield f"gRPC {port} with {whose}: {code.name}"
            own = _code(channel, method, message, read_key(found.key_file, port))
            if own != grpc.StatusCode.OK:
                yield f"gRPC {port} with its own token: {own.name}"


def _code(channel: grpc.Channel, method: str, message: bytes, key: str) -> grpc.StatusCode:
    """Send bytes as they are; an empty key is none."""
    metadata = [("authorization", f"Bearer {key}")] if key else []
    try:
        channel.unary_unary(method)(message, metadata=metadata, timeout=_SECONDS)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _keys(found: Server, port: str) -> dict[str, str]:
    """Return keys that are not that of ``port``, by what they are; an empty one is none."""
    other = "management" if port == "inference" else "inference"
    others = read_key(found.key_file, other)
    return {"no token": "", "a wrong token": "wrong", f"the token for {other}": others}


def addresses(found: Server, mar: Path) -> Iterator[str]:
    """Register archives of addresses with the management key; yield those that were taken.

    Those of this machine are there, so that nothing but the rule refuses them.
    """
    session = _session()
    header = {"Authorization": f"Bearer {read_key(found.key_file, 'management')}"}
    outside, above = (
        folder / f"{_STRANGER}.mar" for folder in (found.run_dir.parent, found.run_dir)
    )
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for path in (outside, above):
            stack.callback(path.unlink)
            shutil.copyfile(mar, path)
        listener.settimeout(0.2)
        here = f"127.0.0.1:{listener.getsockname()[1]}/{_STRANGER}.mar"
        for url in (
            f"http://{here}",
            f"https://{here}",
            f"HTTP://{here}",
            f"ftp://{here}",
            f"s3://{here}",
            f"file://{outside}",
            f"file:{outside}",
            str(outside),
            f"../{above.name}",
            f"../../{outside.name}",
            f"..%2f{above.name}",
        ):
            answer = session.post(
                f"http://127.0.0.1:{found.ports['management']}/models",
                params={"url": url, "model_name": _STRANGER, "initial_workers": "0"},
                headers=header,
                timeout=_SECONDS,
            )
            if answer.status_code < HTTPStatus.BAD_REQUEST:
                yield f"registered {url}"
        try:
            listener.accept()[0].close()
        except TimeoutError:
            return
        yield "the address of an archive was asked"


def _session() -> requests.Session:
    """Return one that no proxy of the environment stands before."""
    session = requests.Session()
    session.trust_env = False
    return session
