"""Fake implementations made from host parts, held against the host code that Helion generates."""

from __future__ import annotations

import ast
from pathlib import Path

import helion
import helion.language as hl
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.compile.helion import ConfiguredHelionKernel, Selection
from kernelpkg.compile.host_code import (
    infer_fake,
    infer_fake_impl,
    infer_fake_of,
    unread_arguments,
)
from kernelpkg.errors import RegistrationError
from kernelpkg.manifest.cases import cases_of
from kernelpkg.runtime.register import get_kernel_by_name

pytestmark = pytest.mark.usefixtures("pack")

ROOT = Path(__file__).parents[3]
NAMES = sorted(path.parent.name for path in ROOT.glob("kernels/*/kernel.toml"))


def computed_sizes(x: torch.Tensor, repeat: int) -> torch.Tensor:
    tokens, width = x.shape
    out = torch.empty([tokens, repeat * width + 1], dtype=x.dtype, device=x.device)
    for tile in hl.tile(tokens):
        out[tile, 0] = x[tile, 0]
    return out


def transposed(x: torch.Tensor) -> torch.Tensor:
    tokens, width = x.shape
    out = torch.empty([width, tokens], dtype=torch.float32, device=x.device).t()
    for tile_m, tile_n in hl.tile([tokens, width]):
        out[tile_m, tile_n] = x[tile_m, tile_n].to(torch.float32)
    return out


def two_outputs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = x.size(0)
    hl.specialize(x.size(1))
    codes = torch.empty_like(x, dtype=torch.int8)
    scales = torch.empty([tokens, 1], dtype=torch.float32, device=x.device)
    for tile in hl.tile(tokens):
        row = x[tile, :].to(torch.float32)
        scale = torch.amax(torch.abs(row), -1)
        scales[tile, 0] = scale
        codes[tile, :] = (row / scale[:, None]).to(torch.int8)
    return codes, scales


def narrow(x: torch.Tensor, flip: bool) -> torch.Tensor:
    assert x.ndim == 2
    if flip:
        out = torch.empty([x.size(1), x.size(0)], dtype=torch.int8, device=x.device).permute(1, 0)
    else:
        out = torch.empty([x.size(0), x.size(1)], dtype=torch.int8, device=x.device)
    for tile_m, tile_n in hl.tile([x.size(0), x.size(1)]):
        out[tile_m, tile_n] = x[tile_m, tile_n].to(torch.int8)
    return out


def wide(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.shape, dtype=torch.float64)
    for tile_m, tile_n in hl.tile([x.size(0), x.size(1)]):
        out[tile_m, tile_n] = x[tile_m, tile_n].to(torch.float64)
    return out


def in_groups(x: torch.Tensor, size: int) -> torch.Tensor:
    tokens, width = x.shape
    out = torch.empty([tokens, helion.cdiv(width, 48), _doubled(size)], device=x.device)
    for tile in hl.tile(tokens):
        out[tile, 0, 0] = x[tile, 0].to(torch.float32)
    return out.view(tokens, -1)


