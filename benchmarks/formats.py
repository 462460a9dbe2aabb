"""Every model in every format, measured as ``export`` measures: the original's big table."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import formats_report, machine, plot, results, untrained
from benchmarks.contenders import FAILED, cells
from benchmarks.entries import ENTRIES
from benchmarks.untrained import Choice, Entry
from model_src.backends import FORMATS, eager, missing, runnable
from model_src.errors import PackageError
from model_src.predictor import Predictor
from serving.sentences import bundled

_PLOT = "matplotlib"
_LABELS = [f"label {i}" for i in range(7)]


def run(folder: Path, choice: Choice, entries: dict[str, Entry] = ENTRIES) -> Path:
    """Measure the cells that ``folder``/formats.json lacks, in one thread; return the Markdown.

    It is written row by row, since all formats of a model are measured in turns.

    Args:
        folder: of the results; a plot lies beside the table.
        choice: models, formats and how many sentences.
        entries: the whole table.

    Raises:
        PackageError: when the plot could not be drawn.

    """
    if not find_spec(_PLOT):
        raise PackageError(
            f"the plot of benchmark formats needs {_PLOT}, not found here: "
            f".venv/bin/pip install {_PLOT} (exact versions: requirements-extra.txt)"
        )
    machine.one_thread()
    path = folder / "formats.json"
    known = results.load(path)
    rows = known.setdefault("cells", {})
    known["machine"] = machine.describe()
    texts = bundled()[: choice.sentences]
    known["sentences"] = len(texts)
    names = choice.formats or runnable()
    for name in tqdm(choice.entries or entries, desc="models", unit=" models"):
        row = rows.setdefault(name, {})
        wanted = {form: made_with(untrained.digest(entries[name]), form, texts) for form in names}
        lacking = [form for form in names if not same(row.get(form, {}), wanted[form])]
        if not lacking:
            continue
        with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
            bundle = untrained.make(entries[name], Path(scratch) / "model", _LABELS, texts)
            reference = Predictor(bundle, eager.load(bundle))
            found = cells(reference, lacking, Path(scratch), texts)
        row |= {form: {"made_with": wanted[form]} | found[form] for form in lacking}
        results.save(path, known)
    plot.draw(path.with_suffix(".svg"), formats_report.alike(known), entries)
    return results.report(path, formats_report.lines(known, entries))


def made_with(model: str, form: str, texts: list[str]) -> dict[str, Any]:
    """Return all that a cell of the model of that digest depends on."""
    packages = FORMATS[form].needs + FORMATS[form].export_needs
    return {
        "model": model,
        "sentences": len(texts),
        "versions": machine.versions(packages),
        "missing": missing(form, to_export=True),
        "machine": machine.describe(),
        "code": results.code(["model_src", "serving/measure.py"]),
    }


def same(cell: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Say whether the cell need not be measured again; what failed is tried again."""
    failed = cell.get("against", "").startswith(FAILED)
    return cell.get("made_with") == wanted and not failed
