"""A kernel's Python files as text: what they import, define and read."""

from __future__ import annotations

import pytest

from kernelpkg.vllm.vendor.pyfile import Import, import_lines, read_file, reads, resolve

FILE = '''\
"""A file."""

from __future__ import annotations

import math
import os.path
from collections.abc import Mapping as M, Sequence

import torch
import torch.nn.functional as F

LIMIT = 448.0
# The least scale,
# and the largest.
LOW, HIGH = 1 / LIMIT, 4.0


class Kind:
    limit = LIMIT


@staticmethod
def helper(x: torch.Tensor, most: float = HIGH) -> M[str, int]:
    math = 3  # hides the module
    return [y for y in x if y < most and math]


def unused(x):
    return F.relu(x)


def root(x: "torch.Tensor"):
    """Use what is above."""
    return helper(x), later()


def later():
    global LIMIT
    return os.path, Kind, len
'''


def read(tmp_path, text=FILE):
    path = tmp_path / "host.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_file(path, "kernels/x/host.py")


def test_what_a_function_needs_is_found_in_the_order_of_the_file(tmp_path):
    """Names of helpers and constants, and of what these need; local names count for nothing."""
    file = read(tmp_path)
    assert file.problems == ()
    found = resolve(file, ["root"])
    assert [item.names for item in found.definitions] == [
        ("LIMIT",), ("LOW", "HIGH"), ("Kind",), ("helper",), ("root",), ("later",),
    ]  # fmt: skip
    assert {item.name for item in found.imports} == {"torch", "M", "os"}
    assert found.problems == ()


def test_a_definition_has_its_decorators_and_the_comment_above_it(tmp_path):
    """Its text is that of whole lines."""
    file = read(tmp_path)
    constant, function = file.definition("LOW"), file.definition("helper")
    assert constant.text == "# The least scale,\n# and the largest.\nLOW, HIGH = 1 / LIMIT, 4.0"
    assert function.text.startswith("@staticmethod\ndef helper(")
    assert function.text.endswith("if y < most and math]")


def test_a_name_that_is_not_there_is_a_problem(tmp_path):
    """A misspelled name would only be missed when vLLM runs the function."""
    file = read(tmp_path, "import torch\n\n\ndef f(x):\n    return tensors(x) + torch.ones(1)\n")
    assert [str(problem) for problem in resolve(file, ["f"]).problems] == [
        "kernels/x/host.py: KP812 name 'tensors' is not defined in the file; define it there"
    ]


PROBLEMS = {
    "long line": (
        "x = 1\ny = " + "1" * 100 + "\n",
        ":2: KP811 the line has 104 columns; vLLM's files have 88, so shorten it",
    ),
    "condition": (
        "import torch\nif torch.version.hip:\n    X = 1\n",
        (
            ":2: KP812 a statement of kind 'If' at the top level cannot be taken over; imports, "
            "constants, functions and classes can"
        ),
    ),
    "call": (
        "import torch\ntorch.manual_seed(0)\n",
        (
            ":2: KP812 a statement of kind 'Expr' at the top level cannot be taken over; imports, "
            "constants, functions and classes can"
        ),
    ),
    "two statements in a line": (
        "A = 1; B = 2\n",
        ":1: KP812 two statements share the line; give each a line, for lines are taken over",
    ),
    "setting": (
        "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\n",
        (":2: KP812 an assignment to a part of something else cannot be taken over; remove it"),
    ),
    "star": (
        "from math import *\n",
        ":1: KP812 'from math import *' does not tell what it imports; name it",
    ),
}


@pytest.mark.parametrize(("text", "line"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be_taken_over_is_told(tmp_path, text, line):
    assert [str(p) for p in read(tmp_path, text).problems] == [f"kernels/x/host.py{line}"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeffX = 'ü'\n".encode(), id="byte order mark"),
        pytest.param("# coding: latin-1\nX = 'ü'\n".encode("latin-1"), id="latin-1"),
        pytest.param("X = 'ü'\r\n".encode(), id="carriage returns"),
    ],
)
def test_files_are_read_as_python_reads_them(tmp_path, text):
    definition = read(tmp_path, text).definition("X")
    assert definition.text.endswith("X = 'ü'")


def test_imports_that_share_a_line_are_known_all_the_same(tmp_path):
    """The line is told, and not that the second module is not defined."""
    file = read(tmp_path, "import math; import torch\n\ndef f(x):\n    return torch.relu(x)\n")
    assert len(file.problems) == 1
    assert resolve(file, ["f"]).problems == ()


def test_reads_are_of_what_is_around():
    """Parameters and local names are no reads; defaults, annotations and inner functions are."""
    code = "def f(a: T, b=D):\n    c = a\n    def g():\n        return c + E\n    return g"
    assert reads(code) == {"T", "D", "E"}
    assert reads("def f():\n    return __name__, __LIMIT, [x for x in y]") == {"__LIMIT", "y"}


def test_imports_are_sorted_as_isort_does():
    """Plain ones first; of names, constants come before classes, and those before functions."""
    imports = [
        Import(module="b", member="x", name="x"),
        Import(module="b", member="Y", name="Z"),
        Import(module="b", member="CONST", name="CONST"),
        Import(module="c.d", member=None, name="e"),
        Import(module="a", member=None, name="a"),
        Import(module="os.path", member=None, name="os"),
        Import(module="b", member="x", name="x"),
    ]
    assert import_lines(imports) == [
        "import a",
        "import c.d as e",
        "import os.path",
        "from b import CONST, Y as Z, x",
    ]
