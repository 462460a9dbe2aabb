"""The big table as a picture: a dot for each model and format."""

import io
from pathlib import Path
from typing import Any

from benchmarks.formats_report import latency, rate
from benchmarks.untrained import Entry
from model_src.files import atomic_write
from serving.measure import BATCH, LENGTHS

_PANELS = (
    (f"ms at {LENGTHS[0]} tokens, ids to logits", latency(0)),
    (f"sentences a second in batches of {BATCH}", rate),
)
_INCHES_A_ROW = 0.3


def draw(path: Path, cells: dict[str, Any], entries: dict[str, Entry]) -> None:
    """Write an SVG of all measured ``cells``, the same for the same cells."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = {name: cells[name] for name in entries if name in cells}
    forms = list(dict.fromkeys(form for row in rows.values() for form in row))
    figure = Figure(figsize=(12, 2 + _INCHES_A_ROW * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for axes, (title, of) in zip(panels, _PANELS, strict=True):
        for form in ("eager", *forms):
            points = [
                (of(cell), height)
                for height, row in enumerate(rows.values())
                for cell in _measured(row, form)
            ]
            axes.plot(*zip(*points, strict=True) if points else ([], []), "o", label=form)
        axes.set(xscale="log", xlabel=title)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(rows)), [entries[name].title for name in rows])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    picture = io.BytesIO()
    with rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    atomic_write(path, picture.getvalue())


def _measured(row: dict[str, Any], form: str) -> list[dict[str, Any]]:
    """Return the one cell of ``form``, if it was measured; eager stands in all of them."""
    if form == "eager":
        return [cell["eager"] for cell in row.values() if "eager" in cell][:1]
    return [row[form]] if "eager" in row.get(form, {}) else []
