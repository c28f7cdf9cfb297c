"""The functions that make the arguments of one case and of all, as text."""

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


def lines_of(args, *, schema, axes, defaults=None):
    """Return the lines after the signature, for arguments given as their variants."""
    names = [*axes]
    spec = evolve(
        BASE,
        schema=parse_schema(schema),
        axes=tuple(Axis(name=name, expr=parse_expr(text)) for name, text in axes.items()),
        rules=tuple(Rule(axis=name, match="exact") for name in names),
        args=tuple(ArgSpec(name=name, variants=tuple(found)) for name, found in args.items()),
        defaults=defaults or {},
        grids=(),
    )
    return list(CaseInputsWriter(spec, axis_codes(spec, {}), frozenset()).lines())


def tensor(*shape, dtype="float32", **more):
    sizes = tuple(Dim(expr=parse_expr(size)) for size in shape)
    fields = {key: parse_expr(more.pop(key)) for key in ("when", "high") if key in more}
    strides = more.pop("strides", None)
    if strides is not None:
        more["strides"] = tuple(None if s == "*" else parse_expr(s) for s in strides)
    return ArgVariant(shape=sizes, dtype=parse_expr(dtype), **fields, **more)


MADE = {
    "randn": (tensor("n", "2"), "torch.randn(n, 2, dtype=torch.float32, device=device)"),
    "a scalar tensor": (tensor(), "torch.randn((), dtype=torch.float32, device=device)"),
    "no random numbers of it": (
        tensor("n", dtype="int8"), "torch.randn(n, device=device).to(torch.int8)",
    ),
    "a number": (
        tensor("1", init=2.0), "torch.full((1,), 2.0, dtype=torch.float32, device=device)",
    ),
    "ones": (tensor("n", init="ones"), "torch.ones(n, dtype=torch.float32, device=device)"),
    "arange": (
        tensor("n", "n + 1", init="arange"),
        "torch.arange(n * (n + 1), dtype=torch.float32, device=device).view(n, n + 1)",
    ),
    "randint": (
        tensor("n", init="randint", high="n * 2", dtype="int64"),
        "torch.randint(n * 2, (n,), dtype=torch.int64, device=device)",
    ),
    "rows of any distance": (
        tensor("n", "4", strides=["*", "1"]),
        "torch.randn(n, 4, dtype=torch.float32, device=device)",
    ),
    "columns": (
        tensor("n", "4", strides=["1", "*"], init="empty"),
        "torch.empty_strided((n, 4), (1, n), dtype=torch.float32, device=device)",
    ),
    "strides that are given": (
        tensor("n", "4", strides=["8", "2"], init="empty"),
        "torch.empty_strided((n, 4), (8, 2), dtype=torch.float32, device=device)",
    ),
    "any, around one that is given": (
        tensor("2", "n", "4", strides=["*", "8", "*"], init="empty"),
        (
            "torch.empty_strided((2, n, 4), ((n * 8) * 4, 8, n * 8), dtype=torch.float32, "
            "device=device)"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("variant", "want"), MADE.values(), ids=MADE)
def test_a_tensor_is_made_in_one_call_of_torch(variant, want):
    lines = lines_of({"x": [variant]}, schema="(Tensor x, int n) -> Tensor", axes={"n": "n"})
    text = " ".join(line.strip() for line in lines[2:-1])
    assert text.replace("( ", "(").replace(" )", ")") == f"x = {want}"


def test_variants_are_conditions():
    """One that fits its line is a conditional; an optional argument is absent for the others."""
    lines = lines_of(
        {
            "x": [tensor("n", when="flag")],
            "y": [tensor("n", when="flag", dtype="kind"), tensor("n", "n", dtype="kind")],
            "f": [ArgVariant(when=parse_expr("n > 2"), value=parse_expr("2")),
                  ArgVariant(when=parse_expr("n == 2"), value=parse_expr("n")),
                  ArgVariant(value=parse_expr("0.5"))],
        },
        schema="(Tensor? x, Tensor y, float f, int n) -> Tensor",
        axes={"n": "n", "flag": "x is not None", "kind": "y.dtype"},
        defaults={"flag": True, "kind": "float16"},
    )  # fmt: skip
    assert lines == [
        "def make_case_inputs(",
        '    device: str, *, n: int, flag: bool = True, kind: str = "float16"',
        ") -> tuple[Any, ...]:",
        '    """Return the arguments of a call with these facts, in order."""',
        "    x = torch.randn(n, dtype=torch.float32, device=device) if flag else None",
        "    if flag:",
        "        y = torch.randn(n, dtype=getattr(torch, kind), device=device)",
        "    else:",
        "        y = torch.randn(n, n, dtype=getattr(torch, kind), device=device)",
        "    if n > 2:",
        "        f = 2.0",
        "    elif n == 2:",
        "        f = float(n)",
        "    else:",
        "        f = 0.5",
        "    return x, y, f",
    ]


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
