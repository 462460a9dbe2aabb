"""What the chaos verb judges by: malformed requests of every kind, and the fit of a leak."""

import contextlib
import json
import math
import random
import zipfile
import zlib
from pathlib import Path

import pytest

from chaos import soak
from chaos.damaged import DAMAGED, WEIGHTS
from chaos.fit import Fit, fit
from chaos.malformed import logged
from chaos.naughty import HALVES, STRINGS
from chaos.payload import MARKER, Payload
from chaos.payloads import PAYLOADS
from model_src.errors import ServerError
from model_src.text import text_problem
from serving.store import Archive


@pytest.fixture(scope="module")
def payloads() -> dict[str, list[Payload]]:
    """All of them by kind."""
    return {name: [*make()] for name, make in PAYLOADS.items()}


def test_there_are_more_than_300_different_malformed_requests(
    payloads: dict[str, list[Payload]],
) -> None:
    refused = [each for made in payloads.values() for each in made if not each.texts]
    different = {
        (each.body, each.kind, each.path, each.method, each.key, *each.headers) for each in refused
    }
    assert len(different) > 500
    assert all(each.statuses for each in refused)


def test_every_kind_refuses_something_and_is_the_same_each_time(
    payloads: dict[str, list[Payload]],
) -> None:
    for name, made in payloads.items():
        assert any(not each.texts for each in made), name
        assert made == [*PAYLOADS[name]()], name


def _holds(body: bytes, sign: bytes) -> bool:
    """Tell whether ``sign`` is in a body, plain, packed or in a wide encoding."""
    with contextlib.suppress(zlib.error):
        body += zlib.decompressobj(wbits=47).decompress(body)
    return sign in body.replace(b"\0", b"")


def test_refused_requests_hold_the_marker_that_is_looked_for_in_logs(
    payloads: dict[str, list[Payload]],
) -> None:
    sign = MARKER.encode()
    held = {
        name: sum(_holds(each.body, sign) for each in made if not each.texts)
        for name, made in payloads.items()
    }
    # of nothing, and of naughty sentences that are looked for themselves
    assert [name for name, count in held.items() if not count] == ["empty"]
    assert sum(held.values()) > 350
    accepted = (text for made in payloads.values() for each in made for text in each.texts)
    assert not any(MARKER in text for text in accepted if text)


