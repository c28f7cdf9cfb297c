"""A kernel's Python files: read without running them, and loaded by path."""

# ruff: noqa: E501  # messages are asserted as whole lines

from __future__ import annotations

import ast
import sys

import pytest

from kernelpkg.errors import PackError
from kernelpkg.manifest.spec import Reference
from kernelpkg.packs.sources import (
    find_function,
    load_function,
    load_module,
    read_source,
    source_digest,
)


def source(tmp_path, text, *, helion=False):
    path = tmp_path / "it.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_source(path, "kernels/x/it.py", helion=helion)


@pytest.mark.parametrize(
    ("text", "helion", "imported"),
    [
        ("import torch, math, os.path", False, []),
        ("import torch.nn.functional as F", False, []),
        ("from collections import abc", False, []),
        ("import helion.language as hl", True, []),
        ("import helion", False, ["helion"]),
        ("import numpy", True, ["numpy"]),
        ("from . import x", True, ["."]),
        ("from .beside import x", True, [".beside"]),
        ("import torchvision, triton", True, ["torchvision", "triton"]),
        ("def f():\n    if f:\n        import a\n    else:\n        import b", True, ["a", "b"]),
        (
            "try:\n    import a\nexcept E:\n    import b\nfinally:\n    import c",
            True,
            ["a", "c", "b"],
        ),
        ("match 1:\n    case 1:\n        import a", True, ["a"]),
        ("class C:\n    def f(self):\n        with x:\n            import a", True, ["a"]),
    ],
)
def test_imports_are_found_wherever_they_stand(tmp_path, text, helion, imported):
    """A kernel imports torch, the standard library, and helion in its source alone."""
    found = source(tmp_path, text, helion=helion)
    names = [problem.message.split("'")[1] for problem in found.problems]
    assert sorted(names) == sorted(imported)
    assert all(problem.code == "KP113" for problem in found.problems)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("def f(:", "kernels/x/it.py:1: KP114 does not parse: "),
        ("x = 1\n  y = 2", "kernels/x/it.py:2: KP114 does not parse: "),
        (b"x = '\xff'", "kernels/x/it.py:1: KP114 does not parse: "),
        (b"x = 1\0", "kernels/x/it.py:1: KP114 does not parse: "),
        ("x = " + "(" * 5000 + ")" * 5000, "kernels/x/it.py:1: KP114 does not parse: "),
    ],
    ids=["syntax", "indent", "utf8", "nul", "deep"],
)
def test_a_file_that_does_not_parse_has_one_problem(tmp_path, text, start):
    """Nothing else is said of a file that cannot be read."""
    found = source(tmp_path, text)
    (problem,) = found.problems
    assert str(problem).startswith(start)
    assert not found.parsed
    assert found.functions == {}


def test_a_function_is_looked_for_at_the_top(tmp_path):
    """Methods, inner functions and other values are not functions of a kernel."""
    file = source(
        tmp_path, "def f(): ...\nclass C:\n    def g(self): ...\nh = f\nasync def k(): ..."
    )
    assert find_function(file, "f").name == "f"
    assert find_function(file, "g") == "kernels/x/it.py has no function 'g' at its top level"
    assert find_function(file, "h") == "kernels/x/it.py has no function 'h' at its top level"
    assert find_function(file, "k") == "kernels/x/it.py has no function 'k' at its top level"
    assert find_function(source(tmp_path, "def pick(): ..."), "pik").endswith(
        "did you mean 'pick'?"
    )


@pytest.fixture
def kernel(tmp_path):
    """Write files of a kernel; its modules are forgotten behind the test."""
    before = set(sys.modules)

    def write(**files):
        directory = tmp_path / "x"
        directory.mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / f"{name}.py").write_text(text)
        return directory

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("_kernelpkg"):
            del sys.modules[name]


def test_a_module_is_run_once_and_is_findable_while_it_runs(kernel):
    """Helion looks a function's module up in sys.modules."""
    directory = kernel(host="import sys\nhere = sys.modules[__name__]\ndef f(): return here")
    module = load_module(directory, "host.py")
    assert module.here is module
    assert load_module(directory, "host.py") is module
    assert load_function(directory, Reference(file="host.py", name="f"))() is module
    assert not list(directory.glob("__pycache__"))


def test_an_edited_file_is_another_module(kernel):
    """What was loaded before is not mixed with what is there now."""
    first = load_module(kernel(host="VALUE = 1"), "host.py")
    second = load_module(kernel(host="VALUE = 2"), "host.py")
    assert (first.VALUE, second.VALUE) == (1, 2)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\nraise ValueError('two\\nlines')", "kernels/x/host.py:2: KP114 fails to import: ValueError: two lines"),
        ("import sys\nsys.exit(3)", "kernels/x/host.py:2: KP114 fails to import: SystemExit: 3"),
        ("def f():\n    return 1 // 0\n\nf()", "kernels/x/host.py:2: KP114 fails to import: ZeroDivisionError: integer division or modulo by zero"),
        ("import not_there_at_all", "kernels/x/host.py:1: KP114 fails to import: ModuleNotFoundError: No module named 'not_there_at_all'"),
    ],
    ids=["raises", "exits", "deep", "imports"],
)  # fmt: skip
def test_a_file_that_fails_to_import_is_a_problem_with_its_line(kernel, text, line):
    """Whatever a file raises, the pack goes on; a broken module is not kept."""
    directory = kernel(host=text)
    before = set(sys.modules)
    with pytest.raises(PackError) as caught:
        load_module(directory, "host.py")
    assert (
        str(caught.value).replace("integer modulo by zero", "integer division or modulo by zero")
        == line
    )
    assert not {name for name in set(sys.modules) - before if name.startswith("_kernelpkg")}


def test_an_interruption_is_no_problem_of_the_file(kernel):
    """Ctrl-C stops the program, as always."""
    with pytest.raises(KeyboardInterrupt):
        load_module(kernel(host="raise KeyboardInterrupt"), "host.py")


def test_what_is_gone_when_it_is_loaded_is_a_problem(kernel):
    """A file may change between the check and the load."""
    directory = kernel(host="f = 3")
    with pytest.raises(PackError) as caught:
        load_function(directory, Reference(file="host.py", name="f"))
    assert str(caught.value) == "kernels/x/host.py: KP112 has no function 'f' once it has run"
    with pytest.raises(PackError) as caught:
        load_function(directory, Reference(file="gone.py", name="f"))
    assert str(caught.value) == "kernels/x/gone.py: KP111 cannot be read: No such file or directory"


def test_the_digest_of_a_source_is_of_what_it_does():
    plain = source_digest(ast.parse("def f(x):\n    return x + 1\n"))
    same = '"""Words."""\n\ndef f(\n    x\n):  # comment\n    """Doc."""\n    return (x + 1)\n'
    assert source_digest(ast.parse(same)) == plain
    assert source_digest(ast.parse("def f(x):\n    return x + 2\n")) != plain


def test_a_digest_leaves_the_tree_as_it_was():
    tree = ast.parse('def f():\n    """Doc."""\n')
    before = ast.dump(tree)
    source_digest(tree)
    assert ast.dump(tree) == before
