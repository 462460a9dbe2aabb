"""The table of what reduced precision costs says of trained models what ``export`` would."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import agreement
from benchmarks.accuracy import Folders, Row
from tests.conftest import read_json
from tests.disturb import Disturb, negated

ROWS = {name: Row(f"Tiny {name}", "glove-cnn") for name in ("first", "second")}
Run = Callable[..., str]


@pytest.fixture
def run(data_dir: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Compare in int8 a model that is trained already."""
    monkeypatch.setattr(agreement, "trained", lambda *_: model)

    def found(*rows: str, forms: tuple[str, ...] = ("int8",)) -> str:
        folders, choice = Folders(tmp_path, tmp_path / "none"), (list(rows), list(forms))
        table = agreement.run(data_dir, folders, ROWS, choice, lambda _: None)
        return table.read_text(encoding="utf-8")

    return found


def test_a_row_is_compared_once_and_shows_accuracy_and_labels(
    run: Run, tmp_path: Path, tried: list[str]
) -> None:
    text = run("first")
    cell = read_json(tmp_path / "agreement-data.json")["cells"]["first"]["int8"]  # type: ignore[index]
    assert f"| Tiny first | {cell['eager']['accuracy']:.2%} | {cell['agreement']:.2%}, " in text
    assert "Tiny second" not in text
    assert run("first") == text
    assert tried == ["int8"]
    assert "| Tiny second |" in run()
    assert tried == ["int8", "int8"]
    path = tmp_path / "agreement-data.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"data": "', '"data": "other '))
    assert "Tiny second" not in run("first")  # other data of the same name
    assert len(tried) == 3


def test_what_export_would_refuse_is_marked(run: Run, disturb: Disturb) -> None:
    disturb("int8", negated)
    line = next(line for line in run("first").splitlines() if "Tiny first" in line)
    assert line.endswith(" refused |")


@pytest.mark.usefixtures("two")
def test_formats_in_fp32_are_not_asked_for(run: Run) -> None:
    assert "| model | accuracy in fp32 | int8 |" in run("first", forms=())
