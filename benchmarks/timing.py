"""Sides that are timed in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from attrs import frozen

Name = TypeVar("Name")


@frozen(kw_only=True)
class Time:
    """The microseconds of one call: the best round, and the middle one."""

    least: float
    median: float


def interleave(
    sides: Mapping[Name, Callable[[], float]], *, rounds: int, warm: int = 1
) -> dict[Name, Time]:
    """Run every side once per round, in turns; a side returns its microseconds per call.

    The order of the sides is turned round from one round to the next, and the garbage collector
    is off while they run. The first `warm` rounds are not counted.
    """
    found: dict[Name, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds + warm):
        for name in names if number % 2 else reversed(names):
            gc.collect()
            gc.disable()
            try:
                took = sides[name]()
            finally:
                gc.enable()
            if number >= warm:
                found[name].append(took)
    return {
        name: Time(least=min(times), median=statistics.median(times))
        for name, times in found.items()
    }


def per_call(run: Callable[[], object], calls: int) -> float:
    """Return the microseconds per call of a function that makes a number of calls."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / calls / 1000


def host_us(
    calls: Sequence[Callable[[], object]], rounds: int = 7, number: int = 100
) -> list[float]:
    """Return the best mean microseconds that the host spends in one call of each, in turns."""
    import torch

    def often(call: Callable[[], object]) -> None:
        for _ in range(number):
            call()

    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for place, call in enumerate(calls):
            torch.cuda.synchronize()  # outside of the time: the GPU's is not measured here
            best[place] = min(best[place], per_call(partial(often, call), number))
    torch.cuda.synchronize()
    return best
