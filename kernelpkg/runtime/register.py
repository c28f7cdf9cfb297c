"""The registry of kernels, and `register_kernel` for those without a manifest.

Before: `runtime/load`. After: `runtime/dispatch`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, overload

from kernelpkg.configs.selection import Chosen
from kernelpkg.errors import ConfigError, RegistrationError
from kernelpkg.manifest.guards import check_devices
from kernelpkg.manifest.opschema import OpSchema, name_problem, parse_schema
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.runtime import torch_ops
from kernelpkg.runtime.backend import HelionBackend
from kernelpkg.runtime.dispatch import Acceptance, Dispatcher, Plan
from kernelpkg.runtime.prebuilt import BuiltCode
from kernelpkg.runtime.torch_ops import RegisteredOp
from kernelpkg.runtime.without_manifest import AnyCall, ConfigPicker, PickedPlan

if TYPE_CHECKING:
    from kernelpkg.compile import helion

InputGenerator = Callable[[], Mapping[Any, tuple[Any, ...]]]
"""Returns the arguments of one call for each case."""

NAMESPACE: Final = "kernelpkg"

_REGISTRY: dict[str, HelionKernelWrapper] = {}
_REGISTERING = threading.RLock()


class Follower(Protocol):
    """Keeps launchers of a kernel beyond the kernel's own table."""

    def forget(self) -> None:
        """Drop them, for the op has been given back."""


