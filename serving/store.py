"""The archives of one run folder: a copy of each, under the name and version it is served as.

A running server reads nothing but these copies, so that an archive that is made again meanwhile
changes neither what is served nor what a restart after a crash brings back.
"""

import json
import re
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from model_src.errors import ServerError, nearest
from model_src.files import atomic_file

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*")  # TorchServe refuses any ".."
FIRST = "1.0"  # the version of an archive whose maker names none
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: equal input gives equal bytes
_MANIFEST, _GOLDEN = "MAR-INF/MANIFEST.json", "model/export.json"
# What reading a damaged or foreign file may raise: RuntimeError is an encrypted entry's.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    TypeError,
    AttributeError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
    yaml.YAMLError,
)


@dataclass(frozen=True)
class Served:
    """One version of one model, as it is served."""

    name: str
    version: str
    workers: int
    threads: int
    default: bool
    batch_delay: int = 0  # maxBatchDelay; 0 where the archive names none
    form: str = ""  # the format of its export; empty where the archive names none

    @property
    def file(self) -> str:
        """The name of its copy; neither half can hold an @."""
        return f"{self.name}@{self.version}.mar"


@dataclass(frozen=True)
class Archive:
    """What an archive says of itself."""

    path: Path
    name: str
    version: str
    settings: dict[str, Any]
    golden: list[dict[str, Any]]
    form: str = ""

    @classmethod
    def read(cls, mar: Path) -> "Archive":
        """Check the whole file: of a damaged one TorchServe only says that it waits.

        Raises:
            ServerError: when it is damaged or no archive.

        """
        try:
            with zipfile.ZipFile(mar) as packed:
                # A TorchScript file is a zip too, whose end a cut archive may seem to be.
                model = json.loads(packed.read(_MANIFEST))["model"]
                name, version = str(model["modelName"]), str(model["modelVersion"])
                names = packed.namelist()
                inside = all(map(_stays, packed.infolist())) and len({*names}) == len(names)
                found = packed.read(model["configFile"]) if "configFile" in model else b"{}"
                settings = dict(yaml.safe_load(found) or {})
                _numbers(settings)
                record = json.loads(packed.read(_GOLDEN)) if _GOLDEN in names else {}
                golden, form = record.get("golden", []), str(record.get("format", ""))
                whole = inside and packed.testzip() is None
        except _DAMAGE:
            whole = False
        if not whole or not (NAME.fullmatch(name) and NAME.fullmatch(version)):
            raise ServerError(f"{mar} is damaged: make it with archive again")
        return cls(mar, name, version, settings, golden, form)

    def admit(
        self, store: Path, *, version: str, workers: int = 0, threads: int = 0, default: bool
    ) -> Served:
        """Copy it into ``store`` as ``version``; 0 workers or threads are what it says itself."""
        fewest, most, own = _numbers(self.settings)
        workers, threads = workers or fewest, threads or own
        settings = self.settings | {
            "minWorkers": workers,
            "maxWorkers": max(workers, most),
            "handler": dict(self.settings.get("handler") or {}) | {"num_threads": threads},
        }
        delay = self.settings.get("maxBatchDelay")
        milliseconds = delay if isinstance(delay, int) else 0
        served = Served(self.name, version, workers, threads, default, milliseconds, self.form)
        replace(self, version=version, settings=settings).save(store / served.file)
        return served

    def save(self, target: Path) -> None:
        """Write a copy that says what this says: whole, or not at all; it may replace itself."""
        with zipfile.ZipFile(self.path) as packed, atomic_file(target) as scratch:
            manifest = json.loads(packed.read(_MANIFEST))
            manifest["model"]["modelVersion"] = self.version
            config = manifest["model"].setdefault("configFile", "model-config.yaml")
            changed = {
                _MANIFEST: json.dumps(manifest, indent=2, sort_keys=True) + "\n",
                config: yaml.safe_dump(self.settings, sort_keys=False),
            }
            with zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as out:
                for name in dict.fromkeys([*packed.namelist(), *changed]):
                    entry = zipfile.ZipInfo(name, EPOCH)
                    entry.external_attr = 0o644 << 16
                    if name in changed:
                        out.writestr(entry, changed[name])
                        continue
                    with (
                        packed.open(name) as source,
                        out.open(entry, "w", force_zip64=True) as copy,
                    ):
                        shutil.copyfileobj(source, copy)


def _numbers(settings: dict[str, Any]) -> tuple[int, int, int]:
    """Return the fewest and the most workers, 0 where that is left open, and a worker's threads.

    Raises:
        OverflowError, TypeError, ValueError: when one of them is no number or too small, or the
            section of the handler no section.

    """
    handler = dict(settings.get("handler") or {})
    fewest, most = int(settings.get("minWorkers", 1)), int(settings.get("maxWorkers", 0))
    threads, batch = int(handler.get("num_threads", 1)), int(settings.get("batchSize", 1))
    if min(fewest, threads, batch) < 1:
        raise ValueError("without a worker, a thread or a request in a batch nothing is answered")
    return fewest, most, threads


def _stays(entry: zipfile.ZipInfo) -> bool:
    """Tell whether an entry is a file, or a folder, that unpacks below the archive's own folder."""
    name = entry.filename
    above = name.startswith("/") or "\\" in name or ".." in name.split("/")
    return not above and not stat.S_ISLNK(entry.external_attr >> 16)


def find(model_store: Path, name: str) -> Path:
    """Return the archive that a user names: a path, ``NAME.mar`` or ``NAME`` of the store.

    Raises:
        ServerError: when there is none, with the nearest name.

    """
    for path in (Path(name), model_store / name, model_store / f"{name}.mar"):
        if path.suffix == ".mar" and path.is_file():
            return path
    stem, known = name.removesuffix(".mar"), sorted(path.stem for path in model_store.glob("*.mar"))
    hint = nearest(stem, known) if known else "; it holds none"
    raise ServerError(f"{model_store} has no archive {stem}.mar{hint}")


def free_version(wanted: str, taken: list[str]) -> str:
    """Return ``wanted``, or the next whole number where that version is served already."""
    if wanted not in taken:
        return wanted
    numbers = [int(match[0]) for version in taken if (match := re.match(r"\d+", version))]
    return f"{max(numbers, default=0) + 1}.0"


def stub(store: Path, name: str, version: str) -> Served:
    """Write an archive without a model; a version of no workers answers 503 at once."""
    served = Served(name, version, 0, 1, default=False)
    model = {"modelName": name, "modelVersion": version, "handler": "stub.py"}
    with zipfile.ZipFile(store / served.file, "w") as out:
        out.writestr(_MANIFEST, json.dumps({"runtime": "python", "model": model}))
        out.writestr("stub.py", "")
    return served
