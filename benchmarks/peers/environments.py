"""Each peer's packages in an environment of its own, beside torch and all else of the project."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from model_src.errors import PackageError

_LISTS = Path(__file__).resolve().parent
_MARK = ".installed"


def requirements(name: str) -> dict[str, str]:
    """Return the packages of a peer and their exact versions."""
    lines = (_LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def is_ready(name: str, home: Path) -> bool:
    """Tell whether the environment in ``home`` is finished and of the list as it is now."""
    mark = home / name / _MARK
    return mark.is_file() and mark.read_text(encoding="utf-8") == _wanted(name)


def ready(name: str, home: Path) -> Path:
    """Return the Python of the peer's environment; an unfinished or older one is made again.

    Raises:
        PackageError: when its packages cannot be installed.

    """
    folder = home / name
    python = folder / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with (home / f".{name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready(name, home):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False)
        # After its own packages those of the project: torch is neither fetched nor copied.
        site = sysconfig.get_path("purelib", vars={"base": str(folder)})
        Path(site, "project.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        options = ["--quiet", "--no-deps", "--disable-pip-version-check"]
        done = subprocess.run(  # noqa: S603
            [*pip, *options, "-r", str(_LISTS / f"{name}.txt")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            said = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise PackageError(f"the packages of {name} cannot be installed:\n{said}")
        (folder / _MARK).write_text(_wanted(name), encoding="utf-8")
    return python


def _wanted(name: str) -> str:
    parts = ((_LISTS / f"{name}.txt").read_text(encoding="utf-8"), sys.version, sys.prefix)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
