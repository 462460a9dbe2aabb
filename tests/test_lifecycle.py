"""A real TorchServe that fails to start again, or to be stopped in time."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from chaos import parts
from chaos.altered import SLOW, with_handler
from model_src.errors import ServerError
from scripts.options import shown
from serving import launch, server
from serving.client import Client, read_key
from serving.process import birth, end_group, group
from serving.server import Options, Server
from tests.conftest import verb


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive."""
    return parts.make(tmp_path_factory.mktemp("lifecycle"), "1.0")[0]


def test_a_restart_that_fails_leaves_what_the_next_one_brings_back(
    mar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = server.start(mar.parent, [str(mar)], tmp_path)
    end_group(first.pid, patience=0)
    failed: list[int] = []

    def fail(run_dir: Path, pid: int, *_: object) -> None:
        failed.append(pid)
        raise ServerError("no READY worker")

    with monkeypatch.context() as patch:
        patch.setattr(launch, "wait", fail)
        with pytest.raises(ServerError, match="no READY worker"):
            server.restart(tmp_path, options=Options(workers=3))
    assert not group(failed[0])
    assert Server.find(tmp_path) is None
    assert Server.read(tmp_path) == first
    assert not first.key_file.exists()
    second = server.restart(tmp_path)
    try:
        assert second.served == first.served
        assert second.ready(parts.NAME) == 1
    finally:
        second.end()
    assert Server.read(tmp_path) is None
    assert not (tmp_path / launch.STORE).exists()


def test_a_pid_that_was_given_to_another_process_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        born = birth(other.pid)
        assert born
        Server(tmp_path, other.pid, born - 1, {}, []).end()
        assert birth(other.pid) == born
        Server(tmp_path, other.pid, born, {}, []).end()
        assert birth(other.pid) is None


@pytest.mark.parametrize("seconds", [60, 0.5])
def test_a_stop_tells_whether_all_that_was_under_way_is_answered(
    mar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float
) -> None:
    slow = with_handler(mar, tmp_path / "slow" / mar.name, SLOW.format(seconds=3))
    run_dir = tmp_path / "run"
    found = server.start(slow.parent, [str(slow)], run_dir)
    client = Client(found.url(parts.NAME), found.key_file, attempts=1)
    idle = seconds > 3
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(client.predict, "a film")
        time.sleep(1)
        said = verb(capsys, "serve", "stop", "--run_dir", run_dir, "--seconds", seconds)
        if idle:
            assert asked.result()["scores"]
        else:
            assert isinstance(asked.exception(), ServerError)
    assert said.startswith(f"stopped the server of {shown(run_dir)}")
    assert ("was not known to be idle" in said) is not idle
    assert not group(found.pid)


def test_open_inference_paths_are_there_where_the_environment_asks_for_them(
    mar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_OPEN_INFERENCE_PROTOCOL", "oip")
    found = server.start(mar.parent, [str(mar)], tmp_path)
    try:
        base = f"http://127.0.0.1:{found.ports['inference']}/v2"
        auth = {"Authorization": f"Bearer {read_key(found.key_file, 'inference')}"}
        tensor: dict[str, Any] = {"name": "text", "shape": [1], "datatype": "BYTES"}
        tensor["data"] = ["a sentence"]
        told = {
            path: requests.get(f"{base}{path}", headers=auth, timeout=10).status_code
            for path in (
                "",
                "/health/live",
                "/health/ready",
                "/models/chaos",
                "/models/chaos/ready",
            )
        }
        assert [*told.values()] == [200, 200, 200, 404, 404]
        asked = {
            path: requests.post(
                f"{base}/models/{parts.NAME}{path}",
                json={"inputs": [tensor]},
                headers=auth,
                timeout=10,
            )
            for path in ("/infer", "/versions/1.0/infer")
        }
        assert [answer.status_code for answer in asked.values()] == [200, 501]
        assert asked["/infer"].json()["outputs"][0]["datatype"] == "BYTES"
    finally:
        found.end()
