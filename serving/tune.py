"""Workers, threads and batches for one archive, chosen by trying them on a server of its own.

First batches, with few workers; then workers and threads, with the best batches; then the lines of
``config.properties`` that hold for a whole server.
"""

import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from model_src.files import atomic_write
from serving.launch import PROPERTIES
from serving.store import Archive
from serving.testbed import Testbed
from serving.trials import Aim, Setting, Trial, best, gains

# The most requests of a batch, which is what waits when a worker is free (``serving.frontend``).
BATCHES = (1, 4, 8, 16, 32)
# Workers while batches are tried, and the most that are tried without being asked for.
_FEW, _MANY = 2, 16
# TorchServe's own threads, of its front and of its connections to workers; 0 is one a core.
THREADS = ((1, 1), (1, 2), (2, 2), (0, 0))
_NAMES = ("number_of_netty_threads", "netty_client_threads")


@dataclass(frozen=True)
class Tuned:
    """What was tried, step by step, and what is best."""

    archive: Archive
    steps: dict[str, list[Trial]]
    setting: Setting
    # lines of config.properties that gain something
    properties: dict[str, str]

    @property
    def own(self) -> Setting:
        """What the archive said when it was read."""
        return Setting.of(self.archive.settings)

    def save(self) -> None:
        """Write the best setting into the archive."""
        settings = self.setting.into(self.archive.settings)
        replace(self.archive, settings=settings).save(self.archive.path)


def tune(mar: Path, aim: Aim, *, workers: int = 0, seconds: float = 120) -> Tuned:
    """Try settings for the archive ``mar`` and choose; nothing but a scratch folder is written.

    Args:
        mar: the archive.
        aim: what to choose for.
        workers: the most to try; 0 is one a core.
        seconds: for all of it; where servers start slowly it takes longer.

    Raises:
        ServerError: when a server does not start, or every setting meets errors.

    """
    archive = Archive.read(mar)
    own, most = Setting.of(archive.settings), workers or min(_cores(), _MANY)
    few = replace(own, workers=min(most, _FEW), threads=1)
    batches = [replace(few, batch=size) for size in BATCHES]
    with (
        tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch,
        Testbed(archive, Path(scratch), seconds, steps=3) as bed,
    ):
        steps = {"batches": bed.compare([own, *batches])}
        chosen = best(steps["batches"], aim).setting
        layouts = [replace(chosen, workers=w, threads=t) for w, t in _layouts(most)]
        steps["workers"] = bed.compare([own, chosen, *layouts])
        chosen = best(steps["workers"], aim).setting
        steps["server"] = bed.compare_servers(chosen, _properties())
    before, *others = steps["server"]
    better = [each for each in others if gains(before, each, aim)]
    found = max(better, key=lambda each: each.rate(aim.clients)).properties if better else {}
    return Tuned(archive, steps, chosen, found)


def write_properties(properties: dict[str, str], path: Path = PROPERTIES) -> None:
    """Put lines into a config.properties, in the place of those with the same names."""
    text = path.read_text(encoding="utf-8")
    for name, value in properties.items():
        line = f"{name}={value}"
        text, times = re.subn(rf"^{re.escape(name)}=.*$", line, text, flags=re.MULTILINE)
        if not times:
            text = f"{text.rstrip()}\n{line}\n"
    atomic_write(path, text)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _layouts(most: int) -> list[tuple[int, int]]:
    """Return workers and the threads of each: 1, 2, 4 ... workers of one thread, half of two."""
    counts = sorted({*(2**i for i in range(most.bit_length())), most})
    return [*((each, 1) for each in counts), *([(most // 2, 2)] if most > 1 else [])]


def _properties() -> list[dict[str, str]]:
    """Return what config.properties could say of TorchServe's threads and does not say now."""
    known = PROPERTIES.read_text(encoding="utf-8").splitlines()
    pairs = dict.fromkeys(tuple(each or _cores() for each in pair) for pair in THREADS)
    tried = [dict(zip(_NAMES, map(str, pair), strict=True)) for pair in pairs]
    return [each for each in tried if not {f"{k}={v}" for k, v in each.items()} <= set(known)]
