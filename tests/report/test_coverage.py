"""The map of one op: what the calls of its grid get, what lies between, and models."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.configs import platforms
from kernelpkg.configs.selection import OUTCOMES, Answer, Move, make_selection, read_selection
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.spec import Grid, Reference, Rule
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.report.coverage import Cell, Row, count_outcomes, cover, farthest

ROOT = Path(__file__).parents[2]
HERE = "nvidia_h200"
SPEC = evolve(
    read_kernel(ROOT, "silu_mul_fp8"),
    guards=(),
    rules=(
        Rule(axis="in_dtype", match="exact"),
        Rule(axis="intermediate_size", match="nearest"),
        Rule(axis="num_tokens", match="ceil"),
    ),
    grids=(
        Grid(use=("tune",), axes={"intermediate_size": (64, 128), "num_tokens": (1, 16)}),
        Grid(use=("test",), axes={"intermediate_size": (8,), "num_tokens": (3,)}),
    ),
)
ALL = tuple((size, tokens) for size in (64, 128) for tokens in (1, 16))


def selection_of(*rows, spec=SPEC, platform=HERE, empty=False):
    """Return a selection over cases of (size, tokens), each with a config of its own."""
    keys = [
        {"in_dtype": "bfloat16", "intermediate_size": size, "num_tokens": tokens}
        for size, tokens in rows
    ]
    keys += [{}] if empty else []
    file = ConfigFile(
        kernel=spec.name,
        platform=platform,
        configs=tuple({"num_warps": 2**place} for place in range(len(keys))),
        cases=tuple(TunedCase(key=key, config=place) for place, key in enumerate(keys)),
    )
    return make_selection(spec, HERE, [file] if keys else [])


def line(row):
    """Return a line as (first, last, outcome, tuned number of tokens)."""
    found = []
    for stretch in row.line:
        chosen = stretch.answer.chosen
        key = (chosen and chosen.key) or {}
        to = key.get("num_tokens")
        found.append((stretch.first, stretch.last, stretch.answer.outcome, to))
    return found


def counts(rows):
    return {outcome: count for outcome, count in count_outcomes(rows).items() if count}


def test_the_grid_and_what_lies_between():
    """Rows are the shapes of the cases to tune; their lines hold for all numbers from 1 on."""
    found = cover(selection_of(*ALL), {})
    assert found.axis == "num_tokens"
    assert [dict(row.axes) for row in found.rows] == [
        {"intermediate_size": 64, "in_dtype": "bfloat16"},
        {"intermediate_size": 128, "in_dtype": "bfloat16"},
    ]
    assert counts(found.rows) == {"exact": 4}
    for row in found.rows:
        assert line(row) == [
            (1, 1, "exact", 1),
            (2, 15, "bucketed", 16),
            (16, 16, "exact", 16),
            (17, None, "extrapolated", 16),
        ]


def test_sizes_go_to_the_nearest_one():
    """The other ordered axis has a line of its own, up to all sizes."""
    (sizes,) = cover(selection_of(*ALL), {}).sizes
    assert (sizes.axis, sizes.match, sizes.given) == (
        "intermediate_size",
        "nearest",
        ({"in_dtype": "bfloat16"},),
    )
    assert [(s.first, s.last, s.to, s.outcome) for s in sizes.line] == [
        (1, 63, 64, "extrapolated"),
        (64, 64, 64, "exact"),
        (65, 96, 64, "bucketed"),
        (97, 127, 128, "bucketed"),
        (128, 128, 128, "exact"),
        (129, None, 128, "extrapolated"),
    ]


def test_a_stray_case_takes_a_range_of_sizes():
    """One case of another size takes all sizes near it, at every number of tokens."""
    found = cover(selection_of(*ALL, (100, 1)), {"m": {"intermediate_size": 96}})
    (sizes,) = found.sizes
    assert (83, 99, 100, "bucketed") in [(s.first, s.last, s.to, s.outcome) for s in sizes.line]
    (model,) = found.models
    assert counts(model.rows) == {"bucketed": 1, "extrapolated": 1}
    move = farthest(model.rows)
    assert (move.axis, move.value, move.to, move.ratio) == ("num_tokens", 16, 1, 16.0)


@pytest.mark.parametrize(
    ("miss", "empty", "platform", "outcome", "origin"),
    [
        pytest.param("default", False, None, "default", "manifest", id="manifest"),
        pytest.param("error", False, None, "missing", "none", id="error"),
        pytest.param("default", True, HERE, "default", "empty", id="empty-case"),
        pytest.param("error", True, HERE, "default", "empty", id="empty-case-and-error"),
        pytest.param("default", True, "nvidia_h100", "default", "borrowed", id="borrowed"),
        pytest.param("error", True, "nvidia_h100", "missing", "none", id="nothing-borrowed"),
    ],
)
def test_what_runs_where_nothing_is_tuned(miss, empty, platform, outcome, origin):
    """A default says where it comes from; where a miss is an error, calls are missing."""
    spec = evolve(SPEC, miss=miss)
    found = cover(selection_of(spec=spec, empty=empty, platform=platform or HERE), {})
    assert counts(found.rows) == {outcome: 4}
    for row in found.rows:
        (stretch,) = row.line
        assert (stretch.first, stretch.last) == (1, None)
        assert (stretch.answer.outcome, stretch.answer.origin) == (outcome, origin)


def test_a_variant_that_was_never_tuned():
    """Another dtype's case stands in, and the moves say so."""
    grid = Grid(
        use=("bench",),
        axes={"intermediate_size": (64,), "num_tokens": (1,), "in_dtype": ("float16",)},
    )
    found = cover(selection_of(*ALL, spec=evolve(SPEC, grids=(grid,))), {})
    answer = found.rows[0].cells[0].answer
    assert (answer.outcome, answer.origin) == ("default", "variant")
    (move,) = answer.moves
    assert (move.axis, move.value, move.to) == ("in_dtype", "float16", "bfloat16")


