"""What runs of `bench` say of a pack: the last figure of each case, and how they went over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from kernelpkg.bench import rows
from kernelpkg.bench.history import place_of
from kernelpkg.bench.intervals import mean_of
from kernelpkg.manifest.cases import show

COPY: Final = "copy"
BASELINES: Final = tuple(name for name in rows.BASELINES if name != COPY)
"""What ours is held against; a copy, beside them, is what the memory allows."""


@frozen(kw_only=True)
class Figure:
    """One case of an op: our time in microseconds, and the ratio of each side's time to ours.

    `half` is half of the 95% interval of our time. `faster` has how many times faster ours is than
    each baseline, `share` which part of the speed of a copy of the same bytes it reaches.
    """

    op: str
    axes: Mapping[str, Any]
    us: float
    half: float
    faster: Mapping[str, float]
    share: float | None
    agrees: bool | None


@frozen(kw_only=True)
class Measured:
    """The figures of one machine, each of the last run that has its case, and all of its runs.

    `older` is how many figures are of a run with another state of the pack than the last run's.
    """

    machine: str
    on_gpu: bool
    versions: Mapping[str, str]
    date: str
    figures: tuple[Figure, ...]
    older: int
    runs: tuple[Mapping[str, Any], ...]

    def of(self, op: str) -> tuple[Figure, ...]:
        """Return the figures of one op."""
        return tuple(figure for figure in self.figures if figure.op == op)


def measured_by_machine(runs: Iterable[Mapping[str, Any]], namespace: str) -> tuple[Measured, ...]:
    """Return the figures of each machine, GPUs first, and the one that ran last before others.

    `runs` are documents of `bench --json`, the oldest first.
    """
    by_machine: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        by_machine[run["machine"]].append(run)
    found = [_measured(machine, some, namespace) for machine, some in by_machine.items()]
    return tuple(sorted(found, key=lambda one: (one.on_gpu, one.date), reverse=True))


def _measured(machine: str, runs: Sequence[Mapping[str, Any]], namespace: str) -> Measured:
    what = "gpu" if any(_has_gpu(row) for run in runs for row in run["rows"]) else "host"
    last: dict[tuple[str, str], tuple[Figure, str | None]] = {}
    for run in runs:
        for figure in _figures(run, what, namespace):
            last[place_of(figure.op, figure.axes)] = figure, run.get("digest")
    return Measured(
        machine=machine,
        on_gpu=what == "gpu",
        versions=dict(runs[-1].get("versions") or {}),
        date=runs[-1]["date"],
        figures=tuple(figure for figure, _ in last.values()),
        older=sum(digest != runs[-1].get("digest") for _, digest in last.values()),
        runs=tuple(runs),
    )


def _has_gpu(row: Mapping[str, Any]) -> bool:
    return any(side.get("gpu_us") for side in row["sides"].values())


def _figures(run: Mapping[str, Any], what: str, namespace: str) -> Iterator[Figure]:
    for row in run["rows"]:
        ours = row["sides"].get(rows.OURS, {})
        time = ours.get(f"{what}_us")
        if not time:
            continue
        ratios = {name: side.get(f"{what}_ratio") for name, side in row["sides"].items()}
        faster = {name: 1 / ratio["median"] for name, ratio in ratios.items() if ratio}
        yield Figure(
            op=str(row["op"]).removeprefix(f"{namespace}::"),
            axes=row["axes"],
            us=time["median"],
            half=(time["high"] - time["low"]) / 2,
            faster={name: faster[name] for name in BASELINES if name in faster},
            share=faster.get(COPY),
            agrees=ours.get("agrees"),
        )


def over_time(found: Measured, namespace: str) -> Iterator[tuple[str, str, str, float]]:
    """Yield (date, op, baseline, geometric mean of how many times faster ours is), run by run.

    Runs of other cases are not comparable, so a run counts only with the cases that all runs of an
    op have in common, where there are any.
    """
    what = "gpu" if found.on_gpu else "host"
    by_op: dict[str, list[tuple[str, dict[tuple[str, str], Figure]]]] = defaultdict(list)
    for run in found.runs:
        cases: dict[str, dict[tuple[str, str], Figure]] = defaultdict(dict)
        for figure in _figures(run, what, namespace):
            cases[figure.op][place_of(figure.op, figure.axes)] = figure
        for op, some in cases.items():
            by_op[op].append((run["date"], some))
    for op, runs in by_op.items():
        common = set.intersection(*({*some} for _, some in runs))
        for date, some in runs:
            for baseline in BASELINES:
                ratios = [some[c].faster[baseline] for c in common if baseline in some[c].faster]
                if ratios:
                    yield date, op, baseline, mean_of(ratios)


@frozen(kw_only=True)
class Plane:
    """The figures of an op as a plane: one axis across, one down, and parts for all the others."""

    across: str
    down: str
    parts: Mapping[str, tuple[Figure, ...]]
    shared: Mapping[str, Any]


def plane_of(figures: Sequence[Figure]) -> Plane:
    """Lay figures out: of the two numbers of most values, the first goes down, the other across."""
    names = [*figures[0].axes] if figures else []
    values = {name: {repr(f.axes.get(name)) for f in figures} for name in names}
    numbers = [
        name
        for name in names
        if len(values[name]) > 1 and all(type(f.axes.get(name)) in (int, float) for f in figures)
    ]
    numbers.sort(key=lambda name: (len(values[name]), names.index(name)), reverse=True)
    across, down, *_ = (*sorted(numbers[:2], key=names.index, reverse=True), "", "")
    rest = [name for name in names if len(values[name]) > 1 and name not in (across, down)]
    parts: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        parts[", ".join(f"{n}={show(figure.axes.get(n))}" for n in rest)].append(figure)
    return Plane(
        across=across,
        down=down,
        parts={name: tuple(some) for name, some in parts.items()},
        shared={n: figures[0].axes[n] for n in names if len(values[n]) == 1} if figures else {},
    )
