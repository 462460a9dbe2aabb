"""A lone request waits for no mates and a broken form is a 400, by changes to known classes."""

import struct
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import yaml

from chaos import envelopes
from model_src.errors import ServerError
from scripts import serve
from serving import frontend
from serving.admin import Admin
from serving.archive import archive
from serving.client import Client, read_key
from serving.store import Served
from tests.conftest import exported, tiny_config, verb
from tests.traffic import live
from train import data, loop

DELAY = 2.0


def constant(name: str) -> bytes:
    return struct.pack("!H", len(name)) + name.encode()


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory, loaded: data.Data, vectors: Path) -> Path:
    """An archive that lets TorchServe wait two seconds for a batch to fill."""
    work = tmp_path_factory.mktemp("delay")
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
    monkeypatch.setenv(frontend.SWITCH, switch)
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
        _forms_are_refused(client, started.key_file)
        twin = Served("made", "1.0", 1, 1, default=True)
        with pytest.raises(ServerError, match=r'"code": 409'):
            Admin(started.ports, started.key_file).register(twin)
    finally:
        started.end()
    assert min(times) >= DELAY if switch else min(times) < DELAY / 2
    assert (f"{frontend.SWITCH}=ms" in said) == (not switch)


def _forms_are_refused(client: Client, keys: Path) -> None:
    """Each that cannot be read gets an error of its own, and no 5xx; the next request is fine."""
    key = read_key(keys, "inference")
    for form in envelopes.broken_forms():
        headers = {"Content-Type": form.kind, "Authorization": f"Bearer {key}"}
        reply = requests.post(client.url, form.body, headers=headers, timeout=60)
        assert reply.status_code in form.statuses, form.name
        assert reply.json()["code"] == reply.status_code
    client.predict("great")


def test_only_a_delay_that_is_lost_is_remarked_on(tmp_path: Path) -> None:
    own = Served("a", "1.0", 1, 1, default=True, batch_delay=1)
    assert not frontend.remark(own)
    slow = replace(own, batch_delay=50)
    assert "a 1.0 asks for maxBatchDelay: 50" in frontend.remark(slow)
    assert not frontend.remark(slow, tmp_path)  # another TorchServe keeps its milliseconds


@pytest.mark.parametrize("change", [frontend.DELAY, frontend.FORMS], ids=["delay", "forms"])
def test_nothing_but_a_few_names_of_a_known_class_is_changed(
    tmp_path: Path, change: frontend.Change
) -> None:
    path = frontend.class_path(frontend.FRONTEND, tmp_path)
    assert path == f"{tmp_path}:{frontend.FRONTEND}/*"
    changed = (tmp_path / change.file).read_bytes()
    with zipfile.ZipFile(frontend.FRONTEND / frontend._JAR) as packed:
        found = packed.read(change.file)
    assert all(found.count(constant(old)) == 1 for old, _ in change.names)
    for old, new in sorted(change.names, key=lambda each: found.index(constant(each[0]))):
        where = found.index(constant(old))  # in both, since all before it is as it was
        assert changed[where : where + len(constant(new))] == constant(new)
        changed = changed[:where] + constant(old) + changed[where + len(constant(new)) :]
    assert changed == found


def test_the_delay_alone_can_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(frontend.SWITCH, "ms")
    frontend.class_path(frontend.FRONTEND, tmp_path)
    assert not (tmp_path / frontend.DELAY.file).exists()
    assert (tmp_path / frontend.FORMS.file).exists()


def test_another_class_is_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "frontend"
    other.mkdir()
    with zipfile.ZipFile(other / frontend._JAR, "w") as packed:
        packed.writestr(frontend.DELAY.file, b"\x00\x0cMILLISECONDS")
    assert frontend.class_path(other, tmp_path / "own") == f"{other}/*"
    none = tmp_path / "none"
    assert frontend.class_path(none, tmp_path / "own") == f"{none}/*"
    assert not (tmp_path / "own").exists()
