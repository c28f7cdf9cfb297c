"""Rows of a benchmark for people, in 80 columns: an op at a time, and what all its cases share."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kernelpkg.bench.history import BenchComparison, Change
from kernelpkg.bench.intervals import Interval, mean_of
from kernelpkg.bench.rows import BASELINES, OURS, BenchRow, Side
from kernelpkg.errors import aligned, counted, escaped
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.spec import Scalar

WIDTH: Final = 80
_WORD: Final = 18
"""The most of an axis, or of a value, that a column shows."""


def table_lines(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Yield the lines of all ops, in the order of the rows, with an empty one between two."""
    ops: dict[str, list[BenchRow]] = defaultdict(list)
    for row in rows:
        ops[row.op].append(row)
    for number, found in enumerate(ops.values()):
        yield from [""] if number else []
        yield from _op_lines(found)


def _op_lines(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Yield what the cases of one op share, its table, geometric means, and what is not there."""
    measured = [row for row in rows if not row.failed]
    distinct = {axis: len({show(row.axes.get(axis)) for row in rows}) for axis in rows[0].axes}
    free = [axis for axis, count in distinct.items() if count > 1]
    # The axis of the most values has a column; of several, the last, which grids vary fastest.
    down = max(reversed(free or [*distinct]), key=distinct.__getitem__, default="")
    yield from _wrapped(f"{rows[0].op}:", _axes(rows[0].axes, {*distinct} - {*free, down}))
    if measured:
        yield from _table(measured, [axis for axis in free if axis != down], down)
    for what in ("GPU", "host"):
        means = ", ".join(_means(measured, gpu=what == "GPU"))
        if means:
            yield from _wrapped(f"  {what} time, geometric means:", means)
    reasons = Counter(
        (name, side.reason) for row in measured for name, side in row.sides.items() if side.reason
    )
    for (name, reason), count in reasons.items():
        some = "" if count == len(measured) else f" ({counted(count, 'case')} of {len(measured)})"
        yield from _wrapped(f"  {name}:", f"{reason}{some}")
    for row in rows:
        if row.failed:
            yield from _wrapped(f"  failed: {_axes(row.axes, row.axes)}:", row.failed)


def _wrapped(begin: str, text: str) -> list[str]:
    """Return a text in lines, of which the second and all others are indented."""
    line = escaped(f"{begin} {text}" if text else begin)
    return textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _axes(axes: Mapping[str, Scalar], names: Mapping[str, Scalar] | set[str]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in axes.items() if name in names)


def _table(rows: Sequence[BenchRow], groups: Sequence[str], down: str) -> Iterator[str]:
    """Yield rows below their heads; cases that differ in more than one axis are in groups."""
    gpu = any(row.sides[OURS].gpu is not None for row in rows)
    there = [side for side in BASELINES if any(_ratio(row.sides.get(side), gpu) for row in rows)]
    head = [_short(down) or "case", "GPU us" if gpu else "host us", *(f"/{side}" for side in there)]
    head += [*(["host us"] if gpu else []), "agrees"]
    cells = [[_short(show(row.axes[down])) if down else "", *_cells(row, there, gpu)]
             for row in rows]  # fmt: skip
    lines = aligned([head, *cells], range(len(head)))
    yield lines[0]
    found: dict[str, list[str]] = {}  # grids may vary what is not in the column fastest
    for row, line in zip(rows, lines[1:], strict=True):
        found.setdefault(_axes(row.axes, {*groups}), []).append(line)
    for group, some in found.items():
        yield from _wrapped(" ", group) if group else ()
        yield from some


def _cells(row: BenchRow, there: Sequence[str], gpu: bool) -> list[str]:
    ours = row.sides[OURS]
    found = [_time(ours.gpu if gpu else ours.host, wide=True)]
    found += [_shown_ratio(row.sides.get(side), gpu) for side in there]
    found += [_time(ours.host, wide=False)] if gpu else []
    return [*found, {True: "yes", False: "NO", None: "-"}[ours.agrees]]


def _short(text: str) -> str:
    return text if len(text) <= _WORD else f"{text[: _WORD - 1]}…"


def _time(time: Interval | None, *, wide: bool) -> str:
    """Return microseconds, with half of their interval where there is room."""
    if time is None:
        return "-"
    digits = 2 if time.median < 10 else 1 if time.median < 100 else 0
    text = f"{time.median:.{digits}f}"
    return f"{text}±{time.half:.{digits}f}" if wide else text


def _ratio(side: Side | None, gpu: bool) -> Interval | None:
    return None if side is None else side.gpu_ratio if gpu else side.host_ratio


def _shown_ratio(side: Side | None, gpu: bool) -> str:
    """Return a ratio: with ~ where it may be 1, and with ! where the other side is wrong."""
    ratio = _ratio(side, gpu)
    if side is None or ratio is None:
        return "-"
    wrong = "!" if side.agrees is False else ""
    digits = 2 if ratio.median < 100 else 0
    return f"{'~' if ratio.holds(1.0) else ''}{ratio.median:.{digits}f}{wrong}"


def _means(rows: Sequence[BenchRow], *, gpu: bool) -> Iterator[str]:
    for side in BASELINES:
        found = [_ratio(row.sides.get(side), gpu) for row in rows]
        ratios = [ratio.median for ratio in found if ratio is not None]
        if ratios:
            yield f"{mean_of(ratios):.2f} of {side}"


def comparison_lines(found: BenchComparison) -> Iterator[str]:
    """Yield what is slower than in an earlier run, and how much of it is not."""
    yield from (f"{found.run}: {remark}" for remark in found.remarks)
    slower = [change for change in found.changes if change.slower]
    for change in slower:
        yield from _wrapped(f"{change.op}:", f"{_told(change)} than in run {found.run}")
    whats = Counter(change.what for change in found.changes)
    held = [counted(whats["gpu"], "case") + " by GPU time"] if whats["gpu"] else []
    held += [counted(whats["host"], "op") + " by host time"] if whats["host"] else []
    text = ", ".join(held) or "nothing that both timed"
    if found.changes:
        mean = mean_of([change.ratio for change in found.changes])
        text += f"; {mean:.3f} times as long in the mean"
    yield from _wrapped(f"against run {found.run}:", f"{text}; {len(slower)} slower")


def _told(change: Change) -> str:
    what = f"case {change.case}: the GPU" if change.what == "gpu" else "all cases: the host"
    base = "" if change.base == OURS else f", relative to {change.base},"
    return f"{what} takes{base} {change.ratio - 1:.1%} longer"
