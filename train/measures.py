"""Measures of multi-label answers, on arrays with a row a sentence and a column a label."""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def f1(hits: int, predicted: int, gold: int) -> float:
    """Return the harmonic mean of precision and recall; 0 where both are undefined."""
    return 2 * hits / max(1, predicted + gold)


def macro_f1(predicted: Flags, gold: Flags) -> float:
    """Return the mean F1 of the labels that occur in ``predicted`` or ``gold``; 0 without any."""
    counts = ((predicted & gold).sum(0), predicted.sum(0), gold.sum(0))
    values = [f1(*map(int, column)) for column in zip(*counts, strict=True) if any(column)]
    return float(np.mean(values)) if values else 0.0


def auroc(scores: Scores, gold: Flags) -> float | None:
    """Return how often a positive of ``gold`` ``[n]`` scores above a negative; a tie counts half.

    This is the area under the ROC curve (Mann-Whitney's U, scaled). None where there are no
    positives or no negatives.
    """
    positives = int(gold.sum())
    pairs = positives * (len(gold) - positives)
    if not pairs:
        return None
    _, place, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = sizes.cumsum() - (sizes - 1) / 2  # equal scores share the mean of their ranks
    return float((ranks[place][gold].sum() - positives * (positives + 1) / 2) / pairs)


def mean_auroc(scores: Scores, gold: Flags) -> float | None:
    """Return the mean AUROC of the columns that have one; None when none has."""
    areas = [auroc(scores[:, i], gold[:, i]) for i in range(gold.shape[1])]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None
