"""Compiled expressions against a naive model that walks its own tree, over random expressions."""

from __future__ import annotations

import operator

from hypothesis import given, settings
from hypothesis import strategies as st

from kernelpkg.expr.language import DTYPES, compile_exprs, parse_expr

# The model's tree is nested tuples, made beside the text, so that nothing of ours parses it.
OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}
COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NAMES = ("a", "b", "c")
TENSORS = ("x", "y")


class Tensor:
    """What expressions read of a tensor."""

    def __init__(self, shape, dtype):
        self.shape = shape
        self.ndim = len(shape)
        self.dtype = f"torch.{dtype}"

    def numel(self):
        return self.shape[0] * self.shape[1]

    def stride(self, place):
        return (self.shape[1], 1)[place]

    def is_contiguous(self):
        return self.shape[0] > 1


class Missing(Exception):
    """The model has read an absent argument."""


def leaf(text, *tree):
    return text, tree


LEAVES = st.one_of(
    st.integers(0, 9).map(lambda n: leaf(str(n), "value", n)),
    st.sampled_from([0.5, 2.0, 1e-6]).map(lambda f: leaf(repr(f), "value", f)),
    st.booleans().map(lambda b: leaf(str(b), "value", b)),
    st.sampled_from(NAMES).map(lambda n: leaf(n, "name", n)),
    st.tuples(st.sampled_from(TENSORS), st.integers(-2, 1)).map(
        lambda t: leaf(f"{t[0]}.shape[{t[1]}]", "read", t[0], lambda x: x.shape[t[1]])
    ),
    st.tuples(st.sampled_from(TENSORS), st.integers(-2, 1)).map(
        lambda t: leaf(f"{t[0]}.stride({t[1]})", "read", t[0], lambda x: x.stride(t[1]))
    ),
    st.sampled_from(TENSORS).map(lambda n: leaf(f"{n}.ndim", "read", n, lambda x: x.ndim)),
    st.sampled_from(TENSORS).map(lambda n: leaf(f"{n}.numel()", "read", n, lambda x: x.numel())),
    st.sampled_from(TENSORS).map(
        lambda n: leaf(f"{n}.is_contiguous()", "read", n, lambda x: x.is_contiguous())
    ),
    st.tuples(st.sampled_from(NAMES + TENSORS), st.booleans()).map(
        lambda t: leaf(f"({t[0]} is {'not ' if t[1] else ''}None)", "tests", *t)
    ),
    st.tuples(
        st.sampled_from(TENSORS), st.booleans(), st.lists(st.sampled_from(DTYPES), max_size=3)
    ).map(
        lambda t: leaf(
            f"({t[0]}.dtype {'not ' if t[1] else ''}in [{', '.join(t[2])}])", "dtype", *t
        )
    ),
)


def grown(part):
    """Larger expressions; parentheses are left out where Python's precedence allows it."""
    return st.one_of(
        st.tuples(part, st.sampled_from(sorted(OPERATORS)), part).map(
            lambda t: (f"({t[0][0]}) {t[1]} ({t[2][0]})", ("binary", t[1], t[0][1], t[2][1]))
        ),
        st.tuples(part, st.sampled_from(sorted(COMPARISONS)), part).map(
            lambda t: (
                (f"({t[0][0]} {t[1]} {t[2][0]})", ("compare", t[1], t[0][1], t[2][1]))
                if t[0][1][0] in ("value", "name", "read")
                and t[2][1][0] in ("value", "name", "read")
                else (f"(({t[0][0]}) {t[1]} ({t[2][0]}))", ("compare", t[1], t[0][1], t[2][1]))
            )
        ),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(part, min_size=2, max_size=3)).map(
            lambda t: (f" {t[0]} ".join(f"({p[0]})" for p in t[1]), (t[0], *(p[1] for p in t[1])))
        ),
        st.tuples(part, part, st.lists(part, max_size=2)).map(
            lambda t: (
                f"(({t[0][0]}) in [{', '.join(f'({p[0]})' for p in (t[1], *t[2]))}])",
                ("in", t[0][1], t[1][1], *(p[1] for p in t[2])),
            )
        ),
        part.map(lambda p: (f"not ({p[0]})", ("not", p[1]))),
        part.map(lambda p: (f"-({p[0]})", ("minus", p[1]))),
    )


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=8)


def walk(tree, values):
    """The naive model: one case per kind of node."""
    kind, *parts = tree
    if kind == "value":
        return parts[0]
    if kind == "tests":
        return (values[parts[0]] is not None) == parts[1]
    if kind in ("name", "read", "dtype"):
        value = values[parts[0]]
        if value is None:
            raise Missing
        if kind == "dtype":
            return (value.dtype.split(".")[1] in parts[2]) != parts[1]
        return value if kind == "name" else parts[1](value)
    if kind == "binary":
        left = walk(parts[1], values)
        return OPERATORS[parts[0]](left, walk(parts[2], values))
    if kind == "compare":
        left = walk(parts[1], values)
        return COMPARISONS[parts[0]](left, walk(parts[2], values))
    if kind == "in":
        left = walk(parts[0], values)
        return left in [walk(part, values) for part in parts[1:]]
    if kind == "not":
        return not walk(parts[0], values)
    if kind == "minus":
        return -walk(parts[0], values)
    for part in parts:
        found = walk(part, values)
        if bool(found) == (kind == "or"):
            break
    return found


def outcome(evaluate):
    try:
        return evaluate()
    except Missing:
        return "absent"
    except ZeroDivisionError:
        return "division"


VALUES = st.fixed_dictionaries(
    {
        **{name: st.one_of(st.none(), st.integers(-5, 20), st.booleans()) for name in NAMES},
        **{
            name: st.one_of(
                st.none(),
                st.builds(
                    Tensor,
                    st.tuples(st.integers(0, 5), st.integers(0, 5)),
                    st.sampled_from(DTYPES[:4]),
                ),
            )
            for name in TENSORS
        },
    }
)


@settings(max_examples=200)
@given(EXPRESSIONS, VALUES)
def test_compiled_code_agrees_with_a_naive_model(expression, values):
    """Every value, type, absence and division by zero is the model's."""
    text, tree = expression
    try:
        expr = parse_expr(text)
    except ValueError as error:
        assert "divides by zero" in str(error) or "nested" in str(error) or "longer" in str(error)
        return
    expected = outcome(lambda: walk(tree, values))
    nullable = frozenset(name for name, value in values.items() if value is None)
    for known in (nullable, frozenset(values)):
        read = compile_exprs([expr], tuple(values), nullable=known)
        found = outcome(lambda read=read: read(*values.values())[0])
        if expected == "absent":
            assert found is None
        else:
            assert found == expected
            assert type(found) is type(expected)


@given(EXPRESSIONS)
def test_the_names_are_those_that_stand_there(expression):
    """No name is missed, which would make an absent argument a traceback."""
    text, tree = expression
    found = set()

    def collect(node):
        if node[0] in ("name", "read", "dtype", "tests"):
            found.add(node[1])
        for part in node:
            if isinstance(part, tuple) and part:
                collect(part)

    collect(tree)
    try:
        expr = parse_expr(text)
    except ValueError:
        return
    assert set(expr.names()) == found
