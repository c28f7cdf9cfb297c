"""What the source of a Helion function fixes with `hl.specialize`, read from its tree."""

from __future__ import annotations

import ast

import pytest

from kernelpkg.vllm.vendor.fixedsizes import Number, Sizes, fixed_sizes, selected

HEAD = "def f(x, y, n):\n    "


def fixed(*lines, helion=("hl",)):
    function = ast.parse(HEAD + "\n    ".join(lines)).body[0]
    return fixed_sizes(function, {"x", "y"}, {"n"}, helion)


def one(arg, dim):
    return Sizes(arg=arg, start=dim, one=True)


FIXES = {
    "size": (["hl.specialize(x.size(1))"], {one("x", 1)}),
    "shape": (["w = hl.specialize(x.shape[-1]) // 2"], {one("x", -1)}),
    "number": (["a = 2 * hl.specialize(n)"], {Number(arg="n")}),
    "unpacked": (["rows, width = x.shape", "hl.specialize(width)"], {one("x", 1)}),
    "unpacked size()": (["rows, width = x.size()", "hl.specialize(rows)"], {one("x", 0)}),
    "assigned": (["w = x.size(0)", "v = w", "hl.specialize(v)"], {one("x", 0)}),
    "annotated": (["w: int = x.size(0)", "hl.specialize(w)"], {one("x", 0)}),
    "shape as a name": (["s = x.shape", "hl.specialize(s[0])"], {one("x", 0)}),
    "several": (["hl.specialize((x.size(0), n))"], {one("x", 0), Number(arg="n")}),
    "two arguments": (["hl.specialize(x.size(0), y.size(0))"], {one("x", 0), one("y", 0)}),
    "all of a shape": (["hl.specialize(x.shape)"], {Sizes(arg="x")}),
    "leading sizes": (["hl.specialize(x.shape[:-1])"], {Sizes(arg="x", stop=-1)}),
    "through a result": (["w = hl.specialize(x.size(0))", "hl.specialize(w)"], {one("x", 0)}),
    "under a condition": (["if n:", "    hl.specialize(x.size(0))"], set()),
    "in a loop": (["for t in hl.tile(4):", "    hl.specialize(x.size(0))"], set()),
    "of what is computed": (["hl.specialize(x.size(0) // 2)"], set()),
    "of a view": (["v = x.view(-1, 2)", "hl.specialize(v.size(0))"], set()),
    "of an argument bound anew": (["x = x.t()", "hl.specialize(x.size(0))"], set()),
    "of a name bound in a branch": (
        ["w = x.size(0)", "if n:", "    w = 4", "hl.specialize(w)"],
        set(),
    ),
    "of a number bound anew": (["n += 1", "hl.specialize(n)"], set()),
    "of every second size": (["hl.specialize(x.shape[::2])"], set()),
    "by another function": (["torch.specialize(x.size(0))"], set()),
}


@pytest.mark.parametrize(("lines", "want"), FIXES.values(), ids=FIXES)
def test_what_is_fixed(lines, want):
    """What is fixed for every call counts, and nothing else."""
    assert fixed(*lines).fixed == want


def test_helion_has_the_name_that_the_file_gives_it():
    lines = ["helion.language.specialize(x.size(0))", "specialize(n)"]
    assert fixed(*lines).fixed == set()
    assert fixed(*lines, helion=["helion"]).fixed == {one("x", 0)}
    assert fixed(*lines, helion=["specialize"]).fixed == {Number(arg="n")}


def test_arguments_that_are_read_are_told():
    assert fixed("return x.size(0)").read == {"x"}
    assert fixed("for t in hl.tile(n):", "    y[t] = 0").read == {"y", "n"}


SELECTED = {
    "from the front": (one("x", 0), 3, None, [0]),
    "from the end": (one("x", -1), 3, None, [2]),
    "beyond": (one("x", 3), 3, None, []),
    "all": (Sizes(arg="x"), 3, None, [0, 1, 2]),
    "some": (Sizes(arg="x", start=1), 3, None, [1, 2]),
    "behind a spread size": (one("x", -1), 2, 0, [1]),
    "within a spread size": (one("x", 0), 2, 0, []),
    "behind it, from the front": (one("x", 1), 2, 0, []),
    "before a spread size": (one("x", 0), 2, 1, [0]),
    "all leading sizes": (Sizes(arg="x", stop=-1), 2, 0, [0]),
    "not all leading sizes": (Sizes(arg="x", stop=-2), 2, 0, []),
    "the end of leading sizes": (Sizes(arg="x", start=1), 2, 0, []),
}


@pytest.mark.parametrize(("sizes", "count", "spread", "want"), SELECTED.values(), ids=SELECTED)
def test_which_sizes_of_the_manifest_are_meant(sizes, count, spread, want):
    """A size that stands for several is sure only from its own side."""
    assert list(selected(sizes, count, spread)) == want
