"""The Markdown of what ``benchmark speed`` found."""

from collections.abc import Iterator
from typing import Any

from benchmarks import results
from benchmarks.aims import EAGER, PADDED, Aim
from model_src.backends import FORMATS, runnable

_PARTS = ("tokenizing", "tensors", "calling operations", "the floor", "rest of the model")
_INTRODUCTION = f"""\
One thread, text to label, median ms of a sentence; all formats of a model were timed in turns.
`{PADDED}` is the fp32 model padded to `n_ctx`, as the original ran it, `{EAGER}` the same unpadded.
The floor is the time in which the weights can be read or the operations be done here, the longer
of the two, in the best precision. Last layers are random, so more labels tip than those of a
trained model would; `export` judges that.
"""
_PARTS_NOTE = """\
Where the time of the best format goes, in ms and %. Calling operations is the time of the same
graph with layers of one value; the rest is what its products take beyond the floor, and all others.
Tokenizing in a row has no model in between, which may take the words out of the processor's caches:
"""
_CHANGES_NOTE = """\
Largest change of a probability, and labels as before. Only MiniLM has real weights, and all last
layers are random: labels tip that those of a trained model would keep. `export` judges those.
"""
_Models = list[tuple[Aim, dict[str, Any]]]


def lines(known: dict[str, Any], aims: dict[str, Aim]) -> Iterator[str]:
    """Yield the lines of the report of the known ones of ``aims``."""
    found = known["models"]
    same = ("machine", "sentences", "data")  # those of the heading
    models = [
        (aim, found[name])
        for name, aim in aims.items()
        if name in found and all(found[name]["made_with"][key] == known[key] for key in same)
    ]
    yield _INTRODUCTION
    yield from _best(models)
    yield ""
    yield _PARTS_NOTE
    yield from results.table(
        ("model", *_PARTS, "decoding", "between them", "tokenizing in a row"),
        (_shares(aim, one) for aim, one in models),
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
    yield _CHANGES_NOTE
    yield from results.table(
        ("model", *runnable()), ([aim.entry.title, *_changes(one)] for aim, one in models)
    )
    yield ""
    peaks = ", ".join(f"{rate:.0f} ({name})" for name, rate in known["peaks"].items())
    yield (
        f"One thread reads {known['bandwidth']:.0f} GB/s from memory (weights that fit a cache are "
        f"read faster) and computes {peaks} billion operations a second."
    )
    yield ""
    yield f"`{known['command']}` on {known['machine']}."


def _best(models: _Models) -> list[str]:
    """Return the table of aims."""
    heads = ("model", "tokens", "padded ms", "best format", "ms", "times faster", "aim")
    more = ("labels as before", "best in fp32", "times faster", "floor ms", "times the floor")
    batch = ("best at batch 32", "times eager", "aim at 32")
    rows = []
    for aim, one in models:
        ms, batched, floor = one["ms"], one["batched_ms"], min(one["floors_ms"].values())
        best, together, exact = one["best"], one["best_batched"], _exact(one)
        rows.append(
            (
                aim.entry.title,
                str(one["tokens"]),
                f"{ms[PADDED]:.3g}",
                best,
                f"{ms[best]:.3g}",
                f"**{ms[PADDED] / ms[best]:.1f}**",
                f"{aim.alone:g}",
                f"{one['changes'][best]['agreement']:.1%}",
                exact,
                f"{ms[PADDED] / ms[exact]:.1f}",
                f"{floor:.2g}",
                f"{ms[best] / floor:.1f}",
                together,
                f"{batched[EAGER] / batched[together]:.1f}",
                f"{aim.batched:g}" if aim.batched else "",
            )
        )
    return results.table((*heads, *more, *batch), rows)


def _exact(one: dict[str, Any]) -> str:
    """Return the fastest that computes in fp32 throughout."""
    names = [EAGER, *(name for name, entry in FORMATS.items() if entry.exact)]
    passing = [name for name in names if name in one["ms"] and name not in one["against"]]
    return min(passing, key=one["ms"].__getitem__)


def _shares(aim: Aim, one: dict[str, Any]) -> list[str]:
    """Return the row of one model: the parts of an answer."""
    stages, floor = one["stages"], min(one["floors_ms"].values())
    floor = min(floor, stages["model"])
    calls = min(one["calls_ms"], stages["model"] - floor)
    rest = stages["model"] - floor - calls
    between = max(one["ms"][one["best"]] - sum(stages.values()), 0)
    ends = (stages["decoding"], between)
    parts = [stages["tokenizing"], stages["tensors"], calls, floor, rest, *ends]
    cells = [f"{part:.2g} ({part / sum(parts):.0%})" for part in parts]
    in_a_row = f"{one['in_a_row_ms']:.2g}" if "in_a_row_ms" in one else ""
    return [f"{aim.entry.title}, {one['best']}", *cells, in_a_row]


def _every(models: _Models, key: str) -> list[str]:
    """Return the table of all formats."""
    names = (PADDED, EAGER, *runnable())
    rows = []
    for aim, one in models:
        best = one["best" if key == "ms" else "best_batched"]
        cells = [_cell(one, name, key) for name in names]
        marked = [
            f"**{cell}**" if n == best else cell for n, cell in zip(names, cells, strict=True)
        ]
        rows.append([aim.entry.title, *marked])
    return results.table(("model", *names), rows)


def _cell(one: dict[str, Any], name: str, key: str) -> str:
    """Return what was measured, with the word for what is against it."""
    number = f"{one[key][name]:.3g}" if name in one[key] else ""
    word = one["against"].get(name, "").partition(":")[0]
    return f"{number} {word}".strip()


def _changes(one: dict[str, Any]) -> Iterator[str]:
    """Yield the cell of each format."""
    for name in runnable():
        found = one["changes"].get(name)
        yield f"{found['max_dp']:.1e} ({found['agreement']:.1%})" if found else ""
