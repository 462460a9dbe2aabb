"""The two contracts on disk: the model directory and the export directory.

A bundle is a folder whose ``manifest.json`` names its kind, its version and every file that is
needed to load it, with size and SHA-256:

    config.json          the typed configuration                              both
    labels.json          {"labels": [...]}, in the order of the logits        both
    shape.json           what the embedding is built from                     both
    tokenizer.json       words (GloVe) or Hugging Face subwords               both
    weights.safetensors  the state dict of the classifier                     model
    export.json          format, source, golden answers, agreement measured   export
    model.*              the one serialized format                            export

``metrics.json`` lies beside them and says what training and evaluation measured; it may be
rewritten at any time, so the manifest does not cover it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from model_src.config import Config
from model_src.errors import BundleError
from model_src.files import atomic_write, read_json, sha256, sweep

if TYPE_CHECKING:
    from model_src.tokenizer import Tokenizer

VERSION = 1
MANIFEST, METRICS, WEIGHTS, EXPORT = (
    "manifest.json",
    "metrics.json",
    "weights.safetensors",
    "export.json",
)
_COMMON = ("config.json", "labels.json", "shape.json", "tokenizer.json")
# The names a bundle may hold; a folder with any other is not replaced.
OWN = (*_COMMON, MANIFEST, METRICS, WEIGHTS, EXPORT, "model.*", "*.pred.tsv")


@dataclass(frozen=True)
class Bundle:
    """What both kinds of folder hold in memory, without any weights."""

    folder: Path
    kind: str
    config: Config
    labels: list[str]
    shape: dict[str, Any]
    tokenizer: "Tokenizer"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Check every file against the manifest and load all but the weights.

        Raises:
            BundleError: when a file is missing, damaged or from another version.

        """
        kind = check(folder)["kind"]
        from model_src.classifier import family_of  # torch, which no refusal has to wait for

        config = Config.load(folder / "config.json")
        return cls(
            folder,
            kind,
            config,
            read_json(folder / "labels.json", BundleError)["labels"],
            read_json(folder / "shape.json", BundleError),
            family_of(config).tokenizer.load(folder),
        )

    def write_common(self, folder: Path) -> None:
        """Write the files that both kinds share into ``folder``."""
        (folder / "config.json").write_text(self.config.to_json(), encoding="utf-8")
        labels = json.dumps({"labels": self.labels}, ensure_ascii=False, indent=2)
        (folder / "labels.json").write_text(labels + "\n", encoding="utf-8")
        (folder / "shape.json").write_text(
            json.dumps(self.shape, indent=2) + "\n", encoding="utf-8"
        )
        self.tokenizer.save(folder)

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured about it so far; empty when nothing was."""
        path = self.folder / METRICS
        return read_json(path, BundleError) if path.exists() else {}

    def add_metrics(self, **measured: object) -> None:
        """Merge ``measured`` into ``metrics.json``."""
        text = json.dumps(self.metrics | measured, indent=2) + "\n"
        atomic_write(self.folder / METRICS, text)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the manifest, and so of everything the bundle is made of."""
        return sha256(self.folder / MANIFEST)


def seal(folder: Path, kind: str, extra: tuple[str, ...]) -> None:
    """Write the manifest over the common files and ``extra``: the last step of making a bundle."""
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in (*_COMMON, *extra)
    }
    manifest = {"kind": kind, "version": VERSION, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def check(folder: Path) -> dict[str, Any]:
    """Return the manifest of ``folder`` after holding every file against it.

    Raises:
        BundleError: when a file is missing, damaged or from another version.

    """
    manifest = manifest_of(folder)
    for name, entry in manifest["files"].items():
        path, size = folder / name, entry["size"]
        if Path(name).name != name or not path.is_file():
            raise BundleError(f"{folder} lacks its file {name}: make the directory again")
        if path.stat().st_size != size:
            raise BundleError(
                f"{path} has {path.stat().st_size} bytes instead of {size}: it is truncated or "
                "changed; make the directory again"
            )
        if sha256(path) != entry["sha256"]:
            raise BundleError(f"{path} is damaged (wrong checksum): make the directory again")
    return manifest


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of ``folder``; that takes no time, for nothing else is read.

    Raises:
        BundleError: when there is none, or it is damaged or from another version.

    """
    sweep(folder.resolve())  # a writer killed between its last two steps left the old one aside
    if not folder.is_dir():
        raise BundleError(f"there is no model or export directory {folder}")
    if not (folder / MANIFEST).exists():
        raise BundleError(f"{folder} is no whole bundle: it has no {MANIFEST}; make it again")
    manifest = read_json(folder / MANIFEST, BundleError)
    if manifest.get("version") != VERSION:
        found = manifest.get("version")
        raise BundleError(
            f"{folder} has format version {found}, but this program reads version {VERSION}: "
            "train or export it again"
        )
    try:
        expected = {name: (e["size"], e["sha256"]) for name, e in manifest["files"].items()}
        complete = manifest["kind"] in {"model", "export"} and set(_COMMON) <= set(expected)
    except (AttributeError, KeyError, TypeError):
        complete = False
    if not complete:
        raise BundleError(f"{folder / MANIFEST} is damaged: make the directory again")
    return manifest
