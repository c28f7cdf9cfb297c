"""What Helion's autotuner holds results against, from [accuracy]."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.manifest.spec import Accuracy
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.opaccuracy import write_accuracy

ROOT = Path(__file__).parents[3]
FUNCTION = ("autotune_baseline_accuracy_check_fn=check_accuracy",)

CHECK = '''\
def check_accuracy(actual: Any, expected: Any) -> None:
    """Raise AssertionError where a config's results are too far from the baseline's.

    Codes are compared as numbers, a step apart at most; bit by bit, as Helion does it,
    0 and -0 are far apart.
    """
    tolerances = {torch.float8_e4m3fn: (0.125, 2**-9), torch.int8: (0.0, 1.0)}
    if isinstance(actual, torch.Tensor):
        actual, expected = [actual], [expected]
    for got, want in zip(actual or (), expected or (), strict=True):
        if isinstance(got, torch.Tensor):
            rtol, atol = tolerances.get(got.dtype, (0.015625, 0.0))
            torch.testing.assert_close(
                got.float(), want.float(), rtol=rtol, atol=atol, equal_nan=True
            )
'''


def test_codes_get_a_function():
    """By the dtypes that the cases have; a scale may be two roundings of bfloat16 off."""
    spec = read_kernel(ROOT, "rms_norm_per_block_quant")
    code = write_accuracy(spec, "")
    assert "\n".join(code.lines) + "\n" == CHECK
    assert code.settings == FUNCTION


def test_codes_that_are_returned_are_those_that_the_source_names():
    spec = read_kernel(ROOT, "silu_mul_fp8")
    named = write_accuracy(spec, "torch.empty(2, dtype=torch.float8_e5m2)").lines
    assert "    tolerances = {torch.float8_e5m2: (0.25, 2**-16)}" in named
    unknown = "\n".join(write_accuracy(spec, "").lines)
    assert unknown.count("torch.float8_") == 4
    assert "torch.int8: (0.0, 1.0)" in unknown


def test_several_steps_widen_the_tolerance():
    spec = read_kernel(ROOT, "silu_mul_fp8")
    spec = evolve(spec, accuracy={"return": Accuracy(steps=2, equal=0.9)})
    code = "\n".join(write_accuracy(spec, "float8_e4m3fn").lines)
    assert "tolerances = {torch.float8_e4m3fn: (0.25, 2 * 2**-9)}" in code
    assert "2 steps apart at" in code


def test_other_results_get_tolerances():
    spec = read_kernel(ROOT, "fused_qk_norm_rope")
    code = write_accuracy(spec, "")
    assert code.lines == ()
    assert code.settings == ("autotune_baseline_atol=0.02", "autotune_baseline_rtol=0.02")


@pytest.mark.parametrize("name", ["autotune_baseline_atol", "autotune_baseline_accuracy_check_fn"])
def test_a_manifest_that_says_it_has_the_last_word(name):
    spec = read_kernel(ROOT, "rms_norm_per_block_quant")
    code = write_accuracy(evolve(spec, settings={name: 1.0}), "")
    assert (code.lines, code.settings) == ((), ())
