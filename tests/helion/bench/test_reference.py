"""Comparison with the reference: what counts as equal, and that it can fail."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from kernelpkg.bench.inputs import check_axes, fill, make_inputs, seed
from kernelpkg.bench.reference import (
    WRONG,
    check_case,
    compare,
    compare_all,
    smoke_check,
    untouched,
)
from kernelpkg.errors import CallError
from kernelpkg.manifest.cases import Case, CaseProblem, cases_of, smallest_case
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Accuracy, Reference
from kernelpkg.runtime.register import get_kernel_by_name

F8 = torch.float8_e4m3fn
CODES = Accuracy(steps=1, equal=0.5)
CLOSE = Accuracy(rtol=1e-2)


def codes(*values, dtype=F8):
    return torch.tensor(values).to(dtype)


NAN, INFINITY = float("nan"), float("inf")
E5M2, HALF, BF16 = torch.float8_e5m2, torch.float16, torch.bfloat16

AGREE = {
    "equal": (codes(1.0, 448.0), codes(1.0, 448.0), 0, 1.0),
    "one-code": (codes(1.0, 448.0), codes(1.125, 448.0), 1, 0.5),
    "zeros": (codes(0.0, -1.0), codes(-0.0, -1.0), 0, 1.0),
    "least-to-zero": (codes(0.001953125, 1.0), codes(-0.0, 1.0), 1, 0.5),
    "nan": (codes(NAN, 1.0), codes(NAN, 1.0), 0, 1.0),
    "int8": (codes(-128, 5, dtype=torch.int8), codes(-127, 5, dtype=torch.int8), 1, 0.5),
    "bfloat16": (codes(1.0, 2.0, dtype=BF16), codes(1.0078125, 2.0, dtype=BF16), 1, 0.5),
    "e5m2-infinity": (codes(57344.0, 1.0, dtype=E5M2), codes(INFINITY, 1.0, dtype=E5M2), 1, 0.5),
}


@pytest.mark.parametrize(("got", "want", "steps", "equal"), AGREE.values(), ids=AGREE)
def test_codes_that_agree(got, want, steps, equal):
    """Codes are numbered in the order of their values, across dtypes of any width."""
    found = compare("q", got, want, CODES)
    assert (found.problem, found.steps, found.equal) == (None, steps, equal)


DISAGREE = {
    "two-codes": (
        (codes(1.0, 2.0), codes(1.25, 2.0), CODES),
        "q[0] is 1, the reference's 1.25, 2 codes apart (at most 1); 1 of 2 is off",
    ),
    "nan": (
        (codes(2.0, NAN), codes(2.0, 448.0), CODES),
        "q[1] is nan, the reference's 448, a NaN apart (at most 1); 1 of 2 is off",
    ),
    "first-of-two": (
        (codes(1.0, NAN), codes(1.5, 448.0), CODES),
        "q[0] is 1, the reference's 1.5, 4 codes apart (at most 1); 2 of 2 are off",
    ),
    "too-few-equal": (
        (codes(1.0, 2.0, 4.0), codes(1.125, 2.25, 4.0), CODES),
        "q: 33.33% of the codes are equal, less than 50.00%",
    ),
    "int8": (
        (codes([1, 2], [3, 4], dtype=torch.int8), codes([1, 2], [5, 4], dtype=torch.int8), CODES),
        "q[1, 0] is 3, the reference's 5, 2 codes apart (at most 1); 1 of 4 is off",
    ),
    "tolerance": (
        (torch.tensor([1.0]), torch.tensor([1.1]), CLOSE),
        "q[0] is 1, the reference's 1.1 (rtol 0.01, atol 0); 1 of 1 is off",
    ),
    "infinity-and-nan": (
        (torch.tensor([INFINITY, 1.0]), torch.tensor([3.0, NAN]), CLOSE),
        "q[0] is inf, the reference's 3 (rtol 0.01, atol 0); 2 of 2 are off",
    ),
    "share": (
        (torch.tensor([1.0, 2.0]), torch.tensor([1.001, 2.0]), Accuracy(rtol=1e-2, equal=0.75)),
        "q: 50.00% of the elements are equal, less than 75.00%",
    ),
    "shape": (
        (torch.zeros(2), torch.zeros(3), CLOSE),
        "q is (2,) torch.float32, the reference's (3,) torch.float32",
    ),
    "dtype": (
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), CLOSE),
        "q is (2,) torch.float32, the reference's (2,) torch.float64",
    ),
    "unwritten": (
        (codes(96.0, 96.0), codes(-96.0, -96.0), CODES),
        "q[0] is 96, the reference's -96, 216 codes apart (at most 1); 2 of 2 are off",
    ),
    "float16-below-one": (
        (codes(0.25, dtype=HALF), codes(0.75, dtype=HALF), CODES),
        "q[0] is 0.25, the reference's 0.75, 1536 codes apart (at most 1); 1 of 1 is off",
    ),
}


@pytest.mark.parametrize(("given", "problem"), DISAGREE.values(), ids=DISAGREE)
def test_disagreements(given, problem):
    """Each way to disagree is one line with the first place and the count."""
    assert compare("q", *given).problem == problem


def test_infinities_and_nan_agree_with_themselves():
    """Non-finite values are equal to their like."""
    values = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0])
    found = compare("x", values, values.clone(), Accuracy())
    assert (found.problem, found.equal, found.error) == (None, 1.0, 0.0)


def test_the_error_is_relative():
    """`error` is the largest relative difference."""
    found = compare("x", torch.tensor([2.0, 1.0]), torch.tensor([2.5, 1.0]), Accuracy(rtol=1.0))
    assert found.error == pytest.approx(0.2)


def test_empty_tensors_agree():
    """Nothing to compare is not a disagreement."""
    assert compare("x", torch.empty(0, 4), torch.empty(0, 4), CODES).problem is None


def test_non_contiguous_tensors_are_compared_by_value():
    """Strides do not count."""
    codes = torch.arange(6, dtype=torch.float32).view(2, 3).to(F8)
    assert compare("q", codes.t(), codes.t().contiguous(), CODES).problem is None


WRITES = parse_schema("(Tensor(a!) out, Tensor x, Tensor(b!)? extra, int n) -> Tensor")


def test_one_rounding_of_an_argument_is_allowed():
    """A scale of values that were rounded to bfloat16 may be two bfloat16 epsilons off."""
    schema = parse_schema("(Tensor(a!) scale, Tensor input) -> ()")
    bounds = {"scale": Accuracy(rtol=1e-5, rounding="input")}
    want = torch.ones(4)
    for dtype, factor, agrees in (
        (torch.bfloat16, 1.015, True),
        (torch.bfloat16, 1.017, False),
        (torch.float32, 1.015, False),
    ):
        x = torch.ones(4, dtype=dtype)
        found = compare_all(schema, ((want * factor, x), None), ((want, x), None), bounds)
        assert (found[0].problem is None) is agrees


@pytest.mark.parametrize(
    ("codes", "dtype", "steps"),
    [
        (torch.int8, torch.bfloat16, 2),  # 127 * 2**-6 is 1.98
        (torch.int8, torch.float16, 1),
        (torch.int16, torch.float16, 64),  # 32767 * 2**-9 is 63.998
        (F8, torch.bfloat16, 1),
    ],
)
def test_roundings_move_whole_numbers_by_more_than_one_code(codes, dtype, steps):
    """So far, and no further; FP8 codes lie further apart than values that are rounded."""
    schema = parse_schema("(Tensor(a!) result, Tensor input) -> ()")
    bounds = {"result": Accuracy(steps=1, rounding="input")}
    want, x = torch.full((4,), 100).to(codes), torch.ones(4, dtype=dtype)
    for far, agrees in ((steps, True), (steps + 1, False)):
        raw = want.view(torch.int8) if codes == F8 else want
        got = (raw + far).view(codes)
        found = compare_all(schema, ((got, x), None), ((want, x), None), bounds)
        assert (found[0].problem is None) is agrees


def test_all_that_was_written():
    """Written arguments and results are compared by name; absent ones are left out."""
    out, x = torch.ones(2), torch.zeros(2)
    bounds = {"out": Accuracy(), "return": Accuracy()}
    call = ((out, x, None, 1), torch.ones(3))
    other = ((out + 1, x, None, 1), torch.ones(3))
    found = compare_all(WRITES, call, other, bounds)
    assert [agreement.name for agreement in found] == ["out", "return"]
    assert [agreement.problem is None for agreement in found] == [False, True]


def test_each_result_by_its_own_bounds():
    """`return` is for the results that have none."""
    schema = parse_schema("(Tensor x) -> (Tensor, Tensor, Tensor)")
    args, ones = (torch.zeros(2),), torch.ones(2)
    bounds = {"return": Accuracy(rtol=0.5), "return[1]": Accuracy(rtol=0.2)}
    for place, near in enumerate((True, False, True)):
        got = [ones, ones, ones]
        got[place] = ones * 1.4
        found = compare_all(schema, (args, got), (args, (ones, ones, ones)), bounds)
        assert [agreement.name for agreement in found] == ["return[0]", "return[1]", "return[2]"]
        assert (found[place].problem is None) is near
        assert sum(agreement.problem is None for agreement in found) == 2 + near


def test_a_reference_that_returns_nothing():
    """A result that the reference does not give is said so."""
    call = ((torch.ones(2), torch.zeros(2), None, 1), torch.ones(3))
    other = ((torch.ones(2), torch.zeros(2), None, 1), None)
    found = compare_all(WRITES, call, other, {"out": Accuracy(), "return": Accuracy()})
    assert found[1].problem == "the reference does not give return"


def test_untouched():
    """An argument that the schema does not let the op write must be as it was."""
    got = (torch.ones(2), torch.tensor([0.0, 1.0]), None, 1)
    want = (torch.zeros(2), torch.zeros(2), None, 1)
    assert untouched(WRITES, want, want) == ()
    (told,) = untouched(WRITES, got, want)
    assert told == (
        "x[1] is 1, the reference's 0 (rtol 0, atol 0); 1 of 2 is off; "
        "the schema does not allow the op to write it"
    )


pytestmark = pytest.mark.usefixtures("pack")
EACH_KERNEL = True


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
            given = {"has_scale_ub": bound, "has_residual": residual}
            case = _case(spec, **given, out_dtype="float8_e4m3fn")
            args = make_inputs(spec, case)
            assert [arg is not None for arg in args[5:]] == [bound, residual]


@pytest.mark.parametrize(
    ("tokens", "transposed", "strides"),
    [(3, True, (1, 4)), (4, True, (1, 4)), (5, True, (1, 8)), (3, False, (4, 1))],
)
def test_free_strides_are_padded(specs, tokens, transposed, strides):
    """A stride that may be anything is a multiple of four, as TMA wants it."""
    spec = specs["rms_norm_per_block_quant"]
    sizes = {"num_tokens": tokens, "hidden_size": 256, "group_size": 128}
    case = _case(spec, **sizes, is_scale_transposed=transposed)
    scale = make_inputs(spec, case)[3]
    assert (tuple(scale.shape), scale.stride()) == ((tokens, 2), strides)


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("empty", [96.0] * 4),
        ("zeros", [0.0] * 4),
        ("ones", [1.0] * 4),
        ("arange", [0.0, 1.0, 2.0, 3.0]),
        (2.5, [2.5] * 4),
        (3, [3.0] * 4),
    ],
    ids=["empty", "zeros", "ones", "arange", "float", "int"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, F8], ids=str)
def test_fill(init, expected, dtype):
    """Values that are not random ones are exact."""
    assert fill(torch.zeros(4).to(dtype), init, _generator()).float().tolist() == expected


def test_fill_at_random():
    """Random values are of their kind, of the generator, and go through any strides."""
    normal = fill(torch.empty(4000), "randn", _generator())
    assert abs(normal.mean().item()) < 0.1
    assert 0.9 < normal.std().item() < 1.1
    uniform = fill(torch.empty(4000), "uniform", _generator())
    assert 0.0 <= uniform.min() < 0.1
    assert 0.9 < uniform.max() < 1.0
    drawn = fill(torch.empty(4000, dtype=torch.int64), "randint", _generator(), numbers={"high": 5})
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


NAME = "dynamic_per_token_scaled_fp8_quant"


def _first_case(spec):
    return _case(spec, has_scale_ub=False)


def test_smoke_check(name, specs):
    """The smallest cases of every op are fine."""
    assert smoke_check(specs[name], get_kernel_by_name(name), device="cpu") is None


def _skip_last(args, before):
    args[0][-1, -1] = before[0][-1, -1]


def _two_codes(args, before):
    codes = args[0].view(torch.uint8)
    place = int((codes[0] & 0x7F > 4).nonzero()[0])
    codes[0, place] -= 2


def _half_a_percent(args, before):
    codes = args[0].view(torch.uint8)
    codes.view(-1)[::50] ^= 1


def _a_nan(args, before):
    args[0].view(torch.uint8)[1, 5] = 0x7F


def _scale(args, before):
    args[2][2, 0] *= 1 + 5e-5


def _unwritten_scale(args, before):
    args[2].copy_(before[2])


def _input(args, before):
    args[1][0, 0] += 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(_skip_last, "result[2, ", id="unwritten-element"),
        pytest.param(_two_codes, "2 codes apart (at most 1); 1 of ", id="two-codes"),
        pytest.param(_half_a_percent, "of the codes are equal, less than 99.00%", id="share"),
        pytest.param(_a_nan, "result[1, 5] is nan, the reference's ", id="nan"),
        pytest.param(_scale, "scale[2, 0] is ", id="scale"),
        pytest.param(_unwritten_scale, "scale[0, 0] is 96, the reference's ", id="unwritten"),
        pytest.param(_input, "input[0, 0] is ", id="input"),
    ],
)
def test_what_the_check_finds(specs, spoil, message):
    """One wrong element anywhere is found and placed."""
    spec, kernel = specs[NAME], get_kernel_by_name(NAME)

    def spoiled(*args):
        before = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
        kernel(*args)
        spoil(args, before)

    case = _first_case(spec)
    assert check_case(spec, kernel, case, device="cpu") is None
    found = check_case(spec, spoiled, case, device="cpu")
    assert found.startswith(f"case {case}: ")
    assert message in found


def test_an_element_that_neither_writes(specs, monkeypatch):
    """Outputs differ before the two runs, so that what neither writes disagrees too."""
    spec, reference = specs[NAME], lambda *args: None
    monkeypatch.setattr("kernelpkg.bench.reference.load_function", lambda *_: reference)
    case = _first_case(spec)
    found = check_case(spec, lambda *args: None, case, device="cpu")
    count = 3 * case.values["hidden_size"]
    assert found == (
        f"case {case}: result[0, 0] is 96, the reference's -96, 216 codes apart (at most 1); "
        f"{count} of {count} are off; scale[0, 0] is 96, the reference's -96 (rtol 1e-05, atol 0); "
        "3 of 3 are off"
    )


def test_memory_that_a_kernel_leaves_as_it_is_disagrees(specs):
    """It may hold the right values of an equal call before; here it is filled."""
    spec = specs["silu_mul_fp8"]
    case = _case(spec)
    left = []

    def nothing(x, scale):
        left.append(torch.empty(3, 64, dtype=torch.float8_e4m3fn))
        return left[0]

    found = check_case(spec, nothing, case, device="cpu")
    assert bool(left[0].float().isnan().all())
    assert "return[0, 0] is nan, the reference's " in found
    assert torch.get_deterministic_debug_mode() == 0


def test_a_result_of_another_shape(specs):
    """A returned tensor is held against the reference's in shape and dtype."""
    spec = specs["silu_mul_fp8"]
    case = _case(spec)
    found = check_case(spec, lambda x, scale: torch.zeros(3, 1), case, device="cpu")
    assert "return is (3, 1) torch.float32, the reference's (3, 64) torch.float8_e4m3fn" in found


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(RuntimeError("a\nb"), "RuntimeError: a b", id="any"),
        pytest.param(CallError("op: no\n good"), "op: no good", id="call"),
        pytest.param(CaseProblem("KP142", "case: refused"), "case: refused", id="case"),
    ],
)
def test_errors_are_one_line(specs, error, text):
    """Whatever a kernel raises becomes a line of the report, and stops no other."""

    def broken(*_):
        raise error

    found = smoke_check(specs[NAME], broken, device="cpu")
    assert found is not None
    path, case = f"kernels/{NAME}", smallest_case(specs[NAME])
    assert str(found) == f"{path}: KP701 check failed: case {case}: {text}; {WRONG}"


def test_the_smoke_case_is_small(name, specs):
    """What a smoke check runs is not empty, and a matter of milliseconds."""
    case = smallest_case(specs[name])
    assert isinstance(case, Case)
    assert 1 <= case.values["num_tokens"] <= 17
