"""Helion kernels as packages: a TOML manifest beside each kernel, and one command for all of them.

Everything here is imported when it is first asked for, so that `import kernelpkg` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

__version__: Final = "0.1.0"

_PLACES: Final = {
    "CallError": "errors",
    "ConfigError": "errors",
    "DisabledError": "errors",
    "KernelpkgError": "errors",
    "LoadWarning": "errors",
    "PackError": "errors",
    "Problem": "errors",
    "RegistrationError": "errors",
    "UsageError": "errors",
    "load": "runtime.load",
    "HelionKernelWrapper": "runtime.register",
    "get_kernel_by_name": "runtime.register",
    "get_registered_kernels": "runtime.register",
    "register_kernel": "runtime.without_manifest",
    "unload": "runtime.register",
    "OpWarmth": "runtime.warm",
    "WarmReport": "runtime.warm",
    "warm": "runtime.warm",
    "KernelReport": "runtime.reports",
    "LoadReport": "runtime.reports",
    "ConfiguredHelionKernel": "compile.helion",
    "PresetConfigSearch": "compile.helion",
    "TunedKey": "configs.tuned_key",
    "create_helion_decorated_kernel": "compile.settings",
    "infer_fake_impl": "compile.host_code",
    "validate_helion_settings": "compile.settings",
}

__all__ = ["__version__", *_PLACES]  # noqa: PLE0604  # the names are texts

if TYPE_CHECKING:
    from kernelpkg.compile.helion import ConfiguredHelionKernel as ConfiguredHelionKernel
    from kernelpkg.compile.helion import PresetConfigSearch as PresetConfigSearch
    from kernelpkg.compile.host_code import infer_fake_impl as infer_fake_impl
    from kernelpkg.compile.settings import (
        create_helion_decorated_kernel as create_helion_decorated_kernel,
    )
    from kernelpkg.compile.settings import validate_helion_settings as validate_helion_settings
    from kernelpkg.configs.tuned_key import TunedKey as TunedKey
    from kernelpkg.errors import CallError as CallError
    from kernelpkg.errors import ConfigError as ConfigError
    from kernelpkg.errors import DisabledError as DisabledError
    from kernelpkg.errors import KernelpkgError as KernelpkgError
    from kernelpkg.errors import LoadWarning as LoadWarning
    from kernelpkg.errors import PackError as PackError
    from kernelpkg.errors import Problem as Problem
    from kernelpkg.errors import RegistrationError as RegistrationError
    from kernelpkg.errors import UsageError as UsageError
    from kernelpkg.runtime.load import load as load
    from kernelpkg.runtime.register import HelionKernelWrapper as HelionKernelWrapper
    from kernelpkg.runtime.register import get_kernel_by_name as get_kernel_by_name
    from kernelpkg.runtime.register import get_registered_kernels as get_registered_kernels
    from kernelpkg.runtime.register import unload as unload
    from kernelpkg.runtime.reports import KernelReport as KernelReport
    from kernelpkg.runtime.reports import LoadReport as LoadReport
    from kernelpkg.runtime.warm import OpWarmth as OpWarmth
    from kernelpkg.runtime.warm import WarmReport as WarmReport
    from kernelpkg.runtime.warm import warm as warm
    from kernelpkg.runtime.without_manifest import register_kernel as register_kernel


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'kernelpkg' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"kernelpkg.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