class HelionKernelWrapper:
    """One registered kernel: its op, its Helion function, its configs and its inputs.

    Calling it calls the op, so that `torch.compile` sees the op. Nothing is compiled before the
    first call. `load` and `register_kernel` make these.

    Args:
        op_name: The name of the op, without namespace.
        namespace: The op is `torch.ops.<namespace>.<op_name>`.
        raw_kernel_func: Returns the Helion function, without a decorator, when it is needed.
        schema: The schema of the op, with the arguments of the function.
        fake_impl: Makes the results of a call without values; None for an op that returns nothing.
        helion_settings: Returns Helion settings, as `check_settings` returns them.
        acceptance: Makes what calls are held against, at the first call.
        plan: Names the configs of a call.
        input_generator: Returns the arguments of each case.
        built: Code of a build, which is asked before anything is compiled.
        prebuilt: Whether code of a build is all that may run on a GPU.
        spec: The manifest, for a kernel that has one.
    """

    def __init__(
        self,
        *,
        op_name: str,
        namespace: str,
        raw_kernel_func: Callable[[], Callable[..., Any]],
        schema: OpSchema,
        fake_impl: Callable[..., Any] | None,
        helion_settings: Callable[[], Mapping[str, Any]],
        acceptance: Callable[[], Acceptance],
        plan: Plan,
        input_generator: InputGenerator | None = None,
        built: BuiltCode | None = None,
        prebuilt: bool = False,
        spec: KernelSpec | None = None,
    ) -> None:
        self.spec = spec
        self.op_name = op_name
        self.namespace = namespace
        self.schema = schema
        self.backend = HelionBackend(
            op_name=op_name,
            function=raw_kernel_func,
            settings=helion_settings,
            schema=schema,
            fake=self.fake,
            select=self._select,
            built=built,
            prebuilt=prebuilt,
        )
        self.plan = plan
        self._fake_impl = fake_impl
        self._make_acceptance = acceptance
        self._input_generator = input_generator
        self._op: RegisteredOp | None = None
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self.dispatcher = Dispatcher(
            op=self.qualified,
            schema=schema,
            acceptance=lambda: self.acceptance,
            plan=plan,
            backend=self.backend,
        )

    @property
    def raw_kernel_func(self) -> Callable[..., Any]:
        """The Helion function, without a decorator."""
        return self.backend.function

    @property
    def helion_settings(self) -> Mapping[str, Any]:
        """Helion settings, as they are given to it."""
        return self.backend.settings

    @property
    def qualified(self) -> str:
        """The op's name with its namespace, as in "kernelpkg::silu_mul_fp8"."""
        return f"{self.namespace}::{self.op_name}"

    @cached_property
    def acceptance(self) -> Acceptance:
        """What the kernel takes; made at the first call."""
        return self._make_acceptance()

    @property
    def op(self) -> Any:
        """The op as PyTorch has it; raises RegistrationError where it is not registered."""
        if self._op is None:
            raise RegistrationError(f"op '{self.qualified}' is not registered")
        return self._op.call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the op.

        Args:
            args: The arguments of its schema.
            kwargs: Those that are given by name.

        Returns:
            The results of its schema.

        Raises:
            CallError: The manifest does not accept the call; nothing was launched.
            ConfigError: No config may be used for the call.
            RegistrationError: The op is not registered.
        """
        return self.op(*args, **kwargs)

    def fake(self, *args: Any) -> Any:
        """The fake implementation: shapes, strides and dtypes of the results, and no values.

        Args:
            args: The arguments of the op; trailing ones with defaults may be left out.

        Returns:
            Tensors without values, or None for an op that returns nothing.

        Raises:
            CallError: A tensor requires grad, or tensors are on several devices. These would not
                reach the real implementation: a compiled graph takes gradients apart first.
        """
        self.dispatcher.check_grad(args)
        check_devices(self.qualified, self.schema, args)
        if self._fake_impl is None:
            return None
        rest = self.schema.args[len(args) :]  # PyTorch leaves out what equals its default
        return self._fake_impl(*args, *(arg.default for arg in rest))

    def get_configured_op(self) -> helion.ConfiguredHelionKernel:
        """Return the kernel as Helion has it.

        Returns:
            It, with both of Helion's hooks from this kernel's picker; the same at each call.
        """
        return self.backend.configured()

    def register_input_generator(self, generator: InputGenerator) -> InputGenerator:
        """Take a function that makes inputs; usable as a decorator.

        Args:
            generator: Returns the arguments of one call for each case.

        Returns:
            The function itself.
        """
        self._input_generator = generator
        return generator

    def get_inputs(self) -> Mapping[Any, tuple[Any, ...]]:
        """Return the arguments of each case.

        Returns:
            By case, all arguments of one call in order; those of a manifest are made when read.

        Raises:
            RegistrationError: The kernel has no input generator.
        """
        if self._input_generator is None:
            raise RegistrationError(
                f"kernel '{self.op_name}' has no input generator; give one with "
                "register_input_generator"
            )
        return self._input_generator()

    def run_autotune(self, inputs: Sequence[Any], autotune_effort: str = "quick") -> Any:
        """Search a config for one set of inputs, on their device, with Helion's autotuner.

        Args:
            inputs: All arguments of one call, in order.
            autotune_effort: "none", "quick" or "full", as in Helion's settings.

        Returns:
            A helion.Config, which is not stored.
        """
        from kernelpkg.compile import helion

        return helion.run_autotune(
            self.raw_kernel_func, self.helion_settings, inputs, autotune_effort
        )

    def register(self) -> None:
        """Put the op into PyTorch and this kernel into the registry.

        Raises:
            RegistrationError: The name is taken; nothing has changed.
        """
        with _REGISTERING:
            if self.qualified in _REGISTRY:
                raise RegistrationError(
                    f"kernel '{self.qualified}' is registered already; choose another name, or "
                    "unload the other"
                )
            problem = torch_ops.name_problem(self.namespace, self.op_name)
            if problem is not None:
                raise RegistrationError(problem)
            self._op = RegisteredOp(
                namespace=self.namespace,
                name=self.op_name,
                schema=self.schema.text,
                implementation=self.dispatcher.implementation(),
                fake=self.fake,
            )
            _REGISTRY[self.qualified] = self

    def unregister(self) -> None:
        """Give the name back; harmless where the op is not registered."""
        with _REGISTERING:
            if self._op is not None:
                self._op.close()
                self._op = None
                _REGISTRY.pop(self.qualified, None)
                for follower in tuple(self._followers):
                    follower.forget()

    def fallbacks(self) -> Mapping[str, int]:
        """Say which calls took a longer way than a recorded launch of prebuilt code.

        Returns:
            How many signatures did, by the reason: what the build lacks, or what cannot be
            recorded; nothing where no build is used and all is recorded.
        """
        return self.backend.long_ways()

    def start_anew(self) -> None:
        """Forget what was compiled and which calls were seen, as if no call had been made."""
        for follower in tuple(self._followers):
            follower.forget()
        self.dispatcher.calls.clear()
        self.backend.forget()

    def tell(self, follower: Follower) -> None:
        """Let a follower, for as long as it lives, be told when the op is given back.

        Args:
            follower: Its `forget` is called.
        """
        self._followers.add(follower)

    def _select(self, args: Sequence[Any]) -> Chosen:
        axes = self.acceptance.axes_of(args)
        chosen = next(self.plan.options(axes, args), None)
        if chosen is None:
            raise ConfigError(f"{self.qualified}: no config for this call; tune one")
        return chosen


@overload
def register_kernel(
    op_name: Callable[..., Any],
    /,
    *,
    config_picker: ConfigPicker | None = None,
    fake_impl: Callable[..., Any] | None = None,
    mutates_args: Sequence[str] = (),
    helion_settings: Any = None,
    input_generator: InputGenerator | None = None,
    namespace: str = NAMESPACE,
    configs_dir: str | os.PathLike[str] | None = None,
) -> HelionKernelWrapper: ...
@overload
def register_kernel(
    op_name: str | None = None,
    *,
    config_picker: ConfigPicker | None = None,
    fake_impl: Callable[..., Any] | None = None,
    mutates_args: Sequence[str] = (),
    helion_settings: Any = None,
    input_generator: InputGenerator | None = None,
    namespace: str = NAMESPACE,
    configs_dir: str | os.PathLike[str] | None = None,
) -> Callable[[Callable[..., Any]], HelionKernelWrapper]: ...
def register_kernel(
    op_name: str | Callable[..., Any] | None = None,
    *,
    config_picker: ConfigPicker | None = None,
    fake_impl: Callable[..., Any] | None = None,
    mutates_args: Sequence[str] = (),
    helion_settings: Any = None,
    input_generator: InputGenerator | None = None,
    namespace: str = NAMESPACE,
    configs_dir: str | os.PathLike[str] | None = None,
) -> HelionKernelWrapper | Callable[[Callable[..., Any]], HelionKernelWrapper]:
    """Register a Helion function as an op, without a manifest.

    A decorator, bare or with arguments, and a function that takes the Helion function and the same
    arguments.

    Args:
        op_name: The name of the op, the function's unless given; or the Helion function itself.
        config_picker: Takes the arguments of a call and the tuned case keys; returns one of these,
            or None for the default.
        fake_impl: Has the arguments of the function and returns tensors of the results' shapes and
            dtypes; inferred from the host part where the function returns something.
        mutates_args: The names of the arguments that are written.
        helion_settings: A helion.Settings or a mapping; `key`, `autotuner_fn`, `config` and
            `configs` in it are refused, and `static_shapes` is False.
        input_generator: Returns the arguments of one call for each case.
        namespace: The op is `torch.ops.<namespace>.<op_name>`.
        configs_dir: Holds `<op>/<platform>.json` in the format of docs/reference/configs.md.

    Returns:
        The registered kernel, or a decorator that makes one of a function.

    Raises:
        RegistrationError: The name is taken, or the signature or the settings are refused.
    """
    from kernelpkg.compile import helion, host_code

    name = None if callable(op_name) else op_name

    def decorate(function: Callable[..., Any]) -> HelionKernelWrapper:
        called = name or function.__name__
        for word in (called, namespace):
            wrong = name_problem(word)
            if wrong is not None:
                raise RegistrationError(f"kernel '{called}': {wrong}")
        settings = helion.check_settings(helion.explicit_settings(helion_settings), called)
        try:
            schema = parse_schema(torch_ops.infer_schema(function, tuple(mutates_args)))
        except ValueError as error:
            text = " ".join(str(error).split())
            raise RegistrationError(
                f"kernel '{called}': no schema for its signature: {text}"
            ) from None
        infers = fake_impl is None and schema.returns
        directory = None if configs_dir is None else Path(configs_dir)
        wrapper = HelionKernelWrapper(
            op_name=called,
            namespace=namespace,
            raw_kernel_func=lambda: function,
            schema=schema,
            fake_impl=host_code.infer_fake(function) if infers else fake_impl,
            helion_settings=lambda: settings,
            acceptance=AnyCall,
            plan=PickedPlan(called, config_picker, directory),
            input_generator=input_generator,
        )
        wrapper.register()
        return wrapper

    return decorate(op_name) if callable(op_name) else decorate


def get_registered_kernels() -> dict[str, HelionKernelWrapper]:
    """Return all registered kernels.

    Returns:
        A copy of the registry, by the names of the ops with their namespaces.
    """
    return dict(_REGISTRY)


def get_kernel_by_name(name: str) -> HelionKernelWrapper | None:
    """Return the kernel of an op.

    Args:
        name: With its namespace, or without where only one op has the name.

    Returns:
        The kernel, or None where none or several fit.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    if "::" in name:
        return None
    found = [kernel for key, kernel in _REGISTRY.items() if key.split("::")[1] == name]
    return found[0] if len(found) == 1 else None


def unload(*names: str) -> tuple[str, ...]:
    """Give ops back to PyTorch; calls through objects taken earlier raise from then on.

    Args:
        names: Ops, with or without namespace; all registered ones, without any.

    Returns:
        The names of those that were registered, with their namespaces.
    """
    wanted = names or tuple(_REGISTRY)
    kernels = [kernel for kernel in map(get_kernel_by_name, wanted) if kernel is not None]
    for kernel in kernels:
        kernel.unregister()
    return tuple(kernel.qualified for kernel in kernels)
