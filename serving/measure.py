"""What exports are measured by: beside the fp32 model, on the same sentences, in one run."""

import itertools
import statistics
import time
from typing import Any

import torch
from tqdm import tqdm

from model_src.decode import Prediction
from model_src.errors import UserError
from model_src.predictor import Predictor

# Tokens of the sentences that latency is measured on: a request, a sentence of a review.
LENGTHS = (12, 30)
BATCH = 32
# Latency of one length: rounds of some calls of each contender, until the median is known or the
# time is over. A run of calls, because a served model has the caches to itself.
_WARM_UP, _ROUNDS, _CALLS, _SECONDS = 4, 10, 5, 0.25
# Batches before the timed ones: a runtime prepares itself for lengths that it has not met.
_FIRST = 2

# What a format may cost: see ``problem``.
MAX_DP = 1e-4
MIN_AGREEMENT = 0.99
MAX_LOSS = 0.5
# What a measure again would find again, on the same sentences.
LASTING = ("sentences", "agreement", "max_dp", "mean_dp", "accuracy")
# Slower by less than this is noise.
_NOISE = 1.05


def measure(
    reference: Predictor, others: dict[str, Predictor], texts: list[str], gold: list[str] | None
) -> dict[str, dict[str, Any]]:
    """Compare ``others`` with ``reference`` on ``texts``, all of them in turns.

    Args:
        reference: the fp32 model, whose own measures stand under ``eager``.
        others: exports by name.
        texts: the sentences, at least one.
        gold: their labels, several of them joined; without, accuracy is not measured.

    Returns:
        By name: rates in 0..1, times in ms, ``latency_ms`` from ids to logits by tokens a sentence,
        ``sentences_per_second`` from text to label in batches of 32.

    """
    every = [reference, *others.values()]
    own: list[dict[str, Any]] = [{"latency_ms": times} for times in _latencies(every, texts)]
    answers, rates = _answers(every, texts)
    for measured, found, rate in zip(own, answers, rates, strict=True):
        measured["sentences_per_second"] = rate
        if gold is not None:
            hits = sum(a.label == label for a, label in zip(found, gold, strict=True))
            measured["accuracy"] = round(hits / len(gold), 6)
    return {
        name: compare(answers[0], found)
        | measured
        | {"threads": torch.get_num_threads(), "eager": own[0]}
        for name, measured, found in zip(others, own[1:], answers[1:], strict=True)
    }


