"""A deploy that is interrupted: before the switch all is as it was, after it nothing is hidden."""

import time
from collections.abc import Iterator

import pytest

from chaos.parts import NAME
from chaos.scene import FIRST, SECOND, Scene
from model_src.errors import ServerError
from serving import deploy
from serving.admin import Admin
from serving.launch import STORE
from serving.server import Server


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Archives of two versions, and servers of the first."""
    with Scene(tmp_path_factory.mktemp("deploy"), short=True) as made:
        yield made


def test_a_switch_that_is_interrupted_is_taken_back_without_an_answer_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = Admin.set_default

    def interrupted(admin: Admin, name: str, version: str) -> None:
        switch(admin, name, version)
        if version == SECOND:
            time.sleep(0.3)
            raise KeyboardInterrupt

    monkeypatch.setattr(Admin, "set_default", interrupted)
    with scene.server() as before:
        with scene.traffic(before, rate=100, attempts=1) as traffic:
            with pytest.raises(KeyboardInterrupt):
                deploy.deploy(before.run_dir, scene.archives[SECOND])
            time.sleep(0.3)
        assert Server.find(before.run_dir) == before
        assert [each["modelVersion"] for each in before.admin.versions(NAME)] == [FIRST]
        assert [path.name for path in (before.run_dir / STORE).iterdir()] == [before.served[0].file]
        tally = scene.judge(traffic.records, FIRST, SECOND)
        assert tally.right == tally.asked
        assert set(tally.versions) == {FIRST, SECOND}


def test_an_old_version_that_is_not_removed_is_named(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with scene.server() as found:
        with monkeypatch.context() as patch:
            patch.setattr(Admin, "drain", interrupted)
            with pytest.raises(ServerError, match=rf"interrupted.* serve remove {NAME} {FIRST}"):
                deploy.deploy(found.run_dir, scene.archives[SECOND])
        left = deploy.running(found.run_dir)
        assert [(each.version, each.default) for each in left.served] == [
            *((FIRST, False), (SECOND, True))
        ]
        assert left.admin.default(NAME) == SECOND
        deploy.remove(found.run_dir, NAME, FIRST)
        deploy.deploy(found.run_dir, scene.archives[FIRST])
        assert [each.version for each in deploy.running(found.run_dir).served] == [FIRST]
