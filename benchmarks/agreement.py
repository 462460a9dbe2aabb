"""What reduced precision costs trained models, judged on ``valid`` as ``export`` judges."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import machine, results
from benchmarks.accuracy import Folders, Row, Say, meant, trained
from benchmarks.contenders import REFUSED, cells
from benchmarks.formats import made_with, same
from benchmarks.formats_report import alike
from model_src.backends import FORMATS, eager, runnable
from model_src.bundle import Bundle
from model_src.predictor import Predictor
from serving.measure import loss, problem
from train import data

_INTRODUCTION = """\
What is lost in reduced precision, on {sentences} sentences of the valid split of {name}: labels
that stay as those of the fp32 model, and the change of accuracy in points. `refused`: `export`
would refuse it; `package`: one is missing; `failed`: it cannot be made or does not answer. The
models are the first seeds of the accuracy table.
"""


def run(
    data_dir: Path,
    folders: Folders,
    rows: dict[str, Row],
    choice: tuple[list[str], list[str]],
    say: Say,
) -> Path:
    """Fill agreement-DATA.json with the cells it lacks; return the Markdown table beside it.

    Args:
        data_dir: the data of the models.
        folders: where the results go and where ``benchmark accuracy`` has left the models; one
            that is not there is trained.
        rows: of the accuracy table.
        choice: rows and formats; where none is named, the rows for these data, or all formats
            that are not exact.
        say: told the command of each training.

    Raises:
        ConfigError: when a training fails.

    """
    names, forms = choice
    forms = forms or [form for form in runnable() if not FORMATS[form].exact]
    loaded, title = data.load(data_dir), data_dir.resolve().name
    texts, gold = [each.text for each in loaded.valid], [each.label for each in loaded.valid]
    path = folders.results / f"agreement-{title}.json"
    known = results.load(path)
    if known.get("data") != loaded.fingerprint:
        known = {"data": loaded.fingerprint}
    known |= {"title": title, "machine": machine.describe(), "sentences": len(texts)}
    for name in tqdm(names or meant(rows, data_dir), desc="models", unit=" models"):
        bundle = Bundle.read(trained(data_dir, folders, rows, name, say))
        rows_known = known.setdefault("cells", {})
        own = rows_known.get(name, {}).items()
        # one accuracy stands for the whole row
        row = {f: cell for f, cell in own if cell["made_with"]["model"] == bundle.fingerprint}
        rows_known[name] = row
        wanted = {form: made_with(bundle.fingerprint, form, texts) for form in forms}
        if not (lacking := [each for each in forms if not same(row.get(each, {}), wanted[each])]):
            continue
        machine.one_thread()
        with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
            reference = Predictor(bundle, eager.load(bundle))
            found = cells(reference, lacking, Path(scratch), texts, gold, _refusal)
        row |= {form: {"made_with": wanted[form]} | found[form] for form in lacking}
        results.save(path, known)
    return results.report(path, _lines(known, rows, results.typed(data_dir)))


def _refusal(form: str, measured: dict[str, Any]) -> str:
    why = problem(measured, exact=FORMATS[form].exact)
    return f"{REFUSED}: {why}" if why else ""


def _lines(known: dict[str, Any], rows: dict[str, Row], source: Path) -> Iterator[str]:
    """Yield the lines of the report."""
    cells_of = alike(known)
    found = {name: cells_of[name] for name in rows if cells_of.get(name)}
    columns = [form for form in FORMATS if any(form in row for row in found.values())]
    yield _INTRODUCTION.format(sentences=known["sentences"], name=known["title"])
    lines = []
    for name, row in found.items():
        accuracy = next((c["eager"]["accuracy"] for c in row.values() if "eager" in c), None)
        own = "" if accuracy is None else f"{accuracy:.2%}"
        lines.append([rows[name].title, own, *(_cell(row.get(form, {})) for form in columns)])
    yield from results.table(("model", "accuracy in fp32", *columns), lines)
    yield ""
    yield f"`{results.FRONT} benchmark agreement --data_dir {source}` on {known['machine']}."


def _cell(cell: dict[str, Any]) -> str:
    """Return agreement, change of accuracy and the word for what is against it."""
    points = loss(cell) if "eager" in cell else None
    number = "" if points is None else f"{cell['agreement']:.2%}, {0 - points:+.2f}"
    return f"{number} {cell.get('against', '').partition(':')[0]}".strip()
