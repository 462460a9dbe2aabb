"""The Markdown of what ``benchmark speed`` found."""

from collections.abc import Iterator
from typing import Any

from benchmarks import results
from benchmarks.aims import EAGER, PADDED, Aim
from model_src.backends import FORMATS

_PARTS = ("tokenizing", "tensors", "calling operations", "the floor", "rest of the model")
_Models = list[tuple[Aim, dict[str, Any]]]


def lines(known: dict[str, Any], aims: dict[str, Aim]) -> Iterator[str]:
    """Yield the lines of the report of the known ones of ``aims``."""
    models = [(aim, known["models"][name]) for name, aim in aims.items() if name in known["models"]]
    yield "One thread, text to label, median ms of a sentence; models of one row were timed in turns."
    yield f"`{PADDED}` is the fp32 model padded to `n_ctx`, as the original ran it, `{EAGER}` the same"
    yield "without. The floor is what the weights take to be read or the operations to be done here,"
    yield "whichever is longer, in the best precision."
    yield ""
    yield from _best(models)
    yield ""
    yield "Where the time of the best format goes, in ms and % (calling operations: the time of the"
    yield "same graph with layers of one value):"
    yield ""
    yield from results.table(
        ("model", *_PARTS, "decoding"), (_shares(aim, one) for aim, one in models)
    )
    yield ""
    yield "Every format, ms a sentence:"
    yield ""
    yield from _every(models, "ms")
    yield ""
    yield "In batches of 32 of mixed lengths, ms a sentence:"
    yield ""
    yield from _every(models, "batched_ms")
    yield ""
    yield "Largest change of a probability, and labels as before. Only MiniLM has real weights, all"
    yield "last layers are random, so labels tip that those of a trained model would keep:"
    yield ""
    yield from results.table(
        ("model", *FORMATS), ([aim.entry.title, *_changes(one)] for aim, one in models)
    )
    yield ""
    peaks = ", ".join(f"{rate:.0f} in {name}" for name, rate in known["peaks"].items())
    yield f"One thread of this machine reads {known['bandwidth']:.0f} GB/s from memory (smaller weights"
    yield f"were measured from the caches that hold them) and does 1e9 operations a second: {peaks}."
    yield ""
    machine = models[0][1]["made_with"]["machine"] if models else ""
    yield f"`{known['command']}` on {machine}."


def _best(models: _Models) -> list[str]:
    """Return the table of aims."""
    heads = ("model", "padded ms", "best format", "ms", "times faster", "aim")
    more = ("floor ms", "times the floor", "best at batch 32", "times eager", "aim at 32")
    rows = []
    for aim, one in models:
        ms, batched, floor = one["ms"], one["batched_ms"], min(one["floors_ms"].values())
        best, together = one["best"], one["best_batched"]
        rows.append(
            (
                aim.entry.title,
                f"{ms[PADDED]:.3g}",
                best,
                f"{ms[best]:.3g}",
                f"**{ms[PADDED] / ms[best]:.1f}**",
                f"{aim.alone:g}",
                f"{floor:.2g}",
                f"{ms[best] / floor:.1f}",
                together,
                f"{batched[EAGER] / batched[together]:.1f}",
                f"{aim.batched:g}" if aim.batched else "",
            )
        )
    return results.table((*heads, *more), rows)


def _shares(aim: Aim, one: dict[str, Any]) -> list[str]:
    """Return the row of one model: the parts of an answer."""
    stages, floor = one["stages"], min(one["floors_ms"].values())
    calls = min(one["calls_ms"], stages["model"])
    rest = max(stages["model"] - calls - floor, 0)
    parts = [stages["tokenizing"], stages["tensors"], calls, floor, rest, stages["decoding"]]
    cells = [f"{part:.2g} ({part / sum(parts):.0%})" for part in parts]
    return [f"{aim.entry.title}, {one['best']}", *cells]


def _every(models: _Models, key: str) -> list[str]:
    """Return the table of all formats."""
    names = (PADDED, EAGER, *FORMATS)
    rows = []
    for aim, one in models:
        best = min((n for n in one[key] if n not in one["against"]), key=one[key].__getitem__)
        cells = [_cell(one, name, key) for name in names]
        marked = [f"**{cell}**" if n == best else cell for n, cell in zip(names, cells, strict=True)]
        rows.append([aim.entry.title, *marked])
    return results.table(("model", *names), rows)


def _cell(one: dict[str, Any], name: str, key: str) -> str:
    """Return what was measured, with the word for what is against it."""
    number = f"{one[key][name]:.3g}" if name in one[key] else ""
    word = one["against"].get(name, "").partition(":")[0]
    return f"{number} {word}".strip()


def _changes(one: dict[str, Any]) -> Iterator[str]:
    """Yield the cell of each format."""
    for name in FORMATS:
        found = one["changes"].get(name)
        yield f"{found['max_dp']:.1e} ({found['agreement']:.1%})" if found else ""
