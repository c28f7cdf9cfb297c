"""Maps of coverage against calls that are tried one by one, of random rules, keys and guards."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from kernelpkg.configs.match import identity, matcher
from kernelpkg.configs.selection import make_selection
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.expr.intervals import Range, extent, pieces, value_of
from kernelpkg.expr.language import ExprError, evaluate, parse_expr
from kernelpkg.manifest.cases import Case, guard_problem
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Axis, Dim, Grid, Rule
from kernelpkg.packs.read import read_kernel
from kernelpkg.report.coverage import ORDERED, cover

SPEC = read_kernel(Path(__file__).parents[2], "silu_mul_fp8")
AXES = {"a": "x.shape[0]", "b": "x.shape[1]", "c": "x.shape[2]", "n": "n", "odd": "odd"}
UP_TO = 90
"""How far calls are tried one by one; no tuned number is above a third of it."""

NUMBERS = st.integers(0, 30)
RULES = st.builds(
    Rule,
    axis=st.just("?"),
    match=st.sampled_from(ORDERED),
    distance=st.sampled_from(["abs", "log"]),
    max=st.sampled_from([None, 0.0, 0.25, 0.3, 1.0]),
    over=st.sampled_from(["largest", "miss"]),
    under=st.sampled_from(["smallest", "miss"]),
    bounds=st.sets(NUMBERS, max_size=3).map(lambda ends: tuple(sorted(ends))),
    inexact=st.sampled_from([None, "floor", "below"]),
)
GUARDS = (
    "a <= 20",
    "a * b >= 40",
    "a % 4 == 0 or odd",
    "a in [1, 2, 3] or b > 2",
    "a // 8 * 8 == a",
    "b % 3 == 0",
    "a + n > 3 and not (a > 12 and b > 12)",
    "12 // b > 1",
    "a - b < 10 and -a < n",
)


@st.composite
def rule_lists(draw, names=("a", "b")):
    """Draw rules of some axes in any order, of which one at least has ordered numbers."""
    axes = draw(st.permutations(list(names)))
    rules = [evolve(draw(RULES), axis=axis) for axis in axes[: draw(st.integers(1, len(axes)))]]
    flags = Rule(axis="odd", match="exact")
    return draw(st.permutations([*rules, flags]))


@st.composite
def selections(draw):
    """Draw a kernel with a grid, and a selection over configs of its platform and of another."""
    rules = draw(rule_lists(("a", "b", "n")))
    spec = evolve(
        SPEC,
        schema=parse_schema("(Tensor x, int n, bool odd) -> ()"),
        axes=tuple(Axis(name=name, expr=parse_expr(text)) for name, text in AXES.items()),
        args=(
            ArgSpec(
                name="x",
                variants=(
                    ArgVariant(
                        shape=tuple(Dim(expr=parse_expr(name)) for name in ("a", "b", "c")),
                        dtype=parse_expr("float32"),
                    ),
                ),
            ),
            ArgSpec(name="n", variants=(ArgVariant(value=parse_expr("n")),)),
            ArgSpec(name="odd", variants=(ArgVariant(value=parse_expr("odd")),)),
        ),
        guards=tuple(map(parse_expr, draw(st.lists(st.sampled_from(GUARDS), max_size=2)))),
        rules=tuple(rules),
        defaults={"c": 1},
        miss=draw(st.sampled_from(["default", "error"])),
        grids=(
            Grid(
                use=("tune",),
                axes={
                    "a": (1, 8),
                    "b": tuple(draw(st.sets(NUMBERS, min_size=1, max_size=2))),
                    "n": tuple(draw(st.sets(st.integers(-5, 20), min_size=1, max_size=2))),
                    "odd": (False, True),
                },
            ),
        ),
    )
    files = []
    for platform in draw(st.sampled_from([("here",), ("here", "there"), ("there",), ()])):
        pools = [st.booleans() if rule.axis == "odd" else st.integers(-3, 30) for rule in rules]
        rows = draw(st.lists(st.tuples(*pools), max_size=7, unique=True))
        keys = [dict(zip(spec.key_axes, row, strict=True)) for row in rows]
        keys += [{}] if draw(st.booleans()) else []
        files.append(
            ConfigFile(
                kernel=spec.name,
                platform=platform,
                configs=({"num_warps": 1}, {"num_warps": 2, "indexing": ["pointer"]}),
                cases=tuple(TunedCase(key=key, config=i % 2) for i, key in enumerate(keys)),
            )
        )
    return make_selection(spec, "here", files)


def reach(stretch):
    """Return the numbers of a stretch that are tried."""
    last = UP_TO if stretch.last is None else min(stretch.last, UP_TO)
    return range(stretch.first, last + 1)


def tried(selection, values):
    """Return what one call gets: the guard's answer, or the first option."""
    if guard_problem(selection.spec, Case(values=values, use=(), grid=0)) is not None:
        return "refused"
    axes = [values.get(axis.name) for axis in selection.spec.axes]
    return next(iter(selection.options(axes)), None)


