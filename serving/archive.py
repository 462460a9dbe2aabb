"""An export directory becomes a ``.mar``: equal input gives equal bytes, and it proves itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import yaml
from model_archiver import ModelArchiver
from model_archiver.model_archiver_config import ModelArchiverConfig
from tqdm import tqdm

from model_src import bundle as bundles
from model_src.backends import FORMATS, require
from model_src.bundle import EXPORT, MANIFEST, Bundle
from model_src.classifier import family_of
from model_src.embeddings import EMBEDDINGS
from model_src.errors import BundleError
from model_src.files import atomic_write, read_json
from serving import golden
from serving.store import EPOCH, FIRST, NAME

ROOT = Path(__file__).resolve().parent.parent
# How far the words of an explanation may miss the difference of the logits, a share of it.
GAP = 0.05
_SHIPPED = ("model_src", "handlers")

# What TorchServe reads from the archive. A batch is what waits when a worker is free, so its size
# costs an idle server nothing (``frontend``). A batch delay counts in ns, so that any is none; it
# is in ms with ICLASSIFIER_BATCH_DELAY=ms or another TorchServe, where 0 acts as 100: 1 is the
# least. A worker that takes all that waits leaves the others nothing to do, so that larger batches
# can answer fewer requests: `serve tune` measures which size is best.
# One thread a worker, because a second one gives a short sentence nothing.
MODEL_CONFIG = {
    "minWorkers": 1,
    "maxWorkers": 4,
    "batchSize": 8,
    "maxBatchDelay": 1,
    "responseTimeout": 60,
    "startupTimeout": 120,
    "deviceType": "cpu",
    "handler": {"num_threads": 1, "seconds": 40, "buffered_socket": True},
}


def archive(
    export_dir: Path,
    model_name: str,
    model_store: Path,
    model_version: str = FIRST,
    *,
    explain: Path | None = None,
) -> Path:
    """Pack ``export_dir`` with its code as ``model_store/model_name.mar`` and check the result.

    It is named ``model_name@model_version.mar`` where the version is not the first one.

    Args:
        export_dir: what to serve.
        model_name: to serve it under.
        model_store: the folder of archives.
        model_version: to serve it under.
        explain: the model directory it was made from, to be packed for explanations.

    Raises:
        BundleError: when it is no export directory, or the packed handler answers otherwise than
            the export did, or ``explain`` is another model.
        PackageError: when its format needs a package that is not installed.

    """
    bundle = Bundle.read(export_dir)
    if bundle.kind != "export":
        raise BundleError(f"{export_dir} is no export; make one with ./iclassifier export")
    record = read_json(export_dir / EXPORT, BundleError)
    form = record.get("format")
    if form in FORMATS:
        require(form)
    if explain:
        refuse_other(explain, record, export_dir)
    for what, value in (("name", model_name), ("version", model_version)):
        if not NAME.fullmatch(value):
            raise BundleError(
                f"the {what} {value!r} may hold a-z, A-Z, 0-9, - _ and . only: give --model_{what}"
            )
    file = model_name if model_version == FIRST else f"{model_name}@{model_version}"
    target = model_store / f"{file}.mar"
    with (
        tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch,
        tqdm(total=4, desc=f"archive {model_name}", unit=" steps") as bar,
    ):
        packed, reopened = Path(scratch) / "packed.mar", Path(scratch) / "reopened"
        tree = _assemble(bundle, (model_name, model_version), Path(scratch), explain)
        bar.update()
        _zip(tree, packed)
        bar.update()
        with zipfile.ZipFile(packed) as opened:
            opened.extractall(reopened)
        check(reopened, record["golden"])
        bar.update()
        atomic_write(target, packed.read_bytes())
        bar.update()
    return target


def refuse_other(model_dir: Path, record: dict[str, object], export_dir: Path) -> None:
    """Raise BundleError unless the export with this ``record`` was made from ``model_dir``."""
    source = Bundle.read(model_dir)
    if source.kind != "model" or source.fingerprint != record.get("source"):
        raise BundleError(
            f"{model_dir} is not the model that {export_dir} was made from: name that one with "
            "--explain, or export again"
        )


def served_name(folder: str) -> str:
    """Return a name to serve a folder's model under: what a URL cannot hold becomes a dash."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder).strip("-_.")
    return re.sub(r"\.\.+", ".", plain) or "model"


