"""The host code of a Helion function as text: what the result needs, and no more."""

from __future__ import annotations

import ast
import textwrap

import pytest

from kernelpkg.compile.host_code import host_lines
from kernelpkg.compile.needed import NotInferred

HEAD = """\
import helion
import helion.language as hl
import torch

LIMIT = 4


def helper(x):
    return x


def f(x: torch.Tensor, n: int = 2) -> torch.Tensor:
"""


def part(body):
    source = HEAD + textwrap.indent(textwrap.dedent(body), "    ")
    return host_lines(ast.parse(source).body[-1], source, {"helion", "hl"})


PARTS = {
    "loops and their names": (
        """
        \"\"\"A docstring.\"\"\"
        rows, width = x.shape
        unused = rows * 2
        out = torch.empty_like(x)
        for tile in hl.tile(rows):
            out[tile] = x[tile] * 2
        return out
        """,
        ["out = torch.empty_like(x)", "return out"],
    ),
    "specialised sizes": (
        """
        width = hl.specialize(x.size(1))
        half = hl.specialize(width + 1) // 2
        hl.specialize(n)
        out = x.new_empty([x.size(0), half])
        for tile in hl.tile(n):
            pass
        return out
        """,
        [
            "width = x.size(1)",
            "half = (width + 1) // 2",
            "out = x.new_empty([x.size(0), half])",
            "return out",
        ],
    ),
    "one within another": (
        """
        size = hl.specialize(hl.specialize(n) * LIMIT) + helion.cdiv(n, 2)
        out = torch.empty(size)
        for tile in hl.tile(size):
            out[tile] = 0
        return out
        """,
        ["size = (n * LIMIT) + helion.cdiv(n, 2)", "out = torch.empty(size)", "return out"],
    ),
    "branches": (
        """
        assert x.ndim == 2
        if n > 1:
            dtype = torch.float32
            scale = 1.0 / n
        elif n == 1:
            scale = 1.0
            dtype = x.dtype
        else:
            raise ValueError("n")
        if scale > 1:
            scale = 2.0
        out = torch.empty(
            x.shape,  # as the input's
            dtype=dtype,
        )
        for tile in hl.tile(x.size(0)):
            if n > 1:
                out[tile] = x[tile] * scale
        return out
        """,
        [
            "if n > 1:",
            "    dtype = torch.float32",
            "elif n == 1:",
            "    dtype = x.dtype",
            "else:",
            '    raise ValueError("n")',
            "out = torch.empty(",
            "    x.shape,  # as the input's",
            "    dtype=dtype,",
            ")",
            "return out",
        ],
    ),
    "a branch that only the other one needs": (
        """
        if n:
            pass
        else:
            n = 3
        if n > 3:
            y = 2
        return x.new_empty(n)
        """,
        ["if n:", "    pass", "else:", "    n = 3", "return x.new_empty(n)"],
    ),
    "an else with an if": (
        """
        if n > 1:
            y = 1
        else:
            z = 2
            if n == 0:
                y = (
                    3
                )
        return x.new_empty(y)
        """,
        [
            "if n > 1:",
            "    y = 1",
            "else:",
            "    if n == 0:",
            "        y = (",
            "            3",
            "        )",
            "return x.new_empty(y)",
        ],
    ),
    "what only looks like it": (
        """
        y = specialize(n) + hl.specialize(n) + hl.specialize(n) * helper.hl.specialize(n)
        return x.new_empty(y, hl.specialize(n + 1), hl.specialize(-1)[0])
        """,
        [
            "y = specialize(n) + n + n * helper.hl.specialize(n)",
            "return x.new_empty(y, (n + 1), (-1)[0])",
        ],
    ),
    "what Helion is asked for, and the result does not need": (
        """
        block = hl.register_block_size(n)
        for tile in hl.tile(n, block_size=block):
            pass
        return x.new_empty(n)
        """,
        ["return x.new_empty(n)"],
    ),
    "lists that are filled": (
        """
        sizes = []
        sizes.append(n)
        sizes[0] = 3
        others = []
        others.append(n)
        for size in x.shape:
            sizes.append(size)
        return helper(torch.empty(sizes))
        """,
        [
            "sizes = []",
            "sizes.append(n)",
            "sizes[0] = 3",
            "for size in x.shape:",
            "    sizes.append(size)",
            "return helper(torch.empty(sizes))",
        ],
    ),
    "a list by its second name": (
        """
        sizes = [n]
        other = sizes
        other.append(3)
        helper(sizes)
        count = len(other)
        helper(count)
        return x.new_empty(sizes)
        """,
        [
            "sizes = [n]",
            "other = sizes",
            "other.append(3)",
            "helper(sizes)",
            "return x.new_empty(sizes)",
        ],
    ),
    "what is done to tensors": (
        """
        out = torch.empty_like(x)
        helper(x)
        out.fill_(x.max().item())
        out[0] = float(x.sum())
        helper(out[1:])
        torch._check(n > 0)
        out.t_()
        return out
        """,
        ["out = torch.empty_like(x)", "out.t_()", "return out"],
    ),
    "checks": (
        """
        assert (x > 0).all()
        if n > 4:
            words = f"n is {n}"
            raise ValueError(words)
        elif x.max() > LIMIT:
            raise ValueError("x")
        return x.new_empty(n)
        """,
        ["return x.new_empty(n)"],
    ),
    "numbers of a config or a GPU": (
        """
        span = hl.register_block_size(n)
        parts = x.new_empty([helion.cdiv(n, span), hl.register_tunable("split", Some(1, 2))])
        for tile in hl.tile(n, block_size=span):
            parts[tile.id, 0] = x[tile].sum()
        helion.runtime.get_num_sm(x.device)
        return parts.sum(0)
        """,
        [
            "span = 1",
            "parts = x.new_empty([helion.cdiv(n, span), 1])",
            "return parts.sum(0)",
        ],
    ),
    "blocks of other kinds": (
        """
        import math

        sizes = []
        last = math.prod(x.shape)
        for i in (
            range(n)
        ):
            for tile in hl.tile(n):
                x[tile] = i
            sizes.append(last)
            last = sizes[-1] + i
        with torch.device(
            x.device
        ) as device, helper(n):
            helper(device)
            out = torch.empty(sizes)
        while len(sizes) > 2:
            sizes.pop()
            for tile in hl.tile(n):
                x[tile] = 0
        for j in range(n):
            helper(j)
            if j > 2:
                break
        for i in range(n):
            if i > 2:
                break
            sizes.append(i)
        return out, x.new_empty(sizes)
        """,
        [
            "import math",
            "sizes = []",
            "last = math.prod(x.shape)",
            "for i in range(n):",
            "    sizes.append(last)",
            "    last = sizes[-1] + i",
            "with torch.device(",
            "    x.device",
            ") as device, helper(n):",
            "    out = torch.empty(sizes)",
            "while len(sizes) > 2:",
            "    sizes.pop()",
            "for i in range(n):",
            "    if i > 2:",
            "        break",
            "    sizes.append(i)",
            "return out, x.new_empty(sizes)",
        ],
    ),
}


@pytest.mark.parametrize(("body", "want"), PARTS.values(), ids=PARTS)
def test_what_is_left(body, want):
    """A slice from the returned value backwards, in the words of the source."""
    assert part(body) == [f"    {line}" for line in want]


LOOPS = """\
out = []
for i in range(2):
    for tile in hl.tile(n):
        pass
    out.append(i)
    if i:
        break
return x.new_empty(out)
"""
REFUSED = {
    "another function of Helion's": (
        "out = hl.zeros([n], dtype=x.dtype)\nreturn out",
        "its results depend on hl.zeros (line 13)",
    ),
    "a loop inside another": (LOOPS, "a tile loop stands inside another statement (line 15)"),
    "not of one value": (
        "out = x.new_empty(hl.specialize(n, 2))\nreturn out",
        "its results depend on hl.specialize (line 13)",
    ),
}


@pytest.mark.parametrize(("body", "want"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(body, want):
    with pytest.raises(NotInferred) as caught:
        part(body)
    rest = "so its fake implementation cannot be inferred; give one in [op] fake_impl"
    assert str(caught.value) == f"{want}, {rest}"
