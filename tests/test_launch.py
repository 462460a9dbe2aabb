"""What a worker is launched with reaches it, and what a setting is worth is judged by numbers."""

import json
import os
import zipfile
from pathlib import Path

import pytest
import yaml

from benchmarks import launch, results
from benchmarks.launch import Setting
from model_src.errors import BundleError, ServerError
from model_src.predictor import Predictor
from serving.launch import ALLOCATORS, allocator, library
from serving.process import environment
from serving.server import Server
from serving.store import Archive, Served
from tests.conftest import INSTALLED, Models, exported, tiny_config
from train import data, loop

SPY = """
import atexit, json, os

def say():
    said = {"conf": os.environ.get("MALLOC_CONF"), "cores": sorted(os.sched_getaffinity(0))}
    open(os.environ["SPY"], "w").write(json.dumps(said))

atexit.register(say)
"""


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory: pytest.TempPathFactory, loaded: data.Data, vectors: Path) -> Path:
    """A tiny GloVe export."""
    work = tmp_path_factory.mktemp("launch")
    model = loop.train(tiny_config("glove", "cnn", vectors, work), loaded, work / "model").folder
    return exported(model, "torchscript", work / "export", loaded.valid)


def test_a_setting_is_measured_in_a_process_that_has_it(
    export_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sitecustomize of the child writes down what it was started with and where it ended."""
    (tmp_path / "sitecustomize.py").write_text(SPY, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{results.ROOT}")
    monkeypatch.setenv("SPY", str(tmp_path / "said"))
    found = launch._one(export_dir, Setting("", {"MALLOC_CONF": "narenas:1"}, pinned=True))
    said = json.loads((tmp_path / "said").read_text(encoding="utf-8"))
    assert said == {"conf": "narenas:1", "cores": [max(os.sched_getaffinity(0))]}
    assert 0.01 < found["alone_ms"] < 100
    assert found["rate"] > 10


def test_a_setting_is_worth_it_when_it_helps_and_harms_nothing() -> None:
    still = [1.0, 1.01, 0.99, 1.0]
    assert launch.worth([1.05, 1.04, 1.05, 1.04], still) == "yes"
    assert launch.worth([1.05, 1.04, 1.05, 1.04], [1.0, 0.92, 1.0, 1.0]) == "no"
    assert launch.worth([1.05, 1.0, 0.99, 1.01], still) == "mixed"
    assert launch.worth([1.3, 1.3, 1.3, 0.9], still) == "mixed"
    assert launch.worth([0.5, 1.0, 0.99, 1.01], still) == "no"


def test_the_gain_is_the_median_over_rounds() -> None:
    plain = [{"alone_ms": 2.0, "rate": 10.0}] * 3
    own = [{"alone_ms": ms, "rate": rate} for ms, rate in ((1.0, 10.0), (4.0, 30.0), (2.0, 20.0))]
    assert launch._gain(plain, own) == {"alone": 1.0, "rate": 2.0}


def test_a_setting_beside_another_is_compared_with_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "plain": Setting("plain"),
        "again": Setting("again"),
        "fast": Setting("fast"),
        "both": Setting("both", base="fast"),
    }
    ms = {"plain": 8.0, "again": 8.0, "fast": 4.0, "both": 2.0}
    monkeypatch.setattr(launch, "SETTINGS", settings)
    monkeypatch.setattr(launch, "_export", lambda *_: tmp_path)
    monkeypatch.setattr(
        launch, "_one", lambda _, own: {"alone_ms": ms[own.title], "rate": 1 / ms[own.title]}
    )
    text = launch.run(tmp_path).read_text(encoding="utf-8")
    assert "| fast | 2.00 | 2.00 | 2.00 | 2.00 | yes |" in text
    assert "| both | 2.00 | 2.00 | 2.00 | 2.00 | yes |" in text


def test_an_interrupted_benchmark_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [7]

    def one(_: Path, __: Setting) -> dict[str, float]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return {"alone_ms": 1.0, "rate": 1.0}

    rows = {name: Setting(name) for name in ("plain", "again")}
    monkeypatch.setattr(launch, "SETTINGS", rows)
    monkeypatch.setattr(launch, "_export", lambda *_: tmp_path)
    monkeypatch.setattr(launch, "_one", one)
    with pytest.raises(KeyboardInterrupt):
        launch.run(tmp_path)
    left[0] = 5 * len(launch.MODELS) * len(rows) - 7
    assert launch.run(tmp_path).exists()
    assert left == [0]
    launch.run(tmp_path)  # all is known
    monkeypatch.setattr(
        launch, "SETTINGS", rows | {"omp": Setting("omp", {"OMP_NUM_THREADS": "1"})}
    )
    with pytest.raises(KeyboardInterrupt):  # another measurement
        launch.run(tmp_path)


def test_a_library_that_is_not_there_is_no_library() -> None:
    assert library("no-such-library") == ""
    assert Path(library("c")).name.startswith("libc.so")


def test_a_server_runs_with_the_allocator_that_is_installed(live: Server) -> None:
    found = allocator(live.served)
    assert f"LD_PRELOAD={found}".encode() in environment(live.pid).split(b"\0")
    if not found:
        pytest.skip(
            f"{', '.join(ALLOCATORS)} are not installed, or LD_PRELOAD is set empty, or OpenVINO "
            "is served"
        )
    for served in live.served[:1]:
        for pid in live.admin.workers(served.name, served.version):
            maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
            assert found in maps


def test_workers_and_threads_are_written_into_the_copy_that_is_served(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as made:
        made.writestr("model-config.yaml", "minWorkers: 1\nmaxWorkers: 2\nbatchSize: 8\n")
        model = '{"modelName": "a", "modelVersion": "1.0", "configFile": "model-config.yaml"}'
        made.writestr("MAR-INF/MANIFEST.json", f'{{"model": {model}}}')
    archive = Archive.read(tmp_path / "a.mar")
    served = archive.admit(tmp_path / "s", version="3", workers=4, threads=2, default=True)
    assert (served.file, served.workers, served.threads) == ("a@3.mar", 4, 2)
    again = Archive.read(tmp_path / "s" / served.file)
    assert again.version == "3"
    assert again.settings == {
        "minWorkers": 4,
        "maxWorkers": 4,
        "batchSize": 8,
        "handler": {"num_threads": 2},
    }
    with zipfile.ZipFile(tmp_path / "s" / served.file) as packed:
        assert len(packed.namelist()) == len(set(packed.namelist())) == 2
        assert yaml.safe_load(packed.read("model-config.yaml"))["batchSize"] == 8
    with zipfile.ZipFile(tmp_path / "c.mar", "w") as made:
        made.writestr("model-config.yaml", "minWorkers: 0\n")
        made.writestr("MAR-INF/MANIFEST.json", f'{{"model": {model}}}')
    with pytest.raises(ServerError, match=r"c\.mar is damaged"):
        Archive.read(tmp_path / "c.mar")
    (tmp_path / "b.mar").write_bytes((tmp_path / "a.mar").read_bytes()[:100])
    with pytest.raises(ServerError, match=r"b\.mar is damaged"):
        Archive.read(tmp_path / "b.mar")


def test_openvino_is_served_without_another_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """It frees what that one has given by libc, and each of its workers would die at once."""
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr("serving.launch.library", lambda name: f"lib{name}.so")
    served = [
        Served("a", "1.0", 1, 1, default=True, form=form) for form in ("int8", "openvino-bf16")
    ]
    assert allocator(served[:1]) == f"lib{ALLOCATORS[0]}.so"
    assert allocator(served) == ""
    monkeypatch.setenv("LD_PRELOAD", "own.so")
    assert allocator(served) == "own.so"


@pytest.mark.skipif("openvino" not in INSTALLED, reason="the format openvino needs its packages")
def test_openvino_beside_another_allocator_is_refused(
    tiny: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sentence instead of a crash, when it is deployed to a server that has one."""
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc_minimal.so.4")
    with pytest.raises(BundleError, match=r"OpenVINO does not run with LD_PRELOAD=.*tcmalloc"):
        Predictor.load(tiny.exports["glove-cnn-openvino"])
