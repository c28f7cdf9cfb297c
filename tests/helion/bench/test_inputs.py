"""Inputs made from cases and [args]: what they hold, and that they are the case's."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from kernelpkg.bench.inputs import check_axes, fill, make_inputs, seed
from kernelpkg.manifest.cases import Case, CaseProblem, cases_of
from kernelpkg.manifest.spec import Reference

pytestmark = pytest.mark.usefixtures("pack")
EACH_KERNEL = True

F8 = torch.float8_e4m3fn


def _case(spec, **values):
    base = next(case for case in cases_of(spec, "test") if case.values["num_tokens"] == 3)
    return Case(values={**base.values, **values}, use=("test",), grid=0)


def _bytes(tensor):
    return tensor.contiguous().view(torch.uint8)


def _generator():
    return torch.Generator().manual_seed(1)


def test_a_case_gives_the_same_inputs_each_time(name, specs):
    """Random values derive from the case: its name and values, and nothing else."""
    spec = specs[name]
    case, other = _case(spec), _case(spec, num_tokens=4)
    one, two = make_inputs(spec, case), make_inputs(spec, case)
    for left, right in zip(one, two, strict=True):
        if isinstance(left, torch.Tensor):
            assert left.stride() == right.stride()
            assert torch.equal(_bytes(left), _bytes(right))
        else:
            assert left == right
    assert seed(spec, case) == seed(spec, _case(spec)) != seed(spec, other)
    assert 0 <= seed(spec, case) < 2**63


def test_inputs_are_accepted_with_the_axes_of_the_case(name, specs):
    """A call with the inputs of any case has exactly the axes of that case, T = 0 included."""
    cases = [case for case in cases_of(specs[name], "test") if case.values["num_tokens"] <= 4]
    assert any(case.values["num_tokens"] == 0 for case in cases)
    for case in cases:
        check_axes(specs[name], case, make_inputs(specs[name], case))


def test_scalars_have_the_types_of_the_schema(name, specs):
    """Numbers of a float argument are floats, as PyTorch gives them to an op."""
    spec = specs[name]
    types = {"int": int, "float": float, "bool": bool}
    for arg, value in zip(spec.schema.args, make_inputs(spec, _case(spec)), strict=True):
        if not arg.is_tensor:
            assert type(value) is types[arg.type]


def test_written_arguments_hold_the_sentinel(specs):
    """What is only written holds the value asked for, exactly, in every dtype."""
    spec = specs["rms_norm_per_block_quant"]
    for out, bound in (("float8_e4m3fn", True), ("int8", False)):
        case = _case(spec, out_dtype=out, has_scale_ub=bound)
        for sentinel in (96.0, -96.0):
            result, _, _, scale, *_ = make_inputs(spec, case, sentinel=sentinel)
            assert result.float().unique().tolist() == [sentinel]
            assert scale.unique().tolist() == [sentinel]


def test_optional_arguments_follow_their_condition(specs):
    """A tensor is given where its `when` holds, and None elsewhere."""
    spec = specs["rms_norm_dynamic_per_token_quant"]
    for bound in (False, True):
        for residual in (False, True):
            case = _case(
                spec,
                has_scale_ub=bound,
                has_residual=residual,
                out_dtype="float8_e4m3fn",
            )
            args = make_inputs(spec, case)
            assert [arg is not None for arg in args[5:]] == [bound, residual]


@pytest.mark.parametrize(
    ("tokens", "transposed", "strides"),
    [(3, True, (1, 4)), (4, True, (1, 4)), (5, True, (1, 8)), (3, False, (4, 1))],
)
def test_free_strides_are_padded(specs, tokens, transposed, strides):
    """A stride that may be anything is a multiple of four, as TMA wants it."""
    spec = specs["rms_norm_per_block_quant"]
    case = _case(
        spec,
        num_tokens=tokens,
        hidden_size=256,
        group_size=128,
        is_scale_transposed=transposed,
    )
    scale = make_inputs(spec, case)[3]
    assert (tuple(scale.shape), scale.stride()) == ((tokens, 2), strides)


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        pytest.param("empty", [96.0] * 4, id="empty"),
        pytest.param("zeros", [0.0] * 4, id="zeros"),
        pytest.param("ones", [1.0] * 4, id="ones"),
        pytest.param("arange", [0.0, 1.0, 2.0, 3.0], id="arange"),
        pytest.param(2.5, [2.5] * 4, id="float"),
        pytest.param(3, [3.0] * 4, id="int"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, F8], ids=str)
def test_fill(init, expected, dtype):
    """Values that are no random ones are exact."""
    assert fill(torch.zeros(4).to(dtype), init, _generator()).float().tolist() == expected


def test_fill_at_random():
    """Random values are of their kind, of the generator, and go through any strides."""
    normal = fill(torch.empty(4000), "randn", _generator())
    assert abs(normal.mean().item()) < 0.1
    assert 0.9 < normal.std().item() < 1.1
    uniform = fill(torch.empty(4000), "uniform", _generator())
    assert 0.0 <= uniform.min() < 0.1
    assert 0.9 < uniform.max() < 1.0
    drawn = fill(torch.empty(4000, dtype=torch.int64), "randint", _generator(), high=5)
    assert drawn.unique().tolist() == [0, 1, 2, 3, 4]
    flat = fill(torch.empty(3, 4), "randn", _generator())
    apart = fill(torch.empty(3, 8)[:, :4], "randn", _generator())
    turned = fill(torch.empty(4, 3).t(), "randn", _generator())
    assert torch.equal(flat, apart)
    assert torch.equal(flat, turned)


def test_inputs_of_another_case(specs):
    """Inputs whose axes are not the case's are an error, for flags as for sizes."""
    spec = specs["per_token_group_fp8_quant"]
    args = make_inputs(spec, _case(spec, column_major=False, scale_ue8m0=False))
    for changes, message in (
        ({"hidden_size": 512}, "its inputs have hidden_size=256"),
        ({"scale_ue8m0": True}, "its inputs have scale_ue8m0=false"),
        ({"in_dtype": "float32"}, "its inputs have in_dtype=bfloat16"),
    ):
        case = _case(spec, **{"column_major": False, "scale_ue8m0": False, **changes})
        with pytest.raises(CaseProblem) as caught:
            check_axes(spec, case, args)
        assert caught.value.code == "KP145"
        assert str(caught.value) == f"case {case}: {message}"


