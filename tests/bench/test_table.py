"""What people see of a benchmark: whole lines, in 80 columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from kernelpkg.bench.history import BenchComparison, Change
from kernelpkg.bench.intervals import Interval
from kernelpkg.bench.rows import BenchRow, Side
from kernelpkg.bench.table import WIDTH, comparison_lines, table_lines


def span(middle: float, half: float = 0.0) -> Interval:
    return Interval(median=middle, low=middle - half, high=middle + half)


def side(ratio: float, half: float = 0.01, **facts: Any) -> Side:
    times = {"gpu": span(1.0), "host": span(1.0)}
    return Side(gpu_ratio=span(ratio, half), host_ratio=span(ratio), **times, **facts)


def row(us: float = 4.213, *, agrees: bool | None = True, **axes: Any) -> BenchRow:
    sides = {
        "ours": Side(gpu=span(us, 0.051), host=span(22.12), agrees=agrees),
        "native": side(0.83),
        "compile": side(1.001),
        "eager": side(0.1),
        "copy": side(1.5),
    }
    return BenchRow(op="silu", axes=axes, sides=sides)


def lines(*rows: BenchRow) -> list[str]:
    return [*table_lines(rows)]


def test_what_all_cases_share_stands_above_and_the_rest_in_a_column():
    found = lines(row(width=4096, num_tokens=1), row(72.7, width=4096, num_tokens=256))
    assert found == [
        "silu: width=4096",
        "num_tokens     GPU us  /native  /compile  /eager  /copy  host us  agrees",
        "         1  4.21±0.05     0.83     ~1.00    0.10   1.50     22.1     yes",
        "       256   72.7±0.1     0.83     ~1.00    0.10   1.50     22.1     yes",
        "  GPU time, geometric means: 0.83 of native, 1.00 of compile, 0.10 of eager,",
        "    1.50 of copy",
        "  host time, geometric means: 0.83 of native, 1.00 of compile, 0.10 of eager,",
        "    1.50 of copy",
    ]


def test_a_group_stands_together_where_grids_vary_another_axis_faster():
    """As grids of the first pack do, whose token counts are fewer than their sizes."""
    cases = itertools.product((2048, 4096, 8192), (1, 16))
    found = lines(*(row(width=w, num_tokens=n) for w, n in cases))
    start, end = found.index("  num_tokens=1"), found.index("  num_tokens=16")
    assert [line.split()[0] for line in found[start + 1 : end]] == ["2048", "4096", "8192"]
    assert [line.split()[0] for line in found[end + 1 : end + 4]] == ["2048", "4096", "8192"]
    assert len([line for line in found if line.startswith("  num_tokens")]) == 2


def test_cases_that_differ_in_several_axes_are_in_groups():
    cases = itertools.product((2048, 4096), (True, False), (1, 8, 16))
    found = lines(*(row(width=w, bound=b, num_tokens=n, kind="x") for w, b, n in cases))
    assert found[0] == "silu: kind=x"
    assert [line for line in found if line.startswith("  width")] == [
        "  width=2048, bound=true",
        "  width=2048, bound=false",
        "  width=4096, bound=true",
        "  width=4096, bound=false",
    ]
    assert found[1].split()[0] == "num_tokens"
    assert sum(line.endswith("yes") for line in found) == 12


def test_a_case_alone_without_axes():
    found = lines(row())
    assert found[0] == "silu:"
    assert found[1].split()[0] == "case"


def marked(row: BenchRow, **sides: Side) -> BenchRow:
    return BenchRow(op=row.op, axes=row.axes, sides={**row.sides, **sides})


def test_what_is_wrong_or_not_there_is_marked_and_said_below():
    wrong = side(0.5, agrees=False, reason="q[0] is 2, the reference's 3")
    rows = [
        marked(row(n=1), native=wrong, copy=Side(reason="memory")),
        marked(row(n=2, agrees=False), copy=Side(reason="memory")),
        BenchRow(op="silu", axes={"n": 3}, failed="no memory"),
    ]
    found = lines(*rows)
    assert " ".join(found[1].split()) == "n GPU us /native /compile /eager host us agrees"
    assert found[2].split()[2] == "0.50!"
    assert found[3].split()[-1] == "NO"
    assert found[-3:] == [
        "  native: q[0] is 2, the reference's 3 (1 case of 2)",
        "  copy: memory",
        "  failed: n=3: no memory",
    ]


def test_without_a_gpu_the_hosts_times_are_the_table():
    sides = {"ours": Side(host=span(220.0, 9.0), agrees=None), "eager": side(66.0)}
    found = lines(BenchRow(op="silu", axes={"n": 1}, sides=sides))
    assert found[1:3] == ["n  host us  /eager  agrees", "1    220±9   66.00       -"]


def long_rows() -> Sequence[BenchRow]:
    word = "a_name_of_an_axis_that_is_long"
    reason = "the native op is not there, for a reason that takes more than one line to say: " * 3
    sides = {**row(123456.0).sides, "eager": side(123.0, agrees=False, reason=reason)}
    return [
        BenchRow(
            op="silu",
            axes={word: f"value_{n}" * 9, "n": n % 2, "m": n % 3, "same": word},
            sides=sides,
        )
        for n in range(6)
    ]


def test_no_line_is_wider_than_80_columns():
    found = lines(*long_rows(), BenchRow(op="silu", axes={"n": 1}, failed="no memory " * 30))
    assert max(map(len, found)) <= WIDTH
    assert any("a_name_of_an_axis…" in line for line in found)


def test_ops_are_apart_and_control_characters_command_no_terminal():
    bad = BenchRow(op="other", axes={"n": 1}, failed="\x1b[2J")
    found = lines(row(n=1), bad)
    assert "" in found
    assert found[-1] == "  failed: n=1: \\x1b[2J"


def test_a_comparison_says_what_is_slower_and_of_how_much():
    changes = (
        Change(op="silu", case="n=1", what="gpu", base="copy", ratio=1.25, slower=True),
        Change(op="silu", case="n=2", what="gpu", base="ours", ratio=0.8, slower=False),
        Change(op="silu", case="", what="host", base="eager", ratio=1.0, slower=False),
    )
    found = BenchComparison(run="R", changes=changes, remarks=("torch: 1 then, 2 now",))
    assert [*comparison_lines(found)] == [
        "R: torch: 1 then, 2 now",
        "silu: case n=1: the GPU takes, relative to copy, 25.0% longer than in run R",
        "against run R: 2 cases by GPU time, 1 op by host time; 1.000 times as long in",
        "    the mean; 1 slower",
    ]
    nothing = BenchComparison(run="R", changes=(), remarks=())
    assert [*comparison_lines(nothing)] == ["against run R: nothing that both timed; 0 slower"]