def parts_of_blocks(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    span = hl.register_block_size(x.size(0))
    out = torch.empty_like(x)
    width = hl.specialize(x.size(1))
    parts = torch.zeros([helion.cdiv(x.size(0), span), width], device=x.device)
    for block in hl.tile(x.size(0), block_size=span):
        total = hl.zeros([width], dtype=torch.float32)
        for tile in hl.tile(block.begin, block.end):
            out[tile, :] = x[tile, :]
            total = total + x[tile, :].to(torch.float32).sum(0)
        parts[block.id, :] = total
    return out, parts.sum(0).to(x.dtype)


def _doubled(size):
    return size * 2


def _floats(*shape, dtype=torch.bfloat16):
    return torch.randn(shape).to(dtype)


HOSTS = {
    "computed-sizes": (computed_sizes, (_floats(6, 40), 3)),
    "one-row": (computed_sizes, (_floats(1, 40), 3)),
    "padded-input": (computed_sizes, (_floats(6, 80)[:, :40], 2)),
    "transposed": (transposed, (_floats(6, 40),)),
    "two-outputs": (two_outputs, (_floats(6, 64),)),
    "two-outputs-transposed": (two_outputs, (_floats(64, 6).t(),)),
    "narrow": (narrow, (_floats(6, 40), False)),
    "narrow-flipped": (narrow, (_floats(6, 40), True)),
    "wide": (wide, (_floats(6, 40),)),
    "wide-of-transposed": (wide, (_floats(40, 6).t(),)),
    "parts": (parts_of_blocks, (_floats(6, 40),)),
    "groups": (in_groups, (_floats(6, 100), 2)),
}


def _facts(result):
    results = result if isinstance(result, tuple | list) else (result,)
    return [(tuple(t.shape), t.stride(), t.dtype, t.device.type) for t in results]


def _generated(function, args):
    """Run the host code that Helion generates, with a launcher that does nothing."""
    kernel = ConfiguredHelionKernel(
        op_name=function.__name__,
        raw_kernel_func=function,
        select=lambda _: Selection(config_id=None, config=None),
        settings={"ignore_warnings": [helion.exc.TensorOperationInWrapper]},
    )
    run = kernel.launcher(args, Selection(config_id=None, config=None))
    return run(*args, _launcher=lambda *_, **__: None)


@pytest.mark.parametrize("host", HOSTS)
def test_agrees_with_the_code_that_helion_generates(host):
    """Shapes, strides and dtypes are those of Helion's own host code, at no bind."""
    function, args = HOSTS[host]
    want = _facts(_generated(function, args))
    fake = infer_fake(function)
    assert _facts(fake(*args)) == want
    with FakeTensorMode() as mode:
        faked = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args]
        assert _facts(fake(*faked)) == want


@pytest.mark.parametrize("shape", [(6, 128), (1, 128), (2, 3, 128)], ids=str)
def test_silu_mul_fp8_agrees_with_the_code_that_helion_generates(shape):
    """So it is for the op of the first pack that returns its result."""
    kernel = get_kernel_by_name("silu_mul_fp8")
    args = (_floats(*shape), torch.ones(1))
    want = _facts(_generated(kernel.raw_kernel_func, args))
    assert want[0][0] == (*shape[:-1], 64)
    assert _facts(kernel.fake(*args)) == want


def _small_cases(spec):
    """The cases for tests of few tokens: what is inferred of many is inferred of few."""
    return [case for case in cases_of(spec, "test") if case.values["num_tokens"] <= 64]


def test_agrees_with_the_op_over_the_grid(specs):
    """On every case for tests, shape, strides and dtype are those of the real result."""
    kernel = get_kernel_by_name("silu_mul_fp8")
    cases = _small_cases(specs["silu_mul_fp8"])
    assert len(cases) >= 60
    for case in cases:
        args = make_inputs(specs["silu_mul_fp8"], case)
        assert _facts(kernel.fake(*args)) == _facts(kernel(*args))


def _symbolic(mode, tensor):
    context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * tensor.ndim)
    return mode.from_tensor(tensor, symbolic_context=context)


@pytest.mark.parametrize("host", ["computed-sizes", "transposed", "wide", "groups"])
def test_takes_symbolic_sizes(host):
    """All sizes may be symbolic; none becomes a number, and their values are those of a call."""
    function, args = HOSTS[host]
    env = ShapeEnv(duck_shape=False)
    with FakeTensorMode(shape_env=env) as mode:
        faked = [_symbolic(mode, a) if isinstance(a, torch.Tensor) else a for a in args]
        found = infer_fake(function)(*faked)
    want = infer_fake(function)(*args)
    symbols = {symbol for size in faked[0].shape for symbol in size.node.expr.free_symbols}
    free = {
        symbol
        for size in found.shape
        if isinstance(size, torch.SymInt)
        for symbol in size.node.expr.free_symbols
    }
    assert len(symbols) == 2
    assert free == symbols
    assert [int(size) for size in found.shape] == list(want.shape)
    assert [int(stride) for stride in found.stride()] == list(want.stride())


def test_what_needs_values_does_not_matter():
    """Checks of data, and what is done to tensors that were made, are no part of a fake."""

    def checked(x: torch.Tensor) -> torch.Tensor:
        assert x.max() < 1e6
        if (x < 0).any():
            raise ValueError(float(x.min()))
        out = torch.empty_like(x)
        out.fill_(x.sum().item())
        _print_largest(x)
        for tile in hl.tile(x.size(0)):
            out[tile, :] = x[tile, :]
        return out

    with FakeTensorMode() as mode:
        assert infer_fake(checked)(mode.from_tensor(_floats(6, 40))).shape == (6, 40)


