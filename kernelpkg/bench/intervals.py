"""A median, and between which two of the values it lies with 95%, whatever their distribution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import Final

from attrs import asdict, frozen

CONFIDENCE: Final = 0.95

_LEAST: Final = 6
"""Of fewer values, the least and the largest hold the median with less than 95%: of 5, 93.75%."""


@frozen(kw_only=True)
class Interval:
    """The median of some values, and an interval that holds that of all of their kind with 95%."""

    median: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width: what stands behind ± in a table."""
        return (self.high - self.low) / 2

    def holds(self, value: float) -> bool:
        """Whether a value is one of those that the median may be."""
        return self.low <= value <= self.high

    def to_json(self) -> dict[str, float]:
        """Return the entry of a document, with as many digits as a time can have."""
        return {name: float(f"{value:.5g}") for name, value in asdict(self).items()}


def interval_of(values: Sequence[float], together: int = 1) -> Interval:
    """Return the median of values, and its interval by order statistics.

    So many values `together` were taken in one go, and may be off together: then the medians of
    such groups are values too, and the interval is the wider one. Fewer than six values have no
    interval of 95%, and get that from the least to the largest.
    Source: David and Nagaraja, Order Statistics, 3rd edition, section 7.1.
    """
    found = _by_order(values)
    if together == 1:
        return found
    groups = [values[at : at + together] for at in range(0, len(values), together)]
    apart = _by_order([statistics.median(group) for group in groups])
    return Interval(
        median=found.median, low=min(found.low, apart.low), high=max(found.high, apart.high)
    )


def _by_order(values: Sequence[float]) -> Interval:
    ordered = sorted(values)
    out = outside(len(ordered))
    return Interval(median=statistics.median(ordered), low=ordered[out], high=ordered[-1 - out])


@cache
def outside(count: int) -> int:
    """Return how many of the least values, and as many of the largest, may be left out.

    The median lies outside where no more than these are below it, or above: each of the values is
    with one half, as coins fall.
    """
    if count < _LEAST:
        return 0
    misses = 0
    for out in range(count):
        misses += math.comb(count, out)
        if 2 * misses > (1 - CONFIDENCE) * 2**count:
            return out - 1
    raise AssertionError("half of all coins fall on either side")


def mean_of(ratios: Sequence[float]) -> float:
    """Return the geometric mean of ratios, of which twice as fast and twice as slow make 1."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
