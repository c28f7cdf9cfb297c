"""Tensors of whole numbers that fit each other: what each kind of `init` promises of every call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kernelpkg.bench.inputs import fill, make_inputs
from kernelpkg.check.off_grid import Around
from kernelpkg.packs.read import read_kernel

KINDS = Path(__file__).parents[2] / "packs" / "kinds"


def filled(shape, init, dtype=torch.int64, seed=0, **numbers):
    generator = torch.Generator().manual_seed(seed)
    return fill(torch.empty(shape, dtype=dtype), init, generator, numbers=numbers)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize(("runs", "total"), [(0, 0), (1, 7), (2, 7), (3, 7), (9, 40), (4, 0)])
def test_offsets_rise_from_0_to_the_total(runs, total, dtype):
    """With whatever seed."""
    for seed in range(20):
        found = filled(runs + 1, "offsets", dtype, seed, total=total)
        values = found.tolist()
        assert found.dtype == dtype
        assert (values[0], values[-1], len(values)) == (0, total, runs + 1)
        assert values == sorted(values)


def test_offsets_have_empty_runs_and_full_ones():
    """One of several runs is always empty; one has all in some calls, and in others none has."""
    lengths = [filled(10, "offsets", seed=seed, total=40).diff() for seed in range(40)]
    assert all(0 in run for run in lengths)
    full = sum(40 in run for run in lengths)
    assert 4 <= full <= 20


def test_permutations():
    """Each number once, in an order that the seed decides; of more numbers, different ones."""
    found = filled((3, 4), "permutation", torch.int16)
    assert found.flatten().sort().values.tolist() == list(range(12))
    assert found.flatten().tolist() != list(range(12))
    some = filled(20, "permutation", high=1000)
    assert len(some.unique()) == 20
    assert 40 < some.max() < 1000


def test_sorted_numbers():
    """They rise along the last dimension."""
    found = filled((3, 50), "sorted", torch.int32, low=-5, high=5)
    assert torch.equal(found, found.sort(dim=-1).values)
    assert found.unique().tolist() == list(range(-5, 5))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize(("low", "high"), [(-7, 8), (-8, 8), (0, 16), (3, 5)])
def test_each_packed_code_is_in_its_range(dtype, low, high):
    """In each place of an element, all codes of the range, and no other."""
    found = filled(400, "packed", dtype, bits=4, low=low, high=high).long()
    for place in range(dtype.itemsize * 2):
        codes = found >> 4 * place & 15
        codes = codes - 16 * (codes >= 8) if low < 0 else codes
        assert codes.unique().tolist() == list(range(low, high))


def test_packed_codes_without_a_range_are_all_bytes():
    found = filled(8000, "packed", torch.uint8, bits=4, high=16)
    assert len(found.unique()) == 256


@pytest.mark.parametrize("name", ["grouped_matmul", "jagged_mean", "jagged_sum", "moe_matmul"])
def test_calls_off_the_grid_keep_what_offsets_promise(name):
    """So that level 3 runs them; and two calls of a case are equal."""
    spec = read_kernel(KINDS, name)
    around = Around(spec=spec, keys=())
    place = spec.schema.arg_names.index("offsets")
    cases = [*around.off_grid(), *around.ends()]
    assert len(cases) > 5
    for case in cases:
        args, again = make_inputs(spec, case), make_inputs(spec, case)
        rows = args[2 if name == "moe_matmul" else 0].size(0)
        assert args[place][-1] == rows
        assert torch.equal(args[place], again[place])
