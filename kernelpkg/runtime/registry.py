"""The registry: which kernels are registered, by the names of their ops.

Before: `register`, which fills it. After: whoever looks kernels up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from kernelpkg.errors import RegistrationError
from kernelpkg.locks import make_lock
from kernelpkg.runtime import graphs

if TYPE_CHECKING:
    from kernelpkg.runtime.register import HelionKernelWrapper

_Function = TypeVar("_Function", bound=Callable[..., Any])


def also_named(**names: str) -> Callable[[_Function], _Function]:
    """Let arguments of a function be given by other names too, those that they have in vLLM."""

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            found = {names.get(name, name): value for name, value in given.items()}
            if len(found) < len(given):
                raise TypeError(f"{function.__name__}() got an argument by two names")
            return function(*args, **found)

        return cast("_Function", called)

    return decorate


class KernelTable(dict[str, "HelionKernelWrapper"]):
    """Kernels by the names of their ops with namespaces; without one where only one op fits."""

    def __missing__(self, name: str) -> HelionKernelWrapper:
        found = [kernel for key, kernel in self.items() if key.rpartition("::")[2] == name]
        if len(found) != 1:
            raise KeyError(name)
        return found[0]

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None


REGISTRY: Final = KernelTable()
REGISTERING: Final = make_lock()


def get_registered_kernels() -> dict[str, HelionKernelWrapper]:
    """Return all registered kernels.

    Returns:
        A copy of the registry, by the names of the ops with their namespaces; by its name without
        one, it has an op where only one has the name.
    """
    return KernelTable(REGISTRY)


@also_named(kernel_name="name")
def get_kernel_by_name(name: str) -> HelionKernelWrapper | None:
    """Return the kernel of an op.

    Args:
        name: With its namespace, or without where only one op has the name. `kernel_name` is
            another name of this argument.

    Returns:
        The kernel, or None where none or several fit.
    """
    found: HelionKernelWrapper | None = REGISTRY.get(name)
    return found


def registered(name: str) -> HelionKernelWrapper:
    """Return the kernel of an op, as a pickle asks for it; raises RegistrationError for none."""
    kernel = get_kernel_by_name(name)
    if kernel is None:
        raise RegistrationError(
            f"kernel '{name}' is not registered in this process; load its pack, or import its "
            "module, before what holds it is copied or unpickled"
        )
    return kernel


def unload(*names: str) -> tuple[str, ...]:
    """Give ops back to PyTorch; calls through objects taken earlier raise from then on.

    Args:
        names: Ops, with or without namespace; all registered ones, without any.

    Returns:
        The names of those that were registered, with their namespaces.
    """
    wanted = names or tuple(REGISTRY)
    kernels = [kernel for kernel in map(get_kernel_by_name, wanted) if kernel is not None]
    for kernel in kernels:
        kernel.unregister()
    graphs.drop_stale()
    return tuple(kernel.qualified for kernel in kernels)
