"""The signature of a Helion function, held against the schema of its op."""

# ruff: noqa: E501  # messages are asserted as whole lines

from __future__ import annotations

import ast

import pytest

from kernelpkg.manifest.opschema import INSTEAD, parse_schema
from kernelpkg.packs.signature import (
    call_problem,
    constant_arguments,
    parameters,
    signature_problems,
)


def function(text):
    return ast.parse(text).body[0]


def test_parameters_keep_their_stars():
    """Every kind of parameter is named, in its order."""
    node = function("def f(a, /, b, *c, d, **e): ...")
    assert parameters(node) == ("a", "b", "*c", "d", "**e")


SCHEMA = parse_schema("(Tensor(a!) out, Tensor? x, int n, float f=1.0, bool? b=None) -> ()")
GOOD = "def k(out: torch.Tensor, x: torch.Tensor | None, n: int, f: float = 1.0, b: bool | None = None) -> None: ..."


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("", "", None),
        (": torch.Tensor,", ": Tensor,", None),
        ("x: torch.Tensor | None", "x: Optional[Tensor]", None),
        ("x: torch.Tensor | None", "x: typing.Optional[torch.Tensor]", None),
        ("x: torch.Tensor | None", "x: None | torch.Tensor", None),
        ("x: torch.Tensor | None", "x: 'torch.Tensor | None'", None),
        ("b: bool | None = None", "b: bool = None", None),
        (" = 1.0", "", None),
        (" -> None", "", None),
        ("n: int", "m: int", "the schema's arguments are (out, x, n, f, b), the function's (out, x, m, f, b)"),
        ("n: int", "*, n: int", "the function has arguments that are not positional"),
        ("n: int", "n", "argument 'n' of the function has no annotation; write int"),
        ("n: int", "n: float", "argument 'n' is 'int' by the schema, 'float' in the function"),
        ("x: torch.Tensor | None", "x: torch.Tensor",
            "argument 'x' is 'torch.Tensor | None' by the schema, 'torch.Tensor' in the function"),
        (" = 1.0", " = 2.0", "argument 'f' has default 2.0 in the function, 1.0 by schema"),
        (" = 1.0", " = EPS", "argument 'f' has default EPS in the function, 1.0 by schema"),
        ("n: int, f", "n: int = 3, f", "argument 'n' has default 3 in the function, none by schema"),
        (" -> None", " -> torch.Tensor",
            "by the schema the function returns 'None', but is annotated 'torch.Tensor'"),
        (" -> None", " -> Tuple[Tensor, Tensor]",
            "by the schema the function returns 'None', but is annotated 'tuple[torch.Tensor, torch.Tensor]'"),
        (" -> None", " -> Optional[torch.Tensor]",
            "by the schema the function returns 'None', but is annotated 'torch.Tensor | None'; " + INSTEAD),
        ("def k", "@helion.kernel(config=c)\ndef k",
            "the function is decorated with 'helion.kernel(config=c)'; kernelpkg makes it a kernel, remove it"),
        ("n: int", "n: hl.constexpr", None),
        ("n: int", "n: 'helion.language.constexpr'", None),
        ("b: bool | None", "b: constexpr", None),
        ("f: float", "f: hl.constexpr",
            "argument 'f' is hl.constexpr, and 'float' by the schema; constants are bool, int or str"),
    ],
)  # fmt: skip
def test_signature_and_schema_agree(old, new, problem):
    """The function has the schema's arguments, in type, order and default."""
    assert old in GOOD
    found = signature_problems(function(GOOD.replace(old, new, 1)), SCHEMA)
    assert list(found) == ([] if problem is None else [problem])


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("def f(a, b): ...", True),
        ("def f(x, y): ...", True),
        ("def f(a, /, b): ...", True),
        ("def f(a, b, c=1): ...", True),
        ("def f(a, b=1): ...", True),
        ("def f(*args): ...", True),
        ("def f(a, *args, c=1): ...", True),
        ("def f(a, b, *, c=1): ...", True),
        ("def f(a): ...", False),
        ("def f(a, b, c): ...", False),
        ("def f(a, b, *, c): ...", False),
        ("def f(a, b, c, *args): ...", False),
        ("def f(**kwargs): ...", False),
    ],
)
def test_a_function_takes_what_it_is_called_with(text, fits):
    """Ways out are called by place; their names are their own."""
    problem = call_problem(function(text), ("a", "b"))
    assert (problem is None) == fits
    assert fits or problem.endswith(", but is called with (a, b)")


@pytest.mark.parametrize("returns", ["tuple[torch.Tensor, torch.Tensor]", "Tuple[Tensor, Tensor]"])
def test_the_number_of_returned_tensors_is_checked(returns):
    """A schema of two tensors takes a function annotated with two, and no other."""
    two = parse_schema("(Tensor x) -> (Tensor, Tensor)")
    good = function(f"def k(x: torch.Tensor) -> {returns}: ...")
    assert list(signature_problems(good, two)) == []
    (problem,) = signature_problems(function("def k(x: torch.Tensor) -> torch.Tensor: ..."), two)
    assert problem == (
        "by the schema the function returns 'tuple[torch.Tensor, torch.Tensor]', "
        "but is annotated 'torch.Tensor'"
    )


def test_constants_are_told_by_their_annotation():
    """However Helion is imported; a text or a number is none for its type alone."""
    node = function("def k(x: torch.Tensor, a: hl.constexpr, b: 'lang.constexpr', c: str, d): ...")
    assert constant_arguments(node) == ("a", "b")
