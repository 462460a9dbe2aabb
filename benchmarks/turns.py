"""Answers timed in turns: whatever else the machine does meets all contenders alike."""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from model_src.backends.common import Unpadded
from model_src.decode import decode
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch

STAGES = ("tokenizing", "tensors", "model", "decoding")


def times(
    calls: Mapping[str, Callable[[Any], object]], inputs: Sequence[Any], rounds: int, run: int
) -> dict[str, float]:
    """Return the median ms of each call; ``run`` inputs meet one of them and then the next.

    A run of inputs, because a served model has the caches to itself.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for each in inputs[:run]:
            call(each)
    starts = [start for _ in range(rounds) for start in range(0, len(inputs), run)]
    for start in tqdm(starts, desc="measure", unit=" turns"):
        for name, call in calls.items():
            for each in inputs[start : start + run]:
                began = time.perf_counter()
                call(each)
                found[name].append(time.perf_counter() - began)
    return {name: _ms(own) for name, own in found.items()}


def stages(predictor: Predictor, texts: list[str], rounds: int) -> dict[str, float]:
    """Return the median ms of each of ``STAGES`` of an answer to one sentence."""
    bundle, tokenizer = predictor.bundle, predictor.bundle.tokenizer
    found: dict[str, list[float]] = {name: [] for name in STAGES}
    now, own = time.perf_counter, isinstance(predictor.backend, Unpadded)
    with torch.inference_mode():
        for text in texts * rounds:
            marks = [now()]
            rows = tokenizer.encode_batch([text])
            marks.append(now())
            # some make their own, which is a part of the model then
            tensors = None if own else pad_batch(rows, tokenizer.pad_id)
            marks.append(now())
            logits = predictor.backend(*tensors) if tensors else predictor.logits(rows)
            marks.append(now())
            decode(logits, bundle.labels, multi_label=bool(bundle.config.multi_label))
            marks.append(now())
            spans = itertools.pairwise(marks)
            for times, (began, ended) in zip(found.values(), spans, strict=True):
                times.append(ended - began)
    return {name: _ms(own) for name, own in found.items()}


def _ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1000, 4)
