"""Settings of a served model are chosen by a rule from what was measured; nothing is left over."""

import dataclasses
import zipfile
from functools import partial
from pathlib import Path

import pytest

from model_src.errors import ServerError, UserError
from serving import launch, testbed, trials, tune
from serving.archive import MODEL_CONFIG, archive, check
from serving.launch import PROPERTIES
from serving.load import Load
from serving.store import Archive
from serving.trials import AIMS, CLIENTS, Setting, Trial, best, gains
from tests.conftest import exported, read_json, tiny_config, verb
from train import data, loop

LATENCY, THROUGHPUT = AIMS["latency"], AIMS["throughput"]


def trial(
    workers: int, ms: float, rates: dict[int, list[float]], threads: int = 1, errors: int = 0
) -> Trial:
    """Return a trial with one p50 at every load and a rate for each round."""
    made = Trial(Setting(workers, threads, 8))
    for clients in CLIENTS:
        for rate in rates.get(clients, [100.0]):
            times = [ms] * round(rate)
            made.loads[clients].append(Load(len(times) / rate, times, errors))
    return made


def at_16(workers: int, ms: float, rate: float, **more: int) -> Trial:
    return trial(workers, ms, {16: [rate] * 3}, **more)


def test_latency_takes_the_highest_rate_among_those_that_are_quick_alone() -> None:
    quick, equal, slow = at_16(2, 1.0, 500), at_16(2, 1.09, 600), at_16(2, 1.11, 5000)
    assert best([quick, equal, slow], LATENCY) is equal
    assert "within 10% of the best" in LATENCY.rule


def test_throughput_asks_64_clients_and_no_one_else() -> None:
    quick = trial(2, 1.0, {16: [900.0], 64: [500.0]})
    slow = trial(2, 9.0, {16: [100.0], 64: [5000.0]})
    assert best([quick, slow], THROUGHPUT) is slow
    assert best([quick, slow], LATENCY) is quick


def test_among_equals_the_one_with_fewest_workers_and_threads_is_taken() -> None:
    one, two, wide = at_16(1, 1.0, 975), at_16(2, 1.0, 1000), at_16(1, 1.0, 1000, threads=2)
    assert best([two, wide, one], LATENCY) is one
    assert best([two, at_16(1, 1.0, 960)], LATENCY) is two
    assert best([two, wide], LATENCY) is two


def test_who_met_errors_is_not_chosen() -> None:
    wrong, right = at_16(1, 1.0, 1000, errors=1), at_16(1, 1.0, 10)
    assert best([wrong, right], LATENCY) is right
    with pytest.raises(ServerError, match="requests failed with every setting"):
        best([wrong], LATENCY)


def test_a_server_wide_line_must_gain_in_every_round_and_lose_nowhere() -> None:
    before = trial(1, 1.0, {16: [100.0, 100.0, 100.0]})
    assert gains(before, trial(1, 1.0, {16: [120.0, 110.0, 101.0]}), LATENCY)
    assert not gains(before, trial(1, 1.0, {16: [120.0, 110.0, 99.0]}), LATENCY)
    assert not gains(before, trial(1, 1.0, {16: [104.0, 104.0, 104.0]}), LATENCY)
    assert not gains(before, trial(1, 1.1, {16: [120.0, 110.0, 101.0]}), LATENCY)
    assert not gains(before, trial(1, 1.0, {16: [150.0] * 3, 64: [90.0]}), LATENCY)


def test_rounds_that_differ_say_that_the_machine_was_busy() -> None:
    steady, wild = trial(1, 1.0, {16: [100.0, 98.0, 102.0]}), trial(1, 1.0, {16: [100.0, 50.0]})
    assert trials.unsteadiness([steady] * 3, LATENCY) == pytest.approx(0.04)
    assert trials.unsteadiness([steady] * 3, LATENCY) < trials.BUSY
    assert trials.unsteadiness([steady, wild, wild], LATENCY) > trials.BUSY


def test_workers_and_threads_never_ask_for_more_than_there_is() -> None:
    for most in (1, 2, 3, 8, 12):
        layouts = tune._layouts(most)
        assert all(workers * threads <= most for workers, threads in layouts)
        assert {(1, 1), (most, 1)} <= set(layouts)
    assert tune._layouts(2) == [(1, 1), (2, 1), (1, 2)]


def test_a_line_of_config_properties_replaces_its_name_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "config.properties"
    path.write_text("# a=0\na=1\nab=1\n", encoding="utf-8")
    tune.write_properties({"a": "2", "new": "3"}, path)
    assert path.read_text(encoding="utf-8") == "# a=0\na=2\nab=1\nnew=3\n"


