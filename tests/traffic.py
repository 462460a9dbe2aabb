"""Steady traffic around a change of a server, and what its answers must be."""

import hashlib
import json
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from model_src.errors import ServerError
from serving import keeper
from serving.client import read_key
from serving.server import Server

NAME, EXACT = "swap", 1e-5
TEXTS = ["a great film", "boring and dull", "the movie was very clumsy , but warm"]
# Added to the handler of the archives: a request that takes its time.
SLOW = """
import time

_answer = GloveHandler.answer


def _slow(self, calls):
    if any(b"slowly" in call.fields["body"] for call in calls):
        time.sleep(2)
    return _answer(self, calls)


GloveHandler.answer = _slow
"""


def post(found: Server, path: str, body: dict[str, Any]) -> requests.Response:
    """Ask as a client should: with the key of the file, read again when it is refused."""
    for _ in range(100):
        try:
            key = read_key(found.key_file, "inference")
        except ServerError:  # TorchServe is writing it
            time.sleep(0.02)
            continue
        headers = {"Authorization": f"Bearer {key}"}
        answer = requests.post(found.url(path), json=body, headers=headers, timeout=20)
        if "InvalidKeyException" not in answer.text:
            return answer
        time.sleep(0.05)
    raise AssertionError("no valid key for five seconds")


def which(scores: list[dict[str, float]], offline: dict[str, list[dict[str, float]]]) -> str:
    """Return the version whose answers these are."""
    for i, known in offline.items():
        pairs = zip(known, scores, strict=True)
        if all(abs(a[label] - b[label]) <= EXACT for a, b in pairs for label in a):
            return i
    raise AssertionError(f"the answers of no version: {scores}")


def live(run_dir: Path) -> Server:
    found = Server.find(run_dir)
    assert found
    return found


def asked(found: Server, path: str) -> list[dict[str, float]]:
    answer = post(found, path, {"instances": [{"text": text} for text in TEXTS]})
    assert answer.status_code == 200, answer.text
    return [each["scores"] for each in answer.json()["predictions"]]


class Traffic:
    """Threads that ask without a pause, and what came of it."""

    def __init__(self, ask: Callable[[], object], threads: int = 4) -> None:
        self.outcomes: list[tuple[float, object]] = []
        self._ask, self._over = ask, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                outcome = self._ask()
            except Exception as error:  # noqa: BLE001 - judged by the test
                outcome = error
            self.outcomes.append((began, outcome))

    def __enter__(self) -> "Traffic":
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the last answers."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def changed(mar: Path, target: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """Copy an archive with one file changed, and with the checksum that fits the change."""
    with zipfile.ZipFile(mar) as packed:
        content = {each: packed.read(each) for each in packed.namelist()}
    content[name] = change(content[name])
    manifest = json.loads(content["model/manifest.json"])
    if (entry := manifest["files"].get(Path(name).name)) and name.startswith("model/"):
        entry["size"] = len(content[name])
        entry["sha256"] = hashlib.sha256(content[name]).hexdigest()
    content["model/manifest.json"] = json.dumps(manifest).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as out:
        for each, value in content.items():
            out.writestr(each, value)
    return target


def key(found: Server) -> tuple[str, float]:
    """Return the inference key and when it ends, in seconds since 1970."""
    for _ in range(100):
        try:
            value = read_key(found.key_file, "inference")
            ends = json.loads(found.key_file.read_text())["inference"]["expiration time"]
        except (ServerError, ValueError):
            time.sleep(0.02)
        else:
            return value, keeper.seconds_since_1970(ends)
    raise AssertionError("no key")
