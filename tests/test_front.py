"""nginx before the server: the same answers over TLS, and everything else is kept away."""

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from model_src.errors import ServerError
from scripts import serve
from serving.client import Client, read_key
from serving.server import Server
from tests.conftest import EXPLAINED, ODD_TEXTS, ROOT, SERVED, verb
from tests.front import CONF, NGINX, Front, Upstream, read, running
from tests.test_interface import TENSOR, send

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

LIMIT = 1_048_576
MARKER = "quokkaquokka"  # must be written nowhere
POST = "POST /predictions/tiny"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """A server that says back what it is told."""
    made = Upstream()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Front]:
    """The front before it."""
    with running(tmp_path_factory.mktemp("front"), upstream.port) as made:
        yield made


@pytest.fixture(autouse=True)
def _forget(upstream: Upstream) -> None:
    upstream.asked.clear()
    upstream.pause = lambda: 0.0
    upstream.fickle = False


def test_the_numbers_are_those_of_the_server() -> None:
    conf = CONF.read_text(encoding="utf-8")
    lines = (ROOT / "config.properties").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line)
    size = settings["max_request_size"]
    assert int(size) == LIMIT
    assert f"client_max_body_size {size};" in conf
    assert f"the body is larger than {size} bytes" in conf
    (patience,) = re.findall(r"proxy_read_timeout (\d+)s;", conf)
    assert int(patience) > int(settings["default_response_timeout"])
    assert f"server 127.0.0.1:{serve._PORTS['inference']};" in conf


@pytest.mark.parametrize(
    "path",
    ["predictions/a", "predictions/a-b.c_1/2.0", "v1/models/a:predict", "v2/models/a/infer"],
)
def test_what_is_answered_passes_without_its_query(
    front: Front, upstream: Upstream, path: str
) -> None:
    assert front.send(f"POST /{path}?data={MARKER}", b"{}")[::2] == (200, {})
    assert front.send(f"POST /x/..//{path}", b"{}")[0] == 200
    assert [each.path for each in upstream.asked] == [f"/{path}"] * 2
    assert front.send(f"GET /{path}")[2]["code"] == 405
    assert len(upstream.asked) == 2


@pytest.mark.parametrize(
    "line",
    [
        *(f"{method} /models" for method in ("GET", "POST", "OPTIONS")),
        *("OPTIONS /", "OPTIONS /predictions", "GET /api-description", "POST /invocations"),
        *("GET /metrics", "GET /v2", "GET /v2/health/ready", "GET /v2/models/tiny", "GET /token"),
        *("PUT /models/tiny", "DELETE /models/tiny", "POST /wfpredict/x", "POST /predictions"),
        *("POST /predictions/a/b/c", "POST /predictions/..%2fmodels", "POST /ping/../models"),
        *("POST /predictions/a%0a", "POST /predictions/a%20b", "POST /predictions/%e2%98%83"),
    ],
)
def test_no_other_path_passes(front: Front, upstream: Upstream, line: str) -> None:
    status, headers, value = front.send(line, Authorization="Bearer x")
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert value == {"code": 404, "message": "there is no such path: try /predictions/NAME"}
    assert not upstream.asked


def test_only_the_headers_of_a_sentence_pass(front: Front, upstream: Upstream) -> None:
    wanted = {"Authorization": "Bearer x", "Content-Type": "text/plain"}
    wanted |= {"Content-Encoding": "gzip", "Content-Length": "2"}
    others = {"Cookie": "a=b", "X_Worker": "?", "explain": "True", "describe": "True"}
    front.send(POST, b"ab", **others, **wanted)
    assert upstream.asked[0].headers == wanted | {"Host": "iclassifier"}


def test_connections_to_the_server_are_kept(front: Front, upstream: Upstream) -> None:
    for _ in range(20):
        front.send(POST, b"a")
    assert len({each.port for each in upstream.asked}) == 1


def test_a_kept_connection_that_broke_is_replaced(front: Front, upstream: Upstream) -> None:
    upstream.fickle = True
    assert [front.send(POST, b"a")[0] for _ in range(5)] == [200] * 5


