"""The generators of vendored ops, run: what they make is what `inputs.make_inputs` makes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.manifest.cases import cases_of
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.vendor.op_code import axis_codes
from kernelpkg.vllm.vendor.op_inputs import write_inputs

ROOT = Path(__file__).parents[4]


@pytest.fixture
def kernel(copied):
    """A kernel whose inputs are of every kind."""
    return copied("inputs").root


class Key(dict):
    """Stands for vLLM's case key."""

    def __hash__(self):
        return hash(str(self))


def run(spec, **functions):
    """Return the module of the written functions."""
    code = write_inputs(spec, axis_codes(spec, {}), frozenset(functions))
    space = {"CaseKey": Key, "torch": torch, "product": product, **functions}
    exec("\n".join(["from typing import Any", *code]), space)
    return space


def described(value):
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype, value.device
    return type(value), value


def functions_of(spec):
    space = {}
    exec((Path(spec.directory) / "host.py").read_text(), space)
    return {name: space[name] for name in ("values", "everything")}


def test_one_case_is_made_as_the_manifest_says(kernel):
    """Of every case: shapes, dtypes, scalars and what stands in tensors that are not random."""
    spec = read_kernel(kernel, "k")
    make = run(spec, **functions_of(spec))["make_case_inputs"]
    cases = [*cases_of(spec, "tune"), *cases_of(spec, "test")]
    for case in cases:
        values = {f"{n}_" if n == "max" else n: value for n, value in case.values.items()}
        got, want = make("cpu", **values), make_inputs(spec, case)
        assert list(map(described, got)) == list(map(described, want)), case
        for name in ("out", "y", "z", "s", "h", "p"):
            place = spec.schema.arg_names.index(name)
            if want[place] is not None and not (name == "s" and not case.values["across"]):
                assert torch.equal(got[place].float(), want[place].float()), (case, name)
    assert {make_inputs(spec, case)[6].stride()[0] for case in cases} != {1}


def test_strides_are_those_of_the_manifest(kernel):
    spec = read_kernel(kernel, "k")
    make = run(spec, **functions_of(spec))["make_case_inputs"]
    facts = {"tall": 4, "max_": 8, "has_y": True}
    assert make("cpu", **facts, across=True)[6].stride() == (1, 4)
    assert make("cpu", **facts, across=False)[6].stride() == (4, 1)
    assert make("cpu", **facts)[1].stride() == (8, 1)
    assert make("cpu", **facts, n=3)[13].stride() == (96, 8, 24)


def test_random_values_are_drawn(kernel):
    """Normal ones for inputs, from 0 to 1 where that is asked for, below the limit for integers."""
    spec = read_kernel(kernel, "k")
    make = run(spec, **functions_of(spec))["make_case_inputs"]
    _, x, _, _, w, u, *_ = make("cpu", tall=64, max_=512, has_y=True)
    assert x.dtype == torch.bfloat16
    assert abs(x.float().std() - 1) < 0.1
    assert 0 <= int(w.min()) <= int(w.max()) < 256
    assert int(w.max()) > 200
    assert 0 <= u.float().min() <= u.float().max() <= 1
    assert u.float().std() > 0.2


def test_every_case_that_is_tuned_is_there_once(kernel):
    """Keys are in the order of the grids; of cases with one key, the first counts."""
    spec = read_kernel(kernel, "k")
    found = run(spec, **functions_of(spec))["generate_inputs"]()
    axes = spec.key_axes
    keys = dict.fromkeys(
        tuple(case.values[axis] for axis in axes) for case in cases_of(spec, "tune")
    )
    assert [tuple(key.values()) for key in found] == list(keys)
    assert {tuple(key) for key in found} == {axes}
    assert [args[8] for args in found.values()] == [2] * len(keys)


def test_a_generator_of_the_kernels_own_makes_everything(kernel):
    path = kernel / "kernels" / "k" / "kernel.toml"
    path.write_text(
        path.read_text().replace("[inputs]", '[inputs]\ngenerator = "host.py:everything"')
    )
    spec = read_kernel(kernel, "k")
    found = run(spec, **functions_of(spec))["make_case_inputs"]("cpu", tall=2, max_=3, has_y=True)
    assert isinstance(found, tuple)
    assert torch.equal(found[0], torch.ones(2, 3))
    assert len(found) == 15


@pytest.mark.parametrize("name", read_pack(ROOT, "kernelpkg").kernels)
def test_the_first_pack_is_tuned_with_its_grid(name):
    """All cases, on fake tensors: as many keys, each with what `make_inputs` makes of it."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    spec = read_kernel(ROOT, name)
    space = {}
    exec((Path(spec.directory) / "host.py").read_text(), space)
    functions = {n: space[n] for n in ("cos_sin_cache",) if n in space}
    with FakeTensorMode():
        found = run(spec, **functions)["generate_inputs"]()
        cases = cases_of(spec, "tune")
        assert len(found) == len(cases)
        for (key, got), case in zip(found.items(), cases, strict=True):
            assert key == {axis: case.values[axis] for axis in spec.key_axes}
            assert list(map(described, got)) == list(map(described, make_inputs(spec, case)))


KINDS = Path(__file__).parents[3] / "packs" / "kinds"


def written(name):
    """Return the arguments that the written function makes of each case of a kind for tests."""
    spec = read_kernel(KINDS, name)
    code = "\n".join(write_inputs(spec, axis_codes(spec, {}), frozenset()))
    assert max(map(len, code.splitlines())) <= 88
    for case in cases_of(spec, "test"):
        values = dict(case.values)
        got = run(spec)["make_case_inputs"]("cpu", **values)
        assert list(map(described, got)) == list(map(described, make_inputs(spec, case)))
        if values.get("num_groups", values.get("num_runs", 2)) > 1:
            yield values, dict(zip(spec.schema.arg_names, got, strict=True))


@pytest.mark.parametrize("name", ["grouped_matmul", "jagged_mean", "jagged_sum", "moe_matmul"])
def test_offsets_are_those_of_all_rows(name):
    """They rise from the first row to the last."""
    for _, args in written(name):
        offsets = args["offsets"].tolist()
        rows = args.get("values", args.get("order", args.get("x"))).size(0)
        assert (offsets[0], offsets[-1]) == (0, rows)
        assert offsets == sorted(offsets)


def test_permutations_have_each_number_once():
    for _, args in written("moe_matmul"):
        assert sorted(args["order"].tolist()) == list(range(args["order"].numel()))


def test_codes_are_in_their_range():
    """Packed codes of all bits are any bytes; numbers from `low` on are of both signs."""
    packed = [args["packed"] for _, args in written("int4_matmul")]
    assert len(torch.cat(packed).unique()) > 200
    drawn = torch.cat([args["x"] for _, args in written("int8_matmul")])
    assert (int(drawn.min()), int(drawn.max())) == (-8, 7)


def test_packed_codes_of_a_range(copied):
    """Each of the codes of an element is drawn by itself."""
    demo = copied("inputs")
    old = 'dtype = "int64", init = "randint", high = "tall * 4"'
    new = 'dtype = "int32", init = "packed", bits = 4, low = -7'
    demo.edit("kernels/k/kernel.toml", old, new)
    spec = read_kernel(demo.root, "k")
    make = run(spec, **functions_of(spec))["make_case_inputs"]
    (words,) = (make("cpu", tall=4, max_=500, has_y=True)[4],)
    codes = torch.stack([words << 28 - shift >> 28 for shift in range(0, 32, 4)])
    assert words.dtype == torch.int32
    assert codes.unique().tolist() == list(range(-7, 8))
