"""The loops over the grids of a vendored op, as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.manifest.spec import Grid
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_code import axis_codes
from kernelpkg.vllm.vendor.op_inputs import write_inputs

BASE = read_kernel(Path(__file__).parents[2] / "golden" / "good", "x")

CAPTURE = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""vLLM's default sizes of captured CUDA graphs."""


def loops(*grids):
    """Return the lines of the loops, and what is imported."""
    spec = evolve(BASE, grids=grids)
    code = write_inputs(spec, axis_codes(spec, {}), frozenset())
    lines = list(code.lines)
    start = next(i for i, line in enumerate(lines) if "inputs: dict" in line)
    return lines[start + 1 : -1], {item.name for item in code.imports}


def grid(rows=({},), use=("tune",), **axes):
    return Grid(use=use, axes=axes, rows=rows)


def test_what_does_not_vary_is_written_out():
    """Values that are defaults are left to the function that makes one case."""
    lines, imports = loops(grid(hidden_size=(64,), num_tokens=(1, 16), dtype=("float32",)))
    assert lines == [
        "    for num_tokens in [1, 16]:",
        "        key = CaseKey(",
        "            {",
        '                "has_residual": False,',
        '                "dtype": "float32",',
        '                "hidden_size": 64,',
        '                "num_tokens": num_tokens,',
        "            }",
        "        )",
        "        inputs[key] = make_case_inputs(",
        '            device, num_tokens=num_tokens, hidden_size=64, dtype="float32"',
        "        )",
    ]
    assert imports == set()


def test_one_case_needs_no_loop():
    lines, _ = loops(grid(hidden_size=(64,), num_tokens=(1,)))
    assert lines[0] == "    key = CaseKey("
    assert lines[-1] == "    inputs[key] = make_case_inputs(device, num_tokens=1, hidden_size=64)"


def test_axes_of_rows_go_together():
    """In the order of the axes; an axis that is equal in all rows does not vary."""
    rows = ({"has_residual": True, "group": 8}, {"dtype": "float32", "group": 8})
    lines, imports = loops(grid(rows, hidden_size=(64, 128), num_tokens=(1,)))
    assert lines[:3] == [
        "    for (dtype, has_residual), hidden_size in product(",
        '        [("bfloat16", True), ("float32", False)], [64, 128]',
        "    ):",
    ]
    assert "            group=8," in lines
    assert imports == {"product"}


def test_long_lists_have_ranges():
    """vLLM's 51 capture sizes stand in a line, as its own files write them."""
    lines, _ = loops(grid(hidden_size=(64,), num_tokens=CAPTURE))
    assert lines[0] == "    for num_tokens in [1, 2, 4, *range(8, 264, 8), *range(272, 528, 16)]:"
    _, _, text = lines[0].partition(" in ")
    assert eval(text.rstrip(":")) == list(CAPTURE)


@pytest.mark.parametrize(
    ("grids", "again"),
    [
        pytest.param([grid(hidden_size=(64, 128), num_tokens=(1,))], False, id="distinct"),
        pytest.param([grid(hidden_size=(64,), num_tokens=(1,), group=(4, 8))], True, id="axis"),
        pytest.param([grid(hidden_size=(64, 64), num_tokens=(1,))], False, id="twice-in-one"),
        pytest.param([grid(hidden_size=(64,), num_tokens=(1,))] * 2, True, id="twice"),
    ],
)  # fmt: skip
def test_keys_that_come_again_are_left_out(grids, again):
    """The first case of a key counts, and nothing is made for the others."""
    lines, _ = loops(*grids)
    assert any("if key not in inputs:" in line for line in lines) is again


def test_only_grids_for_tuning_are_there():
    lines, _ = loops(
        grid(hidden_size=(64,), num_tokens=(1,)),
        grid(use=("test",), hidden_size=(8,), num_tokens=(3,)),
    )
    assert not any("3" in line for line in lines)
