"""The functions that make the arguments of one case and of all, as text.

The golden tree has whole ones, and `tests/helion` runs those of every kind of inputs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Axis, Dim, Grid, Rule
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_code import axis_codes
from kernelpkg.vllm.vendor.op_inputs import CaseInputsWriter, literal, tupled, write_inputs

BASE = read_kernel(Path(__file__).parents[2] / "golden" / "good", "x")


def lines_of(args, *, schema, axes):
    """Return the lines after the signature, for arguments given as their variants."""
    names = [*axes]
    spec = evolve(
        BASE,
        schema=parse_schema(schema),
        axes=tuple(Axis(name=name, expr=parse_expr(text)) for name, text in axes.items()),
        rules=tuple(Rule(axis=name, match="exact") for name in names),
        args=tuple(ArgSpec(name=name, variants=tuple(found)) for name, found in args.items()),
        defaults={},
        grids=(),
    )
    return list(CaseInputsWriter(spec, axis_codes(spec, {}), frozenset()).lines())


def tensor(*shape, when=None):
    sizes = tuple(Dim(expr=parse_expr(size)) for size in shape)
    condition = None if when is None else parse_expr(when)
    return ArgVariant(shape=sizes, dtype=parse_expr("float32"), when=condition)


def test_a_condition_that_fits_its_line_is_a_conditional():
    lines = lines_of(
        {"x": [tensor("n", when="flag")]},
        schema="(Tensor? x, int n) -> Tensor",
        axes={"n": "n", "flag": "x is not None"},
    )
    assert (
        lines[2] == "    x = torch.randn(n, dtype=torch.float32, device=device) if flag else None"
    )


def test_an_absent_axis_fails_every_condition():
    """As in the language of manifests, where reading it has no value."""
    lines = lines_of(
        {"x": [tensor("2", when="m > 1 or n > 1"), tensor("3")], "m": []},
        schema="(Tensor x, int? m, int n) -> Tensor",
        axes={"m": "m", "n": "n"},
    )
    assert (
        lines[0]
        == "def make_case_inputs(device: str, *, m: int | None, n: int) -> tuple[Any, ...]:"
    )
    assert lines[2] == "    if m is not None and (m > 1 or n > 1):"
    assert lines[-1] == "    return x, None"


def test_literals_are_pythons():
    assert [literal(value) for value in (True, None, 1.5, 'a"b\\', [1, "x"])] == [
        "True", "None", "1.5", '"a\\"b\\\\"', "[1, 'x']",
    ]  # fmt: skip
    assert tupled(["a"]) == "(a,)"
    assert tupled(["a", "b"]) == "(a, b)"


CAPTURE = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""vLLM's default sizes of captured CUDA graphs."""


def loops(*grids):
    """Return the lines of the loops."""
    spec = evolve(BASE, grids=grids)
    lines = write_inputs(spec, axis_codes(spec, {}), frozenset())
    start = next(i for i, line in enumerate(lines) if "inputs: dict" in line)
    return lines[start + 1 : -1]


def grid(use=("tune",), **axes):
    return Grid(use=use, axes=axes)


def test_one_case_needs_no_loop():
    lines = loops(grid(hidden_size=(64,), num_tokens=(1,)))
    assert lines[0] == "    key = CaseKey("
    assert lines[-1] == "    inputs[key] = make_case_inputs(device, num_tokens=1, hidden_size=64)"


def test_long_lists_have_ranges():
    """vLLM's 51 capture sizes stand in a line, as its own files write them."""
    lines = loops(grid(hidden_size=(64,), num_tokens=CAPTURE))
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
    lines = loops(*grids)
    assert any("if key not in inputs:" in line for line in lines) is again


def test_only_grids_for_tuning_are_there():
    lines = loops(
        grid(hidden_size=(64,), num_tokens=(1,)),
        grid(use=("test",), hidden_size=(8,), num_tokens=(3,)),
    )
    assert not any("3" in line for line in lines)
