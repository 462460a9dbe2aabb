"""The Markdown of what ``benchmark formats`` found: a table for each measure."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.untrained import Entry
from model_src.backends import FORMATS
from serving.measure import BATCH, LENGTHS


class Measure(NamedTuple):
    """One table: how a cell gives its number and how it is written."""

    title: str
    of: Callable[[dict[str, Any]], float]
    way: str
    eager: bool = True


def latency(nth: int) -> Callable[[dict[str, Any]], float]:
    """Return how to find the ms of the ``nth`` of the lengths."""
    return lambda found: list(found["latency_ms"].values())[nth]


def rate(found: dict[str, Any]) -> float:
    """Return sentences a second in batches."""
    return float(found["sentences_per_second"])


MEASURES = (
    *(
        Measure(f"ms at {n} tokens, ids to logits", latency(i), ".3g")
        for i, n in enumerate(LENGTHS)
    ),
    Measure(f"Sentences a second in batches of {BATCH}, text to label", rate, ".0f"),
    Measure("Labels as before", lambda found: found["agreement"], ".1%", eager=False),
    Measure("Largest change of a probability", lambda found: found["max_dp"], ".1e", eager=False),
    Measure("MB of the file", lambda found: found["size_mb"], ".1f", eager=False),
    Measure("ms to load", lambda found: found["load_ms"], ".0f", eager=False),
)


_INTRODUCTION = """\
Every model in every format, one thread, each beside the fp32 model (`eager`) as `export` measures.
Only MiniLM has real weights, and all last layers are random: times do not depend on that, but
labels tip that those of a trained model would keep. Compared on {sentences} bundled sentences;
MiniLM's tokenizer splits them for all transformers. `refused`: changed more than fp32 may.
"""


def lines(known: dict[str, Any], entries: dict[str, Entry]) -> Iterator[str]:
    """Yield the lines of the tables of all known cells, in the order of ``entries``."""
    cells = alike(known)
    rows = {entry.title: cells.get(name, {}) for name, entry in entries.items()}
    columns = [form for form in FORMATS if any(form in cells for cells in rows.values())]
    yield _INTRODUCTION.format(sentences=known["sentences"])
    for measure in MEASURES:
        yield f"{measure.title}:"
        yield ""
        heads = ("model", *(["eager"] if measure.eager else []), *columns)
        yield from results.table(
            heads, ([title, *_cells(measure, cells, columns)] for title, cells in rows.items())
        )
        yield ""
    yield f"`{results.FRONT} benchmark formats` on {known['machine']}."


def alike(known: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cells, by model, that belong to the machine and sentences of the heading."""
    same = ("machine", "sentences")
    return {
        name: {
            form: cell
            for form, cell in row.items()
            if all(cell["made_with"][key] == known[key] for key in same)
        }
        for name, row in known["cells"].items()
    }


def _cells(measure: Measure, cells: dict[str, Any], columns: list[str]) -> Iterator[str]:
    """Yield the numbers of a row, each with the word for what is against it."""
    if measure.eager:
        found = [measure.of(cell["eager"]) for cell in cells.values() if "eager" in cell]
        yield format(statistics.median(found), measure.way) if found else ""
    for form in columns:
        cell = cells.get(form, {})
        number = format(measure.of(cell), measure.way) if "eager" in cell else ""
        yield f"{number} {cell.get('against', '').partition(':')[0]}".strip()