def holds(mar: Path, export_dir: Path) -> bool:
    """Tell whether ``mar`` was made from ``export_dir`` and the code as they are now."""
    if not zipfile.is_zipfile(mar):
        return False
    sources = _code(Bundle.read(export_dir)) | {f"model/{MANIFEST}": export_dir / MANIFEST}
    try:
        with zipfile.ZipFile(mar) as packed:
            names = set(packed.namelist())
            return all(
                name in names and packed.read(name) == path.read_bytes()
                for name, path in sources.items()
            )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False  # a damaged one is made again


def check(tree: Path, expected: list[dict[str, Any]]) -> None:
    """Ask the packed handler in a clean process and compare with the golden answers."""
    script = Path(__file__).with_name("selfcheck.py")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", str(script), str(tree)],
        input=json.dumps([item["text"] for item in expected]),
        capture_output=True,
        text=True,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    if done.returncode:
        raise BundleError(f"the packed handler does not work:\n{done.stderr.strip()}")
    said = json.loads(done.stdout)
    if (tree / "explain").is_dir() and not said["explanation"].get("gap", 1) <= GAP:
        raise BundleError(f"the packed handler cannot explain: {said['explanation']}")
    if problem := golden.problem(expected, said["answers"]):
        raise BundleError(f"the packed handler {problem}")


def _code(bundle: Bundle) -> dict[str, Path]:
    """Map names in the archive to our files: both packages, the one handler at the root."""
    entry_points = {ROOT / "handlers" / f"{family.handler}.py" for family in EMBEDDINGS.values()}
    files = (path for name in _SHIPPED for path in (ROOT / name).rglob("*.py"))
    code = {str(path.relative_to(ROOT)): path for path in files if path not in entry_points}
    handler = f"{family_of(bundle.config).handler}.py"
    return code | {handler: ROOT / "handlers" / handler}


def _assemble(bundle: Bundle, named: tuple[str, str], scratch: Path, explain: Path | None) -> Path:
    """Let torch-model-archiver lay out the archive as a folder, with a manifest free of times."""
    model_name, version = named
    extra = scratch / "extra"
    handler = f"{family_of(bundle.config).handler}.py"
    for name, path in _code(bundle).items():
        if name != handler:
            (extra / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, extra / name)
    # Only what loading needs: predictions and measures beside it may hold a user's sentences.
    folders = {"model": bundle.folder} | ({"explain": explain} if explain else {})
    for place, folder in folders.items():
        (extra / place).mkdir()
        for name in (MANIFEST, *bundles.check(folder)["files"]):
            shutil.copyfile(folder / name, extra / place / name)
    settings = scratch / "model-config.yaml"
    settings.write_text(yaml.safe_dump(MODEL_CONFIG, sort_keys=False), encoding="utf-8")
    (scratch / "out").mkdir()
    (scratch / "tmp").mkdir()
    previous = tempfile.tempdir
    tempfile.tempdir = str(scratch / "tmp")  # the archiver deletes TMPDIR/<model name> first
    try:
        ModelArchiver.generate_model_archive(
            ModelArchiverConfig(
                model_name=model_name,
                handler=str(ROOT / "handlers" / handler),
                version=version,
                extra_files=str(extra),
                export_path=str(scratch / "out"),
                config_file=str(settings),
                archive_format="no-archive",
            )
        )
    finally:
        tempfile.tempdir = previous
    tree = scratch / "out" / model_name
    manifest = tree / "MAR-INF" / "MANIFEST.json"
    content = read_json(manifest, BundleError)
    content.pop("createdOn", None)
    manifest.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return tree


def _zip(tree: Path, target: Path) -> None:
    """Store the files in order of name with a fixed time: weights hardly compress anyway."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(str(path.relative_to(tree)), EPOCH)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes())
