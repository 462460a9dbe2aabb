"""A model directory becomes an export directory: one format, proven against the original."""

import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model_src.backends import FORMATS, eager, require
from model_src.bundle import EXPORT, METRICS, OWN, Bundle, seal
from model_src.errors import BundleError, ConfigError, RefusedError, nearest
from model_src.files import atomic_dir, read_json
from model_src.predictor import Predictor
from serving.measure import LASTING, measure_sound, problem

# Answered at export and kept with it, so that an archive and a server can prove themselves later;
# they are ours, because data of a user must not travel in an archive.
GOLDEN = (
    "play the next song",
    "A moving, funny and beautifully acted film.",
    "I don't think it's worth the money; the plot is thin and the jokes aren't funny.",
    "no",
    "Will it rain in New York at 7 p.m. tomorrow?",
    "정말 재미있는 영화였어요",
    "zxqv blorptastic !!! @@@",
    "the " * 150 + "end",
)


@dataclass
class Candidate:
    """A format that was tried, and why it cannot be kept, if so."""

    name: str
    predictor: Predictor | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def export(
    model_dir: Path,
    name: str,
    save_path: Path,
    texts: list[str],
    gold: list[str] | None = None,
    *,
    accept: bool = False,
) -> Bundle:
    """Write ``model_dir`` in the format ``name`` to ``save_path``, compared on ``texts``.

    Args:
        model_dir: what to export.
        name: of ``FORMATS``.
        save_path: the export directory to make or to replace.
        texts: the sentences to compare on.
        gold: their labels, several of them joined; without, only the answers are compared.
        accept: keep the export although it breaks a rule of ``measure.problem``.

    Raises:
        ConfigError: for an unknown format.
        BundleError: when ``model_dir`` is no model directory.
        RefusedError: when the export breaks a rule; ``save_path`` is left as it was.
        PackageError: when the format needs a package that is not installed.

    """
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}{nearest(name, FORMATS)}")
    reference = load_source(model_dir, save_path)
    with atomic_dir(save_path, OWN) as folder:
        made = make(reference.bundle, name, folder / name)
        judge(reference, [made], texts, gold)
        if not made.predictor:  # there is nothing that could be accepted
            raise RefusedError(f"{name} {made.problem}")
        if made.problem and not accept:
            raise RefusedError(f"{name} {made.problem}: {advice(gold)}")
        keep(made, reference.bundle, folder)
    return replace(reference.bundle, folder=save_path, kind="export")


def advice(gold: list[str] | None) -> str:
    """Say what to do about a refused export."""
    # the model may be undecided about sentences of ours, and then any change tips a label
    other = "" if gold else "compare on your own data with --data_dir DIR, or "
    return f"{other}keep it all the same with --accept"


def load_source(model_dir: Path, save_path: Path) -> Predictor:
    """Load the model directory; raises BundleError where it is none or the target."""
    source = Bundle.read(model_dir)
    if source.kind != "model":
        raise BundleError(f"{model_dir} is an export already; export needs a model directory")
    if save_path.resolve() == model_dir.resolve():
        raise BundleError(f"{save_path} is the model itself: name another folder for the export")
    return Predictor(source, eager.load(source))


def make(source: Bundle, name: str, folder: Path) -> Candidate:
    """Write the whole export directory ``folder``, without measures, and load it.

    Raises:
        PackageError: when a package or a tool that the format needs is missing.
        RefusedError: when one is there and does not work.

    """
    require(name, to_export=True)
    entry = FORMATS[name]
    folder.mkdir()
    source.write_common(folder)
    exported = replace(source, folder=folder, kind="export")
    try:
        entry.export(eager.load(source), folder / entry.file)
        began = time.perf_counter()
        predictor = Predictor.of(exported, name)
        load_ms = round((time.perf_counter() - began) * 1000, 1)
    except (ImportError, RuntimeError) as reason:  # of a package, of a compiler
        said = str(reason).partition("\n")[0] or type(reason).__name__
        raise RefusedError(f"the format {name} cannot be made on this machine: {said}") from reason
    golden = [
        {"text": text, "scores": prediction.scores}
        for text, prediction in zip(GOLDEN, predictor.predict(list(GOLDEN)), strict=True)
    ]
    record = {"format": name, "source": source.fingerprint, "golden": golden}
    _write(folder, record, entry.file)
    size_mb = round((folder / entry.file).stat().st_size / 1e6, 2)
    return Candidate(name, predictor, {"size_mb": size_mb, "load_ms": load_ms})


def _write(folder: Path, record: dict[str, Any], file: str) -> None:
    """Write ``export.json`` and the manifest over it and the format's ``file``."""
    text = json.dumps(record, ensure_ascii=False, indent=2)
    (folder / EXPORT).write_text(text + "\n", encoding="utf-8")
    seal(folder, "export", (EXPORT, file))


def judge(
    reference: Predictor, made: list[Candidate], texts: list[str], gold: list[str] | None
) -> None:
    """Measure what was made, all of it in one run, and note which rule it breaks.

    One that does not answer every text keeps no predictor and no measures, only that problem.
    """
    loaded = {each.name: each.predictor for each in made if each.predictor}
    found, failed = measure_sound(reference, loaded, texts, gold)
    for each in made:
        if each.name in failed:
            each.predictor, each.measured = None, {}
            each.problem = f"does not answer this data: {failed[each.name]}"
        if each.name in found:
            each.measured = found[each.name] | each.measured
            each.problem = problem(each.measured, exact=FORMATS[each.name].exact)


def keep(chosen: Candidate, source: Bundle, folder: Path) -> None:
    """Make the candidate's folder inside ``folder`` the whole of ``folder``."""
    for path in sorted((folder / chosen.name).iterdir()):
        path.rename(folder / path.name)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    accepted = {"accepted": chosen.problem} if chosen.problem else {}
    # The archive tells what lasts; times differ from run to run, and equal exports must make equal
    # archives.
    record = read_json(folder / EXPORT, BundleError)
    lasting = {key: chosen.measured[key] for key in LASTING if key in chosen.measured}
    record["measured"] = lasting | accepted
    _write(folder, record, FORMATS[chosen.name].file)
    known = source.metrics | {"export": chosen.measured | accepted}
    (folder / METRICS).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