def _print_largest(x):
    print(float(x.max()))


def test_silu_mul_fp8_takes_symbolic_sizes():
    """Tokens and width symbolic, the result is half as wide, for any width."""
    env, data, one = ShapeEnv(duck_shape=False), _floats(6, 128), torch.ones(1)
    with FakeTensorMode(shape_env=env) as mode:
        x, scale = _symbolic(mode, data), mode.from_tensor(one)
        found = torch.ops.kernelpkg.silu_mul_fp8(x, scale)
    (tokens, width) = (size.node.expr for size in x.shape)
    assert found.shape[0].node.expr == tokens
    assert str(found.shape[1].node.expr) == f"({width}//2)"
    assert found.dtype == torch.float8_e4m3fn
    assert not [guard for guard in env.guards if str(guard.expr).startswith("Eq(")]


def test_costs_no_bind(monkeypatch):
    """A fake call does not ask Helion for anything."""
    kernel = get_kernel_by_name("silu_mul_fp8")

    def refused(*_):
        raise AssertionError("Helion was asked")

    monkeypatch.setattr(helion.Kernel, "bind", refused)
    monkeypatch.setattr(kernel.backend, "configured", refused)
    data, one = _floats(6, 128), torch.ones(1)
    with FakeTensorMode() as mode:
        x, scale = mode.from_tensor(data), mode.from_tensor(one)
        assert torch.ops.kernelpkg.silu_mul_fp8(x, scale).shape == (6, 64)


def test_settings_make_no_difference():
    """The function of vLLM's name takes them, and no result depends on them."""
    x = torch.empty(3, 2, device="meta")
    for fake in (
        infer_fake_impl(computed_sizes),
        infer_fake_impl(kernel_func=computed_sizes, helion_settings=helion.Settings()),
    ):
        assert fake(x, 3).shape == (3, 7)


def test_globals_and_closures_are_those_of_the_function():
    """Names of the module that come later, what is closed over, and defaults are found."""
    extra = 5

    def closing(x: torch.Tensor, size: int = 2, *, more: int = 1) -> torch.Tensor:
        width = extra + defined_later(size) + more  # noqa: F821  # the module gets it below
        out = torch.empty([x.size(0), width], device=x.device)
        for tile in hl.tile(x.size(0)):
            out[tile, 0] = x[tile, 0]
        return out

    fake = infer_fake(closing)
    globals()["defined_later"] = lambda size: size * 100
    try:
        assert fake(torch.empty(3, 4)).shape == (3, 206)
        assert fake(torch.empty(3, 4), 1, more=2).shape == (3, 107)
    finally:
        del globals()["defined_later"]


def test_loops_within_blocks_are_dropped():
    """A block that holds nothing but tile loops stays a block."""

    def nested(x: torch.Tensor, twice: bool) -> torch.Tensor:
        out = torch.empty_like(x)
        if twice:
            for tile in hl.tile(x.size(0)):
                out[tile, :] = x[tile, :] * 2
        else:
            for tile in hl.grid(x.size(0)):
                out[tile, :] = x[tile, :]
        for _ in range(2):
            for tile in hl.tile(x.size(0)):
                out[tile, :] += 1
        return out

    assert infer_fake(nested)(torch.empty(3, 4), True).shape == (3, 4)


@helion.kernel()
def _other(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :]
    return out


def _by_another(x: torch.Tensor) -> torch.Tensor:
    return _other(x)


def _makes_zeros(x: torch.Tensor) -> torch.Tensor:
    return hl.zeros([x.size(0)], dtype=torch.float32)


@pytest.mark.parametrize(
    ("function", "call"), [(_by_another, "_other"), (_makes_zeros, "hl.zeros")]
)
def test_host_parts_that_cannot_run(function, call):
    """Results that depend on more of Helion are refused, and the call is named."""
    with pytest.raises(RegistrationError) as caught:
        infer_fake(function)
    assert str(caught.value) == (
        f"kernel '{function.__name__}': its results depend on {call}, so its fake implementation "
        "cannot be inferred; give one"
    )


