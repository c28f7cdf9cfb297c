"""The cases of a kernel: grids, rows and defaults multiplied out, and what guards say of them."""

# ruff: noqa: E501  # tables of cases have a line each

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.cases import (
    Case,
    CaseProblem,
    Evaluator,
    cases_of,
    count,
    expand,
    guard_problem,
    guard_problems,
    needed_axes,
    show,
    smallest_case,
)
from kernelpkg.manifest.spec import Grid
from kernelpkg.packs.read import read_kernel

SPEC = read_kernel(Path(__file__).parents[1] / "golden" / "good", "x")


def test_a_grid_is_the_product_of_its_axes_times_its_rows():
    """Rows come first, then the axes in their order; defaults fill what neither gives."""
    found = [tuple(case.values.values()) for case in expand(SPEC, 0)]
    assert found == [
        (tokens, size, 4, "bfloat16", residual)
        for residual in (True, False)
        for size in (64, 128)
        for tokens in (1, 16)
    ]
    assert list(expand(SPEC, 0)[0].values) == [axis.name for axis in SPEC.axes]
    assert [count(grid) for grid in SPEC.grids] == [8, 2]


def test_a_grid_of_its_own_value_wins_over_the_default():
    """What stands nearer to the case counts."""
    assert {case.values["dtype"] for case in expand(SPEC, 1)} == {"float32"}


def test_the_cases_of_a_use_are_distinct():
    """A case that two grids have is made once; True and 1 are two values."""
    both = evolve(SPEC, grids=(*SPEC.grids, SPEC.grids[0]))
    assert len(cases_of(both, "tune")) == len(cases_of(SPEC, "tune")) == 8
    assert len(cases_of(SPEC, "test")) == 10
    assert [case.grid for case in cases_of(SPEC, "test")][-2:] == [1, 1]
    mixed = evolve(
        SPEC,
        grids=(Grid(use=("tune",), axes={"num_tokens": (1, True, 1.0), "hidden_size": (64,)}),),
    )
    assert len(cases_of(mixed, "tune")) == 3


def test_a_case_without_a_needed_axis_is_refused():
    """Rules, shapes and scalars need their axes."""
    assert needed_axes(SPEC) == ("num_tokens", "hidden_size", "group", "dtype", "has_residual")
    lacking = evolve(SPEC, defaults={"group": 4, "dtype": "bfloat16"})
    with pytest.raises(CaseProblem) as caught:
        expand(lacking, 1)
    assert caught.value.code == "KP141"
    assert str(caught.value) == (
        "cases have no value for axis 'has_residual'; give it in the grid or in [inputs] default"
    )


def test_a_case_is_shown_as_toml_spells_it():
    """Flags are lower case, dtypes without quotes, an absent argument is none."""
    case = Case(values={"n": 3, "b": True, "d": "int8", "a": None, "f": 0.5}, use=(), grid=0)
    assert str(case) == "n=3, b=true, d=int8, a=none, f=0.5"
    assert [show(value) for value in (False, None, "x")] == ["false", "none", "x"]


def test_the_smallest_case_is_not_empty():
    """A smoke check of no elements would check nothing."""
    assert str(smallest_case(SPEC)) == (
        "num_tokens=3, hidden_size=8, group=4, dtype=float32, has_residual=false"
    )


def test_the_key_of_a_case_has_the_order_of_the_rules():
    """Case keys name the axes that rules name."""
    assert expand(SPEC, 0)[0].key(SPEC) == (True, "bfloat16", 64, 1)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"hidden_size": 8, "group": 4, "dtype": "float32"}, None),
        ({"hidden_size": 9, "group": 4, "dtype": "float32"}, "guard 'hidden_size % group == 0' refuses it"),
        ({"hidden_size": 8, "group": 0, "dtype": "float32"}, "guard 'hidden_size % group == 0' divides by zero"),
        ({"hidden_size": 8, "group": 4, "dtype": "int8"}, "guard 'dtype in [bfloat16, float32]' refuses it"),
        ({"hidden_size": 8, "group": None, "dtype": "int8"}, "guard 'hidden_size % group == 0' refuses it"),
        ({"hidden_size": 9}, None),
        ({"dtype": "int8"}, "guard 'dtype in [bfloat16, float32]' refuses it"),
    ],
)  # fmt: skip
def test_a_guard_is_asked_where_its_axes_are_known(values, problem):
    """The first guard that refuses is told; one over other names is for calls."""
    assert guard_problem(SPEC, Case(values=values, use=(), grid=0)) == problem


def test_guards_are_told_per_case():
    """Cases that pass are not told."""
    values = [{"hidden_size": size, "group": 4, "dtype": "float32"} for size in (8, 9, 12, 10)]
    cases = [Case(values=value, use=(), grid=0) for value in values]
    found = [
        (case.values["hidden_size"], guard.text) for case, guard, _ in guard_problems(SPEC, cases)
    ]
    assert found == [(9, "hidden_size % group == 0"), (10, "hidden_size % group == 0")]


def test_an_evaluator_reads_names_dtypes_and_expressions():
    """One function is made for an expression and the names of a case."""
    evaluate = Evaluator()
    double = parse_expr("n * 2")
    assert [evaluate(double, {"n": n}) for n in (1, 2, 3)] == [2, 4, 6]
    assert evaluate(double, {"m": 7, "n": 1}) == 2
    assert evaluate(parse_expr("n"), {"n": 5}) == 5
    assert evaluate(parse_expr("int8"), {"n": 5}) == "int8"
    assert evaluate(parse_expr("n + 1"), {"n": None}) is False
    residual = SPEC.args[2]
    given = {**expand(SPEC, 0)[0].values, "has_residual": True}
    assert evaluate.variant(residual, Case(values=given, use=(), grid=0)) is residual.variants[0]
    given["has_residual"] = False
    assert evaluate.variant(residual, Case(values=given, use=(), grid=0)) is None
