"""The seven kernels in Helion's interpreter: over their test grids, by hand, and at the edges.

The hand-computed numbers keep a kernel and its reference from sharing a mistake.
"""

from __future__ import annotations

import runpy
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernelpkg.bench.reference import check_case, compare_all
from kernelpkg.errors import CallError
from kernelpkg.manifest.cases import cases_of
from kernelpkg.packs.sources import load_function
from kernelpkg.runtime.register import get_kernel_by_name

EXTREMES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "extremes.py")))

pytestmark = pytest.mark.usefixtures("pack")
EACH_KERNEL = True

F8 = torch.float8_e4m3fn
OPS = torch.ops.kernelpkg
LEAST_F8 = 1.0 / (448.0 * 512.0)
LEAST_INT8 = 2.0**-23
FEASIBLE = 64
"""The most tokens of a case that the interpreter gets; the GPU tests run them all."""


def test_test_grid(name, specs):
    """Every case of the manifest that is not too large agrees with the float32 reference."""
    kernel = get_kernel_by_name(name)
    cases = [
        case for case in cases_of(specs[name], "test") if case.values["num_tokens"] <= FEASIBLE
    ]
    assert {0, 1, 3, 17} <= {case.values["num_tokens"] for case in cases}
    wrong = [check_case(specs[name], kernel, case, device="cpu") for case in cases]
    assert [problem for problem in wrong if problem is not None] == []
    kernel.dispatcher.calls.clear()


def test_grid_covers_all_options(name, specs):
    """Each flag is on and off, and each dtype that a guard names appears, in the test cases."""
    cases = cases_of(specs[name], "test")
    text = " ".join(guard.text for guard in specs[name].guards)
    for axis in cases[0].values:
        values = {case.values[axis] for case in cases}
        if isinstance(cases[0].values[axis], bool):
            assert values == {True, False}, axis
        if axis == "cache_dtype":
            continue  # float16 is below
        if f"{axis} in [" in text and "float" in str(next(iter(values))):
            listed = text.split(f"{axis} in [")[1].split("]")[0].split(", ")
            assert values == set(listed), axis


def _codes(tensor):
    return tensor.float().tolist()


def _close(tensor, *values):
    torch.testing.assert_close(
        tensor.flatten(), torch.tensor(values, dtype=tensor.dtype), rtol=1e-6, atol=0.0
    )


def _agrees(specs, name, args):
    """Run op and reference on copies of the arguments; return what the op wrote."""
    reference = load_function(Path(specs[name].directory), specs[name].reference)
    got = tuple(_copy(arg) for arg in args)
    want = tuple(_copy(arg) for arg in args)
    results = getattr(OPS, name)(*got), reference(*want)
    found = compare_all(
        specs[name].schema, (got, results[0]), (want, results[1]), specs[name].accuracy
    )
    assert [agreement.problem for agreement in found if agreement.problem is not None] == []
    return got, results[0]


def _copy(arg):
    if not isinstance(arg, torch.Tensor):
        return arg
    made = torch.empty_strided(arg.shape, arg.stride(), dtype=arg.dtype)
    return made.copy_(arg)


# silu_mul_fp8


def test_silu_mul_fp8_by_hand():
    """silu(96) is 96 in float32: products over the scale, saturated at 448 on both sides."""
    gate = [96.0, 96.0, 96.0, 0.0, 1.0, -200.0]
    up = [2.0, 10.0, -10.0, 5.0, 0.5, 3.0]
    x = torch.tensor([[*gate, *up]])
    got = OPS.silu_mul_fp8(x, torch.tensor([0.5]))
    # 96 * 2 / 0.5; 1920 and -1920 saturate; 0; 0.73106 * 0.5 / 0.5 rounds to 0.75; -0
    assert _codes(got) == [[384.0, 448.0, -448.0, 0.0, 0.75, 0.0]]
    assert got.dtype == F8


