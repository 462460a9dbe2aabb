"""A real TorchServe that changes while it is asked: versions, faults, tokens, restart and stop."""

import json
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from model_src.errors import ServerError
from model_src.predictor import Predictor
from serving import deploy, keeper, server
from serving.archive import archive
from serving.client import read_key
from serving.process import birth, end, group
from serving.server import Options, Server
from serving.store import Archive, free_version
from tests.conftest import exported, tiny_config, verb
from tests.traffic import NAME, SLOW, TEXTS, Traffic, asked, changed, key, live, post, which
from train import data, loop

# Twelve seconds: every test here lives with tokens that change under its feet.
MINUTES = 0.2


@pytest.fixture(scope="module")
def archives(
    tmp_path_factory: pytest.TempPathFactory, loaded: data.Data, vectors: Path
) -> dict[str, Path]:
    """Two models of one name that answer differently, each with its archive and its export."""
    work, found = tmp_path_factory.mktemp("deploy"), {}
    for i in ("1", "2"):
        config = tiny_config("glove", "cnn", vectors, work, seed=int(i))
        model = loop.train(config, loaded, work / f"model{i}").folder
        exported(model, "torchscript", work / f"export{i}", loaded.valid)
        mar = archive(work / f"export{i}", NAME, work / "made")
        found[i] = changed(
            mar, work / f"store{i}" / mar.name, "glove.py", lambda c: c + SLOW.encode()
        )
    return found


