"""A lone request is not kept waiting for mates, by a change to one known class of TorchServe."""

import hashlib
import struct
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from scripts import serve
from serving import nowait
from serving.archive import archive
from serving.client import Client
from serving.store import Served
from tests.conftest import exported, tiny_config, verb
from tests.traffic import live
from train import data, loop

DELAY = 2.0


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory, loaded: data.Data, vectors: Path) -> Path:
    """An archive that lets TorchServe wait two seconds for a batch to fill."""
    work = tmp_path_factory.mktemp("nowait")
    model = loop.train(tiny_config("glove", "cnn", vectors, work), loaded, work / "model").folder
    made = archive(exported(model, "torchscript", work / "export", loaded.valid), "made", work)
    slow = work / "slow.mar"
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(slow, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "model-config.yaml":
                settings = yaml.safe_load(content) | {"maxBatchDelay": int(DELAY * 1000)}
                content = yaml.safe_dump(settings).encode()
            target.writestr(entry, content)
    return slow


@pytest.mark.parametrize("switch", ["", "ms"])
def test_a_lone_request_waits_for_no_mate_unless_it_is_to(
    mar: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    switch: str,
) -> None:
    monkeypatch.setenv(nowait.SWITCH, switch)
    ports = [f"--{name}_port=0" for name in serve._PORTS]
    said = verb(capsys, "serve", "start", mar, "--run_dir", tmp_path, "--seconds", 400, *ports)
    started = live(tmp_path)
    try:
        client = Client(started.url("made"), started.key_file)
        times = []
        for _ in range(2):
            began = time.monotonic()
            client.predict("great")
            times.append(time.monotonic() - began)
    finally:
        started.end()
    assert min(times) >= DELAY if switch else min(times) < DELAY / 2
    assert (f"{nowait.SWITCH}=ms" in said) == (not switch)


def test_only_a_delay_that_is_lost_is_remarked_on(tmp_path: Path) -> None:
    own = Served("a", "1.0", 1, 1, default=True, batch_delay=1)
    assert not nowait.remark(own)
    slow = replace(own, batch_delay=50)
    assert "a 1.0 asks for maxBatchDelay: 50" in nowait.remark(slow)
    assert not nowait.remark(slow, tmp_path)  # another TorchServe keeps its milliseconds


def test_only_the_unit_of_the_known_class_is_changed(tmp_path: Path) -> None:
    path = nowait.class_path(nowait.FRONTEND, tmp_path)
    assert path == f"{tmp_path}:{nowait.FRONTEND}/*"
    changed = (tmp_path / nowait._CLASS).read_bytes()
    with zipfile.ZipFile(nowait.FRONTEND / nowait._JAR) as packed:
        found = packed.read(nowait._CLASS)
    assert found.count(b"MILLISECONDS") == 1
    assert changed == found.replace(
        struct.pack("!H", 12) + b"MILLISECONDS", struct.pack("!H", 11) + b"NANOSECONDS"
    )
    assert len(changed) == len(found) - 1


def test_another_class_is_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "frontend"
    other.mkdir()
    with zipfile.ZipFile(other / nowait._JAR, "w") as packed:
        packed.writestr(nowait._CLASS, b"\x00\x0cMILLISECONDS")
    assert hashlib.sha256(b"\x00\x0cMILLISECONDS").hexdigest() != nowait._SHA256
    assert nowait.class_path(other, tmp_path / "own") == f"{other}/*"
    assert nowait.class_path(tmp_path / "none", tmp_path / "own") == f"{tmp_path / 'none'}/*"
    assert not (tmp_path / "own").exists()
