"""TorchServe's management interface: what is served, versions, tokens, and which worker answers."""

import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from handlers.headers import WORKER
from model_src.errors import ServerError
from model_src.files import read_json
from serving.client import read_key
from serving.store import Served

# A key may be replaced between reading and sending it, and TorchServe's file is half written then.
_TRIES, _PAUSE = 5, 0.05
# Seconds in which a worker that died is up again.
_AGAIN = 10
# A request that chose its version just before a switch may not be in the queue yet.
SETTLE = 0.1


class Admin:
    """Manage the server on ``ports`` with the keys of ``key_file``."""

    def __init__(self, ports: dict[str, int], key_file: Path, *, seconds: float = 10) -> None:
        """Take the ports by name; no single call may take longer than ``seconds``."""
        self.ports, self.key_file, self.seconds = ports, key_file, seconds
        self._held: dict[str, Any] = {}
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment must not see tokens

    def versions(self, name: str) -> list[dict[str, Any]]:
        """Return TorchServe's record of every version of ``name``, none if it knows no such one."""
        found: list[dict[str, Any]] = self._manage("GET", f"models/{name}/all")
        return [record for record in found if record["workers"] or record["minWorkers"]]

    def default(self, name: str) -> str:
        """Return the version that answers where a request names none."""
        return str(self._manage("GET", f"models/{name}")[0]["modelVersion"])

    def workers(self, name: str, version: str) -> set[int]:
        """Return the pids of the READY workers of a version."""
        record = self._manage("GET", f"models/{name}/{version}")[0]
        return {each["pid"] for each in record["workers"] if each["status"] == "READY"}

    def register(self, served: Served) -> None:
        """Begin to serve; its workers start behind this call's back."""
        params = {"url": served.file, "model_name": served.name, "synchronous": "false"}
        self._manage("POST", "models", params | {"initial_workers": str(served.workers)})

    def unregister(self, served: Served) -> None:
        """End its workers at once, whatever they do; a version that is not known is fine."""
        try:
            self._manage("DELETE", f"models/{served.name}/{served.version}")
        except ServerError as reason:
            if "NotFoundException" not in str(reason):
                raise

    def set_default(self, name: str, version: str) -> None:
        """Let ``version`` answer where a request names none."""
        self._manage("PUT", f"models/{name}/{version}/set-default")

    def rotate(self, kind: str) -> None:
        """Replace the ``inference`` or ``management`` key; the old one is void at once."""
        self._send("GET", self._url("management", "token"), "API", params={"type": kind})

    def hold(self) -> None:
        """Take the keys out of their file: from now on nobody else can read them."""
        self._held = read_json(self.key_file, ServerError)
        self.key_file.unlink()

    def ask(
        self, name: str, version: str, text: str, seconds: float = 10
    ) -> tuple[dict[str, Any], int | None]:
        """Return one version's answer and the pid of the worker it came from, if that says so."""
        url = self._url("inference", f"predictions/{name}/{version}")
        more = {"json": {"text": text}, "headers": {WORKER: "?"}, "timeout": seconds}
        answer = self._send("POST", url, "inference", **more)
        pid = answer.headers.get(WORKER)
        found: dict[str, Any] = answer.json()
        return found, int(pid) if pid else None

    def drain(self, name: str, version: str, seconds: float) -> bool:
        """Wait until all that was sent to a version before is answered; False when time is up.

        A version's queue is first in, first out, and a worker sends the answers of one batch before
        it takes the next: once each worker has answered a newer request, nothing older is left.
        After a switch let ``SETTLE`` pass first. A queue that is long or full is asked again.
        """
        began, seen = time.monotonic(), set[int | None]()
        while (left := began + seconds - time.monotonic()) > 0 and None not in seen:
            ready = set[int]()
            try:
                ready = self.workers(name, version)
                if ready and ready <= seen:
                    return True
                seen.add(self.ask(name, version, "drain", left)[1])
            except ServerError:
                if not ready and time.monotonic() > began + _AGAIN:
                    return False
                time.sleep(_PAUSE)
        return False

    def _url(self, address: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[address]}/{path}"

    def _manage(self, method: str, path: str, params: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        answer = self._send(method, self._url("management", path), "management", params=params)
        return answer.json()

    def _send(self, method: str, url: str, purpose: str, **more: Any) -> requests.Response:  # noqa: ANN401
        headers = more.pop("headers", {})
        for _ in range(_TRIES):
            try:
                held = self._held.get(purpose)
                key = held["key"] if held else read_key(self.key_file, purpose)
                answer = self._session.request(
                    method,
                    url,
                    headers=headers | {"Authorization": f"Bearer {key}"},
                    **{"timeout": self.seconds} | more,
                )
            except requests.RequestException as reason:
                raise ServerError(f"{url} does not answer ({type(reason).__name__})") from None
            except ServerError as reason:
                said = str(reason)
            else:
                if answer.status_code < HTTPStatus.BAD_REQUEST:
                    return answer
                said = answer.text
                if "InvalidKeyException" not in said:
                    break
            time.sleep(_PAUSE)
        raise ServerError(f"{method} {url} failed: {said.strip()}")
