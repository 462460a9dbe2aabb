"""A bundle is written whole or not at all, and a damaged one is refused with a clear sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_src.backends import FORMATS
from model_src.bundle import MANIFEST, OWN, WEIGHTS, Bundle
from model_src.errors import BundleError, UserError
from model_src.files import atomic_dir, atomic_write
from model_src.predictor import Predictor
from tests.conftest import SERVED, Models

EVERY = ["model", *SERVED]


@pytest.fixture
def copy(tmp_path: Path, tiny: Models) -> Callable[[str], Path]:
    """Make a copy of a bundle that a test may damage."""

    def make(name: str) -> Path:
        source = tiny.models["bert", "cls"] if name == "model" else tiny.exports[name]
        return Path(shutil.copytree(source, tmp_path / "bundle"))

    return make


def files(folder: Path) -> list[Path]:
    return [folder / name for name in json.loads((folder / MANIFEST).read_bytes())["files"]]


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_truncated_or_changed_file_is_refused(
    copy: Callable[[str], Path], name: str
) -> None:
    folder = copy(name)
    assert Predictor.load(folder).predict(["great"])
    for path in files(folder):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(BundleError, match=f"lacks its file {path.name}"):
            Predictor.load(folder)
        path.write_bytes(content[:-1])
        with pytest.raises(BundleError, match=f"{path.name} has .* truncated"):
            Predictor.load(folder)
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(BundleError, match=f"{path.name} is damaged"):
            Predictor.load(folder)
        path.write_bytes(content)
    assert Predictor.load(folder).predict(["great"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 99}, "has format version 99, but this program reads version 1"),
        ({"kind": "other"}, "is damaged"),
        ({"files": {}}, "is damaged"),
        ({"files": {"config.json": 3}}, "is damaged"),
    ],
)
def test_a_foreign_manifest_is_refused(
    copy: Callable[[str], Path], change: dict[str, object], said: str
) -> None:
    path = copy("model") / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change), encoding="utf-8")
    with pytest.raises(BundleError, match=said):
        Bundle.read(path.parent)


def test_a_manifest_cannot_name_files_elsewhere(copy: Callable[[str], Path]) -> None:
    path = copy("model") / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["files"]["../secret"] = {"size": 1, "sha256": ""}
    (path.parent.parent / "secret").write_text("x", encoding="utf-8")
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=r"lacks its file \.\./secret"):
        Bundle.read(path.parent)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no model or export directory"):
        Bundle.read(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=f"it has no {MANIFEST}; make it again"):
        Bundle.read(tmp_path)


def test_no_format_needs_pickle(tiny: Models) -> None:
    """A pickle begins with its protocol; TorchScript is a zip with pickles that torch restricts."""
    kinds = {".safetensors", ".onnx", ".pt", ".pt2"}
    for folder in (*tiny.models.values(), *tiny.exports.values()):
        for path in files(folder):
            assert path.suffix in {".json", *kinds}
            assert path.suffix != ".pt" or path.name == "model.pt"
            content = path.read_bytes()
            if path.suffix == ".safetensors":  # the size of a header, of any bytes, then JSON
                content = content[8:]
            assert not content.startswith(b"\x80")
    assert WEIGHTS.endswith(".safetensors")
    assert {Path(entry.file).suffix for entry in FORMATS.values()} == kinds


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with atomic_dir(target, ("[a-c]",)) as scratch:
        (scratch / "a").write_text("1", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), atomic_dir(target, ("[a-c]",)) as scratch:
        (scratch / "b").write_text("2", encoding="utf-8")
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["a"]
    with atomic_dir(target, ("[a-c]",)) as scratch:
        (scratch / "c").write_text("3", encoding="utf-8")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".made.partial-999999999").mkdir()
    (tmp_path / ".other.partial-999999999").mkdir()
    with atomic_dir(tmp_path / "made", ()):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.partial-999999999", "made"]


def test_a_folder_moved_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".made.partial-999999999-old").mkdir()
    with pytest.raises(KeyboardInterrupt), atomic_dir(tmp_path / "made", ()):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_second_interruption_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roll-back itself fails: what was moved aside must stay for the next call to find."""
    target = tmp_path / "made"
    (target / "a").mkdir(parents=True)

    def broken(self: Path, to: Path) -> None:
        if self.name.endswith("-old") or to == target:
            raise KeyboardInterrupt
        self.replace(to)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(KeyboardInterrupt), atomic_dir(target, ("a",)):
        pass
    monkeypatch.undo()
    with pytest.raises(BundleError, match="it has no manifest"):  # back in place, no bundle
        Bundle.read(target)
    assert [path.name for path in target.iterdir()] == ["a"]


@pytest.mark.parametrize("make", ["file", "folder"])
def test_what_this_program_did_not_make_is_not_replaced(tmp_path: Path, make: str) -> None:
    target = tmp_path / "mine"
    if make == "folder":
        target.mkdir()
    notes = target / "notes.txt" if make == "folder" else target
    notes.write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match=str(target)), atomic_dir(target, OWN):
        pass
    assert notes.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("name", ["config-mine.json", "annotations.json", "tokenizer_config.json"])
def test_json_of_others_is_not_replaced(tmp_path: Path, name: str) -> None:
    """A folder of configs, or a checkpoint, may be named as target by mistake."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).touch()
    with pytest.raises(UserError, match=name), atomic_dir(tmp_path / "mine", OWN):
        pass


def test_the_folder_one_works_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for name in (".", ".."):
        with pytest.raises(UserError, match="where you are"), atomic_dir(Path(name), OWN):
            pass


def test_what_a_killed_process_left_of_a_file_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".metrics.json.partial-77").touch()
    with atomic_dir(tmp_path / "model", OWN):
        pass


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    atomic_write(tmp_path / "deep" / "a", "text")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