def test_quantiles_of_a_load_are_those_of_its_answers() -> None:
    found = Load(2.0, [float(ms) for ms in range(1, 1002)], 0)
    assert (found.rate, found.at(0.5), found.at(0.99)) == (500.5, 501.0, 991.0)
    assert Load(1.0, [], 3).at(0.5) == float("inf")


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory, loaded: data.Data, vectors: Path) -> Path:
    """An archive of a tiny GloVe export."""
    work = tmp_path_factory.mktemp("tune")
    model = loop.train(tiny_config("glove", "cnn", vectors, work), loaded, work / "model").folder
    return archive(
        exported(model, "torchscript", work / "export", loaded.valid), "tiny", work / "store"
    )


def test_a_saved_setting_is_read_again_and_changes_no_other_byte(mar: Path, tmp_path: Path) -> None:
    found, target = Archive.read(mar), tmp_path / "copy.mar"
    found.save(target)
    assert Archive.read(target).settings == found.settings
    with zipfile.ZipFile(mar) as old, zipfile.ZipFile(target) as new:
        assert old.namelist() == new.namelist()
        assert all(old.read(name) == new.read(name) for name in old.namelist())
        new.extractall(tmp_path / "tree")
    check(tmp_path / "tree", found.golden)


def small(patch: pytest.MonkeyPatch) -> None:
    """Two batches, one other server, loads as short as can be."""
    patch.setattr(tune, "BATCHES", (MODEL_CONFIG["batchSize"], 1))
    patch.setattr(tune, "THREADS", ((1, 1),))
    patch.setattr(testbed, "ROUNDS", 2)


def test_an_archive_is_tuned_with_evidence_and_the_project_is_left_as_it_is(
    mar: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small(monkeypatch)
    monkeypatch.setattr("serving.trials._GAIN", -0.9)  # whatever was measured, there is a gain
    before = PROPERTIES.read_bytes()
    options = ["--model_store", mar.parent, "--run_dir", tmp_path / "run", "--workers", 1]
    said = verb(capsys, "serve", "tune", "tiny", *options, "--seconds", 1)
    assert PROPERTIES.read_bytes() == before
    assert not (tmp_path / "run").exists()
    evidence = read_json(mar.with_suffix(".tune.json"))
    steps: dict[str, list[dict[str, object]]] = evidence["steps"]  # type: ignore[assignment]
    assert [len(own) for own in steps.values()] in ([2, 1, 2], [2, 2, 2])
    assert all(each["errors"] == 0 for own in steps.values() for each in own)
    assert LATENCY.rule in said
    assert f"Chosen: {evidence['chosen']}" in said
    assert "serve start tiny" in said
    settings = Archive.read(mar).settings
    assert str(Setting.of(settings)) == evidence["chosen"]
    assert set(settings) == set(MODEL_CONFIG)
    assert "| batches | 1 | 1 | 1 |" in mar.with_suffix(".tune.md").read_text(encoding="utf-8")


def test_config_properties_changes_only_when_that_is_asked_for(
    mar: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the verb itself; only the measurement is made up."""
    before = PROPERTIES.read_bytes()
    own, faster = tmp_path / "config.properties", {"netty_client_threads": "7"}
    own.write_bytes(before)
    found = Archive.read(mar)
    said_by = Setting.of(found.settings)  # which a test before may have tuned
    as_it_is = dataclasses.replace(trial(1, 1.0, {}), setting=said_by)
    steps = {name: [as_it_is] for name in ("batches", "workers", "server")}
    tuned = tune.Tuned(found, steps, said_by, faster)
    monkeypatch.setattr(tune, "tune", lambda *_, **__: tuned)
    monkeypatch.setattr(tune, "write_properties", partial(tune.write_properties, path=own))
    options = ["tune", "tiny", f"--model_store={mar.parent}", f"--run_dir={tmp_path / 'run'}"]
    assert "netty_client_threads=7 in config.properties would be" in verb(capsys, "serve", *options)
    assert own.read_bytes() == before
    said = verb(capsys, "serve", *options, "--server_wide")
    assert "has netty_client_threads=7 now" in said
    assert "netty_client_threads=7" in own.read_text(encoding="utf-8").splitlines()
    assert PROPERTIES.read_bytes() == before


def test_an_interruption_leaves_no_process_and_the_archive_as_it_was(
    mar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[Path] = []

    def interrupted(target: testbed._Target, clients: int, seconds: float) -> None:
        began.append(target.server.run_dir)
        raise KeyboardInterrupt

    before = {path: path.read_bytes() for path in mar.parent.iterdir()}
    small(monkeypatch)
    monkeypatch.setattr(testbed._Target, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(mar, LATENCY, workers=1, seconds=1)
    (run_dir,) = began
    assert not run_dir.exists()
    assert not launch.leftovers(run_dir)
    assert {path: path.read_bytes() for path in mar.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["x", "--for", "speed"], "unknown aim --for speed"),
        (["x"], r"has no archive x\.mar"),
        ([], "serve tune takes one archive"),
    ],
)
def test_what_cannot_be_tuned_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        verb(capsys, "serve", "tune", *options, "--model_store", tmp_path)
