"""What the environment, a path or a failed look at a server must not do to those who are served."""

import argparse
import subprocess
from pathlib import Path
from typing import Any

import pytest

from model_src.errors import ServerError
from scripts.options import seconds
from serving import admin, golden, launch
from serving.admin import Admin
from serving.archive import served_name
from serving.store import NAME, Served

SERVED = Served("m", "1.0", 1, 1, default=True)


def test_settings_of_another_torchserve_do_not_reach_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TS_CONFIG_FILE would win over our configuration, and might open the server to all."""
    seen: dict[str, Any] = {}
    for name in ("TS_CONFIG_FILE", "TS_MODEL_SERVER_HOME", "LOCAL_RANK"):
        monkeypatch.setenv(name, "/etc/other")
    monkeypatch.setenv("TS_OPEN_INFERENCE_PROTOCOL", "oip")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **options: seen.update(options))
    for name in ("tmp", "logs"):
        (tmp_path / name).mkdir()
    launch.launch(tmp_path, [SERVED])
    assert not {"TS_CONFIG_FILE", "TS_MODEL_SERVER_HOME", "LOCAL_RANK"} & seen["env"].keys()
    assert seen["env"]["TS_OPEN_INFERENCE_PROTOCOL"] == "oip"


def test_a_path_in_any_script_reaches_java(tmp_path: Path) -> None:
    """Java reads properties as Latin-1."""
    run_dir = tmp_path / "서버 ü"
    ports = dict.fromkeys(("inference", "management", "metrics"), 1)
    ports |= {"grpc_inference": 2, "grpc_management": 3}
    launch.prepare(run_dir, [SERVED], ports, {})
    written = (run_dir / "config.properties").read_text(encoding="utf-8")
    assert written.isascii()
    assert "\\uc11c\\ubc84 \\u00fc" in written


def test_a_run_folder_whose_sockets_would_have_too_long_a_path_is_refused(tmp_path: Path) -> None:
    launch.refuse_long(Path("/short"))
    with pytest.raises(ServerError, match="name a shorter --run_dir"):
        launch.refuse_long(tmp_path / ("x" * 100))


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "0", "1e10"])
def test_a_time_that_nobody_can_wait_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no number of seconds"):
        seconds(text)


def test_a_name_that_torchserve_refuses_is_no_name() -> None:
    assert NAME.fullmatch("a.b-1_c")
    assert not NAME.fullmatch("a..b")
    assert served_name("v1..2") == "v1.2"


def test_an_answer_without_scores_is_named() -> None:
    found = golden.problem([{"scores": {"a": 1.0}}], [{"code": 503, "message": "too late"}])
    assert found == "does not answer: too late"


class Deaf(Admin):
    """A server that tells nothing of its workers for the first ``silent`` looks."""

    def __init__(self, silent: int) -> None:
        super().__init__({}, Path("none"))
        self.silent = silent

    def workers(self, name: str, version: str) -> set[int]:
        """Return the one worker, at last."""
        self.silent -= 1
        if self.silent >= 0:
            raise ServerError("no answer")
        return {7}

    def ask(
        self, name: str, version: str, text: str, seconds: float = 10
    ) -> tuple[dict[str, Any], int | None]:
        """Answer as that worker."""
        return {}, 7


def test_one_failed_look_at_the_workers_does_not_end_the_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would end the server with requests under way."""
    assert Deaf(2).drain("m", "1.0", 5)
    monkeypatch.setattr(admin, "_AGAIN", 0.2)
    assert not Deaf(10_000).drain("m", "1.0", 5)


def test_a_version_that_torchserve_keeps_is_not_said_to_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = '{"type": "InvalidModelVersionException", "message": "Cannot remove default version"}'

    def refused(*_: object, **__: object) -> None:
        raise ServerError(said)

    monkeypatch.setattr(Admin, "_manage", refused)
    found = Admin({}, Path("none"))
    with pytest.raises(ServerError, match="Cannot remove default version"):
        found.unregister(SERVED)
    said = '{"type": "ModelVersionNotFoundException", "message": "..."}'
    found.unregister(SERVED)