def test_a_guard_that_bounds_the_line():
    """It refuses from a number on; below, the rules have the word."""
    spec = evolve(SPEC, guards=(parse_expr("num_tokens * intermediate_size <= 64 * 100"),))
    first, second = cover(selection_of(*ALL, spec=spec), {}).rows
    assert line(first)[-2:] == [(17, 100, "extrapolated", 16), (101, None, "refused", None)]
    assert line(second)[-2:] == [(17, 50, "extrapolated", 16), (51, None, "refused", None)]


def test_a_guard_that_repeats_is_told_beside_the_outcome():
    """Nothing is said of which calls it refuses; the others get what is said."""
    text = "num_tokens % 4 == 0 or num_tokens == 1"
    spec = evolve(SPEC, guards=(parse_expr(text),))
    row = cover(selection_of(*ALL, spec=spec), {}).rows[0]
    assert {stretch.unless for stretch in row.line} == {(text,)}
    assert counts([row]) == {"exact": 2}


def test_models_of_all_kinds():
    """Shapes come from the model, the rest from defaults and the grid; nothing vanishes."""
    models = {
        "known": {"intermediate_size": 128},
        "odd": {"intermediate_size": 100},
        "stranger": {"hidden_size": 4096},
        "wrong": {"intermediate_size": "int8"},
        "below": {"intermediate_size": -1},
        "along": {"intermediate_size": 64, "num_tokens": 5},
    }
    spec = evolve(SPEC, guards=(parse_expr("intermediate_size % 64 == 0"),))
    found = {model.name: model for model in cover(selection_of(*ALL, spec=spec), models).models}
    assert list(found) == list(models)
    assert counts(found["known"].rows) == {"exact": 2}
    assert counts(found["odd"].rows) == {"refused": 2}
    answer = found["odd"].rows[0].cells[0].answer
    assert answer.guard == "guard 'intermediate_size % 64 == 0' refuses it"
    assert [(s.first, s.last) for s in found["odd"].rows[0].line] == [(1, None)]
    assert (found["stranger"].given, found["stranger"].rows) == ({}, ())
    assert found["wrong"].impossible == (
        "axis 'intermediate_size' is int8; it must be a whole number, 0 or more",
    )
    assert found["below"].impossible == (
        "axis 'intermediate_size' is -1; it must be a whole number, 0 or more",
    )
    assert [cell.value for cell in found["along"].rows[0].cells] == [5]
    assert counts(found["along"].rows) == {"bucketed": 1}


