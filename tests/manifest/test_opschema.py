"""The schema of an op, in PyTorch's language: what is read, and what is refused."""

# ruff: noqa: E501  # messages are asserted as whole lines

from __future__ import annotations

import pytest

from kernelpkg.manifest.opschema import (
    NO_DEFAULT,
    OpArg,
    SchemaError,
    name_problem,
    parse_schema,
)


def test_a_schema_with_everything_that_kernels_take():
    """Types, aliases, optionals and defaults are read in order."""
    schema = parse_schema(
        " (Tensor(a!) out, Tensor x, Tensor(b!)? residual, Tensor? bound=None, SymInt size=-1, "
        "float eps=1e-6, bool neox=True, int? group=None, str act='silu', str? mode=None, SymInt[]? sizes=None) -> (Tensor, Tensor scale) "
    )
    assert schema.args == (
        OpArg(name="out", type="Tensor", alias="a"),
        OpArg(name="x", type="Tensor"),
        OpArg(name="residual", type="Tensor", optional=True, alias="b"),
        OpArg(name="bound", type="Tensor", optional=True, default=None),
        OpArg(name="size", type="int", default=-1),
        OpArg(name="eps", type="float", default=1e-6),
        OpArg(name="neox", type="bool", default=True),
        OpArg(name="group", type="int", optional=True, default=None),
        OpArg(name="act", type="str", default="silu"),
        OpArg(name="mode", type="str", optional=True, default=None),
        OpArg(name="sizes", type="int[]", optional=True, default=None),
    )
    assert schema.arg("x").default is NO_DEFAULT
    assert schema.returns == 2
    assert schema.text.startswith("(Tensor(a!) out")
    assert schema.written == ("out", "residual")
    assert schema.arg("eps").default == 1e-6
    assert [arg.is_tensor for arg in schema.args] == [True] * 4 + [False] * 7


@pytest.mark.parametrize(
    ("returns", "count"),
    [("()", 0), ("Tensor", 1), ("(Tensor)", 1), ("(Tensor q, Tensor s)", 2), ("Tensor out", 1)],
)
def test_what_an_op_returns_is_counted(returns, count):
    """An op returns no, one or several tensors."""
    assert parse_schema(f"(Tensor x) -> {returns}").returns == count


def test_an_op_may_take_nothing_that_is_read():
    """Whether an op makes sense is another rule's business."""
    assert parse_schema("() -> Tensor").args == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not of the form '(arguments) -> returns'"),
        ("x(Tensor x) -> ()", "is not of the form '(arguments) -> returns'"),
        ("(Tensor x)", "is not of the form '(arguments) -> returns'"),
        ("(Tensor x, ) -> ()", "has an argument that does not read as 'Type name' or 'Type name=default': ''"),
        ("(Tensor x, *, int y) -> ()", "has an argument that does not read as 'Type name' or 'Type name=default': '*'"),
        ("(Tensor) -> ()", "has an argument that does not read as 'Type name' or 'Type name=default': 'Tensor'"),
        ("(int[2] x) -> ()", "argument 'x' has type 'int[2]'; kernels take Tensor, int, SymInt, float, bool, str and int[]"),
        ("(int[] x=0) -> ()", "argument 'x' has default '0'; it must be none, because a list is always given"),
        ("(str x=silu) -> ()", "argument 'x' has default 'silu'; it must be a text in quotes, without blanks and commas"),
        ("(str x='a\\n') -> ()", "argument 'x' has default ''a\\n''; it must be a text in quotes, without blanks and commas"),
        ("(Tensor(a) x) -> ()", "argument 'x': only a tensor that is written takes an alias, as in 'Tensor(a!) x'"),
        ("(int(a!) x) -> ()", "argument 'x': only a tensor that is written takes an alias, as in 'Tensor(a!) x'"),
        ("(Tensor x, int x) -> ()", "names argument 'x' twice"),
        ("(Tensor(a!) x, Tensor(a!) y) -> ()", "arguments 'x' and 'y' have one alias 'a!'; give each its own letter"),
        ("(Tensor x, int n=1, int m) -> ()", "argument 'm' needs a default, as 'n' has one"),
        ("(Tensor x=None) -> ()", "argument 'x' has default 'None', but is not optional; write 'Tensor? x=None'"),
        ("(Tensor? x=0) -> ()", "argument 'x' has default '0'; it must be None"),
        ("(int n=None) -> ()", "argument 'n' has default 'None', but is not optional; write 'int? n=None'"),
        ("(int n=1_000) -> ()", "argument 'n' has default '1_000'; it must be an int of 64 bits"),
        ("(int n=٣) -> ()", "argument 'n' has default '٣'; it must be an int of 64 bits"),
        (f"(int n={2**63}) -> ()", f"argument 'n' has default '{2**63}'; it must be an int of 64 bits"),
        ("(float f=nan) -> ()", "argument 'f' has default 'nan'; it must be a float"),
        ("(float f=1e999) -> ()", "argument 'f' has default '1e999'; it must be a float"),
        ("(float? f=x) -> ()", "argument 'f' has default 'x'; it must be a float or None"),
        ("(bool b=1) -> ()", "argument 'b' has default '1'; it must be a bool"),
        ("(Tensor x) -> (Tensor, Tensor?)", "returns '(Tensor, Tensor?)'; let the op write an optional argument in place of a result that may be absent, as in 'Tensor(a!)? lse=None'"),
        ("(Tensor x) -> Tensor(a!)", "returns 'Tensor(a!)'; kernels return (), Tensor or (Tensor, Tensor, …)"),
        ("(Tensor x) -> (Tensor,)", "returns '(Tensor,)'; kernels return (), Tensor or (Tensor, Tensor, …)"),
        ("(Tensor x) -> int", "returns 'int'; kernels return (), Tensor or (Tensor, Tensor, …)"),
    ],
)  # fmt: skip
def test_what_is_no_schema_of_a_kernel_is_named(text, message):
    """A schema that kernels cannot have is refused, with the argument and the remedy."""
    with pytest.raises(SchemaError) as caught:
        parse_schema(text)
    assert str(caught.value) == message


def test_all_that_is_wrong_of_a_schema_is_told():
    """One problem hides no other: a type that kernels do not take, a name twice, the returns."""
    with pytest.raises(SchemaError) as caught:
        parse_schema("(Tensor x, Tensor[] xs, int n, int n, Device d) -> int")
    assert [text.partition(";")[0] for text in caught.value.args] == [
        "argument 'xs' has type 'Tensor[]'",
        "argument 'd' has type 'Device'",
        "returns 'int'",
        "names argument 'n' twice",
    ]


@pytest.mark.parametrize(
    ("name", "private", "wrong"),
    [
        ("_twice", True, False),
        ("_twice", False, True),
        ("__len__", True, True),
        ("_dir", True, True),
        ("name", True, True),
        ("twice", False, False),
    ],
)
def test_an_underscore_is_for_names_that_name_no_file(name, private, wrong):
    """An op may begin with one, a kernel of a manifest not; attributes of torch.ops stay."""
    found = name_problem(name, private=private)
    message = f"'{name}' would hide an attribute of torch.ops; choose another name"
    assert found == (message if wrong else None)
