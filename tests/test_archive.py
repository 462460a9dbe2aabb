"""An archive is reproducible, complete by itself, and refused when it answers otherwise."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from model_src.bundle import EXPORT, MANIFEST, Bundle, check, seal
from model_src.errors import BundleError, ServerError
from serving import store
from serving.archive import archive, holds
from serving.export import export
from tests.conftest import SERVED, Models

NAME = "glove-cnn-torchscript"


def test_equal_input_gives_equal_bytes(tiny: Models, model_store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.exports[NAME], tmp_path / "export")
    # what evaluating the export leaves beside it stays there: it holds a user's sentences
    (copy / "test.pred.tsv").write_text("a sentence", encoding="utf-8")
    (copy / "metrics.json").write_text('{"seconds": 3.14}', encoding="utf-8")
    again = archive(copy, NAME, tmp_path)
    assert again.read_bytes() == (model_store / f"{NAME}.mar").read_bytes()


@pytest.mark.parametrize("name", SERVED)
def test_an_archive_holds_the_code_once_and_the_export(
    tiny: Models, model_store: Path, name: str
) -> None:
    with zipfile.ZipFile(model_store / f"{name}.mar") as packed:
        names = packed.namelist()
    assert len(names) == len(set(names))
    needed = [MANIFEST, *check(tiny.exports[name])["files"]]
    assert {n for n in names if n.startswith("model/")} == {f"model/{n}" for n in needed}
    assert not [
        n for n in names if n.startswith(("train", "scripts", "tests")) or "__pycache__" in n
    ]


def test_an_archive_knows_its_export_and_code(
    tiny: Models, model_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mar = model_store / f"{NAME}.mar"
    assert holds(mar, tiny.exports[NAME])
    assert not holds(mar, tiny.exports["glove-cnn-int8"])
    assert not holds(tmp_path / "none.mar", tiny.exports[NAME])
    (tmp_path / "broken.mar").write_bytes(mar.read_bytes()[:1000])
    assert not holds(tmp_path / "broken.mar", tiny.exports[NAME])
    changed = tmp_path / "tree"
    for package in ("model_src", "handlers"):
        shutil.copytree(Path(__file__).parent.parent / package, changed / package)
    monkeypatch.setattr("serving.archive.ROOT", changed)
    assert holds(mar, tiny.exports[NAME])
    with (changed / "model_src" / "decode.py").open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    assert not holds(mar, tiny.exports[NAME])


def test_an_export_that_answers_otherwise_is_not_archived(tiny: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.exports[NAME], tmp_path / "export")
    record = json.loads((folder / EXPORT).read_text())
    scores = record["golden"][0]["scores"]
    first, second = scores
    scores[first], scores[second] = scores[first] - 1e-4, scores[second] + 1e-4
    (folder / EXPORT).write_text(json.dumps(record))
    seal(Path(folder), "export", (EXPORT, "model.pt"))
    with pytest.raises(BundleError, match=r"differs from the export by 0\.0001"):
        archive(Path(folder), "x", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_handler_that_fails_is_shown_with_its_traceback(
    tiny: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for package in ("model_src", "handlers"):
        shutil.copytree(Path(__file__).parent.parent / package, tree / package)
    (tree / "handlers" / "base.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.setattr("serving.archive.ROOT", tree)
    with pytest.raises(BundleError, match="No module named 'nowhere_to_be_found'"):
        archive(tiny.exports[NAME], "x", tmp_path / "store")


def test_only_exports_are_archived_and_only_models_exported(tiny: Models, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no export"):
        archive(tiny.models["glove", "cnn"], "x", tmp_path)
    with pytest.raises(BundleError, match="is an export already"):
        export(tiny.exports[NAME], "int8", tmp_path / "x", ["a"])
    with pytest.raises(BundleError, match="is the model itself"):
        export(tiny.models["glove", "cnn"], "int8", tiny.models["glove", "cnn"], ["a"])
    for name in ("../x", "é", "-x", ""):
        with pytest.raises(BundleError, match="may hold a-z"):
            archive(tiny.exports[NAME], name, tmp_path)


def test_an_export_records_what_it_was_made_from_and_measured(tiny: Models) -> None:
    for (family, encoder), folder in tiny.models.items():
        record = json.loads((tiny.exports[f"{family}-{encoder}-int8"] / EXPORT).read_text())
        assert record["source"] == Bundle.read(folder).fingerprint
        measured = Bundle.read(tiny.exports[f"{family}-{encoder}-int8"]).metrics["export"]
        assert measured["agreement"] >= 0.9
        assert measured["size_mb"] > 0


def test_exporting_again_gives_an_equal_archive(
    tiny: Models, model_store: Path, tmp_path: Path, texts: list[str], gold: list[str]
) -> None:
    name = "glove-cnn-int8"
    source = tiny.models["glove", "cnn"]
    again = export(source, "int8", tmp_path / name, texts, gold, accept=True).folder
    mar = archive(again, name, tmp_path)
    assert mar.read_bytes() == (model_store / f"{name}.mar").read_bytes()


def test_an_archive_is_named_by_its_name_its_file_or_its_path(tmp_path: Path) -> None:
    mar = tmp_path / "tiny.mar"
    mar.touch()
    for name in ("tiny", "tiny.mar", str(mar)):
        assert store.find(tmp_path, name) == mar
    with pytest.raises(ServerError, match=r"has no archive tinny\.mar; did you mean 'tiny'"):
        store.find(tmp_path, "tinny.mar")
