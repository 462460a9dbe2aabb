"""Ask a running server over REST or gRPC: kept connections, retries, sentences in batches.

No sentence and no token is part of an exception or of a log line.
"""

import contextlib
import email.utils
import json
import random
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Any, Self, TypeGuard

import requests
from requests.adapters import HTTPAdapter

from model_src.errors import ServerError
from model_src.files import read_json

# What passes by itself: an overloaded queue, a proxy's limit, a worker that died or is starting.
# Classification changes nothing on the server, so asking again is always safe.
RETRIED = frozenset({429, 500, 502, 503, 504, 507})
# Seconds: between attempts at most 0.1, 0.2, 0.4 and so on, chosen at random; and what a server
# may ask for with Retry-After.
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ASKED = 0.1, 5.0, 60.0
_CONNECT = 5.0
# Characters of JSON a request: half of what a server takes.
_MOST = 500_000
_ADDRESS = re.compile(r"https?://.+/predictions/.|grpc://[^/]+:\d+/[^/]+")
# What TorchServe says of a token it does not know, and how long a new one may be on its way.
_BAD_KEY, _KEY_WAIT, _KEY_READS = "InvalidKeyException", 0.2, 3


class Client:
    """Connections to one model of a server; may be shared by threads."""

    def __init__(
        self,
        url: str,
        key_file: Path,
        *,
        seconds: float = 60.0,
        attempts: int = 6,
        connections: int = 4,
        top_k: int | None = None,
        threshold: float | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """Take the address of a model and the keys of its server.

        Args:
            url: ``http://host:port/predictions/NAME``, ``https`` for a front, or
                ``grpc://host:port/NAME`` for the same answers over gRPC.
            key_file: TorchServe's; read again when it refuses a key, for keys rotate.
            seconds: the longest wait for one answer.
            attempts: how often a request is sent before an error is raised.
            connections: requests that ``stream`` has under way at once.
            top_k: scores wanted of an answer, else all.
            threshold: the score from which on a label is given, else the model's own.
            ca_file: certificates to trust instead of those that everybody trusts.

        """
        if not _ADDRESS.match(url):
            raise ServerError(
                f"{url!r} is no http://host:port/predictions/NAME and no grpc://host:port/NAME"
            )
        self.url, self.key_file = url, key_file
        self.seconds, self.attempts, self.connections = seconds, max(attempts, 1), connections
        wanted = {"top_k": top_k, "threshold": threshold}
        self._wanted = {name: value for name, value in wanted.items() if value is not None}
        self._key = _first_key(key_file)
        self._session = requests.Session()
        # A proxy of the environment must see neither sentences nor tokens.
        self._session.trust_env = False
        if ca_file:
            if not ca_file.is_file():
                raise ServerError(f"there is no file {ca_file} with certificates")
            self._session.verify = str(ca_file)
        adapter = HTTPAdapter(pool_maxsize=max(connections, 16), pool_block=True)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        if url.startswith("grpc://"):
            if ca_file:
                raise ServerError("grpc:// is not encrypted: --ca_file is for an https address")
            from serving.grpc_client import GrpcAdapter  # loads for longer than REST takes

            self._session.mount("grpc://", GrpcAdapter(url))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connections."""
        self._session.close()

    def predict(self, text: str) -> dict[str, Any]:
        """Return the answer to one sentence; raises ServerError with the server's own words."""
        return self._post(self.url, {"text": text} | self._wanted)

    def predict_many(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return the answers to many sentences; raises ServerError if one of them is refused."""
        answers = list(self.stream(texts))
        for number, answer in enumerate(answers, 1):
            if "scores" not in answer:
                raise ServerError(f"{self.url} answered sentence {number} with: {_said(answer)}")
        return answers

    def explain(self, text: str, target: str | None = None) -> dict[str, Any]:
        """Return what each word adds to the logit of a label: ``target``, or else the best."""
        if self.url.startswith("grpc://"):
            raise ServerError("TorchServe explains nothing over gRPC: give the http address")
        body = {"text": text} if target is None else {"text": text, "target": target}
        return self._post(self.url.replace("/predictions/", "/explanations/", 1), body)

    def stream(self, texts: Iterable[str], batch_size: int = 64) -> Iterator[dict[str, Any]]:
        """Yield the answers in the order of ``texts``, ``batch_size`` of them a request.

        No more than ``connections`` requests are under way, and no more is read of ``texts`` than
        they hold. A sentence that the server refuses yields its error, ``{"code", "message"}``.

        Raises:
            ServerError: when the server does not answer or refuses more than a sentence.

        """
        under_way: deque[Future[list[dict[str, Any]]]] = deque()
        for batch in _batches(texts, batch_size):
            under_way.append(self._start(batch))
            if len(under_way) >= self.connections:
                yield from under_way.popleft().result()
        for future in under_way:
            yield from future.result()

    def _start(self, batch: list[str]) -> "Future[list[dict[str, Any]]]":
        """Ask in a thread that no interruption has to wait for."""
        future: Future[list[dict[str, Any]]] = Future()

        def work() -> None:
            try:
                future.set_result(self._answers(batch))
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                future.set_exception(error)

        Thread(target=work, daemon=True).start()
        return future

    def _answers(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return the answers to one batch; what was not reached in time is asked for again."""
        found: list[dict[str, Any]] = [{}] * len(texts)
        open_ones = list(range(len(texts)))
        for attempt in range(self.attempts):
            self._wait(attempt)
            body = {"instances": [texts[i] for i in open_ones]} | self._wanted
            try:
                answers = self._post(self.url, body).get("predictions")
            except AnswerError as error:
                # that one sentence is too large is its own fault; all else is about every one
                if len(texts) > 1 or error.code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise
                return [{"code": error.code, "message": error.message}]
            if not _are_answers(answers, len(open_ones)):
                break
            for i, answer in zip(open_ones, answers, strict=True):
                found[i] = answer
            open_ones = [i for i in open_ones if found[i].get("code") in RETRIED]
            if not open_ones:
                return found
        if not all(found):
            raise ServerError(f"{self.url} is no model of ours: http://host:port/predictions/NAME")
        return found

    def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send until there is an answer; raises ServerError when there is none."""
        asked = 0.0
        for attempt in range(self.attempts):
            self._wait(attempt, asked)
            asked = 0.0
            try:
                response = self._with_key(url, body)
                answer = _object(response)
            except requests.RequestException as reason:
                name = type(reason).__name__
                untrusted = isinstance(reason, requests.exceptions.SSLError)
                hint = "is --ca_file its certificate?" if untrusted else "is the server up?"
                failure = ServerError(f"{url} does not answer ({name}); {hint}")
                continue
            if response.status_code == HTTPStatus.OK:
                return answer
            failure = AnswerError(url, response.status_code, answer)
            if response.status_code not in RETRIED:
                break
            asked = _asked(response.headers.get("Retry-After", ""))
        raise failure from None

    def _with_key(self, url: str, body: dict[str, Any]) -> requests.Response:
        """Send once; where the key is refused and the file has another by now, again with that."""
        for _ in range(_KEY_READS):
            used = self._key
            response = self._session.post(
                url,
                json=body,
                headers={"Authorization": f"Bearer {used}"},
                timeout=(_CONNECT, self.seconds),
                allow_redirects=False,
            )
            if not _key_refused(response):
                break
            with contextlib.suppress(ServerError):  # it is being written
                self._key = read_key(self.key_file, "inference")
            if self._key == used:
                time.sleep(_KEY_WAIT)
        return response

    @staticmethod
    def _wait(attempt: int, asked: float = 0.0) -> None:
        """Sleep before another attempt: as asked, and at random so that clients spread."""
        if attempt:
            longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1))
            time.sleep(asked + random.uniform(0, longest))  # noqa: S311 - nothing secret


class AnswerError(ServerError):
    """The server answered with an error, whose HTTP status ``code`` is."""

    def __init__(self, url: str, code: int, answer: dict[str, Any]) -> None:
        self.code, self.message = code, _said(answer)
        hint = "; is --key_file the one of this server?" if "Token" in self.message else ""
        super().__init__(f"{url} answered {code}: {self.message}{hint}")


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


def _first_key(key_file: Path) -> str:
    """Return the inference key; a file that is being written is read again."""
    for _ in range(_KEY_READS - 1):
        with contextlib.suppress(ServerError):
            return read_key(key_file, "inference")
        time.sleep(_KEY_WAIT)
    return read_key(key_file, "inference")


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Split by number and by length."""
    batch: list[str] = []
    length = 0
    for text in texts:
        more = len(json.dumps(text))
        if batch and length + more > _MOST:
            yield batch
            batch, length = [], 0
        batch.append(text)
        length += more
        if len(batch) >= size:  # at once: who reads a terminal line by line waits for the answer
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _are_answers(answers: object, count: int) -> TypeGuard[list[dict[str, Any]]]:
    return (
        isinstance(answers, list)
        and len(answers) == count
        and all(isinstance(answer, dict) and answer for answer in answers)
    )


def _object(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _said(answer: dict[str, Any]) -> str:
    message = answer.get("message")
    return message if isinstance(message, str) else "no message"


def _key_refused(response: requests.Response) -> bool:
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return True
    refused = response.status_code == HTTPStatus.BAD_REQUEST
    return refused and _object(response).get("type") == _BAD_KEY


def _asked(retry_after: str) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or as a date."""
    try:
        seconds = float(retry_after) if retry_after.isdecimal() else _until(retry_after)
    except (TypeError, ValueError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED)


def _until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
