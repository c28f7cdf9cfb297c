"""The vendored ops inside vLLM, on a platform that nothing is tuned for: off, and to be tuned.

test_vendored.py runs this file in a process of its own, in which kernelpkg cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import helion
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from vllm.kernels.helion import get_kernel_by_name, ops, register, utils

PLATFORM = "nvidia_b300"
WHEEL = Path(os.environ["VLLM_WHEEL"])
NAMES = os.environ["VLLM_OPS"].split(",")

sys.modules["kernelpkg"] = None  # importing it fails

# vLLM asks the GPU for its name when an op is imported, and a CPU has none.
utils.get_canonical_gpu_name = lambda device_id=None: PLATFORM

each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    for name in NAMES:
        importlib.import_module(f"{ops.__name__}.{name}")


def smallest(kernel: Any) -> tuple[Any, ...]:
    """Return the first inputs of an op's generator, on the CPU."""
    with FakeTensorMode():
        args = next(iter(kernel.get_inputs().values()))
    return tuple(
        torch.ones(arg.shape, device="cpu").to(arg.dtype) if isinstance(arg, torch.Tensor) else arg
        for arg in args
    )


def test_the_control_is_vllms_own():
    """vLLM's own silu_mul_fp8 is tuned on a CPU, so that ours have to be."""
    found = register._REGISTERED_KERNELS.pop("silu_mul_fp8")
    path = WHEEL / "vllm" / "kernels" / "helion" / "ops" / "silu_mul_fp8.py"
    spec = importlib.util.spec_from_file_location("vllms_own_silu_mul_fp8", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        own = get_kernel_by_name("silu_mul_fp8")
        assert own is not found
        assert isinstance(own.run_autotune(smallest(own), "none"), helion.Config)
    finally:
        register._REGISTERED_KERNELS["silu_mul_fp8"] = found


@each
def test_an_op_without_configs_says_so(name):
    """vLLM leaves it off, with a reason that names the platform; a call raises it."""
    kernel = get_kernel_by_name(name)
    reason = f"No configs available for kernel '{name}' on platform '{PLATFORM}'"
    assert (kernel._disabled, kernel._disabled_reason) == (True, reason)
    assert not hasattr(torch.ops.vllm_helion, name)
    with pytest.raises(RuntimeError, match=re.escape(f"'{name}' is disabled: {reason}")):
        kernel(*smallest(kernel))


@each
def test_vllms_autotuner_takes_an_op(name):
    """Without a search: Helion binds the inputs, and compiles the config that it starts from."""
    kernel = get_kernel_by_name(name)
    config = kernel.run_autotune(smallest(kernel), "none")
    assert isinstance(config, helion.Config)
    assert config.block_sizes


def test_each_shape_of_several_leading_sizes_has_code_of_its_own():
    """Which vLLM's key, their product, does not tell apart; flat tensors share theirs."""
    kernel = get_kernel_by_name("silu_mul_fp8")
    bind = register.create_helion_decorated_kernel(
        kernel.raw_kernel_func, kernel.helion_settings, {"key": lambda *args: "their product"}
    ).bind

    def code(*sizes):
        return id(bind((torch.ones(*sizes, 2 * 64), torch.ones(1))))

    several = [(1, 6), (6, 1), (2, 3), (3, 2), (5, 2), (1, 2, 3), (3, 2, 1)]
    assert len({code(*sizes) for sizes in [*several, (6,)]}) == len(several) + 1
    assert [code(*sizes) for sizes in several] == [code(*sizes) for sizes in several]
    assert code(6) == code(7)
