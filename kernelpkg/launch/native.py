"""Which launcher is used: the one in C, where it was compiled and fits, or the one in Python.

Both give equal results; the one in C costs a call a tenth of the time.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

import torch
from attrs import frozen
from torch.autograd import forward_ad

from kernelpkg.errors import UsageError
from kernelpkg.launch import calls, driver, recorded

VARIABLE: Final = "KERNELPKG_LAUNCHER"
INTERFACE: Final = 3
"""What `_native.c` must have been made for; raised when either side changes what they share."""

has_tangent: Final = calls.has_tangent

_MODULE: Final = "kernelpkg.launch._native"
_CHOICES: Final = ("auto", "c", "python")


@frozen(kw_only=True)
class Launcher:
    """A launcher: its two classes, and why it is the one that is used.

    Attributes:
        name: "c" or "python".
        calls: `Calls`, of this launcher.
        recorded: `Recorded`, of this launcher.
        reason: One line.
    """

    name: Literal["c", "python"]
    calls: Callable[..., Any]
    recorded: Callable[..., Any]
    reason: str

    def is_recorded(self, launch: object) -> bool:
        """Whether something is a recorded launch of this launcher."""
        return isinstance(launch, self.recorded)  # type: ignore[arg-type]  # it is a class

    def make_calls(self, kinds: str, resolve: Callable[..., Any], **options: Any) -> Any:
        """Return the `Calls` of an op; see `calls.Calls` for the arguments.

        An op with an argument of another kind than C reads is called through Python.
        """
        made = calls.Calls if "o" in kinds else self.calls
        return made(kinds, resolve, **options)


def choose(environment: Mapping[str, str] | None = None) -> Launcher:
    """Return the launcher of this process, as KERNELPKG_LAUNCHER asks: auto, c or python.

    Args:
        environment: What is read in place of this process's environment.

    Returns:
        The one in C for "auto", if it was compiled and fits PyTorch; else the one in Python.

    Raises:
        UsageError: It is asked for in C, and cannot be had, or by another word.
    """
    asked = (os.environ if environment is None else environment).get(VARIABLE, "").strip().lower()
    return _chosen(asked or "auto")


@lru_cache(maxsize=8)
def _chosen(asked: str) -> Launcher:
    if asked not in _CHOICES:
        raise UsageError(f"{VARIABLE} is '{asked}'; it takes {', '.join(_CHOICES)}")
    if asked == "python":
        return _python(f"{VARIABLE} asks for Python")
    extension, problem = load_extension()
    if extension is not None:
        reason = f"{VARIABLE} asks for C" if asked == "c" else "compiled, and fits"
        return Launcher(name="c", calls=extension.Calls, recorded=extension.Recorded, reason=reason)
    if asked == "c":
        raise UsageError(f"{VARIABLE} asks for C: {problem}")
    return _python(problem)


def _python(reason: str) -> Launcher:
    return Launcher(name="python", calls=calls.Calls, recorded=recorded.Recorded, reason=reason)


def load_extension(module: str = _MODULE) -> tuple[Any, str]:
    """Return the extension and "", or None and why it cannot be used, in one line."""
    try:
        extension = importlib.import_module(module)
        if extension.INTERFACE != INTERFACE:
            return None, (
                f"{extension.__file__} was compiled for another kernelpkg; install it again"
            )
        set_up(extension)
    except ModuleNotFoundError:
        return None, "not compiled: no C compiler was there when kernelpkg was installed"
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        return None, f"cannot be used: {' '.join(str(error).split())}"
    return extension, ""


def set_up(extension: Any) -> None:
    """Give the extension what it reads tensors with; raises ValueError where PyTorch lacks it."""
    extension.setup(
        getattr(torch.Tensor, "__dlpack_c_exchange_api__", None),
        torch.Tensor,
        torch.nn.Parameter,
        torch.empty_strided,
        quick_allocators(),
        driver.failure,
        driver.LaunchError,
        vars(forward_ad),
        has_tangent,
    )


def quick_allocators() -> dict[str, Callable[..., torch.Tensor]]:
    """Return, by device type, what makes a tensor of sizes, strides and a dtype, where it is there.

    The code that PyTorch's Inductor writes has these functions, of no public name, for the public
    one takes 1.6 us and these take 0.6. They make it on the device that is current.
    """
    try:
        from torch._C._dynamo import guards
    except ImportError:
        return {}
    names = {"cpu": "_empty_strided_cpu", "cuda": "_empty_strided_cuda"}
    found = {device: getattr(guards, name, None) for device, name in names.items()}
    return {device: function for device, function in found.items() if function is not None}


def enable_quick_dispatch(op: Any) -> str:
    """Let PyTorch hand the arguments of a call to our function as they are, where it can.

    PyTorch 2.14 and later do so for overloads, `torch.ops.ns.op.default`; a call of the packet,
    `torch.ops.ns.op`, goes through its C++ dispatcher as before.

    Args:
        op: A packet, whose overloads all get it, or one overload.

    Returns:
        "", or in one line why it is not enabled.
    """
    overloads = op.op_overloads() if hasattr(op, "op_overloads") else [op]
    for overload in overloads:
        enable = getattr(overload, "_enable_pyobj_dispatch", None)
        if enable is None:
            return f"PyTorch {torch.__version__} has no PyObject dispatch; 2.14 and later have it"
        try:
            enable()
            enabled = overload._is_pyobj_dispatcher_enabled()
        except (AttributeError, RuntimeError, TypeError) as error:
            return f"PyTorch refuses PyObject dispatch: {' '.join(str(error).split())}"
        if not enabled:
            return "PyTorch has no PyObject dispatch for an op that returns other than tensors"
    return ""


def status() -> str:
    """Return which launcher is used, and why, in one line, for `doctor`."""
    try:
        launcher = choose()
    except UsageError as error:
        return str(error)
    return f"{'C' if launcher.name == 'c' else 'Python'} ({launcher.reason})"
