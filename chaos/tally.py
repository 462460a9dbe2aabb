"""Judge the answers to traffic by the offline ones, and count."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from http import HTTPStatus
from typing import Self

import numpy as np

from chaos.parts import EXACT, Offline, near, same, sentence
from chaos.traffic import Record

_SHOWN = 3
# What a server may say when it has no room or no worker: documented, and to be asked again.
REFUSALS = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True)
class Tally:
    """Requests by what came of them, and the latencies of right answers."""

    asked: int = 0
    right: int = 0
    wrong: int = 0  # a sentence's scores, label or its score are of no version, or are missing
    swapped: int = 0  # of these, such that are right for another sentence
    refused: int = 0
    failed: int = 0
    milliseconds: tuple[float, ...] = ()
    versions: Counter[str] = field(default_factory=Counter)  # right answers
    said: frozenset[str] = frozenset()  # of failed requests

    def __add__(self, other: Self) -> Self:
        """Return both together."""
        added = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(self)
            if each.name != "said"
        }
        return replace(self, **added, said=self.said | other.said)

    def numbers(self) -> dict[str, float | int]:
        """Return what to report."""
        counts = ("asked", "right", "wrong", "swapped", "refused", "failed")
        found = np.percentile(self.milliseconds or (0.0,), (50, 99, 100))
        times = zip(("p50_ms", "p99_ms", "slowest_ms"), found, strict=True)
        return {name: getattr(self, name) for name in counts} | {
            name: round(float(value), 2) for name, value in times
        }

    @property
    def complaints(self) -> str:
        """Some of what failed requests were told, to end a sentence or two with."""
        return "; ".join(sorted(self.said)[:_SHOWN])


def judge(records: Sequence[Record], offline: Offline, versions: Sequence[str]) -> Tally:
    """Compare every answer with those that ``versions`` give offline to the same sentence.

    An answer in which sentences are of different versions is wrong.
    """
    answered = [each for each in records if each.status == HTTPStatus.OK]
    texts = [sentence(number) for each in answered for number in each.numbers]
    known = {version: offline.scores(version, texts) for version in versions}
    ordered = [rows[np.argsort(rows[:, 0])] for rows in known.values()]
    counts, by_version, right, at = Counter[str](), Counter[str](), list[Record](), 0
    for each in answered:
        rows = slice(at, at := at + len(each.numbers))
        its = [v for v in versions if same(each.scores, each.best, known[v][rows])]
        if its:
            by_version[its[0]] += 1
            right.append(each)
        else:
            counts["wrong"] += 1
            own = any(near(each.scores, known[version][rows]) for version in versions)
            counts["swapped"] += not own and any(_elsewhere(each.scores, its) for its in ordered)
    refused = sum(each.status in REFUSALS for each in records)
    failures = [each for each in records if each.status not in {HTTPStatus.OK, *REFUSALS}]
    return Tally(
        asked=len(records),
        right=len(right),
        wrong=counts["wrong"],
        swapped=counts["swapped"],
        refused=refused,
        failed=len(failures),
        milliseconds=tuple(1000 * (each.ended - each.due) for each in right),
        versions=by_version,
        said=frozenset(each.said for each in failures),
    )


def _elsewhere(scores: np.ndarray, ordered: np.ndarray) -> bool:
    """Tell whether a row of ``scores`` is one of ``ordered``, which ascend in the first column."""
    for row in scores:
        first, last = np.searchsorted(ordered[:, 0], (row[0] - EXACT, row[0] + EXACT))
        if (np.abs(ordered[first:last] - row) <= EXACT).all(axis=1).any():
            return True
    return False
