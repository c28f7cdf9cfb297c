"""What vLLM's tests of `register.py` import, by our names; and a plugin for pytest beside them.

test_interface.py runs the tests with this file as both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kernelpkg import (
    ConfiguredHelionKernel,
    HelionKernelWrapper,
    get_kernel_by_name,
    get_registered_kernels,
    register_kernel,
    validate_helion_settings,
)
from kernelpkg import TunedKey as CaseKey
from kernelpkg.compile.helion import platform_here as get_canonical_gpu_name
from kernelpkg.configs import picked
from kernelpkg.runtime.registry import REGISTRY as _REGISTERED_KERNELS

__all__ = [
    "_HOP_AVAILABLE",
    "_REGISTERED_KERNELS",
    "CaseKey",
    "ConfigManager",
    "ConfiguredHelionKernel",
    "HelionKernelWrapper",
    "get_canonical_gpu_name",
    "get_kernel_by_name",
    "get_registered_kernels",
    "has_helion",
    "register_kernel",
    "validate_helion_settings",
]

_HOP_AVAILABLE = False  # as in vLLM 0.33.0

read_configs = picked.platform_configs


def has_helion() -> bool:
    return True


class ConfigManager:
    """Where vLLM looks for configs; ours are told so with `configs_dir`."""

    def __init__(self, base_dir: Path | None = None) -> None:
        self.base_dir = base_dir

    @staticmethod
    def reset_instance() -> None:
        """Nothing is kept."""

    def get_platform_configs(self, kernel_name: str, platform: str) -> Mapping[CaseKey, Any]:
        return read_configs(kernel_name, platform, self.base_dir)


@pytest.fixture(autouse=True)
def _between_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let kernels ask the manager that a test replaces; give back the ops that it registered.

    In vLLM a second kernel of one name takes the op of the first.
    """
    made: list[HelionKernelWrapper] = []
    register = HelionKernelWrapper.register

    def registering(kernel: HelionKernelWrapper) -> None:
        register(kernel)
        made.append(kernel)

    def asked(op_name: str, platform: str, configs_dir: Any, _: Any) -> Mapping[CaseKey, Any]:
        return ConfigManager(configs_dir).get_platform_configs(op_name, platform)

    monkeypatch.setattr(HelionKernelWrapper, "register", registering)
    monkeypatch.setattr(picked, "platform_configs", asked)
    yield
    for kernel in made:
        kernel.unregister()