def test_no_source():
    """A function that was made from text has no source to read."""
    space = {}
    exec("def made(x): return x", space)
    with pytest.raises(RegistrationError) as caught:
        infer_fake(space["made"])
    assert str(caught.value) == (
        "kernel 'made': its source cannot be read, so its fake implementation cannot be "
        "inferred; give one"
    )


def test_none_by_reference_and_inferred(specs):
    """An op that only writes fakes nothing; one that returns fakes what its host part makes."""
    for name, spec in specs.items():
        kernel = get_kernel_by_name(name)
        assert (kernel._fake_impl is None) == (spec.fake_impl == "none")
    assert specs["silu_mul_fp8"].fake_impl == "infer"


IMPORTS = {
    "the language": ("import helion.language as hl", "hl.tile", "(a + 1) // 2"),
    "the package": ("import helion", "helion.language.tile", "helion.cdiv(a, 2)"),
    "by another name": ("import helion as h", "h.language.tile", "h.cdiv(a, 2)"),
    "a function": (
        "from helion import cdiv\nimport helion.language as hl",
        "hl.tile",
        "cdiv(a, 2)",
    ),
    "a function by another name": (
        "from helion.language import tile as t\nfrom helion import next_power_of_2",
        "t",
        "next_power_of_2(a) // 2",
    ),
}


@pytest.mark.parametrize(("imports", "loop", "size"), IMPORTS.values(), ids=IMPORTS)
def test_a_file_is_run_without_helion(imports, loop, size):
    """Whatever it imports of it; a decorator and a number of Helion's do no harm."""
    text = f"""
import torch
{imports}

FACTOR = 2

def op(x: torch.Tensor, flip: bool = False) -> torch.Tensor:
    a, b = x.shape
    out = torch.empty([{size}, FACTOR], dtype=torch.float16, device=x.device)
    for tile in {loop}(a):
        out[tile] = x[tile]
    return out.t() if flip else out
"""
    fake = infer_fake_of(ast.parse(text), "op", "kernel.py")
    x = torch.empty(3, 4, device="meta")
    assert (fake(x).shape, fake(x).dtype) == ((2, 2), torch.float16)
    assert fake(x, flip=True).stride() == (1, 2)


def test_a_host_part_that_asks_helion_for_more_is_refused():
    text = """
import helion.language as hl

def op(x):
    n = hl.zeros([x.size(0)])
    for tile in hl.tile(x.size(0)):
        x[tile] = 0
    return n
"""
    with pytest.raises(RegistrationError) as caught:
        infer_fake_of(ast.parse(text), "op", "kernel.py")
    assert str(caught.value) == (
        "kernel 'op': its results depend on hl.zeros, so its fake implementation cannot be "
        "inferred; give one"
    )


INFERRED = [
    name for name in NAMES if '"infer"' in (ROOT / f"kernels/{name}/kernel.toml").read_text()
]


@pytest.mark.parametrize("name", INFERRED)
def test_kernels_of_the_first_pack_are_inferred_alike_with_helion_and_without(specs, name):
    spec = specs[name]
    path = Path(spec.directory, spec.source.file)
    without = infer_fake_of(ast.parse(path.read_text()), spec.source.name, str(path))
    function = get_kernel_by_name(f"kernelpkg::{name}").raw_kernel_func
    for case in _small_cases(spec):
        args = make_inputs(spec, case)
        found = [fake(*args) for fake in (without, infer_fake(function))]
        one, other = (r if isinstance(r, tuple) else (r,) for r in found)
        assert [(r.shape, r.stride(), r.dtype) for r in one] == [
            (r.shape, r.stride(), r.dtype) for r in other
        ]


@pytest.mark.parametrize(
    ("body", "unread"),
    [
        ("return a + len([c])", [1]),
        ("return a, b, c", []),
        ("return locals()", []),
        ("pass", [0, 1, 2]),
    ],
)
def test_arguments_that_a_function_never_reads(body, unread):
    """Code does not depend on them; what reads names as texts may read any."""
    tree = ast.parse(f"def f(a, b, c):\n    {body}\n")
    assert unread_arguments(tree, "f", ("a", "b", "c")) == unread
