"""Figures of runs: the last of each case, laid out as a plane, and how they went over time."""

from __future__ import annotations

import pytest

from kernelpkg.report.measured import (
    measured_by_machine,
    over_time,
    plane_of,
)


def interval(value):
    return {"median": value, "low": value * 0.9, "high": value * 1.1}


def side(us, ratio=None, *, host=False):
    what, other = ("host", "gpu") if host else ("gpu", "host")
    return {
        f"{what}_us": interval(us),
        f"{what}_ratio": ratio and interval(ratio),
        f"{other}_us": None,
        f"{other}_ratio": None,
        "agrees": True,
        "reason": "",
    }


def row(axes, us=10.0, *, op="a", host=False, **ratios):
    sides = {"ours": side(us, host=host)}
    sides |= {name: side(us / ratio, ratio, host=host) for name, ratio in ratios.items()}
    return {"op": f"ns::{op}", "axes": axes, "bytes": None, "sides": sides, "failed": None}


def run(rows, day=1, machine="NVIDIA H200"):
    return {
        "edition": 1,
        "run": f"run{day}",
        "date": f"2026-11-{day:02}T10:00:00Z",
        "pack": "p",
        "machine": machine,
        "versions": {"torch": f"2.{day}"},
        "rows": rows,
    }


def test_the_last_figure_of_each_case_counts():
    first = run([row({"n": 1}, 10.0, native=0.5, copy=2.0), row({"n": 2}, 20.0, native=0.25)])
    last = run([row({"n": 1}, 8.0, native=0.4)], day=2)
    (found,) = measured_by_machine([first, last], "ns")
    assert (found.machine, found.on_gpu, found.date) == ("NVIDIA H200", True, last["date"])
    assert found.versions == {"torch": "2.2"}
    figures = {figure.axes["n"]: figure for figure in found.of("a")}
    assert (figures[1].us, figures[1].faster, figures[1].share) == (8.0, {"native": 2.5}, None)
    assert (figures[2].us, figures[2].faster) == (20.0, {"native": 4.0})
    assert figures[2].half == pytest.approx(2.0)
    assert found.of("b") == ()


def test_a_copy_is_no_baseline_but_a_share():
    (found,) = measured_by_machine([run([row({"n": 1}, copy=1.25, eager=0.1)])], "ns")
    (figure,) = found.figures
    assert (figure.faster, figure.share) == ({"eager": 10.0}, 0.8)


def test_gpus_come_before_cpus_and_the_last_that_ran_before_others():
    runs = [
        run([row({"n": 1})], 1, "NVIDIA H100"),
        run([row({"n": 1})], 2, "NVIDIA H200"),
        run([row({"n": 1}, host=True, eager=2.0)], 3, "cpu"),
    ]
    found = measured_by_machine(runs, "ns")
    assert [one.machine for one in found] == ["NVIDIA H200", "NVIDIA H100", "cpu"]
    assert [one.on_gpu for one in found] == [True, True, False]
    assert found[2].figures[0].faster == {"eager": 0.5}


def test_cases_that_failed_have_no_figure():
    failed = {"op": "ns::a", "axes": {"n": 1}, "bytes": None, "sides": {}, "failed": "no memory"}
    (found,) = measured_by_machine([run([failed, row({"n": 2})])], "ns")
    assert [figure.axes for figure in found.figures] == [{"n": 2}]


def test_runs_are_compared_over_the_cases_that_all_have():
    """The case of the first run alone would make it look faster than it was."""
    runs = [
        run([row({"n": 1}, native=0.5), row({"n": 2}, native=0.01)], 1),
        run([row({"n": 1}, native=0.25)], 2),
    ]
    (found,) = measured_by_machine(runs, "ns")
    assert [*over_time(found, "ns")] == [
        (runs[0]["date"], "a", "native", pytest.approx(2.0)),
        (runs[1]["date"], "a", "native", pytest.approx(4.0)),
    ]


def test_of_the_two_numbers_of_most_values_the_first_goes_down():
    rows = [
        row({"size": size, "tokens": tokens, "wide": wide, "kind": "x"})
        for size in (64, 128)
        for tokens in (1, 2, 3)
        for wide in (False, True)
    ]
    (found,) = measured_by_machine([run(rows)], "ns")
    assert found.older == 0
    plane = plane_of(found.figures)
    assert (plane.across, plane.down, plane.shared) == ("tokens", "size", {"kind": "x"})
    assert [*plane.parts] == ["wide=false", "wide=true"]
    assert {len(figures) for figures in plane.parts.values()} == {6}


def test_figures_of_another_state_of_the_pack_are_counted():
    """A case that the last state of it was timed with is none of them."""
    runs = [{**run([row({"n": 1}), row({"n": 2})]), "digest": "a"}]
    runs += [{**run([row({"n": 2}), row({"n": 3})]), "digest": "b"}]
    (found,) = measured_by_machine(runs, "ns")
    assert (len(found.figures), found.older) == (3, 1)


@pytest.mark.parametrize(
    ("rows", "across", "down", "parts"),
    [
        ([{}], "", "", [""]),
        ([{"n": 1}], "", "", [""]),
        ([{"n": 1}, {"n": 2}], "n", "", [""]),
        ([{"n": 1, "s": "a"}, {"n": 1, "s": "b"}], "", "", ["s=a", "s=b"]),
        ([{"a": 1, "b": 1}, {"a": 2, "b": 2}], "b", "a", [""]),
        ([{"n": 1, "o": None}, {"n": 2, "o": 3}], "n", "", ["o=none", "o=3"]),
    ],
)
def test_planes_of_few_axes(rows, across, down, parts):
    (found,) = measured_by_machine([run([row(axes) for axes in rows])], "ns")
    plane = plane_of(found.figures)
    assert (plane.across, plane.down, [*plane.parts]) == (across, down, parts)
