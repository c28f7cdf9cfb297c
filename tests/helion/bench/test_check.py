"""The smoke check: that it passes, and above all that it can fail."""

from __future__ import annotations

import pytest
import torch

from kernelpkg.bench.check import check_case, smoke_check
from kernelpkg.errors import CallError
from kernelpkg.manifest.cases import Case, CaseProblem, cases_of
from kernelpkg.runtime.register import get_kernel_by_name

pytestmark = pytest.mark.usefixtures("pack")
EACH_KERNEL = True

F8 = torch.float8_e4m3fn
NAME = "dynamic_per_token_scaled_fp8_quant"


def _case(spec):
    return next(
        case
        for case in cases_of(spec, "test")
        if case.values["num_tokens"] == 3 and not case.values["has_scale_ub"]
    )


def test_smoke_check(name, specs):
    """The smallest case of every op is fine."""
    assert smoke_check(specs[name], get_kernel_by_name(name), device="cpu") == "ok"


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

    case = _case(spec)
    assert check_case(spec, kernel, case, device="cpu") is None
    found = check_case(spec, spoiled, case, device="cpu")
    assert found.startswith(f"case {case}: ")
    assert message in found


def test_an_element_that_neither_writes(specs, monkeypatch):
    """Outputs differ before the two runs, so that what neither writes disagrees too."""
    spec, reference = specs[NAME], lambda *args: None
    monkeypatch.setattr("kernelpkg.bench.check.load_function", lambda *_: reference)
    case = _case(spec)
    found = check_case(spec, lambda *args: None, case, device="cpu")
    count = 3 * case.values["hidden_size"]
    assert found == (
        f"case {case}: result[0, 0] is 96, the reference's -96, 216 codes apart (at most 1); "
        f"{count} of {count} are off; scale[0, 0] is 96, the reference's -96 (rtol 1e-05, atol 0); "
        "3 of 3 are off"
    )


def test_a_result_of_another_shape(specs):
    """A returned tensor is held against the reference's in shape and dtype."""
    spec = specs["silu_mul_fp8"]
    case = next(case for case in cases_of(spec, "test") if case.values["num_tokens"] == 3)
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

    assert smoke_check(specs[NAME], broken, device="cpu") == text


def test_the_smoke_case_is_small(name, specs):
    """What a smoke check runs is not empty, and a matter of milliseconds."""
    from kernelpkg.manifest.cases import smallest_case

    case = smallest_case(specs[name])
    assert isinstance(case, Case)
    assert 1 <= case.values["num_tokens"] <= 17