@given(selections())
def test_lines_are_what_each_call_gets(selection):
    """Of every line, every call up to well above all tuned numbers gets what its stretch says."""
    found = cover(selection, {})
    for row in found.rows:
        assert row.line[-1].last is None
        for stretch, after in zip(row.line, row.line[1:], strict=False):
            assert stretch.last == after.first - 1
        for stretch in row.line:
            for number in reach(stretch):
                got = tried(selection, {**row.axes, found.axis: number})
                if got == "refused" and stretch.unless:
                    continue
                if stretch.answer.outcome in ("refused", "missing"):
                    wanted = "refused" if stretch.answer.outcome == "refused" else None
                    assert got == wanted
                else:
                    assert got == stretch.answer.chosen
                    assert got.outcome == stretch.answer.outcome


@given(selections())
def test_calls_of_the_grid_are_what_each_call_gets(selection):
    """Every call of the grid has the outcome, the config and the moves of the call itself."""
    found = cover(selection, {})
    assert sum(len(row.cells) for row in found.rows) > 0
    for row in found.rows:
        for cell in row.cells:
            values = {**row.axes, found.axis: cell.value}
            got = tried(selection, values)
            answer = cell.answer
            assert got == ("refused" if answer.outcome == "refused" else answer.chosen)
            if answer.chosen is None or not answer.chosen.key:
                assert answer.moves == ()
                continue
            key = answer.chosen.key
            moved = {rule.axis for rule in selection.spec.rules
                     if identity(key[rule.axis]) != identity(values[rule.axis])}  # fmt: skip
            assert {move.axis for move in answer.moves} == moved
            far = [move.axis for move in answer.moves if move.extrapolated]
            assert bool(far) == (answer.outcome == "extrapolated")


@given(selections())
def test_lines_of_sizes_are_the_steps_of_each_call(selection):
    """Where a rule takes a size is what the trace of a call with that size says."""
    found = cover(selection, {})
    names = [axis.name for axis in selection.spec.axes]
    for sizes in found.sizes:
        place = selection.spec.key_axes.index(sizes.axis)
        for given_ in sizes.given:
            row = next(r for r in found.rows if r.axes.items() >= given_.items())
            for stretch in sizes.line:
                for number in reach(stretch):
                    values = {found.axis: 8, **row.axes, **given_, sizes.axis: number}
                    step = selection.trace([values.get(name) for name in names])[place]
                    assert (step.chosen, step.outcome) == (stretch.to, stretch.outcome)


@given(RULES, st.sets(st.one_of(st.integers(-6, 30), st.sampled_from([0.5, 7.25, 16.0]))))
def test_rules_turn_nowhere_else(rule, tuned):
    """Between two turns of a rule, `find` says the same of every number."""
    found = matcher(rule, tuned)
    turns = set(found.turns())
    for number in range(-UP_TO, UP_TO):
        if found.find(number) != found.find(number - 1):
            assert number in turns


EXPRESSIONS = st.recursive(
    st.one_of(st.sampled_from(["a", "b", "x.shape[0]"]), st.integers(0, 9).map(str)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        inner.map(lambda text: f"(-{text})"),
    ),
    max_leaves=5,
)
CONDITIONS = st.recursive(
    st.one_of(
        st.tuples(
            EXPRESSIONS, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), EXPRESSIONS
        ).map(" ".join),
        st.tuples(EXPRESSIONS, EXPRESSIONS, EXPRESSIONS).map(lambda p: f"{p[0]} in [{p[1]}, 3]"),
        st.tuples(EXPRESSIONS, EXPRESSIONS).map(lambda p: f"{p[0]} < {p[1]} <= 20"),
        st.just("odd"),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        inner.map(lambda text: f"(not {text})"),
    ),
    max_leaves=4,
)


@given(CONDITIONS, st.integers(-5, 12), st.booleans())
def test_pieces_of_a_condition_are_what_it_says_of_each_number(text, b, odd):
    """Where a condition is said to hold, or not to, it does so for every number."""
    try:
        condition = parse_expr(text.replace("x.shape[0]", "a"))
    except ExprError:
        assume(False)
    known = {"b": value_of(b), "odd": value_of(odd)}
    found = list(pieces(condition, known, "a", 0))
    assert found[0][0] == 0
    ends = [start for start, _ in found[1:]] + [UP_TO]
    for (start, holds), end in zip(found, ends, strict=True):
        for number in range(start, min(end, UP_TO)) if holds is not None else ():
            assert bool(evaluate(condition, {"a": number, "b": b, "odd": odd})) is holds


@given(EXPRESSIONS, st.integers(0, 30), st.integers(-5, 12))
def test_an_extent_holds_every_value(text, a, b):
    """The value of an expression lies in what is worked out of the ranges of its names."""
    try:
        expr = parse_expr(text.replace("x.shape[0]", "a"))
        value = evaluate(expr, {"a": a, "b": b})
    except (ExprError, ZeroDivisionError):
        assume(False)
    for known in ({"a": Range(0, 30), "b": Range(b, b)}, {"a": Range(a, a), "b": Range(-5, 12)}):
        found = extent(expr, known)
        assert found is None or found.low <= value <= found.high
