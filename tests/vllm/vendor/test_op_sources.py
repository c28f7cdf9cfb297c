"""What is taken over of a kernel's files, and what would have two meanings in one file."""

from __future__ import annotations

import pytest

from kernelpkg.errors import PackError
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_sources import references, take

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


def test_the_helion_function_comes_last(demo):
    spec = read_kernel(demo.root, "twice")
    assert [str(reference) for reference in references(spec)] == [
        "host.py:reference",
        "kernel.py:twice",
    ]


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


def test_one_definition_in_both_files_is_taken_once(demo):
    """Comments aside; functions with the same text too."""
    host = HOST.replace("_LOW = 0.0", "_SCALE = 2.0\n_LOW = _SCALE - 2.0")
    assert sum("_SCALE = 2.0" in line for part in taken(demo, host).helpers for line in part) == 1


PROBLEMS = {
    "another constant": (
        HOST.replace("_LOW = 0.0", "_SCALE = 3.0\n_LOW = _SCALE"),
        KERNEL,
        (
            "kernels/twice/kernel.py:4: KP812 name '_SCALE' means something else in "
            "kernels/twice/host.py; rename one of them"
        ),
    ),
    "another import": (
        HOST.replace("import torch\n", "import math as hl\n\nimport torch\n").replace(
            "_LOW = 0.0", "_LOW = hl.pi"
        ),
        KERNEL,
        (
            "kernels/twice/kernel.py: KP812 name 'hl' means something else in "
            "kernels/twice/host.py; rename one of them"
        ),
    ),
    "a name of the written part": (
        HOST.replace("_limits", "pick_config"),
        KERNEL,
        (
            "kernels/twice/host.py:9: KP812 name 'pick_config' has a use of its own in the file "
            "that vLLM gets; rename it"
        ),
    ),
    "a function of Python's that the written part calls": (
        HOST.replace("_limits", "min"),
        KERNEL,
        (
            "kernels/twice/host.py:9: KP812 name 'min' has a use of its own in the file that "
            "vLLM gets; rename it"
        ),
    ),
    "an import of the written part": (
        "from math import prod as product\n" + HOST.replace("_LOW = 0.0", "_LOW = product([])"),
        KERNEL,
        (
            "kernels/twice/host.py: KP812 name 'product' has a use of its own in the file that "
            "vLLM gets; rename it"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("host", "kernel", "want"), PROBLEMS.values(), ids=PROBLEMS)
def test_names_with_two_meanings(demo, host, kernel, want):
    with pytest.raises(PackError) as caught:
        taken(demo, host, kernel)
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
