"""What a number was measured on."""

import contextlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def describe() -> str:
    """Return processor, cores, memory and versions in one line."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in cpu if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    wide = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in names.get("flags", "")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{os.cpu_count()} cores {names.get('model name', platform.processor())}",
        *_generation(names),
        *wide,
        f"{gigabytes:.0f} GiB",
        f"torch {torch.__version__}",
        f"Python {platform.python_version()}",
    ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _generation(names: dict[str, str]) -> list[str]:
    """Return what tells processors of one name apart: virtual ones all have the same."""
    known = [f"{key} {names[key]}" for key in ("cpu family", "model") if key in names]
    return [" ".join(known)] if known else []


def one_thread() -> None:
    """Let models and tokenizers use one thread, as a served worker does."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of ``packages`` that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
