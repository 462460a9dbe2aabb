"""Run faults one after the other, keep what came of each, and write the table."""

import hashlib
import http.client
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import machine, results
from benchmarks.results import ROOT
from chaos.outcome import Outcome
from chaos.scene import Scene
from chaos.table import Fault
from model_src.errors import UserError

FILE = "chaos.json"
# Where the code is that the results speak of.
_JUDGED = ("chaos", "handlers", "model_src", "serving")
_FILES = (
    *("config.properties", "serving/log4j2.xml", "serving/metrics.yaml"),
    "benchmarks/untrained.py",
)
# What a server that is not as it should be makes of a fault's own code; errors of requests are
# OSErrors. Whatever else is raised is our bug, and ends the run.
_LOST = (OSError, LookupError, ValueError, http.client.HTTPException, subprocess.SubprocessError)

Say = Callable[[str], None]


def code() -> str:
    """Return the SHA-256 of the faults, and of the code and settings that serve."""
    digest = hashlib.sha256()
    scripts = (path for name in _JUDGED for path in (ROOT / name).rglob("*.py"))
    for path in sorted([*scripts, *(ROOT / name for name in _FILES)]):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def run(
    faults: Mapping[str, Fault],
    only: list[str],
    scene: Scene,
    path: Path | None,
    command: str,
    say: Say,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Run faults; return what is known of those asked for, and the names of those that were run.

    Args:
        faults: the whole table.
        only: the faults to run whether they are known or not; if none, all that are not known to be
            survived by this very code, for as many minutes where those count.
        scene: where.
        path: the JSON file to go on from and to write after each fault; None keeps nothing.
        command: as typed, kept with what it found.
        say: told the outcome of each.

    """
    known: dict[str, Any] = results.load(path) if path else {}
    found: dict[str, dict[str, Any]] = known.get("faults", {})
    version = code()
    wanted = only or [
        name
        for name in faults
        if not _known(faults[name], found.get(name, {}), version, scene.minutes)
    ]
    with tqdm(total=len(wanted), desc="chaos", unit=" faults") as bar:
        for name in wanted:
            began = time.monotonic()
            outcome = survive(faults[name], scene)
            found[name] = asdict(outcome) | {
                "seconds": round(time.monotonic() - began, 1),
                "code": version,
                "command": command,
                "minutes": scene.minutes,
                "machine": machine.describe(),
            }
            say(f"{name}: {verdict(found[name])} {shown(outcome.numbers)} {outcome.said}")
            if path:
                results.save(path, {"faults": found})
                results.report(path, markdown(faults, found))
            bar.update()
    return {name: found[name] for name in only or faults}, wanted


def _known(fault: Fault, entry: Mapping[str, Any], version: str, minutes: float) -> bool:
    """Tell whether ``entry`` says that this code has survived ``fault`` for so long."""
    if not entry.get("passed") or entry["code"] != version:
        return False
    return not fault.timed or bool(entry["minutes"] >= minutes)


def survive(fault: Fault, scene: Scene) -> Outcome:
    """Return what came of ``fault``; a server or a command that fails is not survived either."""
    try:
        return fault.run(scene)
    except UserError as reason:
        return Outcome(passed=False, numbers={}, said=str(reason))
    except _LOST as reason:
        said = f"{type(reason).__name__}: {reason}"
        return Outcome(passed=False, numbers={}, said=said)


def verdict(entry: Mapping[str, Any]) -> str:
    """Return the word for it."""
    return "pass" if entry["passed"] else "FAIL"


def shown(numbers: Mapping[str, float | int]) -> str:
    """Return numbers in one line."""
    return ", ".join(f"{name} {value:,}" for name, value in numbers.items())


def table(faults: Mapping[str, Fault], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of all that is ``known``, a line each; other code's results say so."""
    version = code()
    rows = [
        (
            f"`{name}`",
            faults[name].title,
            _one_line(entry["said"]),
            shown(entry["numbers"]),
            f"{entry['seconds']:.0f}",
            f"**{verdict(entry)}**{'' if entry['code'] == version else ' (older code)'}",
        )
        for name, entry in _in_order(faults, known).items()
    ]
    return results.table(("fault", "to survive", "what was done", "numbers", "s", ""), rows)


def markdown(faults: Mapping[str, Fault], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return that table, and where each part of it was found."""
    commands: dict[str, dict[str, None]] = {}
    for entry in _in_order(faults, known).values():
        commands.setdefault(entry["machine"], {})[entry["command"]] = None
    places = [
        line
        for where, typed in commands.items()
        for line in ("", f"On {where}:", "", "```text", *typed, "```")
    ]
    return [
        "What was done to a real server under load, and what became of the requests.",
        "",
        *table(faults, known),
        *places,
    ]


def _in_order(
    faults: Mapping[str, Fault], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    return {name: known[name] for name in faults if name in known}


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
