"""How fast a measured value grows, and how sure that is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Quantile of the normal distribution for an interval of 95 %.
_Z = 1.96
_LEAST = 3.0


class Fit(NamedTuple):
    """A line's slope and half of its 95 % interval, both in the values' unit a unit of time."""

    slope: float
    error: float

    @property
    def least(self) -> float:
        """The lower end of the interval."""
        return self.slope - self.error

    def steady(self, most: float, unsure: float) -> bool:
        """Tell whether it may be no more than ``most``, and is known to ``unsure``, which is less.

        False stands for growth and for what cannot be told.
        """
        return self.least <= most and self.error <= unsure


def fit(times: Sequence[float], values: Sequence[float]) -> Fit:
    """Fit a line by least squares.

    Memory grows in steps, so that what is left over of neighbours is alike: they count as fewer
    values, ``n (1 - r) / (1 + r)`` with their correlation ``r`` (Santer et al. 2000, "Statistical
    significance of trends"). The quantile is Student's (Abramowitz and Stegun 26.7.5).
    """
    x, y = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    if len(x) < _LEAST or not np.ptp(x):
        return Fit(0.0, math.inf)
    x, y = x - x.mean(), y - y.mean()
    spread = float(x @ x)
    slope = float(x @ y) / spread
    rest = y - slope * x
    squares = float(rest @ rest)
    if squares <= np.finfo(float).eps * float(y @ y):
        return Fit(slope, 0.0)
    alike = min(max(float(rest[1:] @ rest[:-1]) / squares, 0.0), 1.0)
    count = max(len(x) * (1 - alike) / (1 + alike), _LEAST)
    free = count - 2
    quantile = _Z + (_Z**3 + _Z) / (4 * free)
    quantile += (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * free**2)
    return Fit(slope, quantile * math.sqrt(squares / free / spread))
