"""Comparison with the reference: what counts as equal, and that it can fail."""

from __future__ import annotations

import pytest
import torch

from kernelpkg.bench.reference import compare, compare_all, untouched
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Accuracy

F8 = torch.float8_e4m3fn
CODES = Accuracy(steps=1, equal=0.5)
CLOSE = Accuracy(rtol=1e-2)


def _f8(*values, dtype=F8):
    return torch.tensor(values).to(dtype)


@pytest.mark.parametrize(
    ("got", "want", "steps", "equal"),
    [
        pytest.param(_f8(1.0, 448.0), _f8(1.0, 448.0), 0, 1.0, id="equal"),
        pytest.param(_f8(1.0, 448.0), _f8(1.125, 448.0), 1, 0.5, id="one-code"),
        pytest.param(_f8(0.0, -1.0), _f8(-0.0, -1.0), 0, 1.0, id="zeros"),
        pytest.param(_f8(0.001953125, 1.0), _f8(-0.0, 1.0), 1, 0.5, id="least-to-zero"),
        pytest.param(_f8(float("nan"), 1.0), _f8(float("nan"), 1.0), 0, 1.0, id="nan"),
        pytest.param(
            torch.tensor([-128, 5], dtype=torch.int8),
            torch.tensor([-127, 5], dtype=torch.int8),
            1,
            0.5,
            id="int8",
        ),
        pytest.param(
            torch.tensor([1.0, 2.0]).bfloat16(),
            torch.tensor([1.0078125, 2.0]).bfloat16(),
            1,
            0.5,
            id="bfloat16",
        ),
        pytest.param(
            _f8(57344.0, 1.0, dtype=torch.float8_e5m2),
            _f8(float("inf"), 1.0, dtype=torch.float8_e5m2),
            1,
            0.5,
            id="e5m2-infinity",
        ),
    ],
)
def test_codes_that_agree(got, want, steps, equal):
    """Codes are numbered in the order of their values, across dtypes of any width."""
    found = compare("q", got, want, CODES)
    assert (found.problem, found.steps, found.equal) == (None, steps, equal)


@pytest.mark.parametrize(
    ("got", "want", "bounds", "problem"),
    [
        pytest.param(
            _f8(1.0, 2.0),
            _f8(1.25, 2.0),
            CODES,
            "q[0] is 1, the reference's 1.25, 2 codes apart (at most 1); 1 of 2 are off",
            id="two-codes",
        ),
        pytest.param(
            _f8(2.0, float("nan")),
            _f8(2.0, 448.0),
            CODES,
            "q[1] is nan, the reference's 448, a NaN apart (at most 1); 1 of 2 are off",
            id="nan",
        ),
        pytest.param(
            _f8(1.0, float("nan")),
            _f8(1.5, 448.0),
            CODES,
            "q[0] is 1, the reference's 1.5, 4 codes apart (at most 1); 2 of 2 are off",
            id="first-of-two",
        ),
        pytest.param(
            _f8(1.0, 2.0, 4.0),
            _f8(1.125, 2.25, 4.0),
            CODES,
            "q: 33.33% of the codes are equal, less than 50.00%",
            id="too-few-equal",
        ),
        pytest.param(
            torch.tensor([[1, 2], [3, 4]], dtype=torch.int8),
            torch.tensor([[1, 2], [5, 4]], dtype=torch.int8),
            CODES,
            "q[1, 0] is 3, the reference's 5, 2 codes apart (at most 1); 1 of 4 are off",
            id="int8",
        ),
        pytest.param(
            torch.tensor([1.0]),
            torch.tensor([1.1]),
            CLOSE,
            "q[0] is 1, the reference's 1.1 (rtol 0.01, atol 0); 1 of 1 are off",
            id="tolerance",
        ),
        pytest.param(
            torch.tensor([float("inf"), 1.0]),
            torch.tensor([3.0, float("nan")]),
            CLOSE,
            "q[0] is inf, the reference's 3 (rtol 0.01, atol 0); 2 of 2 are off",
            id="infinity-and-nan",
        ),
        pytest.param(
            torch.tensor([1.0, 2.0]),
            torch.tensor([1.001, 2.0]),
            Accuracy(rtol=1e-2, equal=0.75),
            "q: 50.00% of the elements are equal, less than 75.00%",
            id="share",
        ),
        pytest.param(
            torch.zeros(2),
            torch.zeros(3),
            CLOSE,
            "q is (2,) torch.float32, the reference's (3,) torch.float32",
            id="shape",
        ),
        pytest.param(
            torch.zeros(2),
            torch.zeros(2, dtype=torch.float64),
            CLOSE,
            "q is (2,) torch.float32, the reference's (2,) torch.float64",
            id="dtype",
        ),
        pytest.param(
            torch.full((2,), 96.0).to(F8),
            torch.full((2,), -96.0).to(F8),
            CODES,
            "q[0] is 96, the reference's -96, 216 codes apart (at most 1); 2 of 2 are off",
            id="unwritten",
        ),
        pytest.param(
            torch.tensor([0.25]).half(),
            torch.tensor([0.75]).half(),
            CODES,
            "q[0] is 0.25, the reference's 0.75, 1536 codes apart (at most 1); 1 of 1 are off",
            id="float16-below-one",
        ),
    ],
)
def test_disagreements(got, want, bounds, problem):
    """Each way to disagree is one line with the first place and the count."""
    assert compare("q", got, want, bounds).problem == problem


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
    """Nothing to compare is no disagreement."""
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


def test_all_that_was_written():
    """Written arguments and results are compared by name; absent ones are left out."""
    out, x = torch.ones(2), torch.zeros(2)
    bounds = {"out": Accuracy(), "return": Accuracy()}
    call = ((out, x, None, 1), torch.ones(3))
    other = ((out + 1, x, None, 1), torch.ones(3))
    found = compare_all(WRITES, call, other, bounds)
    assert [agreement.name for agreement in found] == ["out", "return"]
    assert [agreement.problem is None for agreement in found] == [False, True]


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
        "x[1] is 1, the reference's 0 (rtol 0, atol 0); 1 of 2 are off; "
        "the schema does not let it be written"
    )
