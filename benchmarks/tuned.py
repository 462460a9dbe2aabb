"""What ``serve tune`` has tried, as JSON and as a table beside the archive."""

from pathlib import Path

from benchmarks import machine, results
from serving.trials import BUSY, CLIENTS, Aim, Trial, unsteadiness
from serving.tune import Tuned


def write(found: Tuned, aim: Aim, command: str) -> Path:
    """Write ``NAME.tune.json`` and ``NAME.tune.md``; return the latter."""
    path = found.archive.path.with_suffix(".tune.json")
    evidence = {
        "command": command,
        "machine": machine.describe(),
        "rule": aim.rule,
        "chosen": str(found.setting),
        "before": str(found.own),
        "properties": found.properties,
        "steps": {name: [each.as_dict() for each in own] for name, own in found.steps.items()},
    }
    results.save(path, evidence)
    where = f"`{command}` on {evidence['machine']}."
    return results.report(path, [*table(found), "", *conclusion(found, aim), "", where])


def table(found: Tuned) -> list[str]:
    """Return a row for each trial: what was set, and what clients have met."""
    heads = ["step", "workers", "threads", "batch", "server"]
    for clients in CLIENTS:
        heads += [f"requests/s at {clients}", "p50 ms", "p99 ms"]
    return results.table(
        heads, (_row(name, each) for name, own in found.steps.items() for each in own)
    )


def conclusion(found: Tuned, aim: Aim) -> list[str]:
    """Return the rule of choice and what it has chosen, beside what the archive has said."""
    tried = found.steps["workers"]  # which holds both, asked in turns
    before, after = tried[0], next(each for each in tried if each.setting == found.setting)
    spread = unsteadiness(tried, aim)
    own = "as it was" if found.setting == found.own else f"before: {found.own}"
    busy = f"Rounds differ by {spread:.0%}: tune again when the machine does less."
    return [
        *([busy] if spread > BUSY else []),
        f"Rule: {aim.rule}.",
        f"Chosen: {found.setting}, {_said(after, aim)} ({own}, {_said(before, aim)}).",
    ]


def _said(trial: Trial, aim: Aim) -> str:
    rate, ms = trial.rate(aim.clients), trial.ms(1)
    return f"{rate:.0f} requests/s at {aim.clients} clients and p50 {ms:.2f} ms at 1"


def _row(step: str, trial: Trial) -> list[str]:
    setting = trial.setting
    known = (setting.workers, setting.threads, setting.batch)
    server = " ".join(f"{name}={value}" for name, value in trial.properties.items()) or "as it is"
    row = [step, *map(str, known), f"{server}, {trial.errors} errors" if trial.errors else server]
    for clients in CLIENTS:
        ms = (f"{trial.ms(clients, share):.2f}" for share in (0.5, 0.99))
        row += [f"{trial.rate(clients):.0f}", *ms]
    return row
