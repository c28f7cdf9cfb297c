"""Graphs of torch.compile: kept by what is loaded, and dropped where an op has changed."""

from __future__ import annotations

import functools
import importlib
import textwrap

import pytest
import torch
import torch.compiler.config

import kernelpkg
from kernelpkg.runtime import graphs

ALLOCATION = "out = torch.empty_like(input)"
HALF = "out = torch.empty(input.shape, dtype=torch.float16, device=input.device)"


@pytest.fixture(autouse=True)
def _as_it_was():
    before = torch.compiler.config.cache_key_tag
    yield
    torch.compiler.config.cache_key_tag = before


def load(pack):
    return kernelpkg.load(root=pack.root, device="cpu", environment={}, strict=True)


def tag():
    return torch.compiler.config.cache_key_tag


def function(text, name="fake", **scope):
    """Run a module of a text, and return a function of it."""
    exec(compile(textwrap.dedent(text), f"/somewhere/{id(text)}.py", "exec"), scope)
    return scope[name]


FAKE = """
import torch
WIDTH = 2

def rows(x):
    return x.shape[0]

def fake(x, kept=True):
    return torch.empty(rows(x), WIDTH, dtype=torch.int8)
"""
CHANGES = {
    "dtype": ("torch.int8", "torch.uint8"),
    "helper": ("x.shape[0]", "x.shape[0] + 1"),
    "constant": ("WIDTH = 2", "WIDTH = 4"),
    "default": ("kept=True", "kept=False"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_fake_implementation_does_is_its_interface(change):
    """Its code, and the functions and values of its module that it names."""
    old, new = CHANGES[change]
    first, second = function(FAKE), function(FAKE.replace(old, new))
    assert graphs.interface_of("(Tensor x)", first) != graphs.interface_of("(Tensor x)", second)


def test_where_a_fake_implementation_stands_is_not():
    """Nor other functions of its module; but the schema is part of it."""
    same = function("\n\n" + FAKE + "\ndef other(x):\n    return x\n")
    first = graphs.interface_of("(Tensor x)", function(FAKE))
    assert graphs.interface_of("(Tensor x)", same) == first
    assert graphs.interface_of("(Tensor y)", same) != first
    assert graphs.interface_of("(Tensor x)", None) != first


def test_what_a_fake_implementation_closes_over_is_of_it():
    def made(dtype):
        return lambda x: torch.empty(2, dtype=dtype)

    def bound(dtype):
        return functools.partial(lambda dtype, x: torch.empty(2, dtype=dtype), dtype)

    for make in (made, bound):
        one, two = make(torch.int8), make(torch.uint8)
        assert graphs.interface_of("", one) == graphs.interface_of("", make(torch.int8))
        assert graphs.interface_of("", one) != graphs.interface_of("", two)


def test_a_function_that_names_itself_has_an_interface():
    text = "def fake(x):\n    return fake(x)\n"
    assert graphs.interface_of("", function(text)) == graphs.interface_of("", function(text))


def test_what_is_loaded_is_part_of_the_key_behind_the_users_tag(demo):
    """And is gone with the op."""
    torch.compiler.config.cache_key_tag = "mine"
    load(demo)
    before = tag()
    assert before.startswith("mine kernelpkg-")
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")
    load(demo)
    assert tag() == before  # a graph takes nothing from a tile loop
    demo.edit("kernels/twice/kernel.py", ALLOCATION, HALF)
    load(demo)
    after = tag()
    assert after != before
    assert after.startswith("mine kernelpkg-")
    torch.compiler.config.cache_key_tag = "mine"
    torch.ops.demo.twice(torch.empty(3, device="meta"))  # as a tracing does
    assert tag() == after
    kernelpkg.unload("demo::twice")
    assert "kernelpkg" not in tag() or kernelpkg.get_registered_kernels()


def test_ops_without_a_manifest_are_part_of_the_key():
    def make(dtype):
        def fake(x):
            return torch.empty_like(x, dtype=dtype)

        return fake

    def thing(x: torch.Tensor) -> torch.Tensor:
        return x

    tags = []
    for dtype in (torch.int8, torch.int8, torch.uint8):
        kernelpkg.register_kernel("thing", fake_impl=make(dtype), namespace="demo")(thing)
        tags.append(tag())
        kernelpkg.unload("demo::thing")
    assert tags[0] == tags[1] != tags[2]


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Compiles a function with PyTorch's cache on disk; a graph of one op needs no C++."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    yield lambda function, **options: torch.compile(function, fullgraph=True, **options)
    torch._dynamo.reset()


def test_a_graph_on_disk_of_an_earlier_interface_is_not_taken(demo, compiled):
    """It would expect other strides."""
    load(demo)
    demo.edit("kernels/twice/kernel.toml", 'shape = ["num_tokens"]', 'shape = ["num_tokens", 3]')
    load(demo)
    call = compiled(lambda x: torch.ops.demo.twice(x)[:])
    x = torch.arange(6.0).view(2, 3)
    assert call(x).stride() == (3, 1)
    demo.edit("kernels/twice/kernel.py", ALLOCATION, "out = torch.empty(input.shape[::-1]).t()")
    load(demo)
    got = call(x)
    assert got.stride() == torch.ops.demo.twice(x).stride() == (1, 2)
    assert torch.equal(got, x * 2)


def test_a_graph_stays_where_only_a_tile_loop_changed(demo, compiled):
    """So do the objects that call the op."""
    graphs_made = []

    def backend(graph, _):
        graphs_made.append(graph)
        return graph

    load(demo)
    op = torch.ops.demo.twice
    call = compiled(lambda x: op(x) + 1, backend=backend)
    assert call(torch.ones(2)).tolist() == [3.0, 3.0]
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")
    load(demo)
    assert torch.ops.demo.twice is op
    assert call(torch.ones(2)).tolist() == [4.0, 4.0]
    assert len(graphs_made) == 1


def test_a_graph_of_an_op_that_is_another_one_now_is_dropped(demo, compiled):
    """Also where the function holds the object that called the op before."""
    load(demo)
    op = torch.ops.demo.twice
    named = compiled(lambda x: torch.ops.demo.twice(x)[:], backend="aot_eager")
    held = compiled(lambda x: op(x)[:], backend="aot_eager")
    for call in (named, held):
        assert call(torch.ones(2)).dtype == torch.float32
    demo.edit("kernels/twice/kernel.py", ALLOCATION, HALF)
    load(demo)
    for call in (named, held):
        assert call(torch.ones(2)).dtype == torch.float16


CELL = '''
import helion.language as hl
import torch

import kernelpkg


@kernelpkg.register_kernel(namespace="demo")
def cell(input: torch.Tensor) -> torch.Tensor:
    """Return twice the input."""
    out = torch.empty_like(input)
    for tile in hl.tile(input.size(0)):
        out[tile] = input[tile] * 2
    return out
'''


def test_a_cell_or_module_may_be_run_again(tmp_path, monkeypatch):
    """Its kernel takes the place of the one from before; other functions do not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "demo_cell.py").write_text(CELL)
    import demo_cell

    first, op = demo_cell.cell, torch.ops.demo.cell
    (tmp_path / "demo_cell.py").write_text(CELL.replace("* 2", "* 30"))
    importlib.invalidate_caches()
    importlib.reload(demo_cell)
    assert kernelpkg.get_kernel_by_name("demo::cell") is demo_cell.cell is not first
    assert torch.ops.demo.cell is op
    assert op(torch.ones(2)).tolist() == [30.0, 30.0]
    with pytest.raises(kernelpkg.RegistrationError, match="op 'demo::cell' is not registered"):
        first(torch.ones(2))

    def cell(input: torch.Tensor) -> torch.Tensor:
        return input

    with pytest.raises(kernelpkg.RegistrationError, match="'demo::cell' is already registered"):
        kernelpkg.register_kernel(cell, namespace="demo", fake_impl=torch.empty_like)