@pytest.fixture(scope="module")
def run_dir(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of a server with the first of them on two workers."""
    folder = tmp_path_factory.mktemp("serve") / "run"
    options = Options(workers=2, token_minutes=MINUTES)
    server.start(archives["1"].parent, [NAME], folder, options=options)
    yield folder
    if found := Server.find(folder):
        found.stop()


@pytest.fixture(scope="module")
def offline(archives: dict[str, Path]) -> dict[str, list[dict[str, float]]]:
    """What each of them says of ``TEXTS``."""
    exports = {i: mar.parent.parent / f"export{i}" for i, mar in archives.items()}
    return {i: [p.scores for p in Predictor.load(f).predict(TEXTS)] for i, f in exports.items()}


def test_versions_are_swapped_under_load_without_a_lost_or_mixed_answer(
    run_dir: Path, archives: dict[str, Path], offline: dict[str, list[dict[str, float]]]
) -> None:
    found = live(run_dir)
    assert which(asked(found, NAME), offline) == "1"
    with Traffic(lambda: which(asked(found, NAME), offline)) as traffic:
        time.sleep(0.3)
        switched = []
        for i in ("2", "1"):
            done = deploy.deploy(run_dir, archives[i])
            switched.append((time.monotonic(), i))
            assert done.drained
            time.sleep(0.3)
    assert len(traffic.outcomes) > 50
    assert {outcome for _, outcome in traffic.outcomes} == {"1", "2"}
    for began, outcome in traffic.outcomes:
        for moment, i in switched[1:]:
            assert began < moment or outcome == i
    (only,) = live(run_dir).served
    assert (only.version, only.workers, only.default) == ("1.0", 2, True)
    assert [path.name for path in (run_dir / "store").iterdir()] == [only.file]
    assert len(group(found.pid)) == 1 + 2  # Java and the workers of one version


def test_draining_waits_for_the_slowest_answer_though_another_worker_is_idle(
    run_dir: Path,
) -> None:
    found, admin = live(run_dir), live(run_dir).admin
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(post, found, NAME, {"text": "slowly"})
        time.sleep(0.3)
        assert not admin.drain(NAME, "1.0", 0.3)
        assert not slow.done()
        assert admin.drain(NAME, "1.0", 20)
        assert slow.result(timeout=0.5).status_code == 200


def test_a_deploy_that_fails_changes_nothing(
    run_dir: Path,
    archives: dict[str, Path],
    offline: dict[str, list[dict[str, float]]],
    tmp_path: Path,
) -> None:
    def lie(content: bytes) -> bytes:
        record = json.loads(content)
        scores = record["golden"][0]["scores"]
        first, second = scores
        scores[first], scores[second] = scores[first] - 1e-4, scores[second] + 1e-4
        return json.dumps(record).encode()

    before = live(run_dir)
    liar = changed(archives["2"], tmp_path / "a" / "swap.mar", "model/export.json", lie)
    with pytest.raises(ServerError, match=r"2\.0 differs from the export by 0\.0001"):
        deploy.deploy(run_dir, liar)
    broken = changed(archives["2"], tmp_path / "b" / "swap.mar", "model/model.pt", lambda _: b"no")
    with pytest.raises(ServerError, match=r"(?s)a worker failed to load.*BundleError"):
        deploy.deploy(run_dir, broken)
    with pytest.raises(ServerError, match=r"swap 1\.0 is served already"):
        deploy.deploy(run_dir, archives["2"], version="1.0")
    assert live(run_dir) == before
    assert [each["modelVersion"] for each in before.admin.versions(NAME)] == ["1.0"]
    assert [path.name for path in (run_dir / "store").iterdir()] == ["swap@1.0.mar"]
    assert which(asked(before, NAME), offline) == "1"


def test_status_is_0_only_while_all_workers_are_ready(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = live(run_dir)
    assert "swap 1.0 (default): 2 of 2 workers READY, 0 queued" in verb(
        capsys, "serve", "status", "--run_dir", run_dir
    )
    killed = min(found.admin.workers(NAME, "1.0"))
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 120
    codes: list[int] = []
    while time.monotonic() < deadline and (1 not in codes or codes[-1] != 0):
        codes.append(status(run_dir))
        time.sleep(0.05)
    assert 1 in codes
    assert codes[-1] == 0
    assert killed not in found.admin.workers(NAME, "1.0")


def status(run_dir: Path) -> int:
    from scripts import serve
    from scripts.options import Parser

    parser = Parser("serve", "status", "")
    serve.add_options(parser)
    return serve.run(parser.parse(["status", "--run_dir", str(run_dir)]))


def test_tokens_are_renewed_before_they_end(run_dir: Path) -> None:
    found = live(run_dir)
    old, ends = key(found)
    deadline = time.monotonic() + 20
    while key(found)[0] == old and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.time() < ends
    refused = requests.post(
        found.url(NAME), data=b"a", headers={"Authorization": f"Bearer {old}"}, timeout=20
    )
    assert refused.status_code == 400
    assert post(found, NAME, {"text": "great"}).status_code == 200
    assert found.admin.workers(NAME, "1.0")  # the management token was renewed too
    for path in (found.key_file, found.header_file):
        assert path.stat().st_mode & 0o077 == 0


def test_an_archive_to_start_is_refused_even_when_the_renewing_process_has_ended(
    run_dir: Path, archives: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = live(run_dir)
    end(before.keeper, before.keeper_birth)
    try:
        with pytest.raises(ServerError, match="runs already"):
            verb(capsys, "serve", "start", archives["2"], "--run_dir", run_dir)
        assert live(run_dir) == before
    finally:
        deploy.keep(run_dir)


def test_a_renewing_process_that_ended_is_seen_and_started_again(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = live(run_dir)
    end(before.keeper, before.keeper_birth)
    assert status(run_dir) == 1
    assert "the process that renews tokens has ended" in capsys.readouterr().out
    assert "are renewed again" in verb(capsys, "serve", "start", "--run_dir", run_dir)
    after = live(run_dir)
    assert after.kept
    assert (after.pid, after.served) == (before.pid, before.served)
    assert status(run_dir) == 0
    old = key(after)[0]
    deadline = time.monotonic() + 60
    while key(after)[0] == old:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_token_is_due_when_most_of_its_life_is_over(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    entry = {"key": "k", "expiration time": "2030-01-01T00:01:40.123456789Z"}
    path.write_text(json.dumps({"inference": entry, "API": {"key": "a"}}), encoding="utf-8")
    made = keeper.seconds_since_1970("2030-01-01T00:00:00Z")
    os.utime(path, (made, made))
    assert not keeper.due(path, made + 70)
    assert keeper.due(path, made + 80)


def test_a_kept_version_answers_by_number_and_can_become_the_default(
    run_dir: Path, archives: dict[str, Path], offline: dict[str, list[dict[str, float]]]
) -> None:
    deploy.deploy(run_dir, archives["2"], version="7", workers=1, keep=True)
    found = live(run_dir)
    assert [which(asked(found, p), offline) for p in (NAME, f"{NAME}/1.0", f"{NAME}/7")] == [
        *("2", "1", "2")
    ]
    deploy.set_default(run_dir, NAME, "1.0")
    assert which(asked(found, NAME), offline) == "1"
    with pytest.raises(ServerError, match=r"swap 8 is not served; did you mean 'swap 7'"):
        deploy.remove(run_dir, NAME, "8")
    with pytest.raises(ServerError, match=r"swap 1\.0 is the default"):
        deploy.remove(run_dir, NAME, "1.0")


def test_after_java_was_killed_start_brings_the_same_back(
    run_dir: Path,
    offline: dict[str, list[dict[str, float]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = live(run_dir)
    left = group(before.pid)
    os.kill(before.pid, signal.SIGKILL)
    while birth(before.pid) is not None:
        time.sleep(0.01)
    (run_dir / "tmp" / ".ts.sock.9000").touch()
    (run_dir / "tmp" / ".model_server.pid").write_text("1", encoding="utf-8")
    assert Server.find(run_dir) is None
    said = verb(capsys, "serve", "start", "--run_dir", run_dir)
    assert "Going on with what the killed server" in said
    after = live(run_dir)
    assert after.url(NAME) == before.url(NAME)
    assert after.grpc_url(NAME) == before.grpc_url(NAME)
    assert after.served == before.served
    assert [(each.version, each.workers) for each in after.served] == [("1.0", 2), ("7", 1)]
    assert [len(after.admin.workers(NAME, each.version)) for each in after.served] == [2, 1]
    assert after.admin.default(NAME) == "1.0"
    assert which(asked(after, NAME), offline) == "1"
    assert which(asked(after, f"{NAME}/7"), offline) == "2"
    assert not any(birth(pid) for pid in left)


def test_workers_and_threads_given_after_a_kill_are_taken(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = live(run_dir)
    os.killpg(before.pid, signal.SIGKILL)
    while group(before.pid):
        time.sleep(0.01)
    options = [f"--{name}_port=0" for name in ("inference", "management", "metrics")]
    options += ["--workers=2", "--threads=2"]
    verb(capsys, "serve", "start", "--run_dir", run_dir, *options)
    after = live(run_dir)
    assert [(each.version, each.workers, each.threads) for each in after.served] == [
        *(("1.0", 2, 2), ("7", 2, 2))
    ]
    assert after.minutes == before.minutes
    assert len(after.admin.workers(NAME, "7")) == 2
    settings = Archive.read(run_dir / "store" / after.served[0].file).settings
    assert settings["handler"]["num_threads"] == 2


def test_the_management_interface_registers_no_url_and_asks_for_a_key(
    run_dir: Path, archives: dict[str, Path], tmp_path: Path
) -> None:
    found = live(run_dir)
    address = f"http://127.0.0.1:{found.ports['management']}/models"
    elsewhere = tmp_path / "elsewhere.mar"
    shutil.copyfile(archives["2"], elsewhere)
    urls = ["http://127.0.0.1:1/x.mar", "file:///x.mar", "s3://x/x.mar", "../x.mar"]
    for url in (*urls, f"file://{elsewhere}", str(elsewhere)):
        assert registered(found, url) >= 400, url
    for method in ("GET", "POST", "PUT", "DELETE"):
        headers = {"Authorization": f"Bearer {read_key(found.key_file, 'inference')}"}
        answer = requests.request(method, f"{address}/{NAME}", headers=headers, timeout=20)
        assert answer.status_code == 400
        assert "InvalidKeyException" in answer.text
    assert found.models == [NAME]


def test_a_folder_of_this_machine_is_registered_by_who_has_the_management_key(
    run_dir: Path, archives: dict[str, Path], tmp_path: Path
) -> None:
    """TorchServe 0.12.0 has no setting against it; README says what that key is worth."""
    with zipfile.ZipFile(archives["2"]) as packed:
        packed.extractall(tmp_path / "folder")
    assert registered(live(run_dir), str(tmp_path / "folder")) == 200


def registered(found: Server, url: str) -> int:
    """Return the status of registering ``url``, without workers, under another name."""
    address = f"http://127.0.0.1:{found.ports['management']}/models"
    headers = {"Authorization": f"Bearer {read_key(found.key_file, 'management')}"}
    params = {"url": url, "model_name": "other", "initial_workers": "0"}
    return requests.post(address, params=params, headers=headers, timeout=20).status_code


def test_stop_under_load_answers_everything_that_was_sent_before(run_dir: Path) -> None:
    found = deploy.rotate(run_dir)  # tokens live for seconds here, and the one below is read once
    headers = {"Authorization": f"Bearer {key(found)[0]}"}

    def ask(text: str = TEXTS[0]) -> object:
        answer = requests.post(found.url(NAME), json={"text": text}, headers=headers, timeout=20)
        return answer.status_code

    with ThreadPoolExecutor() as pool, Traffic(ask) as traffic:
        time.sleep(0.5)
        slow = pool.submit(ask, "slowly")  # its mates in a batch are as slow
        time.sleep(0.5)
        began = time.monotonic()
        found.stop()
        assert slow.result() == 200
    before = [outcome for moment, outcome in traffic.outcomes if moment < began]
    after = {str(outcome) for moment, outcome in traffic.outcomes if moment >= began}
    assert len(before) > 20
    assert set(before) == {200}
    assert "503" in after
    assert Server.find(run_dir) is None
    assert not group(found.pid)


def test_an_archive_made_again_gets_the_next_number(archives: dict[str, Path]) -> None:
    assert Archive.read(archives["1"]).version == "1.0"
    assert free_version("1.0", []) == "1.0"
    assert free_version("1.0", ["1.0"]) == "2.0"
    assert free_version("1.0", ["1.0", "2.0", "beta"]) == "3.0"
    assert free_version("1.0", ["2.0"]) == "1.0"
