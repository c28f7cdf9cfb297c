"""The accuracy check of vendored ops, run from its text on tensors."""

from __future__ import annotations

import pickle

import pytest
import torch


@pytest.fixture
def check(shared_rules):
    """The check with the tolerances of `rms_norm_per_block_quant`."""
    e4m3, int8 = torch.float8_e4m3fn, torch.int8
    tolerances = {e4m3: (0.125, 2**-9), int8: (0.0, 1.0), None: (0.015625, 0.0)}
    return shared_rules.AccuracyCheck(tolerances)


def codes(*bits):
    return torch.tensor(bits, dtype=torch.uint8).view(torch.float8_e4m3fn)


def integer(value):
    return torch.tensor([value], dtype=torch.int8)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        pytest.param(codes(0x00), codes(0x80), id="zeros"),
        pytest.param(codes(0x01), codes(0x00), id="subnormal"),
        pytest.param(codes(0x39), codes(0x38), id="step-up"),
        pytest.param(codes(0x37), codes(0x38), id="step-down"),
        pytest.param(codes(0x7F), codes(0x7F), id="nan"),
        pytest.param(integer(3), integer(4), id="int8"),
        pytest.param(torch.tensor([1.01]), torch.tensor([1.0]), id="scale"),
        pytest.param(None, None, id="nothing-returned"),
        pytest.param((codes(0x38), None, 2, 0.5), [codes(0x38), None, 2, 0.5], id="arguments"),
    ],
)  # fmt: skip
def test_what_agrees(check, got, want):
    check(got, want)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        pytest.param(codes(0x3A), codes(0x38), id="two-steps"),
        pytest.param(codes(0x01), codes(0x81), id="around-zero"),
        pytest.param(codes(0x7F), codes(0x38), id="nan"),
        pytest.param(integer(3), integer(5), id="int8"),
        pytest.param(torch.tensor([1.02]), torch.tensor([1.0]), id="scale"),
        pytest.param((codes(0x38), codes(0x38)), (codes(0x38), codes(0xB8)), id="sign"),
    ],
)  # fmt: skip
def test_what_does_not_agree(check, got, want):
    with pytest.raises(AssertionError):
        check(got, want)


def test_a_check_goes_to_processes_that_helion_starts(check):
    assert pickle.loads(pickle.dumps(check)).tolerances == check.tolerances
