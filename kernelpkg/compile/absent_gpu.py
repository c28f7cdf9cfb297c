"""A GPU that is not there: what Helion and kernels ask of it is answered for the one meant.

Helion's own switches answer; most are functions that its tests replace too, in 1.4 and in 1.5.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final

import helion
import torch
from helion import _hardware as hardware
from helion.autotuner.config_spec import ConfigSpec
from torch._inductor import lowering

from kernelpkg.errors import KernelpkgError

_REGISTERS: Final = 65536
"""32-bit registers of a block and of an SM on every NVIDIA GPU since Volta: CUDA C++ Programming
Guide, "Technical Specifications per Compute Capability"."""

SMS: Final = 132
"""SMs of a GPU that no platform names, as an H200 has them: programs per wave of a persistent
kernel, which is a constant of its code. Others have more or fewer, which changes that alone."""

# The functions by which Helion asks what the GPU is and can do, in both releases.
_SWITCHES: Final = (
    ("helion._compat", "_supports_tensor_descriptor"),
    ("helion._compat", "_supports_maxnreg"),
    ("helion._compat", "_is_hip"),
    ("helion._compat", "_min_dot_size"),
    ("helion._compat", "target_device_capability"),
    ("helion.autotuner.config_spec", "_regs_per_block"),
    ("helion.autotuner.config_spec", "num_compute_units"),
    ("helion._compiler.compile_environment", "target_device_capability"),
    ("helion.language.loops", "_supports_warp_specialize"),
)


def can_stand_in() -> bool:
    """Whether this Helion has all of the switches."""
    return all(hasattr(import_module(module), name) for module, name in _SWITCHES)


@contextmanager
def standing_in(capability: tuple[int, int] | None, sms: int | None) -> Iterator[None]:
    """Let Helion see an NVIDIA GPU where there is none; without a capability, only its SMs.

    Where `sms` is None, a kernel that asks for them has UnknownSms raised.
    """
    with ExitStack() as stack:
        stack.enter_context(counting_sms(sms))
        seen = _hardware(capability)
        stack.enter_context(_replaced(hardware, "get_hardware_info", lambda *_: seen))
        if capability is not None:
            answers = _answers(capability, sms or SMS)
            for (module, name), answer in zip(_SWITCHES, answers, strict=True):
                stack.enter_context(_replaced(import_module(module), name, answer))
            stack.enter_context(_replaced(lowering, "div_prim", _division(lowering.div_prim)))
            stack.enter_context(_replaced(ConfigSpec, "__init__", _on_a_gpu(ConfigSpec.__init__)))
        yield


@contextmanager
def _replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put a function in the place of one of a module or a class."""
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _answers(capability: tuple[int, int], sms: int) -> tuple[Callable[..., Any], ...]:
    """Return what stands for each of the switches."""

    def always(answer: Any) -> Callable[..., Any]:
        return lambda *_, **__: answer

    def min_dot_size(_: object, left: torch.dtype, right: torch.dtype) -> tuple[int, int, int]:
        from triton.backends.compiler import GPUTarget  # where nothing is bound, not needed
        from triton.backends.nvidia import compiler

        target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
        types = map(helion._compat.torch_dtype_to_tl, (left, right))
        least: tuple[int, int, int] = compiler.min_dot_size(target)(*types)
        return least

    return (
        always(capability >= (9, 0)),
        always(True),
        always(False),
        min_dot_size,
        always(capability),
        always(_REGISTERS),
        always(sms),
        always(capability),
        always(capability[0] >= 10),  # if settings allow it, as by default
    )


def _hardware(capability: tuple[int, int] | None) -> hardware.HardwareInfo:
    """Return what Helion chooses its own default configs by: an architecture, without a name."""
    kind, arch = ("", "") if capability is None else ("cuda", "sm{}{}".format(*capability))
    return hardware.HardwareInfo(
        device_kind=kind, hardware_name="", runtime_version="", compute_capability=arch
    )


def _division(before: Callable[..., Any]) -> Callable[..., Any]:
    """Return how PyTorch divides for all but CPUs: quotients by constants become products.

    The rule is that of `div_prim` of torch 2.11 to 2.13.
    """

    def divide(numerator: Any, denominator: Any) -> Any:
        integers = all(map(lowering.is_integer_type, (numerator, denominator)))
        constant = None if integers else lowering.get_constant_value(denominator)
        if constant is None or constant.value == 0:
            return before(numerator, denominator)
        return lowering.mul(numerator, 1.0 / constant.value)

    return divide


def _on_a_gpu(before: Callable[..., None]) -> Callable[..., None]:
    """Return how Helion makes its rules for configs on a GPU: it has fields that no CPU has."""

    def init(self: Any, *args: Any, **members: Any) -> None:
        before(self, *args, **{**members, "device": torch.device("cuda")})

    return init


class UnknownSms(KernelpkgError):
    """The number of multiprocessors of a GPU was asked for, and is not known."""


class _Counted(threading.local):
    """What this thread is told of multiprocessors: a number, or None; nothing while not told."""

    sms: tuple[int | None, ...] = ()


_COUNTED: Final = _Counted()
_count_sms: Final = helion.runtime.get_num_sm


def _get_num_sm(device: torch.device, *, reserved_sms: int = 0) -> int:
    """Return how many multiprocessors a kernel has; as Helion says, where nothing else was told."""
    if not _COUNTED.sms:
        found: int = _count_sms(device, reserved_sms=reserved_sms)
        return found
    if _COUNTED.sms[-1] is None:
        raise UnknownSms("its code depends on the number of SMs, which is not known for this GPU")
    return max(1, _COUNTED.sms[-1] - reserved_sms)


# For good, and not only while it answers: threads that come and go would put back each other's.
helion.runtime.get_num_sm = _get_num_sm


def tell_sms(function: Callable[..., Any]) -> None:
    """Let the file of a Helion function have what it imported by name from `helion.runtime`."""
    for name, value in list(function.__globals__.items()):
        if value is _count_sms:
            function.__globals__[name] = _get_num_sm


@contextmanager
def counting_sms(sms: int | None) -> Iterator[None]:
    """Let this thread count so many multiprocessors; where None, UnknownSms is raised."""
    _COUNTED.sms += (sms,)
    try:
        yield
    finally:
        _COUNTED.sms = _COUNTED.sms[:-1]
