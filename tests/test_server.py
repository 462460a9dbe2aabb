"""A real TorchServe: served answers are the offline ones, and nothing a client sends does harm."""

import json
import os
import signal
import subprocess
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from model_src.errors import ServerError
from model_src.predictor import Predictor
from serving import server
from serving.client import Client, read_key
from serving.launch import STORE
from serving.process import birth, free_ports, group, is_free
from serving.server import Server
from serving.store import Served
from tests.conftest import ODD_TEXTS, ROOT, SERVED, Models

EXACT = 1e-5
MARKER = "quokkaquokka"  # must reach no log


def post(
    live: Server, name: str, body: bytes, kind: str = "application/json", encoding: str = "identity"
) -> requests.Response:
    key = read_key(live.key_file, "inference")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": kind, "Content-Encoding": encoding}
    return requests.post(live.url(name), data=body, headers=headers, timeout=20)


@pytest.mark.parametrize("name", SERVED)
def test_served_equals_offline_under_concurrency(live: Server, tiny: Models, name: str) -> None:
    texts = [text for text in ODD_TEXTS if len(text) < 1000] * 8
    offline = Predictor.load(tiny.exports[name]).predict(texts)
    client = Client(live.url(name), live.key_file)
    with ThreadPoolExecutor(8) as pool:
        served = [*pool.map(client.predict, texts)]
    served_at_once = client.predict_many(texts)
    for known, one, many in zip(offline, served, served_at_once, strict=True):
        for answer in (one, many):
            assert answer["label"] == known.label
            assert list(answer["scores"]) == list(known.scores)
            assert abs(sum(answer["scores"].values()) - 1) <= 1e-6
            worst = max(abs(answer["scores"][k] - p) for k, p in known.scores.items())
            assert worst <= EXACT


def test_a_bad_request_harms_no_mate(live: Server) -> None:
    name = SERVED[0]
    good = json.dumps({"text": f"great {MARKER}"}).encode()
    bad = [
        b"",
        b"{",
        b'{"text": 1}',
        b"\xff" + MARKER.encode(),
        b"[" * 5000,
        b'{"text": "\\ud800"}',
    ]
    bodies = [good, *bad] * 10
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda body: post(live, name, body), bodies)]
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status_code == (200 if body == good else 400), (body, answer.text)
        assert set(answer.json()) == (
            {"label", "score", "scores"} if body == good else {"code", "message"}
        )
    assert live.ready(name) == 1


def test_raw_text_and_forms_are_sentences_too(live: Server) -> None:
    expected = post(live, SERVED[0], b'{"text": "a great film"}').json()
    assert post(live, SERVED[0], b"a great film", "text/plain").json() == expected
    form = post(live, SERVED[0], b"text=a+great+film", "application/x-www-form-urlencoded")
    assert form.json() == expected
    unnamed = post(live, SERVED[0], b"a great film", "application/x-www-form-urlencoded")
    assert unnamed.status_code == 400
    assert "add the header Content-Type: text/plain" in unnamed.json()["message"]


def test_without_a_token_or_with_a_wrong_one_nothing_is_answered(live: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = requests.post(live.url(SERVED[0]), data=b"a", headers=headers, timeout=20)
        assert answer.status_code == 400
        assert "label" not in answer.text
    for path in (live.key_file, live.header_file):
        assert path.stat().st_mode & 0o077 == 0


def test_only_loopback_is_listened_on(live: Server) -> None:
    """Read what the kernel says of the server's sockets: 0100007F is 127.0.0.1."""
    rows = []
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]
        rows += [line.split()[1].rsplit(":", 1) for line in lines if line.split()[3] == "0A"]
    ports = set(live.ports.values())
    addresses = {address for address, port in rows if int(port, 16) in ports}
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert {int(port, 16) for _, port in rows} >= ports