def test_only_tls_is_spoken(front: Front, upstream: Upstream) -> None:
    plain = requests.post(f"http://127.0.0.1:{front.port}/predictions/tiny", data=b"a", timeout=20)
    assert plain.status_code == plain.json()["code"] == 400
    assert "https" in plain.json()["message"]
    keys = front.folder / "keys.json"
    keys.write_text('{"inference": {"key": "k"}}', encoding="utf-8")
    url = f"https://127.0.0.1:{front.port}/predictions/tiny"
    with pytest.raises(ServerError, match=r"\(SSLError\); is --ca_file its certificate"):
        Client(url, keys, attempts=1).predict("a")
    with pytest.raises(ServerError, match="there is no file none"):
        Client(url, keys, ca_file=Path("none"))
    assert not upstream.asked


def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_passes(
    front: Front, upstream: Upstream
) -> None:
    assert front.send(POST, b"x" * LIMIT)[0] == 200
    refused = {"code": 413, "message": f"the body is larger than {LIMIT} bytes"}
    assert front.send(POST, b"x" * (LIMIT + 1))[::2] == (413, refused)
    assert front.chunked(POST, 16, 65_536)[0] == 200
    assert front.chunked(POST, 17, 65_536)[::2] == (413, refused)
    assert [len(each.body) for each in upstream.asked] == [LIMIT, LIMIT]


def test_a_body_is_kept_off_the_disk(tmp_path: Path, upstream: Upstream) -> None:
    """Nginx warns of a temporary file, which is in memory in our configuration."""
    with running(tmp_path, upstream.port, **{" crit;": " warn;"}) as front:
        log = tmp_path / "iclassifier-error.log"
        assert front.send(POST, b"x" * LIMIT)[0] == 200
        assert front.chunked(POST, 256, 4096)[0] == 200
        assert "temporary file" not in log.read_text(encoding="utf-8")
        assert front.chunked(POST, 300_000, 1)[0] == 200
        assert f"temporary file {tmp_path}/bodies/" in log.read_text(encoding="utf-8")


def test_a_slow_sender_does_not_reach_the_server(front: Front, upstream: Upstream) -> None:
    with front.connect() as slow:
        slow.sendall(f"{POST} HTTP/1.1\r\nHost: front\r\nContent-Length: 4\r\n\r\n".encode())
        for letter in "abcd":
            time.sleep(0.1)
            assert not upstream.asked
            slow.sendall(letter.encode())
        assert read(slow)[::2] == (200, b"abcd")
    assert upstream.asked[0].body == b"abcd"


def test_a_sender_that_stops_is_given_up(tmp_path: Path, upstream: Upstream) -> None:
    edits = {"client_body_timeout 10s": "client_body_timeout 1s"}
    with running(tmp_path, upstream.port, **edits) as front, front.connect() as silent:
        silent.sendall(f"{POST} HTTP/1.1\r\nHost: front\r\nContent-Length: 4\r\n\r\na".encode())
        began = time.monotonic()
        with pytest.raises(OSError):
            read(silent)
        assert time.monotonic() - began < 5
    assert not upstream.asked


def test_one_address_may_have_so_many_requests_under_way(front: Front, upstream: Upstream) -> None:
    head = f"{POST} HTTP/1.1\r\nHost: front\r\nContent-Length: 4\r\n\r\n".encode()
    clients = [front.connect() for _ in range(65)]
    try:
        for client in clients[:-1]:
            client.sendall(head)
        time.sleep(0.2)
        clients[-1].sendall(head + b"abcd")
        status, headers, value = read(clients[-1])
        assert (status, value["code"], headers["Retry-After"]) == (429, 429, "1")
        clients[0].sendall(b"abcd")
        assert read(clients[0])[0] == 200
    finally:
        for client in clients:
            client.close()
    assert len(upstream.asked) == 1


def test_a_burst_meets_429_and_the_client_waits(tmp_path: Path, upstream: Upstream) -> None:
    edits = {"rate=100r/s": "rate=5r/s", "burst=200": "burst=5"}
    keys = tmp_path / "keys.json"
    keys.write_text('{"inference": {"key": "k"}}', encoding="utf-8")
    with running(tmp_path, upstream.port, **edits) as front:
        answers = [front.send(POST, b"{}") for _ in range(10)]
        passed = [each for each in answers if each[0] == 200]
        refused = [each for each in answers if each[0] == 429]
        assert len(passed) >= 6
        assert len(passed) + len(refused) == 10
        assert len(upstream.asked) == len(passed)
        said = "too many requests or connections: ask again later"
        assert all(each[2] == {"code": 429, "message": said} for each in refused)
        assert {each[1]["Retry-After"] for each in refused} == {"1"}
        # an explanation has a stricter limit of its own
        assert "429" in {str(front.send("POST /explanations/tiny")[0]) for _ in range(12)}
        url = f"https://127.0.0.1:{front.port}/predictions/tiny"
        with Client(url, keys, ca_file=front.certificate) as client:
            assert client.predict("a") == {"text": "a"}


