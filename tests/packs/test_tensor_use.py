"""What a function of a kernel does with tensors that no call takes, read from its text."""

from __future__ import annotations

import ast
from textwrap import indent

import pytest

from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.packs.tensor_use import misuses, unplaced

SCHEMA = parse_schema("(Tensor(a!) out, Tensor x, Tensor y, int n) -> Tensor")


def function(body):
    text = f"def f(out, x, y, n):\n{indent(body, '    ')}"
    return ast.parse(text).body[0]


def found(body):
    """Return the lines of the body that are told, with the codes."""
    return [(line - 1, code) for line, code, _ in misuses(function(body), SCHEMA)]


LOOP = "for tile in hl.tile(n):\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (f"{LOOP}    x[tile] = 0", 2),
        (f"{LOOP}    x[tile] += 1", 2),
        (f"{LOOP}    out[tile], x[tile] = 0, 0", 2),
        (f"{LOOP}    hl.store(x, [tile], 0)", 2),
        (f"{LOOP}    hl.atomic_add(x, [tile], 0)", 2),
        (f"rows = x.view(-1, 2)[:, 0]\n{LOOP}    rows[tile] = 0", 3),
        (f"turned = x.T\nrows = turned.transpose(0, 1)\n{LOOP}    rows[tile] = 0", 4),
    ],
)
def test_an_argument_that_is_not_marked_is_not_written(body, line):
    """Neither itself nor a view of it that has a name; once, however often it is."""
    assert found(f"{body}\n{LOOP}    x[tile] = 1\nreturn y + 1") == [(line, "KP116")]


@pytest.mark.parametrize(
    "body",
    [
        f"{LOOP}    out[tile] = x[tile]",
        f"x = x.clone()\n{LOOP}    x[tile] = 0",
        f"rows = x.reshape(-1)\n{LOOP}    rows[tile] = 0",
        f"rows = x.view(-1)\nif n:\n    rows = y + 1\n{LOOP}    rows[tile] = 0",
        f"rows = x.view(-1) + 1\n{LOOP}    rows[tile] = 0",
        f"{LOOP}    value = hl.load(x, [tile])",
    ],
)
def test_what_may_be_memory_of_its_own_is_written(body):
    """A name that is bound again, a result of arithmetic, and what reshape may copy."""
    assert found(f"{body}\nreturn y + 1") == []


def test_an_op_that_is_said_to_write_nothing_is_told_of_its_schema():
    """It has neither results nor written arguments: that is one error, of the manifest."""
    schema = parse_schema("(Tensor x) -> ()")
    written = ast.parse(f"def f(x):\n{indent(f'{LOOP}    x[tile] = 0', '    ')}").body[0]
    assert list(misuses(written, schema)) == []


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (f"z = torch.empty(n)\n{LOOP}    z[tile] = x[tile]\nreturn z", 1),
        ("z = torch.zeros([n], dtype=x.dtype)\nreturn z.view(-1)", 1),
        ("return torch.full((n,), 1.0)", 1),
        ("return x + 1, torch.ones(n)", 1),
        ("if n:\n    z = torch.ones(n)\nelse:\n    z = x + 1\nreturn z", 2),
        (f"for i in range(3):\n    z = torch.arange(n)\n{LOOP}    out[tile] = z[tile]", 2),
    ],
)
def test_what_a_call_uses_is_on_its_device(body, line):
    """A result, or what code for the GPU reads."""
    assert found(body) == [(line, "KP117")]
    assert [at - 1 for at, _, _ in unplaced(function(body))] == [line]


@pytest.mark.parametrize(
    "body",
    [
        "z = torch.empty(n, device=x.device)\nreturn z",
        "z = torch.empty(n, **like)\nreturn z",
        "z = torch.empty_like(x)\nreturn z",
        "z = x.new_zeros(n)\nreturn z",
        "sizes = torch.arange(n)\ncount = int(sizes[0])\nreturn x + count",
        "with torch.device(x.device):\n    z = torch.empty(n)\nreturn z",
        f"{LOOP}    z = torch.zeros([tile])\n    out[tile] = z\nreturn y + 1",
    ],
)
def test_other_tensors_may_be_anywhere(body):
    """What no GPU reads, what has a device, and what code for the GPU makes."""
    assert found(body) == []
