"""Call a running server over its REST interface, with its token."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from model_src.errors import ServerError
from model_src.files import read_json


class Client:
    """One connection to one model of a server."""

    def __init__(self, url: str, key_file: Path, *, seconds: float = 60.0) -> None:
        """Take the address of a model, ``http://host:port/predictions/NAME``, and a key file."""
        if not url.startswith(("http://", "https://")) or "/predictions/" not in url:
            raise ServerError(f"{url!r} is no http://host:port/predictions/NAME")
        self.url, self.seconds = url, seconds
        self._session = requests.Session()
        # A proxy of the environment must see neither sentences nor tokens.
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {read_key(key_file, 'inference')}"

    def predict(self, text: str) -> dict[str, Any]:
        """Return the answer to one sentence; raises ServerError with the server's own words."""
        return self._post({"text": text})

    def predict_many(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return the answers to many sentences, sent as one request."""
        answer = self._post({"instances": [{"text": text} for text in texts]})
        answers: list[dict[str, Any]] = answer.get("predictions", [])
        if len(answers) != len(texts):
            raise ServerError(f"{self.url} is no model of ours: http://host:port/predictions/NAME")
        if failed := [each for each in answers if "scores" not in each]:
            raise ServerError(f"{self.url} answered a sentence with: {failed[0]}")
        return answers

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._session.post(self.url, json=body, timeout=self.seconds)
        except requests.RequestException as reason:
            name = type(reason).__name__
            raise ServerError(f"{self.url} does not answer ({name}); is the server up?") from None
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        if not isinstance(answer, dict):
            answer = {}
        if response.status_code != HTTPStatus.OK:
            said = answer.get("message", "no message")
            hint = "; is --key_file the one of this server?" if "Token" in said else ""
            raise ServerError(f"{self.url} answered {response.status_code}: {said}{hint}")
        return answer


def read_key(key_file: Path, purpose: str) -> str:
    """Return the ``inference`` or ``management`` key of a TorchServe key file."""
    if not key_file.exists():
        raise ServerError(
            f"there is no {key_file}: is the server up? give the server's own with --key_file"
        )
    try:
        return str(read_json(key_file, ServerError)[purpose]["key"])
    except (KeyError, TypeError):
        raise ServerError(f"{key_file} holds no {purpose} key") from None
