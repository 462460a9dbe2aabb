"""One worker's work under the settings of its own process; ``benchmarks.launch`` starts many.

Usage: python -m benchmarks.launched EXPORT_DIR THREADS CORE, where CORE is one to stay on, or -1
"""

import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch

from benchmarks import machine
from model_src.predictor import Predictor
from serving.measure import BATCH
from serving.sentences import bundled

# Calls before the clock counts, and the most seconds for each of the two measures.
_WARM_UP, _SECONDS = 30, 2.0


def main(export_dir: Path, threads: int, core: int) -> None:
    """Print the median ms of one sentence and the sentences a second of full batches, as JSON."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    machine.one_thread()
    torch.set_num_threads(threads)
    predictor, texts = Predictor.load(export_dir), bundled()
    for text in texts[:_WARM_UP]:
        predictor.predict([text])
    alone = _times(predictor, [[text] for text in texts])
    together = _times(
        predictor, [texts[i : i + BATCH] for i in range(0, len(texts) - BATCH, BATCH)]
    )
    rate = BATCH / statistics.median(together)
    found = {"alone_ms": statistics.median(alone) * 1000, "rate": rate}
    sys.stdout.write(json.dumps(found) + "\n")


def _times(predictor: Predictor, batches: list[list[str]]) -> list[float]:
    """Return the seconds of each batch, again and again until the time is over."""
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    for batch in itertools.cycle(batches):
        began = time.perf_counter()
        predictor.predict(batch)
        times.append(time.perf_counter() - began)
        if began > end:
            break
    return times


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
