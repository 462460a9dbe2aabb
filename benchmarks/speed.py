"""The speed of an answer, text to label, beside the original's way and the machine's floor."""

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import floor, machine, results, speed_report, turns, untrained
from benchmarks.aims import AIMS, EAGER, PADDED, Aim
from benchmarks.contenders import Padded, attempt, refusal
from benchmarks.untrained import Choice, Entry
from model_src.backends import FORMATS, eager, missing, runnable
from model_src.classifier import Classifier
from model_src.predictor import Predictor
from serving.export import make
from serving.measure import BATCH, compare
from train import data

_ROUNDS = 5
_RUN = 50


def run(data_dir: Path, folder: Path, choice: Choice, aims: dict[str, Aim] = AIMS) -> Path:
    """Measure what ``folder``/speed.json lacks, in one thread; return the Markdown beside it.

    Args:
        data_dir: whose test sentences are answered.
        folder: of the results.
        choice: models, formats and how many sentences.
        aims: the whole table.

    """
    machine.one_thread()
    path = folder / "speed.json"
    loaded, known = data.load(data_dir), results.load(path)
    models: dict[str, Any] = known.setdefault("models", {})
    known["command"] = f"{results.FRONT} benchmark speed --data_dir {results.typed(data_dir)}"
    known |= {"machine": machine.describe(), "sentences": choice.sentences}
    known["data"] = loaded.fingerprint
    formats = choice.formats or runnable()
    rates: dict[str, Any] = {}
    for name in choice.entries or aims:
        entry = aims[name].entry
        made_with = {
            "model": untrained.digest(entry),
            "data": loaded.fingerprint,
            "sentences": choice.sentences,
            "versions": {form: machine.versions(FORMATS[form].needs) for form in formats},
            "missing": {form: missing(form, to_export=True) for form in formats},
            "machine": machine.describe(),
            "code": results.code(["model_src", "benchmarks/turns.py"]),
        }
        if models.get(name, {}).get("made_with") == made_with:
            continue
        rates = rates or {"peaks": floor.peaks(), "bandwidth": floor.bandwidth()}
        with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
            found = _Model(entry, loaded, Path(scratch)).measure(formats, choice.sentences, rates)
        models[name] = {"made_with": made_with} | found
        results.save(path, known | rates)
    return results.report(path, speed_report.lines(known | rates, aims))


class _Model:
    """One model with all its contenders in memory."""

    def __init__(self, entry: Entry, loaded: data.Data, scratch: Path) -> None:
        texts = [each.text for each in loaded.train]
        self.scratch, self.texts = scratch, [each.text for each in loaded.test]
        self.bundle = untrained.make(entry, scratch / "model", loaded.labels, texts)
        self.model = eager.load(self.bundle)

    def measure(self, formats: list[str], sentences: int, rates: dict[str, Any]) -> dict[str, Any]:
        """Return all that is known about the model's speed."""
        bundle, texts = self.bundle, self.texts[:sentences]
        tried = [attempt(bundle, name, self.scratch / name) for name in formats]
        every = {
            PADDED: Predictor(bundle, Padded(self.model, bundle)),
            EAGER: Predictor(bundle, self.model),
        }
        made = {each.name: each.predictor for each in tried if each.predictor}
        every |= made
        answers = {name: predictor.predict(texts) for name, predictor in every.items()}
        changes = {name: compare(answers[EAGER], own) for name, own in answers.items()}
        against = {each.name: each.problem for each in tried if each.problem}
        against |= {name: why for name in made if (why := refusal(name, changes[name]))}
        ms = turns.times({name: _alone(p) for name, p in every.items()}, texts, _ROUNDS, _RUN)
        batched = self._batched(every, texts)
        rivals = [n for n in every if n == EAGER or (n in FORMATS and not FORMATS[n].gpu)]
        passing = [name for name in rivals if name not in against]
        best = min(passing, key=ms.__getitem__)
        encode = bundle.tokenizer.encode_batch
        tokens = int(statistics.median(map(len, encode(texts))))
        return {
            "tokens": tokens,
            "ms": ms,
            "batched_ms": batched,
            "changes": changes,
            "against": against,
            "best": best,
            "best_batched": min(passing, key=batched.__getitem__),
            "stages": turns.stages(every[best], texts, _ROUNDS),
            "in_a_row_ms": turns.times({"": encode}, [[t] for t in texts], _ROUNDS, _RUN)[""],
            "calls_ms": self._calls(best, texts),
            **_floor(self.model, tokens, rates["peaks"]),
        }

    def _batched(self, every: dict[str, Predictor], texts: list[str]) -> dict[str, float]:
        """Return the median ms a sentence in full batches of mixed lengths."""
        starts = range(0, max(len(texts) - BATCH, 0) + 1, BATCH)
        batches = [texts[start : start + BATCH] for start in starts]
        calls = {name: partial(p.predict, batch_size=BATCH) for name, p in every.items()}
        found = turns.times(calls, batches, _ROUNDS, 1)
        return {name: round(ms / len(batches[0]), 4) for name, ms in found.items()}

    def _calls(self, name: str, texts: list[str]) -> float:
        """Return the ms that a model of one value a layer takes: calling operations, no more."""
        twin = untrained.thin(self.bundle, self.scratch / "thin")
        made = make(twin, name, self.scratch / "thin-export") if name != EAGER else None
        predictor = (made and made.predictor) or Predictor(twin, eager.load(twin))
        return turns.stages(predictor, texts, _ROUNDS)["model"]


def _alone(predictor: Predictor) -> Callable[[str], object]:
    return lambda text: predictor.predict([text])


def _floor(model: Classifier, tokens: int, peaks: dict[str, float]) -> dict[str, Any]:
    """Return what a sentence of ``tokens`` needs, and its floor by precision."""
    needed = floor.needs(model, tokens)
    rates = {
        name: floor.bandwidth(needed["weights"] * size) for name, size in floor.PRECISIONS.items()
    }
    return {
        "needs": needed,
        "rates": rates,
        "floors_ms": floor.floors(needed, rates, peaks),
    }
