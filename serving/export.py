"""A model directory becomes an export directory: one format, proven against the original."""

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model_src.backends import FORMATS, eager, require
from model_src.bundle import EXPORT, METRICS, OWN, Bundle, seal
from model_src.decode import Prediction
from model_src.errors import BundleError, ConfigError, nearest
from model_src.files import atomic_dir, atomic_write
from model_src.predictor import Predictor

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


def export(model_dir: Path, name: str, save_path: Path, texts: list[str]) -> Bundle:
    """Write ``model_dir`` in the format ``name`` to ``save_path`` and compare both on ``texts``.

    Raises:
        ConfigError: for an unknown format.
        BundleError: when ``model_dir`` is no model directory.
        PackageError: when the format needs a package that is not installed.

    """
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}{nearest(name, FORMATS)}")
    source = Bundle.read(model_dir)
    if source.kind != "model":
        raise BundleError(f"{model_dir} is an export already; export needs a model directory")
    if save_path.resolve() == model_dir.resolve():
        raise BundleError(f"{save_path} is the model itself: name another folder for the export")
    require(name, to_export=True)
    entry = FORMATS[name]
    with atomic_dir(save_path, OWN) as folder:
        source.write_common(folder)
        entry.export(eager.load(source), folder / entry.file)
        exported = Bundle(folder, "export", *_content(source))
        began = time.perf_counter()
        predictor = Predictor(exported, entry.load(exported, folder / entry.file))
        load_ms = round((time.perf_counter() - began) * 1000, 1)
        original = Predictor(source, eager.load(source))
        answers = [
            _answer(each, texts, desc) for each, desc in ((original, "fp32"), (predictor, name))
        ]
        measured = compare(*answers) | {
            "size_mb": round((folder / entry.file).stat().st_size / 1e6, 2),
            "load_ms": load_ms,
        }
        golden = [
            {"text": text, "scores": prediction.scores}
            for text, prediction in zip(GOLDEN, predictor.predict(list(GOLDEN)), strict=True)
        ]
        record = {"format": name, "source": source.fingerprint, "golden": golden}
        text = json.dumps(record, ensure_ascii=False, indent=2)
        (folder / EXPORT).write_text(text + "\n", encoding="utf-8")
        seal(folder, "export", (EXPORT, entry.file))
        # Not in export.json: times differ from run to run, and equal exports make equal archives.
        known = source.metrics | {"export": measured}
        atomic_write(folder / METRICS, json.dumps(known, indent=2) + "\n")
    return Bundle(save_path, "export", *_content(source))


def compare(reference: list[Prediction], other: list[Prediction]) -> dict[str, Any]:
    """Return the label agreement (0..1) and the largest difference of any probability."""
    pairs = list(zip(reference, other, strict=True))
    differences = [abs(a.scores[label] - b.scores[label]) for a, b in pairs for label in a.scores]
    return {
        "sentences": len(pairs),
        "agreement": round(sum(a.label == b.label for a, b in pairs) / len(pairs), 6),
        "max_dp": float(f"{max(differences):.3g}"),
    }


def _answer(predictor: Predictor, texts: list[str], desc: str) -> list[Prediction]:
    """Predict ``texts`` with a progress bar, a batch of 32 a step."""
    starts = tqdm(range(0, len(texts), 32), desc=f"answer as {desc}", unit=" batches")
    return [answer for i in starts for answer in predictor.predict(texts[i : i + 32])]


def _content(source: Bundle) -> tuple[Any, ...]:
    return source.config, source.labels, source.shape, source.tokenizer
