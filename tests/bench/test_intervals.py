"""The interval of a median: its coverage, against sums and against draws."""

from __future__ import annotations

import itertools
import random

import pytest

from kernelpkg.bench.intervals import interval_of, mean_of, outside


def coverage(count: int, out: int) -> float:
    """How often the median is in the interval, over all ways in which values fall around it."""
    ways = [sum(way) for way in itertools.product((0, 1), repeat=count)]
    return sum(out < below < count - out for below in ways) / len(ways)


@pytest.mark.parametrize("count", range(6, 15), ids="n{}".format)
def test_an_interval_is_the_narrowest_that_holds_the_median_with_95_percent(count):
    out = outside(count)
    assert coverage(count, out) >= 0.95
    assert coverage(count, out + 1) < 0.95


@pytest.mark.parametrize(
    ("count", "out"), [(6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (50, 17), (100, 39)]
)
def test_the_places_are_those_of_published_tables(count, out):
    """Conover, Practical Nonparametric Statistics: the sign test at 5% on both sides."""
    assert outside(count) == out


def test_of_fewer_than_six_values_it_is_the_range():
    found = interval_of([3.0, 1.0, 2.0])
    assert (found.low, found.median, found.high) == (1.0, 2.0, 3.0)
    assert interval_of([5.0]).half == 0.0


def test_it_holds_the_median_of_a_skewed_distribution_in_95_of_100_draws():
    draw = random.Random(20261130)
    middle = 0.6931471805599453  # ln 2: the median of an exponential distribution of mean 1
    found = [interval_of([draw.expovariate(1) for _ in range(40)]) for _ in range(2000)]
    held = sum(interval.holds(middle) for interval in found) / len(found)
    assert 0.94 <= held <= 0.98  # of 40 values, 13 are left out at each end: 96.2%


def test_values_that_are_off_together_have_a_wider_interval():
    captures = [1.0 + 0.01 * number for number in range(10)]
    values = [capture for capture in captures for _ in range(100)]
    apart, together = interval_of(values), interval_of(values, 100)
    assert apart.half < 0.006
    assert (together.low, together.high) == (1.01, 1.08)
    assert together.median == apart.median


def test_a_document_has_five_digits():
    found = interval_of([4.123456, 4.2, 4.3]).to_json()
    assert found == {"median": 4.2, "low": 4.1235, "high": 4.3}


def test_twice_as_fast_and_twice_as_slow_make_one():
    assert mean_of([0.5, 2.0]) == pytest.approx(1.0)
