"""The client: it asks again, waits as told, renews its key, keeps the order and tells no secret."""

import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_src.errors import ServerError
from serving import client as module
from serving.client import Client
from tests.conftest import ODD_TEXTS

PRIVATE = "a sentence that must reach no message"
Reply = tuple[int, object, dict[str, str]]


class Fake:
    """A server that answers as a test says and keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        """Listen on a free port; every sentence is answered with its own text as label."""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.most = self.now = 0
        self.script: Callable[[dict[str, Any], str], Reply | None] = lambda body, key: None
        self.key_file = folder / "key_file.json"
        self.give("first")
        self.pause: Callable[[], float] = lambda: 0.0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                with contextlib.suppress(ConnectionError):  # a client that gave up
                    outer.serve(self)

            def log_message(self, *arguments: object) -> None:
                """Keep standard error clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/predictions/tiny"

    def give(self, key: str) -> None:
        """Write a key file."""
        self.key_file.write_text(json.dumps({"inference": {"key": key}}), encoding="utf-8")

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request as the script says, else well."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        key = handler.headers["Authorization"].removeprefix("Bearer ")
        with self._lock:
            self.asked.append(body)
            self.keys.append(key)
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
            turn, pause = self.script(body, key), self.pause()
        time.sleep(pause)
        status, value, more = turn or (200, answer_to(body), {})
        if status == 0:  # hang up
            handler.close_connection = True
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"[: len(more)])
        else:
            content = json.dumps(value).encode()
            handler.send_response(status)
            for name, text in {"Content-Length": str(len(content)), **more}.items():
                handler.send_header(name, text)
            handler.end_headers()
            handler.wfile.write(content)
        with self._lock:
            self.now -= 1


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    if "text" in body:
        return {"label": body["text"], "score": 1.0, "scores": {body["text"]: 1.0}}
    return {"predictions": [answer_to({"text": text}) for text in body["instances"]]}


