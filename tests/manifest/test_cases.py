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
    case_elements,
    cases_for_tests,
    cases_of,
    check_bytes,
    count,
    expand,
    guard_problem,
    guard_problems,
    is_empty,
    needed_axes,
    show,
    shown_bytes,
    sizes,
    smallest_case,
    smoke_cases,
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


def test_a_number_that_is_0_makes_nothing_empty():
    """What the op takes may be 0, as a shift by nothing; a size that is 0 leaves no elements."""
    roll = read_kernel(Path(__file__).parents[1] / "packs" / "kinds", "roll")
    tuned = cases_of(roll, "tune")
    assert [(is_empty(roll, case), case.size()) for case in tuned] == [
        (False, 16 * 1024 * 3),
        (False, 1024 * 1024 * 3),
    ]
    assert is_empty(roll, changed(tuned[0], num_rows=0))
    assert str(smallest_case(roll)) == "num_rows=9, width=8, down=8, right=3"


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


ROOT = Path(__file__).parents[2]


def case_bytes(spec, case):
    return sum(size.bytes for size in sizes(spec, case))


def changed(case: Case, **values: object) -> Case:
    return Case(values={**case.values, **values}, use=case.use, grid=case.grid)  # type: ignore[dict-item]


def test_sizes_by_hand():
    """Shapes, strides that are padded, dtypes of one to four bytes, an argument that is absent."""
    spec = read_kernel(ROOT, "rms_norm_per_block_quant")
    case = changed(
        cases_of(spec, "tune")[0],
        num_tokens=5,
        hidden_size=640,
        has_residual=False,
        has_scale_ub=True,
        is_scale_transposed=True,
    )
    found = {size.name: (size.elements, size.bytes) for size in sizes(spec, case)}
    assert found == {
        "result": (3200, 3200),  # FP8
        "input": (3200, 6400),  # bfloat16
        "weight": (640, 1280),
        "scale": (25, (1 + 4 + 4 * 8) * 4),  # float32, strides (1, 8): 5 padded to 8
        "scale_ub": (1, 4),
    }
    assert case_bytes(spec, case) == 3200 + 6400 + 1280 + 148 + 4
    assert case_elements(spec, case) == 3200 + 3200 + 640 + 25 + 1
    assert check_bytes(spec, case) == 2 * case_bytes(spec, case) + 72 * 3200


def test_nothing_is_allocated():
    """A case beyond all memory has a size as any other."""
    spec = read_kernel(ROOT, "silu_mul_fp8")
    case = changed(cases_of(spec, "tune")[0], num_tokens=1 << 50)
    assert case_bytes(spec, case) == (1 << 50) * 2 * 2048 * 2 + 4


def test_an_empty_tensor_takes_nothing():
    spec = read_kernel(ROOT, "silu_mul_fp8")
    assert case_bytes(spec, changed(cases_of(spec, "tune")[0], num_tokens=0)) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"hidden_size": -1}, "argument 'input' would have shape [1, -1]", id="below"),
        pytest.param({"group_size": 0}, "argument 'output_s': divides by zero", id="by-zero"),
        pytest.param({"hidden_size": 5.5}, "argument 'input' would have shape [1, 5.5]", id="fraction"),
        pytest.param({"hidden_size": "x"}, "argument 'input' would have shape [1, 'x']", id="text"),
    ],
)  # fmt: skip
def test_what_cannot_be_made(values, message):
    spec = read_kernel(ROOT, "per_token_group_fp8_quant")
    case = changed(cases_of(spec, "tune")[0], **values)
    with pytest.raises(CaseProblem) as caught:
        case_bytes(spec, case)
    assert (caught.value.code, str(caught.value)) == ("KP133", f"case {case}: {message}")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        pytest.param(0, "0 bytes", id="none"),
        pytest.param(1023, "1023 bytes", id="bytes"),
        pytest.param(1536, "1.5 KiB", id="kib"),
        pytest.param(27 * 2**30, "27.0 GiB", id="gib"),
        pytest.param(2**50, "1024.0 TiB", id="tib"),
    ],
)
def test_bytes_as_people_read_them(count, text):
    assert shown_bytes(count) == text


def test_a_smoke_check_has_a_case_of_one_too():
    """Code for sizes of 1 is other code; a case that is large is left out."""
    sizes = {"num_tokens": (1, 20), "hidden_size": (64, 128)}
    spec = evolve(SPEC, grids=(Grid(use=("tune", "test"), axes=sizes),))
    found = [(case.values["num_tokens"], case.values["hidden_size"]) for case in smoke_cases(spec)]
    assert found == [(20, 64), (1, 64)]
    large = {"num_tokens": (1, 20), "hidden_size": (1 << 20,)}
    spec = evolve(SPEC, grids=(Grid(use=("tune",), axes=large),))
    assert [case.values["num_tokens"] for case in smoke_cases(spec)] == [20]
    assert smoke_cases(SPEC) == (smallest_case(SPEC), *smoke_cases(SPEC)[1:])


def test_a_grid_for_the_interpreter_stands_for_that_of_tests():
    """Where calls are interpreted, and there alone; without one, that of tests does."""
    grid = Grid(use=("interpret",), axes={"num_tokens": (2, 3), "hidden_size": (8,)})
    spec = evolve(SPEC, grids=(*SPEC.grids, grid))
    found = [case.values["num_tokens"] for case in cases_for_tests(spec, interpret=True)]
    assert found == [2, 3]
    assert cases_for_tests(spec, interpret=False) == cases_of(SPEC, "test")
    assert cases_for_tests(SPEC, interpret=True) == cases_of(SPEC, "test")
    assert smallest_case(spec, interpret=True).values["num_tokens"] == 2
    assert smallest_case(spec) == smallest_case(SPEC)
    assert not set(map(str, cases_of(SPEC, "interpret")))