def test_a_log_that_quotes_is_found(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("all is well\n", encoding="utf-8")
    (tmp_path / "workers.log").write_bytes(b"\xff cannot read: a secret word\n")
    assert [*logged(tmp_path, "a key", ["secret word"])] == ["workers.log quotes a key"]
    assert not [*logged(tmp_path, "a key", ["other"])]


def test_no_5xx_is_expected(payloads: dict[str, list[Payload]]) -> None:
    for name, made in payloads.items():
        assert not [each.name for each in made if max(each.statuses) >= 500], name


def test_naughty_sentences_hold_what_they_promise() -> None:
    whole = "".join(STRINGS)
    for sign in ("\x00", "\ufeff", "\u202e", "\u200d", "\x1b", "👩", "🇳", "שלום", "\u2028"):
        assert sign in whole
    assert "x" * 1_000_000 in STRINGS
    assert len({*STRINGS}) == len(STRINGS)
    assert sum(text_problem(text) is None for text in STRINGS) > 60
    assert all(text_problem(json.loads(json.dumps(text))) for text in HALVES)


def _memory(generator: random.Random, leak: float, noise: float = 0.1) -> list[float]:
    """Return 600 samples of 15 minutes, MB: a leak of so much an hour beside noise and steps."""
    step = 0.0
    values = []
    for i in range(600):
        step += generator.choice([0.0] * 99 + [0.05]) - 0.0005
        values.append(300 + leak * i / 2400 + step + generator.gauss(0, noise))
    return values


TIMES = [i / 2400 for i in range(600)]


def test_a_leak_is_seen_by_the_fit_and_memory_that_only_wavers_is_not() -> None:
    generator = random.Random(0)
    for _ in range(20):
        assert fit(TIMES, _memory(generator, 0.0)).least <= 1
        leak = fit(TIMES, _memory(generator, 20.0))
        assert leak.least > 1
        assert abs(leak.slope - 20) < 5


def test_one_step_of_memory_is_not_sure_to_be_a_leak() -> None:
    """Taken as independent, the samples around it would make it one."""
    stepped = [300.0] * 300 + [300.5] * 300
    assert fit(TIMES, stepped).slope > 2
    assert fit(TIMES, stepped).least <= 1


def test_growth_that_is_not_well_known_is_no_steady_memory() -> None:
    assert Fit(0.0, 1.0).steady(1, unsure=2)
    assert Fit(2.0, 1.5).steady(1, unsure=2)
    assert not Fit(4.0, 1.5).steady(1, unsure=2)
    assert not Fit(4.0, 20.0).steady(1, unsure=2)
    assert not fit([0, 1], [1, 1]).steady(1, unsure=1e9)


def test_a_leak_of_the_control_is_modest_and_seen_in_its_minutes() -> None:
    """Half of 20 minutes, less a quarter of warm-up; the heap grows 132 KB at a time."""
    size, every = soak._LEAK
    hourly = (soak._RATE + soak._WRONG) / 2 * 3600 * size / every / 2**20
    assert 20 < hourly < 50
    generator = random.Random(0)
    times = TIMES[: round(600 * soak._SHARE)]
    values = [300 + hourly * at // 0.129 * 0.129 + generator.gauss(0, 0.1) for at in times]
    found = fit(times, values)
    assert found.least > soak._MOST[0]
    assert not found.steady(*soak._MOST)


def test_a_fit_knows_what_it_cannot_know() -> None:
    assert fit([], []).error == math.inf
    assert fit([0, 1], [1, 2]).error == math.inf
    assert fit([0, 0, 0], [1, 2, 3]).error == math.inf
    assert fit([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx((2, 0))
    assert fit([0, 1, 2, 3], [5, 5, 5, 5]) == (0, 0)


def test_the_interval_of_a_fit_holds_the_true_slope_as_often_as_it_says() -> None:
    generator = random.Random(0)
    hits = 0
    for _ in range(400):
        found = fit(range(30), [2 * i + generator.gauss(0, 1) for i in range(30)])
        hits += abs(found.slope - 2) <= found.error
    assert 0.92 <= hits / 400 <= 0.99


# --- damaged archives


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest file that counts as an archive."""
    path = tmp_path_factory.mktemp("mar") / "good.mar"
    model = {"modelName": "good", "modelVersion": "1.0", "handler": "glove.py"}
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("model/", "")
        packed.writestr(WEIGHTS, bytes(1000))
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
    return path


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_archive_is_refused_before_anything_starts(
    mar: Path, tmp_path: Path, name: str
) -> None:
    assert Archive.read(mar).name == "good"
    DAMAGED[name](mar, tmp_path / "bad.mar")
    with pytest.raises(ServerError, match=r"bad\.mar is damaged"):
        Archive.read(tmp_path / "bad.mar")


def test_an_archive_with_two_files_of_one_name_is_refused(mar: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mar"
    bad.write_bytes(mar.read_bytes())
    with zipfile.ZipFile(bad, "a") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        packed.writestr(WEIGHTS, b"other")
    with pytest.raises(ServerError, match="is damaged"):
        Archive.read(bad)


@pytest.mark.parametrize(
    "settings",
    [
        *("minWorkers: x", "minWorkers: null", "minWorkers: .inf", "maxWorkers: [1]"),
        *("handler: 5", "handler: glove", "handler: {num_threads: many}", "[1"),
    ],
)
def test_an_archive_whose_settings_are_no_numbers_is_refused(tmp_path: Path, settings: str) -> None:
    bad = tmp_path / "bad.mar"
    model = {"modelName": "bad", "modelVersion": "1.0", "configFile": "model-config.yaml"}
    with zipfile.ZipFile(bad, "w") as packed:
        packed.writestr("model-config.yaml", settings)
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
    with pytest.raises(ServerError, match=r"bad\.mar is damaged"):
        Archive.read(bad).admit(tmp_path / "store", version="1.0", default=True)