def in_turn(*replies: Reply | None) -> Callable[[dict[str, Any], str], Reply | None]:
    """Give each request the next reply, then good ones."""
    turns = itertools.chain(replies, itertools.repeat(None))
    return lambda body, key: next(turns)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """A server on loopback; waits between attempts are a hundredth of the real ones."""
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(module, "_KEY_WAIT", 0.01)
    made = Fake(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def asking(fake: Fake, **settings: float) -> Client:
    return Client(fake.url, fake.key_file, seconds=5, **settings)  # type: ignore[arg-type]


HANG_UP: Reply = (0, None, {})
HALF: Reply = (0, None, dict.fromkeys(map(str, range(60)), ""))


@pytest.mark.parametrize(
    "turn",
    [*((code, {"code": code}, {}) for code in sorted(module.RETRIED)), HANG_UP, HALF],
    ids=lambda turn: str(turn[0]),
)
def test_what_passes_by_itself_is_asked_again(fake: Fake, turn: Reply) -> None:
    fake.script = in_turn(turn, turn)
    with asking(fake) as client:
        assert client.predict("great")["label"] == "great"
    assert len(fake.asked) == 3


def test_what_stays_wrong_is_not_asked_again(fake: Fake) -> None:
    fake.script = in_turn((400, {"code": 400, "message": "the text is empty"}, {}))
    with pytest.raises(ServerError, match="answered 400: the text is empty"):
        asking(fake).predict("great")
    assert len(fake.asked) == 1


def test_after_the_last_attempt_the_server_is_quoted(fake: Fake) -> None:
    fake.script = lambda body, key: (503, {"message": "no worker"}, {})
    with pytest.raises(ServerError, match="answered 503: no worker"):
        asking(fake, attempts=3).predict("great")
    assert len(fake.asked) == 3


@pytest.mark.parametrize("asked", ["1", "Thu, 01 Jan 2099 00:00:00 GMT", "soon", "-1", "٣"])
def test_retry_after_is_honoured_within_reason(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(module, "_LONGEST_ASKED", 0.3)
    fake.script = in_turn((429, {}, {"Retry-After": asked.encode().decode("latin-1")}))
    asking(fake).predict("great")
    waited = fake.times[1] - fake.times[0]
    assert (waited >= 0.3) == (asked in {"1", "Thu, 01 Jan 2099 00:00:00 GMT"})


def test_waits_grow_and_are_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for attempt in (0, 1, 4, 20) * 50:
        Client._wait(attempt)
    first, fourth, last = (slept[i::3] for i in range(3))
    for waits, longest in ((first, 0.1), (fourth, 0.8), (last, 5.0)):
        assert len(set(waits)) == 50
        assert longest / 2 < max(waits) <= longest


def test_a_key_that_was_rotated_is_read_again(fake: Fake) -> None:
    refused = {"code": 400, "type": "InvalidKeyException", "message": "Token is wrong"}
    for status, key in ((400, "second"), (401, "third")):
        client = asking(fake)
        fake.script = lambda body, got, key=key, status=status: (  # type: ignore[misc]
            None if got == key else (status, refused, {})
        )
        threading.Timer(0.005, fake.give, [key]).start()  # written a little later
        assert client.predict("great")["label"] == "great"
        assert fake.keys[-1] == key


def test_a_key_file_that_is_being_written_is_read_again_from_the_first_time_on(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = '{"inference": {"ke'
    fake.key_file.write_text(half, encoding="utf-8")
    with pytest.raises(ServerError, match=r"key_file\.json"):
        asking(fake)
    monkeypatch.setattr(time, "sleep", lambda _: fake.give("second"))
    assert asking(fake).predict("a")["label"] == "a"
    assert fake.keys == ["second"]


def test_a_wrong_key_is_told_without_the_key(fake: Fake) -> None:
    refused = {"code": 400, "type": "InvalidKeyException", "message": "Token is wrong"}
    fake.script = lambda body, key: (400, refused, {})
    with pytest.raises(ServerError, match="is --key_file the one of this server") as caught:
        asking(fake).predict("great")
    assert "first" not in str(caught.value)
    assert len(fake.asked) == 3


def test_a_stream_keeps_the_order_and_its_bounds(fake: Fake) -> None:
    generator = iter(range(1000))
    drawn: list[int] = []

    def texts() -> Iterator[str]:
        for number in generator:
            drawn.append(number)
            yield str(number)

    pauses = itertools.cycle([0.02, 0.0, 0.01])
    fake.pause = lambda: next(pauses)  # later requests end earlier
    stream = asking(fake, connections=3).stream(texts(), batch_size=10)
    assert next(stream)["label"] == "0"
    assert len(drawn) == 30
    assert [answer["label"] for answer in stream] == [str(i) for i in range(1, 1000)]
    assert fake.most <= 3
    assert [len(body["instances"]) for body in fake.asked] == [10] * 100


def test_a_stream_of_one_waits_for_no_second_sentence(fake: Fake) -> None:
    drawn: list[str] = []
    texts = (drawn.append(text) or text for text in "abc")  # type: ignore[func-returns-value]
    stream = asking(fake, connections=1).stream(texts, batch_size=1)
    assert next(stream)["label"] == "a"
    assert drawn == ["a"]


def test_what_was_not_reached_in_time_is_asked_alone_again(fake: Fake) -> None:
    late = {"code": 503, "message": "not answered in time"}
    partial = {"predictions": [answer_to({"text": "a"}), late, answer_to({"text": "c"}), late]}
    fake.script = in_turn((200, partial, {}))
    labels = [answer["label"] for answer in asking(fake).stream("abcd")]
    assert labels == ["a", "b", "c", "d"]
    assert fake.asked[1] == {"instances": ["b", "d"]}


def test_a_refused_sentence_is_an_error_of_its_own(fake: Fake) -> None:
    wrong = {"code": 400, "message": "the text is empty"}
    partial = {"predictions": [answer_to({"text": "a"}), wrong]}
    fake.script = in_turn((200, partial, {}), (200, partial, {}), (413, None, {}))
    assert list(asking(fake).stream(["a", ""])) == partial["predictions"]
    with pytest.raises(ServerError, match="answered sentence 2 with: the text is empty"):
        asking(fake).predict_many(["a", ""])
    assert list(asking(fake).stream(["long"])) == [{"code": 413, "message": "no message"}]


def test_long_texts_share_no_request(fake: Fake) -> None:
    texts = ["x" * 400_000, "y" * 400_000, "short", "영" * 100_000]
    assert [answer["label"] for answer in asking(fake, connections=1).stream(texts)] == texts
    assert [len(body["instances"]) for body in fake.asked] == [1, 2, 1]


@pytest.mark.parametrize("value", [[], {"predictions": []}, {"predictions": [1]}, None, "x"])
def test_the_answer_of_another_service_is_no_answer(fake: Fake, value: object) -> None:
    fake.script = lambda body, key: (200, value, {})
    with pytest.raises(ServerError, match="is no model of ours"):
        asking(fake).predict_many(["a"])


def test_wishes_go_with_every_sentence(fake: Fake) -> None:
    client = asking(fake, top_k=2, threshold=0.0)
    client.predict("a")
    client.predict_many(["b"])
    wishes = {"top_k": 2, "threshold": 0.0}
    assert fake.asked == [{"text": "a"} | wishes, {"instances": ["b"]} | wishes]


def test_any_text_arrives_as_it_is(fake: Fake) -> None:
    texts = [*ODD_TEXTS, "half \ud800"]
    list(asking(fake).stream(texts))
    assert fake.asked[0]["instances"] == texts


def test_connections_are_kept(fake: Fake) -> None:
    ports = set()
    original = fake.serve

    def serve(handler: BaseHTTPRequestHandler) -> None:
        ports.add(handler.client_address[1])
        original(handler)

    fake.serve = serve  # type: ignore[method-assign]
    client = asking(fake)
    for _ in range(20):
        client.predict("a")
    assert len(ports) == 1


@pytest.mark.parametrize("turn", [(400, {}, {}), (503, {}, {}), HANG_UP, HALF, (200, [], {})])
def test_no_sentence_and_no_token_is_told(
    fake: Fake, caplog: pytest.LogCaptureFixture, turn: Reply
) -> None:
    fake.script = lambda body, key: turn
    with caplog.at_level(logging.DEBUG), pytest.raises(ServerError) as caught:
        asking(fake, attempts=2).predict_many([PRIVATE])
    told = [caplog.text, str(caught.value), repr(caught.value.__context__)]
    assert not any(PRIVATE in text or "first" in text for text in told)


def test_a_server_that_says_nothing_is_given_up(fake: Fake) -> None:
    fake.pause = lambda: 0.5
    client = Client(fake.url, fake.key_file, seconds=0.05, attempts=2)
    with pytest.raises(ServerError, match=r"does not answer \(ReadTimeout\)"):
        client.predict("a")