def test_the_curl_script_answers_line_by_line(live: Server, tiny: Models) -> None:
    texts = [text for text in ODD_TEXTS if text.isprintable()] * 3
    done = subprocess.run(
        [ROOT / "scripts" / "batch_curl.sh", live.url(SERVED[0]), live.header_file],
        input="\n".join(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    offline = Predictor.load(tiny.exports[SERVED[0]]).predict(texts)
    assert [a["label"] for a in answers] == [p.label for p in offline]


def test_the_curl_script_asks_again_and_a_lost_line_costs_no_other(tmp_path: Path) -> None:
    asked: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append(text)
            if text == "lost":
                self.close_connection = True
                return
            self.send_response(503 if text == "busy" and asked.count(text) == 1 else 200)
            body = json.dumps({"label": text}).encode()
            self.send_header("Content-Length", str(len(body) + (text == "half")))
            self.close_connection = text == "half"
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    header = tmp_path / "header"
    header.write_text("Authorization: Bearer key\n", encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{door.server_port}/predictions/tiny"
        command = [str(ROOT / "scripts" / "batch_curl.sh"), url, str(header)]
        done = subprocess.run(
            command, input="one\nlost\nbusy\nhalf\n", capture_output=True, text=True, check=False
        )
        door.shutdown()
    first, second, third, fourth = (json.loads(line) for line in done.stdout.splitlines())
    assert (first, third) == ({"label": "one"}, {"label": "busy"})
    assert second["code"] == fourth["code"] == 0
    assert done.returncode
    assert "%" not in done.stderr  # of a meter
    assert asked.count("busy") == 2


def test_no_sentence_and_no_token_is_logged(live: Server) -> None:
    for body in (MARKER.encode(), b'{"text": "' + MARKER.encode(), b"\xff" + MARKER.encode()):
        for kind in ("application/json", "text/plain", ""):
            post(live, SERVED[0], body, kind)
    key = read_key(live.key_file, "inference")
    logs = [*(live.run_dir / "logs").iterdir()]
    assert {"server.log", "workers.log", "console.log"} <= {path.name for path in logs}
    for path in logs:
        content = path.read_text(encoding="utf-8")
        assert MARKER not in content, path
        assert key not in content, path


def test_a_second_server_in_the_same_place_is_refused(live: Server, model_store: Path) -> None:
    with pytest.raises(ServerError, match="runs already"):
        server.start(model_store, SERVED[:1], live.run_dir)
    taken = {"inference": live.ports["inference"]}
    with pytest.raises(ServerError, match=r"port \d+ for inference is in use"):
        server.start(model_store, SERVED[:1], live.run_dir.parent / "other", taken)


def test_a_stale_state_file_does_no_harm_and_stop_leaves_nothing(
    model_store: Path, tmp_path: Path
) -> None:
    stale = {"pid": os.getpid(), "birth": 1, "ports": {}, "models": []}  # a pid given anew
    (tmp_path / "server.json").write_text(json.dumps(stale), encoding="utf-8")
    (tmp_path / ".lock").touch()
    assert Server.find(tmp_path) is None
    started = server.start(model_store, [SERVED[0]], tmp_path)
    try:
        assert Server.find(tmp_path) == started
        processes = group(started.pid)
        assert len(processes) == 2  # Java and one worker
    finally:
        started.stop()
    assert [birth(pid) for pid in processes] == [None, None]
    assert Server.find(tmp_path) is None
    assert all(is_free(port) for port in started.ports.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "config.properties",
        "logs",
    ]


def test_a_killed_server_can_be_started_again(model_store: Path, tmp_path: Path) -> None:
    first = server.start(model_store, [SERVED[0]], tmp_path)
    os.killpg(first.pid, signal.SIGKILL)
    while group(first.pid):
        pass
    assert Server.find(tmp_path) is None
    (copy,) = (tmp_path / STORE).iterdir()
    with pytest.raises(ServerError, match="lies in the server's own store"):
        server.start(model_store, [str(copy)], tmp_path)
    assert copy.exists()
    second = server.start(model_store, [SERVED[0]], tmp_path)
    try:
        assert Client(second.url(SERVED[0]), second.key_file).predict("great")["label"] == "good"
    finally:
        second.stop()


def test_a_restart_without_its_archives_names_them(tmp_path: Path) -> None:
    served = [Served("film", "1.0", 1, 1, default=True)]
    Server(tmp_path, 0, 0, {}, served).remember()
    (tmp_path / ".lock").touch()
    with pytest.raises(ServerError, match=r"has lost film@1\.0\.mar: ./iclassifier serve start"):
        server.restart(tmp_path)
    assert Server.read(tmp_path)


def test_a_worker_that_cannot_load_shows_its_traceback(model_store: Path, tmp_path: Path) -> None:
    """TorchServe itself says Healthy and retries for ever."""
    broken = tmp_path / "store" / "broken.mar"
    broken.parent.mkdir()
    with (
        zipfile.ZipFile(model_store / f"{SERVED[0]}.mar") as packed,
        zipfile.ZipFile(broken, "w") as out,
    ):
        for name in packed.namelist():
            content = packed.read(name)
            out.writestr(name, content[:-1] if name == "model/labels.json" else content)
    with pytest.raises(ServerError, match=r"BundleError: .*labels\.json has \d+ bytes"):
        server.start(broken.parent, ["broken"], tmp_path / "run")
    assert Server.find(tmp_path / "run") is None


def test_a_folder_with_other_things_is_no_run_folder(model_store: Path, tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("mine", encoding="utf-8")
    with pytest.raises(ServerError, match="is no run folder of a server"):
        server.start(model_store, SERVED[:1], tmp_path)
    assert (tmp_path / "config.properties").read_text(encoding="utf-8") == "mine"


def test_a_truncated_archive_twins_and_equal_ports_are_refused_at_once(
    model_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    content = (model_store / f"{SERVED[0]}.mar").read_bytes()
    (store / "cut.mar").write_bytes(content[: len(content) // 2])
    with pytest.raises(ServerError, match=r"cut\.mar is damaged"):
        server.start(store, ["cut"], tmp_path / "run")
    with pytest.raises(ServerError, match="is named twice"):
        server.start(model_store, [SERVED[0], SERVED[0]], tmp_path / "run")
    (port,) = free_ports(1)
    with pytest.raises(ServerError, match="two of the ports are the same"):
        server.start(
            model_store, SERVED[:1], tmp_path / "run", {"inference": port, "management": port}
        )


def test_a_missing_archive_is_named(model_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=f"did you mean '{SERVED[0]}'"):
        server.start(model_store, [SERVED[0] + "x"], tmp_path)
    with pytest.raises(ServerError, match="no model to serve"):
        server.start(tmp_path, [], tmp_path)


def test_a_client_without_a_server_gets_one_sentence(tmp_path: Path) -> None:
    keys = tmp_path / "key_file.json"
    with pytest.raises(ServerError, match="give the server's own with --key_file"):
        Client("http://127.0.0.1:1/predictions/x", keys)
    keys.write_text('{"inference": {"key": "k"}}', encoding="utf-8")
    (port,) = free_ports(1)
    with pytest.raises(ServerError, match="does not answer"):
        Client(f"http://127.0.0.1:{port}/predictions/x", keys).predict("a")
