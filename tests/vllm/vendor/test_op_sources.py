"""A kernel's files as text: what is taken over of them, and what would have two meanings."""

from __future__ import annotations

import pytest

from kernelpkg.errors import PackError
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_sources import (
    Import,
    import_lines,
    read_file,
    reads,
    resolve,
    take,
)

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


TAKEN = "cannot be taken over; imports, constants, functions and classes can"
REFUSED = {
    "long line": (
        "x = 1\ny = " + "1" * 100 + "\n",
        ":2: KP811 the line has 104 columns; vLLM's files have 88, so shorten it",
    ),
    "condition": (
        "import torch\nif torch.version.hip:\n    X = 1\n",
        f":2: KP812 a statement of kind 'If' at the top level {TAKEN}",
    ),
    "call": (
        "import torch\ntorch.manual_seed(0)\n",
        f":2: KP812 a statement of kind 'Expr' at the top level {TAKEN}",
    ),
    "two statements in a line": (
        "A = 1; B = 2\n",
        ":1: KP812 two statements share the line; give each a line, for lines are taken over",
    ),
    "setting": (
        "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\n",
        ":2: KP812 an assignment to a part of something else cannot be taken over; remove it",
    ),
    "star": (
        "from math import *\n",
        ":1: KP812 'from math import *' does not tell what it imports; name it",
    ),
}


@pytest.mark.parametrize(("text", "line"), REFUSED.values(), ids=REFUSED)
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
    """Parameters and local names are not reads; defaults, annotations and inner functions are."""
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


KERNEL = """\
import helion.language as hl
import torch

_SCALE = 2.0  # of the output


def twice(input: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(input)
    for tile in hl.tile(input.size(0)):
        out[tile] = input[tile] * _SCALE
    return out
"""
HOST = """\
import torch

_UNUSED = 1
_LOW = 0.0
# A comment.
_HIGH = 1.0


def _limits() -> tuple[float, float]:
    return _LOW, _HIGH


def reference(input: torch.Tensor) -> torch.Tensor:
    return input * 2 + sum(_limits()) - 1.0
"""


def taken(pack, host=HOST, kernel=KERNEL):
    (pack.root / "kernels/twice/host.py").write_text(host)
    (pack.root / "kernels/twice/kernel.py").write_text(kernel)
    return take(read_kernel(pack.root, "twice"))


def test_functions_are_taken_with_what_they_need(demo):
    """Constants in one block; the reference under vLLM's name for it, the kernel as it is."""
    found = taken(demo)
    assert found.helpers == (
        ("_LOW = 0.0", "", "# A comment.", "_HIGH = 1.0"),
        ("def _limits() -> tuple[float, float]:", "    return _LOW, _HIGH"),
        ("_SCALE = 2.0  # of the output",),
    )
    assert found.baseline[0] == "def baseline(input: torch.Tensor) -> torch.Tensor:"
    assert "\n".join(found.kernel) == KERNEL[KERNEL.index("def twice") :].rstrip()
    assert found.baseline_name == "baseline"
    assert sorted(item.name for item in found.imports) == ["hl", "torch"]
    assert "_UNUSED" not in found.names


RENAMED = {
    "one line": ("def reference(input: T) -> T:\n    return input", "baseline"),
    "a line for each argument": (
        "def reference(\n    input: T,\n) -> T:\n    return input", "baseline",
    ),
    "arguments on a line, which the other name would change": (
        "def reference(\n    input: T, other: T = 1\n) -> T:\n    return input", "reference",
    ),
    "called elsewhere": (
        "def reference(input: T) -> T:\n    return reference(input) if 0 else input", "reference",
    ),
    "the name is taken": (
        """\
def baseline(x: T) -> T:
    return x


def reference(input: T) -> T:
    return baseline(input)
""",
        "reference",
    ),
    "too long with it": (
        f"def ref(input: T, {'o' * 55}: T = 1) -> T:\n    return input", "ref",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("host", "name"), RENAMED.values(), ids=RENAMED)
def test_the_reference_is_renamed_where_no_other_line_changes(demo, host, name):
    function = "ref" if name == "ref" else "reference"
    key = f'reference = "host.py:{function}"\n[op]'
    demo.edit("kernels/twice/kernel.toml", "[op]", key)
    found = taken(demo, f"import torch\n\nT = torch.Tensor\n\n\n{host}\n")
    assert found.baseline_name == name
    assert found.baseline[0].startswith(f"def {name}(")


def test_a_function_that_both_files_have_is_taken_once_whichever_is_named(demo):
    """The reference of host.py is read after the fake implementation of kernel.py, its double."""
    demo.edit("kernels/twice/kernel.toml", '"infer"', '"kernel.py:reference"')
    double = "def reference(input: torch.Tensor) -> torch.Tensor:\n    return input * 2\n"
    found = taken(demo, f"import torch\n\n\n{double}", f"{KERNEL}\n\n{double}")
    assert found.baseline == tuple(double.rstrip().split("\n"))
    assert found.helpers == (("_SCALE = 2.0  # of the output",),)


def test_one_definition_in_both_files_is_taken_once(demo):
    """Comments aside; functions with the same text too."""
    host = HOST.replace("_LOW = 0.0", "_SCALE = 2.0\n_LOW = _SCALE - 2.0")
    assert sum("_SCALE = 2.0" in line for part in taken(demo, host).helpers for line in part) == 1


OTHER = "means something else in kernels/twice/host.py; rename one of them"
USED = "has a use of its own in the file that vLLM gets; rename it"
PROBLEMS = {
    "another constant": (
        HOST.replace("_LOW = 0.0", "_SCALE = 3.0\n_LOW = _SCALE"),
        f"kernels/twice/kernel.py:4: KP812 name '_SCALE' {OTHER}",
    ),
    "another import": (
        "import math as hl\n" + HOST.replace("_LOW = 0.0", "_LOW = hl.pi"),
        f"kernels/twice/kernel.py: KP812 name 'hl' {OTHER}",
    ),
    "a name of the written part": (
        HOST.replace("_limits", "pick_config"),
        f"kernels/twice/host.py:9: KP812 name 'pick_config' {USED}",
    ),
    "a function of Python's that the written part calls": (
        HOST.replace("_limits", "min"), f"kernels/twice/host.py:9: KP812 name 'min' {USED}",
    ),
    "an import of the written part": (
        "from math import prod as product\n" + HOST.replace("_LOW = 0.0", "_LOW = product([])"),
        f"kernels/twice/host.py: KP812 name 'product' {USED}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("host", "want"), PROBLEMS.values(), ids=PROBLEMS)
def test_names_with_two_meanings(demo, host, want):
    with pytest.raises(PackError) as caught:
        taken(demo, host)
    assert str(caught.value) == want


def test_the_imports_of_the_written_part_may_be_theirs_too(demo):
    host = HOST.replace("import torch\n", "from itertools import product\n\nimport torch\n")
    found = taken(demo, host.replace("_LOW = 0.0", "_LOW = float(len(list(product())) - 1)"))
    assert "product" in {item.name for item in found.imports}


def test_problems_of_all_files_come_at_once(demo):
    with pytest.raises(PackError) as caught:
        taken(demo, HOST + "x = " + "1" * 90, KERNEL + "torch.manual_seed(0)\n")
    assert [str(p).split(" ")[:2] for p in caught.value.problems] == [
        ["kernels/twice/host.py:15:", "KP811"],
        ["kernels/twice/kernel.py:12:", "KP812"],
    ]