def test_a_server_that_is_away_or_silent_is_a_json_error(
    tmp_path: Path, upstream: Upstream
) -> None:
    upstream.pause = lambda: 2.0
    with running(
        tmp_path, upstream.port, **{"proxy_read_timeout 70s": "proxy_read_timeout 1s"}
    ) as it:
        late = it.send(POST, b"a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with running(tmp_path, port) as it:
        away = it.send(POST, b"a")
    for code, (status, headers, value) in ((504, late), (502, away)):
        assert (status, value["code"], headers["Retry-After"]) == (code, code, "1")
        assert headers["Content-Type"] == "application/json"


def test_nothing_private_is_written(front: Front, tmp_path: Path) -> None:
    secret = {"Authorization": f"Bearer {MARKER}", "Referer": MARKER, "User_Agent": MARKER}
    body = (MARKER * 90_000)[:LIMIT].encode()
    for line in (f"{POST}?text={MARKER}", f"GET /{MARKER}", f"POST /predictions/{MARKER}%20a"):
        for content in (body, body + b"x"):
            front.send(line, content, **secret)
    front.send(f"BAD{MARKER} /\x01", b"", **secret)
    front.send(f"{POST}?text={MARKER}", X=MARKER * 2000)
    with running(tmp_path, front.port) as broken:  # one whose server answers nonsense
        broken.send(f"{POST}?text={MARKER}", body, **secret)
        written = front.written() | {f"2 {k}": text for k, text in broken.written().items()}
    assert {"iclassifier.log", "iclassifier-error.log"} <= set(written)
    assert " POST /predictions/tiny 200 " in written["iclassifier.log"]
    assert " POST - 404 " in written["iclassifier.log"]
    assert not [name for name, text in written.items() if MARKER in text]


def test_answers_are_those_of_the_server_itself(
    live: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, key = SERVED[0], read_key(live.key_file, "inference")
    cases: list[tuple[str, object, dict[str, str]]] = [
        (f"/predictions/{name}", {"text": text}, {}) for text in ODD_TEXTS
    ]
    cases += [(f"/predictions/{name}", b"a great film", {"Content-Type": "text/plain"})]
    cases += [(f"/predictions/{name}", gzip.compress(b"great"), {"Content-Encoding": "gzip"})]
    cases += [(f"/predictions/{name}/1.0", {"instances": ["a", "", "b"], "top_k": 1}, {})]
    cases += [(f"/v1/models/{name}:predict", {"instances": ["great"]}, {})]
    cases += [(f"/v2/models/{name}/infer", {"id": "7", "inputs": [TENSOR]}, {})]
    cases += [(f"/explanations/{EXPLAINED}", {"text": "a great film"}, {})]
    cases += [(f"/predictions/{name}", b"{", {}), ("/predictions/none", {"text": "a"}, {})]
    cases += [(f"/predictions/{name}", {"text": "a"}, {"Authorization": f"Bearer {MARKER}"})]
    named = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with running(tmp_path, live.ports["inference"]) as front:
        for path, body, headers in cases:
            direct = send(live, path, body, **headers)
            through = requests.post(
                f"https://127.0.0.1:{front.port}{path}",
                data=body if isinstance(body, bytes) else json.dumps(body),
                headers=named | headers,
                verify=str(front.certificate),
                timeout=20,
            )
            assert through.status_code == direct.status_code, (path, through.text)
            assert through.json() == direct.json()
        ping = front.send("GET /ping", Authorization=f"Bearer {key}")
        assert (ping[0], ping[2]) == (200, {"status": "Healthy"})
        url = f"https://127.0.0.1:{front.port}/predictions/{name}"
        texts = ODD_TEXTS * 5
        known = Client(live.url(name), live.key_file).predict_many(texts)
        with Client(url, live.key_file, ca_file=front.certificate) as client:
            assert client.predict_many(texts) == known
        options = {"url": url, "key_file": live.key_file, "ca_file": front.certificate}
        said = verb(capsys, "predict", *(f"--{k}={v}" for k, v in options.items()), "great")
        assert said.startswith("great\tgood\t")
        assert not [name for name, text in front.written().items() if key in text]