def test_a_model_that_lacks_an_axis():
    """An axis that other models give has a default, or the model is not mapped."""
    spec = read_kernel(ROOT, "fused_qk_norm_rope")
    models = {
        "full": {"num_heads_q": 16, "num_heads_k": 4},
        "by-default": {"num_heads_q": 16},
        "lacking": {"num_heads_k": 8},
    }
    full, default, lacking = cover(make_selection(spec, HERE, []), models).models
    assert {row.axes["num_heads_k"] for row in full.rows} == {4}
    assert {row.axes["num_heads_k"] for row in default.rows} == {8}
    assert (lacking.lacking, lacking.rows) == (("num_heads_q",), ())


def test_a_picker_of_its_own_is_not_mapped():
    """Nothing is guessed of a function."""
    spec = evolve(SPEC, picker=Reference(file="host.py", name="pick"))
    found = cover(selection_of(*ALL, spec=spec), {"m": {"intermediate_size": 64}})
    assert found.unverified == "picks with 'host.py:pick', which needs the arguments of a call"
    assert (found.rows, found.sizes, found.models) == ((), (), ())


def test_without_an_ordered_axis_there_are_no_lines():
    """Each shape is one call then."""
    rules = tuple(evolve(rule, match="exact") for rule in SPEC.rules)
    found = cover(selection_of((64, 1), (64, 16), spec=evolve(SPEC, rules=rules)), {})
    assert found.axis is None
    assert counts(found.rows) == {"exact": 2, "default": 2}
    assert {row.line for row in found.rows} == {()}


def test_a_grid_for_tests_alone_has_no_calls():
    found = cover(selection_of(*ALL, spec=evolve(SPEC, grids=SPEC.grids[1:])), {})
    assert (found.rows, found.sizes) == ((), ())


def test_the_first_pack_is_exact_where_it_was_tuned():
    """Every call of every tuned grid has its own case on an H200, and every line is open above."""
    pack = read_pack(ROOT, "kernelpkg")
    for name in pack.kernels:
        spec = read_kernel(ROOT, name)
        spec = evolve(spec, grids=[grid for grid in spec.grids if "tune" in grid.use])
        selection = read_selection(pack, spec, platforms.resolve(HERE))
        found = cover(selection, pack.models)
        assert set(counts(found.rows)) == {"exact"}
        assert sum(counts(found.rows).values()) == selection.own().file.counts()[0]
        for row in found.rows:
            assert line(row)[-1] == (16385, None, "extrapolated", 16384)


def move(value, to, *, extrapolated=True):
    return Move(axis="n", value=value, to=to, extrapolated=extrapolated)


def test_rows_are_counted_and_the_farthest_move_is_found():
    """Each outcome is counted, in order; moves that do not extrapolate do not count as far."""
    answers = [
        Answer(outcome="exact"),
        Answer(outcome="bucketed", moves=(move(1, 99, extrapolated=False),)),
        Answer(outcome="extrapolated", moves=(move(8, 4), move(4, 12))),
    ]
    row = Row(axes={}, cells=tuple(Cell(value=1, answer=a) for a in answers), line=())
    assert tuple(count_outcomes([row, row])) == OUTCOMES
    assert count_outcomes([row, row]) == {
        "exact": 2, "bucketed": 2, "extrapolated": 2, "default": 0, "missing": 0, "refused": 0,
    }  # fmt: skip
    assert farthest([row]) == move(4, 12)
    assert farthest([]) is None
