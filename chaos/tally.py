"""Judge the answers to traffic by the offline ones, and count."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np

from chaos.parts import LABELS, Offline, sentence
from chaos.traffic import Record

EXACT = 1e-5
# What a server may say when it has no room or no worker: documented, and to be asked again.
REFUSALS = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True)
class Tally:
    """Requests by what came of them; latencies are those of right answers, in ms."""

    asked: int = 0
    right: int = 0
    wrong: int = 0  # a sentence's scores are those of no version, or are missing
    swapped: int = 0  # of these, such that are right for another sentence
    refused: int = 0
    failed: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    slowest_ms: float = 0.0
    versions: dict[str, int] = field(default_factory=dict)  # right answers by version
    said: tuple[str, ...] = ()  # some of the messages of failed requests

    def numbers(self) -> dict[str, float | int]:
        """Return what to report."""
        counts = ("asked", "right", "wrong", "swapped", "refused", "failed")
        times = ("p50_ms", "p99_ms", "slowest_ms")
        return {name: getattr(self, name) for name in counts + times}


def judge(records: Sequence[Record], offline: Offline, versions: Sequence[str]) -> Tally:
    """Compare every answer with those that ``versions`` give offline to the same sentence.

    An answer in which sentences are of different versions is wrong.
    """
    answered = [each for each in records if each.status == HTTPStatus.OK]
    texts = [sentence(number) for each in answered for number in each.numbers]
    known = {version: offline.scores(version, texts) for version in versions}
    counts, by_version, right, at = Counter[str](), Counter[str](), list[Record](), 0
    for each in answered:
        rows = slice(at, at := at + len(each.numbers))
        same = [version for version in versions if _equal(each.scores, known[version][rows])]
        if same:
            by_version[same[0]] += 1
            right.append(each)
        else:
            counts["wrong"] += 1
            counts["swapped"] += any(_elsewhere(each.scores, table) for table in known.values())
    refused = sum(each.status in REFUSALS for each in records)
    failures = [each for each in records if each.status not in {HTTPStatus.OK, *REFUSALS}]
    times = [1000 * (each.ended - each.due) for each in right] or [0.0]
    p50, p99, slowest = (round(float(x), 2) for x in np.percentile(times, (50, 99, 100)))
    return Tally(
        asked=len(records),
        right=len(right),
        wrong=counts["wrong"],
        swapped=counts["swapped"],
        refused=refused,
        failed=len(failures),
        p50_ms=p50,
        p99_ms=p99,
        slowest_ms=slowest,
        versions=dict(by_version),
        said=tuple(sorted({each.said for each in failures})[:3]),
    )


def _equal(scores: np.ndarray, known: np.ndarray) -> bool:
    return scores.shape == known.shape and bool((np.abs(scores - known) <= EXACT).all())


def _elsewhere(scores: np.ndarray, known: np.ndarray) -> bool:
    """Tell whether any of ``scores`` is the answer to some sentence of ``known``."""
    near = np.abs(known[None, :, :] - scores.reshape(-1, 1, len(LABELS))) <= EXACT
    return bool(near.all(axis=2).any())
