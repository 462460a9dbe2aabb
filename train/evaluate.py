"""Predictions on labelled sentences become measures: accuracy, macro F1, time a sentence."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from model_src.decode import Prediction
from model_src.predictor import Predictor
from train.data import Example


@dataclass(frozen=True)
class Report:
    """What was measured; rates are in 0..1, times in milliseconds."""

    sentences: int
    correct: int
    accuracy: float
    macro_f1: float
    ms_mean: float
    ms_median: float
    labels: dict[str, dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for ``metrics.json``."""
        return asdict(self)


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
    gold = [example.label for example in examples]
    return _report(gold, [p.label for p in predictions], times), predictions


def _report(gold: list[str], predicted: list[str], times: list[float]) -> Report:
    """Average F1 over the labels that occur in gold or predicted."""
    correct = sum(g == p for g, p in zip(gold, predicted, strict=True))
    labels = {}
    for label in sorted(set(gold) | set(predicted)):
        hits = sum(g == p == label for g, p in zip(gold, predicted, strict=True))
        precision = hits / max(1, predicted.count(label))
        recall = hits / max(1, gold.count(label))
        f1 = 2 * hits / (predicted.count(label) + gold.count(label))
        labels[label] = {
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "f1": round(f1, 4),
            "support": gold.count(label),
        }
    return Report(
        sentences=len(gold),
        correct=correct,
        accuracy=round(correct / len(gold), 4),
        macro_f1=round(statistics.fmean(entry["f1"] for entry in labels.values()), 4),
        ms_mean=round(statistics.fmean(times), 3),
        ms_median=round(statistics.median(times), 3),
        labels=labels,
    )
