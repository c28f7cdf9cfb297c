"""Times of launches with a cold L2, and of the host's calls, in turns, with what their noise is.

And what the GPU of this process is, and the tools that compile for it: times hold for these.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from kernelpkg.jobs.pool import driver
from kernelpkg.packs.lock import toolchain

ROUNDS: Final = 1000
"""How often each launch is timed: launches of 5 µs differ by a tenth from one to the next, and the
median of so many pairs is then good to half a hundredth."""

LEAST: Final = 20
"""The fewest rounds: two for each capture."""
_SECONDS: Final = 4.0
"""How long a measurement may take; launches of milliseconds get fewer rounds."""

_CAPTURES: Final = 10
"""How often launches are captured anew: two captures of one kernel of a few microseconds differ by
up to a hundredth, for as long as they are replayed."""

_FLUSH: Final = 128 << 20
"""Bytes that are written between two launches, more than the L2 of any GPU of 2026 holds."""

HOST_ROUNDS: Final = 15
"""How often the host's calls are timed: the interval of their median leaves out three of these at
each end."""

_CALLS: Final = 50
"""The most calls in a row: a reference of 20 launches fills no queue of 1,024 with them, and a full
one has the host wait for the GPU."""
_LEAST_HOST: Final = 6
_HOST_SECONDS: Final = 1.0
_WARM_SECONDS: Final = 0.2


@frozen(kw_only=True)
class ColdTimes:
    """Medians over the rounds, by launch: milliseconds, and the ratio to launch `base` of a round.

    `noise` is the largest of what the ratio of a launch to its twin is off 1, and three standard
    errors of the medians of the ratios, once from the rounds and once from the captures.
    """

    ms: tuple[float, ...]
    ratios: tuple[float, ...]
    noise: float


def summarised(rounds: Sequence[Sequence[float]], base: int, twin: int) -> ColdTimes:
    """Return the medians of rounds of times; `base` and `twin` are places of one and the same."""
    columns = list(zip(*rounds, strict=True))
    pairs = [
        [time / of for time, of in zip(column, columns[base], strict=True)] for column in columns
    ]
    ratios = tuple(map(statistics.median, pairs))
    spread = max((max(_error(pair), _error_of_captures(pair)) for pair in pairs), default=0.0)
    return ColdTimes(
        ms=tuple(map(statistics.median, columns)),
        ratios=ratios,
        noise=max(abs(ratios[twin] - 1), 3 * spread),
    )


def _error(values: Sequence[float]) -> float:
    """The standard error of a median, from the median deviation.

    1.4826 makes a standard deviation of a median deviation, and sqrt(pi / 2) an error of a median
    of one of a mean, both for normal values.
    """
    middle = statistics.median(values)
    deviation = statistics.median(abs(value - middle) for value in values)
    return 1.4826 * math.sqrt(math.pi / 2) * deviation / math.sqrt(len(values))


def _error_of_captures(values: Sequence[float]) -> float:
    """The standard error of a median, were the rounds of one capture one measurement."""
    size = rounds_of_a_capture(len(values))
    medians = [statistics.median(values[at : at + size]) for at in range(0, len(values), size)]
    if len(medians) < 2:
        return 0.0
    return math.sqrt(math.pi / 2) * statistics.stdev(medians) / math.sqrt(len(medians))


def rounds_of_a_capture(rounds: int) -> int:
    """Return how many of the rounds of a measurement replay one capture."""
    return max(1, rounds // _CAPTURES)


def time_cold(launches: Sequence[Callable[[], Any]], rounds: int = ROUNDS) -> list[list[float]]:
    """Return the milliseconds of each launch, by round; each comes after a write that fills the L2.

    Launches are replayed as CUDA graphs, so that the host's time does not count, unless one of
    them cannot be captured; their order is turned round from one round to the next. They are
    captured ten times over the rounds.
    """
    import torch

    event: Callable[..., Any] = torch.cuda.Event
    flush = torch.empty(_FLUSH, dtype=torch.int8, device="cuda")

    def one_round(number: int, runs: Sequence[Callable[[], Any]]) -> list[tuple[Any, Any]]:
        places = range(len(runs))
        pairs: list[Any] = [None] * len(runs)
        for place in places if number % 2 else reversed(places):
            start, end = (event(enable_timing=True) for _ in range(2))
            flush.zero_()
            start.record()
            runs[place]()
            end.record()
            pairs[place] = start, end
        return pairs

    def times(count: int) -> list[list[float]]:
        found: list[list[float]] = []
        size = rounds_of_a_capture(count)
        for begin in range(0, count, size):
            runs = _captured(launches) or launches
            numbers = range(begin, min(begin + size, count))
            batch = [one_round(number, runs) for number in numbers]
            torch.cuda.synchronize()
            found += [[start.elapsed_time(end) for start, end in pairs] for pairs in batch]
        return found

    warm = math.fsum(times(3)[-1]) / 1000
    count = min(rounds, max(LEAST, int(_SECONDS / max(warm, 1e-9))))
    return times(count)


def _captured(launches: Sequence[Callable[[], Any]]) -> list[Callable[[], Any]] | None:
    """Return what replays each launch, or None where one cannot be captured."""
    found = []
    for launch in launches:
        replay = capture(launch)
        if replay is None:
            return None
        found.append(replay)
    return found


def capture(launch: Callable[[], Any]) -> Callable[[], Any] | None:
    """Return what replays a launch as a CUDA graph, or None where it cannot be captured."""
    import torch

    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            launch()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    replay: Callable[[], Any] = graph.replay
    return replay


def warm_clock() -> None:
    """Keep the GPU busy until its clock has risen; one that waited for the host starts slowly."""
    import torch

    flush = torch.empty(_FLUSH, dtype=torch.int8, device="cuda")
    end = time.perf_counter() + _WARM_SECONDS
    while time.perf_counter() < end:
        for _ in range(20):
            flush.zero_()
        torch.cuda.synchronize()


def time_host(
    calls: Sequence[Callable[[], Any]], rounds: int = HOST_ROUNDS, wait: Callable[[], Any] = int
) -> list[list[float]]:
    """Return the microseconds that the host spends in one call of each, by round, in turns.

    A round has as many calls in a row as there is time for, and their order is turned round from
    one round to the next. `wait` ends when a device has done all that was asked of it; its time is
    not the host's.
    """

    def per_call(call: Callable[[], Any], number: int) -> float:
        wait()
        start = time.perf_counter_ns()
        for _ in range(number):
            call()
        return (time.perf_counter_ns() - start) / number / 1000

    def whole(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        wait()
        return time.perf_counter() - start

    with _collector_off():
        once = max(1e-9, math.fsum(min(whole(call) for _ in range(2)) for call in calls))
        count = min(rounds, max(_LEAST_HOST, int(_HOST_SECONDS / once)))
        number = max(1, min(_CALLS, int(_HOST_SECONDS / (count * once))))
        found = []
        for turn in range(count):
            places = range(len(calls))
            times = [0.0] * len(calls)
            for place in places if turn % 2 else reversed(places):
                times[place] = per_call(calls[place], number)
            found.append(times)
    wait()
    return found


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Let no collection of garbage fall into the time of one side."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_TOOLS: Final[tuple[str, ...]] = ("torch", "triton", "helion")


def facts() -> dict[str, str]:
    """Return the name of the GPU and the versions of the tools: results hold for these.

    Raises RuntimeError where there is no GPU.
    """
    import torch

    from kernelpkg.bench.gpu import current_gpu

    if not torch.cuda.is_available():
        raise RuntimeError("CUDA error: no CUDA-capable device is detected")
    versions = toolchain()
    tools = {name: versions[name] for name in _TOOLS if name in versions}
    return {"gpu": current_gpu().called, **tools}


def perform(payload: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts, and the version of the driver, as the answer to a job."""
    return {**facts(), "driver": driver(os.environ)}