def measure_sound(
    reference: Predictor, others: dict[str, Predictor], texts: list[str], gold: list[str] | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return what ``measure`` does of those that answer every text, and why the others do not.

    Raises:
        UserError: when the reference itself does not answer, as ``measure`` does.
        RuntimeError: likewise.

    """
    try:
        return measure(reference, others, texts, gold), {}
    except (UserError, RuntimeError):
        # Only now is each tried alone: all at once is what nearly every run needs.
        tried = {name: _failure(each, texts) for name, each in others.items()}
        failed = {name: reason for name, reason in tried.items() if reason}
        if not failed:
            raise
    sound = {name: each for name, each in others.items() if name not in failed}
    return measure(reference, sound, texts, gold), failed


def _failure(predictor: Predictor, texts: list[str]) -> str:
    """Return why ``predictor`` cannot be measured, in one line, or nothing."""
    try:
        _latencies([predictor], texts)
        _answers([predictor], texts)
    except (UserError, RuntimeError) as reason:
        return str(reason).partition("\n")[0] or type(reason).__name__
    return ""


def compare(reference: list[Prediction], other: list[Prediction]) -> dict[str, Any]:
    """Return the label agreement (0..1), the largest and the mean change of a probability.

    Labels of a multi-label model agree when all of a sentence do.
    """
    pairs = list(zip(reference, other, strict=True))
    changes = [abs(a.scores[label] - b.scores[label]) for a, b in pairs for label in a.scores]
    return {
        "sentences": len(pairs),
        "agreement": round(sum(a.label == b.label for a, b in pairs) / len(pairs), 6),
        "max_dp": float(f"{max(changes):.3g}"),
        "mean_dp": float(f"{statistics.fmean(changes):.3g}"),
    }


def loss(measured: dict[str, Any]) -> float | None:
    """Return the accuracy lost, in points, negative for a gain; None where none was measured."""
    if "accuracy" not in measured:
        return None
    lost: float = measured["eager"]["accuracy"] - measured["accuracy"]
    return round(100 * lost, 4)


def problem(measured: dict[str, Any], *, exact: bool) -> str:
    """Say what was measured and what is allowed where a rule is broken; else nothing."""
    said = []
    points, count = loss(measured), measured["sentences"]
    if exact and not measured["max_dp"] <= MAX_DP:
        said.append(
            f"changes a probability by {measured['max_dp']:.1e}, where fp32 allows {MAX_DP:.0e}"
        )
    if not exact and points is not None and points > MAX_LOSS:
        said.append(
            f"loses {points:.2f} points of accuracy on {count} sentences, "
            f"where {MAX_LOSS} are allowed"
        )
    if not exact and measured["agreement"] < MIN_AGREEMENT:
        said.append(
            f"keeps {measured['agreement']:.2%} of {count} labels, "
            f"where {MIN_AGREEMENT:.0%} are asked"
        )
    return " and ".join(said)


def slower(measured: dict[str, Any]) -> list[str]:
    """Name the measures in which it is slower than eager by more than noise."""
    eager = measured["eager"]
    found = [
        f"at {length} tokens"
        for length, ms in measured["latency_ms"].items()
        if ms > _NOISE * eager["latency_ms"][length]
    ]
    if _NOISE * measured["sentences_per_second"] < eager["sentences_per_second"]:
        found.append(f"at batch {BATCH}")
    return found


def _latencies(every: list[Predictor], texts: list[str]) -> list[dict[str, float]]:
    """Return for each predictor the median ms of a call by the tokens of its one sentence."""
    bundle = every[0].bundle
    known = itertools.cycle(itertools.chain(*bundle.tokenizer.encode_batch(texts[:64])))
    found: list[dict[str, float]] = [{} for _ in every]
    for length in LENGTHS:
        row = list(itertools.islice(known, min(length, bundle.config.n_ctx)))
        for each, times in zip(found, _times(every, row), strict=True):
            each[str(len(row))] = round(statistics.median(times) * 1000, 3)
    return found


def _times(every: list[Predictor], row: list[int]) -> list[list[float]]:
    """Return the seconds of each predictor's calls on the ids of one sentence, in turns."""
    times: list[list[float]] = [[] for _ in every]
    with torch.inference_mode():
        for predictor in every:
            for _ in range(_WARM_UP):
                predictor.logits([row])
        end = time.perf_counter() + _SECONDS * len(every)
        for _ in range(_ROUNDS):
            for predictor, own in zip(every, times, strict=True):
                for _ in range(_CALLS):
                    began = time.perf_counter()
                    predictor.logits([row])
                    own.append(time.perf_counter() - began)
            if time.perf_counter() > end:
                break
    return times


def _answers(
    every: list[Predictor], texts: list[str]
) -> tuple[list[list[Prediction]], list[float]]:
    """Return each predictor's answers and its median rate, a batch of each in turn."""
    answers: list[list[Prediction]] = [[] for _ in every]
    rates: list[list[float]] = [[] for _ in every]
    for predictor in every:
        for _ in range(_FIRST):
            predictor.predict(texts[:BATCH], BATCH)
    for start in tqdm(range(0, len(texts), BATCH), desc="compare", unit=" batches"):
        batch = texts[start : start + BATCH]
        for predictor, own, speed in zip(every, answers, rates, strict=True):
            began = time.perf_counter()
            own.extend(predictor.predict(batch, BATCH))
            speed.append(len(batch) / (time.perf_counter() - began))
    return answers, [round(statistics.median(speed), 1) for speed in rates]
