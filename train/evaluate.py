"""Predictions on labelled sentences become measures: accuracy, F1, AUROC, time a sentence."""

import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from model_src.decode import Prediction
from model_src.predictor import Predictor
from train.data import Example
from train.measures import auroc, f1


@dataclass(frozen=True)
class Report:
    """What was measured; rates are in 0..1, times in milliseconds.

    A sentence is correct when all of its labels are. The last three are of multi-label models only;
    ``no_auroc`` lists the labels that lack positives or negatives, which the mean leaves out.
    """

    sentences: int
    correct: int
    accuracy: float
    macro_f1: float
    ms_mean: float
    ms_median: float
    labels: dict[str, dict[str, float]]
    micro_f1: float | None = None
    mean_auroc: float | None = None
    no_auroc: list[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that were measured, for ``metrics.json``."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def evaluate(
    predictor: Predictor, examples: list[Example], batch_size: int = 1
) -> tuple[Report, list[Prediction]]:
    """Answer every sentence, text in and label out, and compare with the gold labels."""
    predictor.predict([example.text for example in examples[: 2 * batch_size]])  # warm up
    predictions: list[Prediction] = []
    times = []
    starts = range(0, len(examples), batch_size)
    for start in tqdm(starts, desc="evaluate", unit=" batches"):
        texts = [example.text for example in examples[start : start + batch_size]]
        began = time.perf_counter()
        predictions += predictor.predict(texts, batch_size)
        times += [(time.perf_counter() - began) * 1000 / len(texts)] * len(texts)
    report = _report(examples, predictions, times)
    if examples[0].multi:
        report = _with_multi_label(report, examples, predictions)
    return report, predictions


def _report(examples: list[Example], predictions: list[Prediction], times: list[float]) -> Report:
    """Average F1 over the labels that occur in gold or predicted."""
    gold = [set(example.labels) for example in examples]
    predicted = [set(prediction.labels) for prediction in predictions]
    correct = sum(g == p for g, p in zip(gold, predicted, strict=True))
    labels = {}
    for label in sorted(set().union(*gold, *predicted)):
        hits = sum(label in g and label in p for g, p in zip(gold, predicted, strict=True))
        given = sum(label in p for p in predicted)
        support = sum(label in g for g in gold)
        labels[label] = {
            "precision": round(hits / max(1, given), 4),
            "recall": round(hits / max(1, support), 4),
            "f1": round(f1(hits, given, support), 4),
            "support": support,
        }
    return Report(
        sentences=len(gold),
        correct=correct,
        accuracy=round(correct / len(gold), 4),
        macro_f1=round(statistics.fmean([each["f1"] for each in labels.values()] or [0.0]), 4),
        ms_mean=round(statistics.fmean(times), 3),
        ms_median=round(statistics.median(times), 3),
        labels=labels,
    )


def _with_multi_label(
    report: Report, examples: list[Example], predictions: list[Prediction]
) -> Report:
    """Add micro F1 and the AUROC of each label that has one."""
    gold = [set(example.labels) for example in examples]
    hits = sum(len(g & set(p.labels)) for g, p in zip(gold, predictions, strict=True))
    given, support = sum(len(p.labels) for p in predictions), sum(map(len, gold))
    areas = {
        label: auroc(
            np.array([p.scores[label] for p in predictions]),
            np.array([label in g for g in gold]),
        )
        for label in sorted(predictions[0].scores)
    }
    known = {label: area for label, area in areas.items() if area is not None}
    # a label without an AUROC occurs in all sentences or in none, and then perhaps in no answer
    labels = {
        label: entry | ({"auroc": round(known[label], 4)} if label in known else {})
        for label, entry in report.labels.items()
    }
    return replace(
        report,
        labels=labels,
        micro_f1=round(f1(hits, given, support), 4),
        mean_auroc=round(statistics.fmean(known.values()), 4) if known else None,
        no_auroc=[label for label in areas if label not in known],
    )
