"""What a worker counts for Prometheus: added up here, reported once a second.

TorchServe's way to report is a line on standard output for each value, which Java parses: done for
every request it would cost more than a short answer does.
"""

import logging
import threading
import time
from collections import Counter
from typing import Any

from handlers.protocol import Answer, Failure
from model_src.decode import Prediction

SECONDS = 1.0
REQUESTS, SENTENCES, ERRORS, TOKENS, BATCHES, MICROSECONDS = (
    f"iclassifier_{name}_total"
    for name in ("requests", "sentences", "errors", "tokens", "batches", "model_microseconds")
)
# Apart from sentences, so that time and tokens a sentence stay those of predictions.
EXPLANATIONS, EXPLAINING = (
    f"iclassifier_{name}_total" for name in ("explanations", "explanation_microseconds")
)
# TorchServe's metrics write through this logger; the handler has silenced it with all others.
_logger = logging.getLogger("ts.metrics.caching_metric")


class Ledger:
    """Counters of one worker; without declared metrics (``serving/metrics.yaml``) it does nothing.

    A worker that is killed takes at most its last second with it.
    """

    def __init__(self, context: Any, tokens: int = 0) -> None:  # noqa: ANN401 - TorchServe's own
        """Take the declared metrics of a worker's context, and the tokens of its warm-up."""
        metrics = context.metrics if context else None
        kinds = metrics.cache.values() if metrics else ()
        self._metrics = {name: metric for kind in kinds for name, metric in kind.items()}
        model = context.manifest["model"] if metrics else {}
        self._model = [model.get("modelName", ""), model.get("modelVersion", "")]
        # Totals that only the worker's thread changes, so that nothing needs a lock.
        self._requests = self._sentences = self._microseconds = 0
        self._explanations = self._explaining = 0
        self._tokens = self._warm_up = tokens
        self._batches = dict[int, int]()
        self._errors = dict[str, int]()
        self._reported = Counter[tuple[str, ...]]()
        self.on = REQUESTS in self._metrics
        if self.on:
            threading.Thread(target=self._report_for_ever, daemon=True).start()

    def add(self, requests: int, answers: list[Answer]) -> None:
        """Count one batch: its requests and what came of each sentence."""
        failed = [each.status.name.lower() for each in answers if type(each) is Failure]
        predicted = sum(isinstance(each, Prediction) for each in answers)
        # A report may come between any two lines, so that no total may ever fall.
        self._requests += requests
        self._batches[requests] = self._batches.get(requests, 0) + 1
        self._sentences += predicted
        self._explanations += len(answers) - predicted - len(failed)
        for kind in failed:
            self._errors[kind] = self._errors.get(kind, 0) + 1

    def ran(self, tokens: int, seconds: float) -> None:
        """Count the model's time, and what it has read: ``tokens`` since it was loaded."""
        self._tokens = tokens
        self._microseconds += round(seconds * 1e6)

    def explained(self, seconds: float) -> None:
        """Count the time that one explanation took."""
        self._explaining += round(seconds * 1e6)

    def report(self) -> None:
        """Hand over what was counted since the last time."""
        totals = Counter[tuple[str, ...]]()
        totals[REQUESTS,], totals[SENTENCES,] = self._requests, self._sentences
        totals[TOKENS,] = self._tokens - self._warm_up
        totals[MICROSECONDS,] = self._microseconds
        totals[EXPLANATIONS,], totals[EXPLAINING,] = self._explanations, self._explaining
        for requests, count in self._batches.copy().items():
            size = 1 << (requests - 1).bit_length()  # 1, 2, 4, 8: as few series as possible
            totals[BATCHES, str(size)] += count
        for kind, count in self._errors.copy().items():
            totals[ERRORS, kind] = count
        if totals == self._reported:
            return
        _logger.setLevel(logging.INFO)
        try:
            for (name, *dimensions), count in (totals - self._reported).items():
                self._metrics[name].add_or_update(count, [*self._model, *dimensions])
        finally:
            _logger.setLevel(logging.NOTSET)
        self._reported = totals

    def _report_for_ever(self) -> None:
        while True:
            time.sleep(SECONDS)
            self.report()