def test_silu_mul_fp8_edges(specs):
    """NaN, also of silu(-inf), becomes 448; infinities saturate; scale may have no dimension."""
    gate = [nan, inf, -inf, 1.0, 1.0, 96.0]
    up = [1.0, 1.0, 1.0, nan, -inf, inf]
    x = torch.tensor([[*gate, *up], [0.0] * 12])
    for scale in (torch.tensor([1.0]), torch.tensor(1.0), torch.ones(1, 1)):
        _, got = _agrees(specs, "silu_mul_fp8", (x, scale))
        assert _codes(got) == [[448.0, 448.0, 448.0, 448.0, -448.0, 448.0], [0.0] * 6]


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4), (1, 1, 4), (2, 0, 4)], ids=str)
def test_silu_mul_fp8_takes_any_rank(specs, shape):
    """All dimensions but the last are tokens."""
    x = torch.linspace(-3, 3, max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()]
    _, got = _agrees(specs, "silu_mul_fp8", (x.view(shape), torch.tensor([0.1])))
    assert got.shape == (*shape[:-1], 2)


# per_token_group_fp8_quant


def _group(x, group_size, *, ue8m0=False, strides=None, fp8_max=448.0, dtype=torch.float32):
    x = torch.tensor(x, dtype=dtype)
    shape = (x.shape[0], x.shape[1] // group_size)
    scale = torch.empty_strided(shape, strides or (shape[1], 1)).fill_(-1.0)
    codes = torch.full(x.shape, 96.0).to(F8)
    return (x, codes, scale, group_size, 1e-10, -fp8_max, fp8_max, ue8m0)


def test_per_token_group_by_hand():
    """Groups of four: 8 / 448, a group of zeros, and a scale of one."""
    args = _group([[1, 2, 4, -8, 0, 0, 0, 0, 448, -448, 224, 1]], 4)
    OPS.per_token_group_fp8_quant(*args)
    assert _codes(args[1]) == [[56, 112, 224, -448, 0, 0, 0, 0, 448, -448, 224, 1]]
    _close(args[2], 8 / 448, 1e-10 / 448, 1.0)


def test_per_token_group_ue8m0_by_hand():
    """8 / 448 rounds up to 2**-5; powers of two stay; zeros are made from 1e-10: 2**-33."""
    args = _group([[1, 2, 4, -8, 0, 0, 0, 0, 448, -448, 224, 1]], 4, ue8m0=True)
    OPS.per_token_group_fp8_quant(*args)
    assert _codes(args[1]) == [[32, 64, 128, -256, 0, 0, 0, 0, 448, -448, 224, 1]]
    assert args[2].tolist() == [[2.0**-5, 2.0**-33, 1.0]]


@pytest.mark.parametrize("power", [-20, -5, -1, 0, 1, 7, 30])
def test_per_token_group_ue8m0_powers_are_exact(specs, power):
    """448 * 2**k has scale 2**k; the next float above it has the next power."""
    exact = 448.0 * 2.0**power
    above = torch.nextafter(torch.tensor(exact), torch.tensor(inf)).item()
    below = torch.nextafter(torch.tensor(exact), torch.tensor(0.0)).item()
    args, _ = _agrees(
        specs,
        "per_token_group_fp8_quant",
        _group([[exact, 0.0, above, 0.0, below, 0.0]], 2, ue8m0=True),
    )
    assert args[2].tolist() == [[2.0**power, 2.0 ** (power + 1), 2.0**power]]


@pytest.mark.parametrize("ue8m0", [False, True], ids=["plain", "ue8m0"])
def test_per_token_group_edges(specs, ue8m0):
    """NaN leaves the scale alone and becomes -448, as does inf / inf; finite beside inf is 0."""
    rows = [[1, nan, 2, 4, inf, 1, -2, 0], [-inf, 3, 0, 0, nan, nan, nan, nan], [0.0] * 8]
    args, _ = _agrees(specs, "per_token_group_fp8_quant", _group(rows, 4, ue8m0=ue8m0))
    codes, scale = args[1].float(), args[2]
    assert codes[0, 1] == -448.0
    assert codes[0, 4:].tolist() == [-448.0, 0.0, 0.0, 0.0]
    assert codes[1].tolist() == [-448.0, 0.0, 0.0, 0.0, -448.0, -448.0, -448.0, -448.0]
    assert codes[2].tolist() == [0.0] * 8
    assert scale[0, 1] == scale[1, 0] == inf
    assert scale[0, 0].item() == pytest.approx(2.0**-6 if ue8m0 else 4 / 448)


@pytest.mark.parametrize(
    "strides",
    [(3, 1), (8, 1), (1, 2), (1, 5), (1, 4)],
    ids=["rows", "padded", "columns", "odd", "tma"],
)
def test_per_token_group_scale_layouts(specs, strides):
    """The scale's strides say where it goes; what lies between is not written."""
    rows = [[1, 2, 4, -8, 2, 2, 2, 2, 448, 0, 0, 0], [4, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0, 0]]
    args = _group(rows, 4)
    storage = torch.full((64,), -1.0)
    scale = storage.as_strided((2, 3), strides)
    OPS.per_token_group_fp8_quant(*args[:2], scale, *args[3:])
    _close(scale.contiguous(), *(v / 448 for v in (8, 2, 448, 4, 8, 16)))
    assert (storage == -1.0).sum() == 64 - 6


def test_per_token_group_other_range(specs):
    """fp8_min and fp8_max are the caller's, 240 for other FP8 formats."""
    args, _ = _agrees(specs, "per_token_group_fp8_quant", _group([[1, 2, 4, -8]], 4, fp8_max=240.0))
    assert _codes(args[1]) == [[30.0, 60.0, 120.0, -240.0]]
    _close(args[2], 8 / 240)


# dynamic_per_token_scaled_fp8_quant


def _dynamic(rows, bound=None, dtype=torch.float32):
    x = torch.tensor(rows, dtype=dtype)
    result, scale = torch.full(x.shape, 96.0).to(F8), torch.full((len(rows), 1), -1.0)
    return result, x, scale, bound


def test_dynamic_per_token_by_hand():
    """One scale a row: max / 448, and 1 / (448 * 512) for zeros."""
    result, _, scale, _ = args = _dynamic([[1, 2, 4, -8], [0, 0, 0, 0], [448, 1, -2, 0]])
    OPS.dynamic_per_token_scaled_fp8_quant(*args)
    assert _codes(result) == [[56, 112, 224, -448], [0, 0, 0, 0], [448, 1, -2, 0]]
    _close(scale, 8 / 448, LEAST_F8, 1.0)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_dynamic_per_token_bound_by_hand(shape):
    """An upper bound of 4, of any rank: larger values saturate, smaller rows are as without."""
    result, _, scale, _ = args = _dynamic([[1, 2, 4, -8], [1, 0, 2, 0]], torch.full(shape, 4.0))
    OPS.dynamic_per_token_scaled_fp8_quant(*args)
    assert _codes(result) == [[112, 224, 448, -448], [224, 0, 448, 0]]
    _close(scale, 4 / 448, 2 / 448)


def test_dynamic_per_token_edges(specs):
    """NaN and inf / inf become 448; with a bound, infinities saturate by their sign."""
    rows = [[1, nan, 2, -4], [inf, 1, -2, 0], [-inf, 1, -2, 0], [nan] * 4]
    args, _ = _agrees(specs, "dynamic_per_token_scaled_fp8_quant", _dynamic(rows))
    assert _codes(args[0]) == [
        [112, 448, 224, -448],
        [448, 0, 0, 0],
        [448, 0, 0, 0],
        [448, 448, 448, 448],
    ]
    _close(args[2], 4 / 448, inf, inf, LEAST_F8)
    bound = torch.tensor([4.0])
    args, _ = _agrees(specs, "dynamic_per_token_scaled_fp8_quant", _dynamic(rows, bound))
    assert _codes(args[0])[1:3] == [[448, 112, -224, 0], [-448, 112, -224, 0]]
    _close(args[2], 4 / 448, 4 / 448, 4 / 448, LEAST_F8)


def test_rows_of_wider_tensors(specs):
    """Where vLLM's CUDA op takes them: inputs of three ops, as of a split, and codes of one."""
    wide = torch.arange(3 * 256.0).view(3, 256)
    x, weight = wide[:, 64:192], torch.ones(128)
    codes = torch.zeros(3, 256, dtype=F8)[:, :128]
    args, _ = _agrees(
        specs, "dynamic_per_token_scaled_fp8_quant", (codes, x, torch.zeros(3, 1), None)
    )
    _close(args[2], 191 / 448, (191 + 256) / 448, (191 + 512) / 448)
    whole = torch.zeros(3, 128, dtype=F8)
    args = (whole, x, weight, torch.zeros(3, 1), 1e-6, None, None)
    _agrees(specs, "rms_norm_dynamic_per_token_quant", args)
    args = (whole, x, weight, torch.zeros(3, 2), 1e-6, None, None, 64, False)
    _agrees(specs, "rms_norm_per_block_quant", args)
    with pytest.raises(CallError, match="argument 'result' has strides \\(256, 1\\), and must be"):
        OPS.rms_norm_dynamic_per_token_quant(codes, *args[1:3], torch.zeros(3, 1), *args[4:7])


# rms_norm_dynamic_per_token_quant


def _rms(rows, weight, *, out=F8, bound=None, residual=None, dtype=torch.float32, epsilon=0.0):
    x = torch.tensor(rows, dtype=dtype)
    return (
        torch.full(x.shape, 96.0).to(out),
        x,
        torch.tensor(weight, dtype=dtype),
        torch.full((len(rows), 1), -1.0),
        epsilon,
        bound,
        None if residual is None else torch.tensor(residual, dtype=dtype),
    )


SIGNS = [[1.0, -1.0, 1.0, -1.0]]


def test_rms_norm_dynamic_by_hand():
    """A row of mean square 1 is left as it is, times the weight."""
    args = _rms(SIGNS, [1, 2, 4, 8])
    OPS.rms_norm_dynamic_per_token_quant(*args)
    assert _codes(args[0]) == [[56, -112, 224, -448]]
    _close(args[3], 8 / 448)


def test_rms_norm_dynamic_epsilon_by_hand():
    """Epsilon is added to the mean square: 1 + 3 halves the row."""
    args = _rms(SIGNS, [2, 2, 2, 2], epsilon=3.0)
    OPS.rms_norm_dynamic_per_token_quant(*args)
    assert _codes(args[0]) == [[448, -448, 448, -448]]
    _close(args[3], 1 / 448)


def test_rms_norm_dynamic_residual_and_bound_by_hand():
    """The sum goes back to the residual; a bound of 4 saturates what is above."""
    half = [[0.5, -0.5, 0.5, -0.5]]
    args = _rms(half, [1, 2, 4, 8], residual=half, bound=torch.tensor(4.0))
    OPS.rms_norm_dynamic_per_token_quant(*args)
    assert args[6].tolist() == SIGNS
    assert args[1].tolist() == half
    assert _codes(args[0]) == [[112, -224, 448, -448]]
    _close(args[3], 4 / 448)


def test_rms_norm_dynamic_int8_by_hand():
    """8 / 127 is the scale; 15.875, -31.75, 47.625 and -127 are rounded."""
    args = _rms(SIGNS, [1, 2, 3, 8], out=torch.int8)
    OPS.rms_norm_dynamic_per_token_quant(*args)
    assert args[0].tolist() == [[16, -32, 48, -127]]
    _close(args[3], 8 / 127)


def test_rms_norm_dynamic_int8_ties(specs):
    """A scale of one: halves go to the even code."""
    args, _ = _agrees(
        specs,
        "rms_norm_dynamic_per_token_quant",
        _rms([[1.0] * 6], [127, 0.5, 1.5, 2.5, -0.5, -1.5], out=torch.int8),
    )
    assert args[0].tolist() == [[127, 0, 2, 2, 0, -2]]
    _close(args[3], 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rms_norm_dynamic_rounds_like_vllm(specs, dtype):
    """The normalised value and its product are rounded to the input dtype before the scale."""
    third = [[3.0, 1.0, 1.0, 1.0]]  # mean square 3, so 1 / sqrt(3) is not exact
    args, _ = _agrees(specs, "rms_norm_dynamic_per_token_quant", _rms(third, [3] * 4, dtype=dtype))
    normed = (torch.tensor(3.0) * torch.rsqrt(torch.tensor(3.0))).to(dtype)
    _close(args[3], (normed * torch.tensor(3.0, dtype=dtype)).item() / 448)


@pytest.mark.parametrize(
    ("out", "of_nan", "least"), [(F8, 448, LEAST_F8), (torch.int8, 0, LEAST_INT8)], ids=str
)
def test_rms_norm_dynamic_edges(specs, out, of_nan, least):
    """Zeros have the least scale; a row with NaN or infinity is NaN, or zero beside infinity."""
    rows = [[0.0] * 4, [1, nan, 1, 1], [inf, 1, 1, 1]]
    args, _ = _agrees(
        specs, "rms_norm_dynamic_per_token_quant", _rms(rows, [1, 1, 1, 1], out=out, epsilon=1e-6)
    )
    assert _codes(args[0]) == [[0] * 4, [of_nan] * 4, [of_nan, 0, 0, 0]]
    _close(args[3], least, least, least)


# rms_norm_per_block_quant


def _block(weight, *, out=F8, bound=None, residual=False, strides=None, transposed=False):
    x = torch.ones(2, 128)
    x[:, 1::2] = -1.0
    scale = torch.empty_strided((2, 2), strides or (2, 1)).fill_(-1.0)
    rest = x / 2 if residual else None
    return (
        torch.full(x.shape, 96.0).to(out),
        x / 2 if residual else x,
        torch.tensor(weight),
        scale,
        0.0,
        bound,
        rest,
        64,
        transposed,
    )


EIGHT_TWOS_ONES = [8.0] + [2.0] * 63 + [1.0] * 64


@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
def test_rms_norm_per_block_by_hand(residual):
    """Groups of 64 of a row of mean square 1: scales 8 / 448 and 1 / 448."""
    args = _block(EIGHT_TWOS_ONES, residual=residual)
    OPS.rms_norm_per_block_quant(*args)
    first, second = args[0].float()[:, :64], args[0].float()[:, 64:]
    assert first[:, :3].tolist() == [[448, -112, 112]] * 2
    assert second.unique().tolist() == [-448, 448]
    _close(args[3], 8 / 448, 1 / 448, 8 / 448, 1 / 448)
    if residual:
        assert args[6].tolist() == [[1.0, -1.0] * 64] * 2


def test_rms_norm_per_block_bound_by_hand():
    """A bound of 4 is for each group."""
    args = _block(EIGHT_TWOS_ONES, bound=torch.tensor([4.0]))
    OPS.rms_norm_per_block_quant(*args)
    assert args[0].float()[0, :3].tolist() == [448, -224, 224]
    _close(args[3], 4 / 448, 1 / 448, 4 / 448, 1 / 448)


@pytest.mark.parametrize("strides", [(1, 2), (1, 4)], ids=["transposed", "aligned"])
def test_rms_norm_per_block_int8_transposed_by_hand(strides):
    """INT8 codes with column-major scales, which may be padded."""
    args = _block(EIGHT_TWOS_ONES, out=torch.int8, strides=strides, transposed=True)
    OPS.rms_norm_per_block_quant(*args)
    assert args[0][0, :3].tolist() == [127, -32, 32]  # 2 * 127 / 8 is 31.75
    assert args[0][1, 64:].unique().tolist() == [-127, 127]
    _close(args[3].contiguous(), 8 / 127, 1 / 127, 8 / 127, 1 / 127)


@pytest.mark.parametrize(
    ("out", "of_nan", "least"), [(F8, 448, LEAST_F8), (torch.int8, 0, LEAST_INT8)], ids=str
)
def test_rms_norm_per_block_edges(specs, out, of_nan, least):
    """A NaN in one group makes the whole row NaN; zeros have the least scale."""
    args = _block(EIGHT_TWOS_ONES, out=out)
    args[1][0, 70] = nan
    args[1][1] = 0.0
    args, _ = _agrees(specs, "rms_norm_per_block_quant", (*args[:4], 1e-6, *args[5:]))
    assert args[0].float()[0].unique().tolist() == [of_nan]
    assert args[0].float()[1].unique().tolist() == [0]
    _close(args[3], least, least, least, least)


# silu_and_mul_per_block_quant


def _silu_block(up, *, gate=96.0, out=F8, bound=None, strides=(1, 1), transposed=False):
    x = torch.zeros(1, 128)
    x[0, :64] = gate
    x[0, 64 : 64 + len(up)] = torch.tensor(up)
    scales = torch.empty_strided((1, 1), strides).fill_(-1.0)
    return (torch.full((1, 64), 96.0).to(out), x, scales, 64, bound, transposed)


def test_silu_and_mul_per_block_by_hand():
    """silu(96) is 96: products of 192, 96 and -48, a scale of 192 / 448."""
    args = _silu_block([2.0, 1.0, -0.5])
    OPS.silu_and_mul_per_block_quant(*args)
    assert args[0].float()[0, :4].tolist() == [448, 224, -112, 0]
    _close(args[2], 192 / 448)


def test_silu_and_mul_per_block_int8_by_hand():
    """192 / 127 is the scale; 31.75 and -15.875 are rounded."""
    args = _silu_block([2.0, 0.5, -0.25], out=torch.int8)
    OPS.silu_and_mul_per_block_quant(*args)
    assert args[0][0, :4].tolist() == [127, 32, -16, 0]
    _close(args[2], 192 / 127)


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_silu_and_mul_per_block_bound_by_hand(shape):
    """A bound of 96: larger products saturate."""
    args = _silu_block([2.0, 1.0, -0.5], bound=torch.full(shape, 96.0))
    OPS.silu_and_mul_per_block_quant(*args)
    assert args[0].float()[0, :4].tolist() == [448, 448, -224, 0]
    _close(args[2], 96 / 448)


@pytest.mark.parametrize(
    ("out", "of_nan", "least"), [(F8, 448, LEAST_F8), (torch.int8, 0, LEAST_INT8)], ids=str
)
def test_silu_and_mul_per_block_edges(specs, out, of_nan, least):
    """NaN leaves the scale alone; infinity makes it infinite; zeros have the least."""
    name = "silu_and_mul_per_block_quant"
    args, _ = _agrees(specs, name, _silu_block([nan, 2.0], out=out))
    assert args[0].float()[0, 0] == of_nan
    _close(args[2], 192 / (127 if out == torch.int8 else 448))
    args, _ = _agrees(specs, name, _silu_block([inf, 2.0], out=out))
    assert args[0].float()[0, :3].tolist() == [of_nan, 0, 0]
    _close(args[2], inf)
    args, _ = _agrees(specs, name, _silu_block([1.0], gate=0.0, out=out))
    assert args[0].float().unique().tolist() == [0]
    _close(args[2], least)
    args, _ = _agrees(specs, name, _silu_block([1.0, 1.0], gate=-inf, out=out))
    assert args[0].float().unique().tolist() == [of_nan]


def test_silu_and_mul_per_block_groups_by_hand():
    """Each group has its own scale, in rows or, with their stride, in columns."""
    x = torch.zeros(2, 256)
    x[:, :128] = 96.0
    x[0, 128], x[0, 192], x[1, 128], x[1, 192] = 1.0, 2.0, 4.0, -8.0
    for strides in ((2, 1), (1, 2), (1, 4)):
        out, scales = torch.zeros(2, 128).to(F8), torch.empty_strided((2, 2), strides)
        OPS.silu_and_mul_per_block_quant(out, x, scales, 64, None, strides[0] == 1)
        _close(scales.contiguous(), *(96 * v / 448 for v in (1, 2, 4, 8)))
        assert out.float()[:, [0, 64]].tolist() == [[448, 448], [448, -448]]


# fused_qk_norm_rope


def _rope(query, key, *, rotary_dim=64, is_neox=True, dtype=torch.float32, positions=(2,)):
    """One query, key and value head of 64; only position 2 is not NaN: a turn by 90 degrees."""
    cache = torch.full((4, rotary_dim), nan)
    cache[2] = torch.tensor([0.0] * (rotary_dim // 2) + [1.0] * (rotary_dim // 2))
    value = list(range(64))
    qkv = torch.tensor([[*query, *key, *value]] * len(positions), dtype=dtype)
    ones = torch.ones(64, dtype=dtype)
    return (qkv, 1, 1, 1, 64, 0.0, ones, ones * 2, cache, is_neox, torch.tensor(positions))


ONES = [1.0] * 64


def test_rope_neox_by_hand():
    """A turn by 90 degrees: (a, b) of the halves becomes (-b, a); keys have weight 2."""
    args = _rope([1.0] * 32 + [-1.0] * 32, ONES)
    OPS.fused_qk_norm_rope(*args)
    query, key, value = args[0][0].view(3, 64)
    assert query.tolist() == [1.0] * 64
    assert key.tolist() == [-2.0] * 32 + [2.0] * 32
    assert value.tolist() == list(range(64))


def test_rope_interleaved_by_hand():
    """The same of neighbours."""
    args = _rope([1.0, -1.0] * 32, ONES, is_neox=False)
    OPS.fused_qk_norm_rope(*args)
    query, key, value = args[0][0].view(3, 64)
    assert query.tolist() == [1.0] * 64
    assert key.tolist() == [-2.0, 2.0] * 32
    assert value.tolist() == list(range(64))


@pytest.mark.parametrize(
    ("is_neox", "turned"),
    [(True, [-2.0] * 16 + [2.0] * 16), (False, [-2.0, 2.0] * 16)],
    ids=["neox", "interleaved"],
)
def test_rope_partial_by_hand(is_neox, turned):
    """Only the first 32 of 64 are turned; the others are normalised and weighted alone."""
    args = _rope([2.0] * 64, ONES, rotary_dim=32, is_neox=is_neox)
    OPS.fused_qk_norm_rope(*args)
    query, key, _ = args[0][0].view(3, 64)
    assert key.tolist() == [*turned, *([2.0] * 32)]
    # 2 normalised is 1: rsqrt(4) is exact.
    assert query.tolist() == [value / 2 for value in [*turned, *([2.0] * 32)]]


def test_rope_edges(specs):
    """Zeros stay zero with an epsilon; NaN and infinity spread within their head alone."""
    for is_neox in (True, False):
        args = _rope([0.0] * 64, [nan] + [1.0] * 63, is_neox=is_neox)
        args, _ = _agrees(specs, "fused_qk_norm_rope", (*args[:5], 1e-6, *args[6:]))
        query, key, value = args[0][0].view(3, 64)
        assert query.abs().unique().tolist() == [0.0]
        assert key.isnan().all()
        assert value.tolist() == list(range(64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("cache", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_rope_dtypes(specs, dtype, cache):
    """The cache has a dtype of its own."""
    generator = torch.Generator().manual_seed(7)
    args = _rope(torch.randn(64, generator=generator).tolist(), ONES, dtype=dtype)
    _agrees(specs, "fused_qk_norm_rope", (*args[:8], args[8].to(cache), *args[9:]))


def test_rope_positions_are_read_per_token(specs):
    """Each token takes the row of the cache that its position names, in any order."""
    args = _rope(ONES, ONES, positions=(3, 0, 2))
    generator = torch.Generator().manual_seed(5)
    cache = torch.randn(4, 64, generator=generator)
    args = (*args[:8], cache, *args[9:])
    got, _ = _agrees(specs, "fused_qk_norm_rope", args)
    for place, position in enumerate((3, 0, 2)):
        cos, sin = cache[position, :32], cache[position, 32:]
        torch.testing.assert_close(got[0][place, :64], torch.cat((cos - sin, cos + sin)))
    forced = (*args, 4)
    again, _ = _agrees(specs, "fused_qk_norm_rope", forced)
    assert torch.equal(again[0], got[0])


@pytest.mark.parametrize("name", EXTREMES.NAMES)
def test_codes_at_the_ends_of_what_floats_can_say(name):
    """Each is that of its exact quotient or the next one, and never of the other sign."""
    for seed in range(20):
        args = EXTREMES.arguments(name, seed)
        result = getattr(OPS, name)(*args)
        assert EXTREMES.wrong(name, args, result) is None


# The sign of zero


def test_zeros_lose_their_sign_where_the_page_says_so():
    """A correction of quotients adds 0 to -0, which is 0; where there is none, -0 stays."""
    row = [1.0, -0.0, 0.0, -2.0] * 16
    calls = {
        "dynamic_per_token_scaled_fp8_quant": _dynamic([row]),
        "per_token_group_fp8_quant": _group([row], 64),
        "rms_norm_dynamic_per_token_quant": _rms([row], [1.0] * 64),
        "rms_norm_per_block_quant": (*_rms([row], [1.0] * 64), 64, False),
        "silu_and_mul_per_block_quant": _silu_block(row),
    }
    for name, args in calls.items():
        getattr(OPS, name)(*args)
    codes = {
        name: next(arg for arg in args if isinstance(arg, torch.Tensor) and arg.dtype == F8)
        for name, args in calls.items()
    }
    codes["silu_mul_fp8"] = OPS.silu_mul_fp8(torch.tensor([[96.0] * 64 + row]), torch.ones(1))
    signs = {name: found.view(torch.uint8)[0, 1].item() for name, found in codes.items()}
    page = (Path(__file__).parents[2] / "docs/guide/vendor.md").read_text()
    (line,) = (line for line in page.splitlines() if "a zero's sign" in line)
    told = {name for name in calls if f"`{name}`" in line}
    assert signs == {name: 0 if name in told else 128 for name in signs}


def test_silu_mul_fp8_is_nearest_to_the_exact_result():
    """vLLM's op rounds twice before it quantises, and a code in forty is a step away from ours."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 2 * 512, generator=generator).to(torch.bfloat16)
    scale = torch.tensor([0.02])
    gate, up = x.chunk(2, dim=-1)
    silu = torch.nn.functional.silu
    exact = (silu(gate.double()) * up.double() / scale.double()).clamp(-448, 448).to(F8)
    theirs = (silu(gate) * up).float().mul(1 / scale).clamp(-448, 448).to(F8)
    differing = [
        (codes.float() != exact.float()).float().mean().item()
        for codes in (OPS.silu_mul_fp8(x, scale), theirs)
    ]
    assert differing[0] < 0.001
    assert 0.02 < differing[1] < 0.03