def test_inputs_that_a_guard_refuses(specs):
    """A case whose inputs the kernel would not take is an error that names the guard."""
    spec = specs["per_token_group_fp8_quant"]
    case = _case(spec, hidden_size=100)
    with pytest.raises(CaseProblem) as caught:
        make_inputs(spec, case)
    assert caught.value.code == "KP142"
    assert "guard 'hidden_size % group_size == 0' does not hold" in str(caught.value)


GENERATOR = """
import torch

def inputs(axes, generator, device):
    shape = (axes["num_tokens"], 2 * axes["intermediate_size"])
    x = torch.full(shape, 7.0, dtype=torch.bfloat16, device=device)
    return x, torch.rand(1, generator=generator, device=device)
"""


def test_a_generator_by_reference(specs, tmp_path):
    """generator = "host.py:inputs" makes all arguments, seeded by the case."""
    (tmp_path / "host.py").write_text(GENERATOR)
    spec = evolve(
        specs["silu_mul_fp8"],
        directory=str(tmp_path),
        generator=Reference(file="host.py", name="inputs"),
    )
    case = _case(spec, in_dtype="bfloat16")
    (x, scale), (_, again) = make_inputs(spec, case), make_inputs(spec, case)
    assert x.float().unique().tolist() == [7.0]
    assert torch.equal(scale, again)
    with pytest.raises(CaseProblem, match="its inputs have in_dtype=bfloat16"):
        make_inputs(spec, _case(spec, in_dtype="float32"))


def test_an_argument_by_reference(specs):
    """init = "host.py:f" gets the axes; the rope's cache is cosines, then sines."""
    spec = specs["fused_qk_norm_rope"]
    case = _case(spec, rotary_dim=64, max_position=64, head_dim=64, cache_dtype="float32")
    cache = make_inputs(spec, case)[8]
    assert tuple(cache.shape) == (64, 64)
    torch.testing.assert_close(cache[0], torch.tensor([1.0] * 32 + [0.0] * 32))
    torch.testing.assert_close(cache[2, [0, 32]], torch.tensor([-0.4161468, 0.9092974]))
