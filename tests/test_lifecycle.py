"""A real TorchServe that fails to start again, or to be stopped in time."""

from pathlib import Path

import pytest

from chaos import parts
from model_src.errors import ServerError
from serving import launch, server
from serving.process import end_group, group
from serving.server import Options, Server


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
