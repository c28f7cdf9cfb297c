"""Kernels that are registered: each with its op, its Helion function, its configs and its inputs.

Before: `runtime/load`, or `without_manifest`. After: `runtime/dispatch`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import frozen

from kernelpkg.configs.picked import ConfigsDir, Miss, PickedPlan
from kernelpkg.configs.selection import Chosen
from kernelpkg.configs.tuned_key import ConfigPicker
from kernelpkg.errors import ConfigError, DisabledError, RegistrationError, shown
from kernelpkg.manifest.guards import check_devices
from kernelpkg.manifest.helion_config import function_tunables
from kernelpkg.manifest.opschema import OpSchema, name_problem
from kernelpkg.manifest.spec import Backward, KernelSpec, Scalar
from kernelpkg.runtime import graphs, torch_ops
from kernelpkg.runtime.backend import HelionBackend
from kernelpkg.runtime.dispatch import Acceptance, Dispatcher, Plan
from kernelpkg.runtime.gradients import Gradient
from kernelpkg.runtime.memory import check_results
from kernelpkg.runtime.prebuilt import BuiltCode
from kernelpkg.runtime.registry import (
    REGISTERING,
    REGISTRY,
    also_named,
    get_kernel_by_name,
    get_registered_kernels,
    registered,
    unload,
)
from kernelpkg.runtime.torch_ops import RegisteredOp

if TYPE_CHECKING:
    from kernelpkg.compile import helion

__all__ = [
    "NAMESPACE",
    "HelionKernelWrapper",
    "InputGenerator",
    "KernelParts",
    "get_kernel_by_name",
    "get_registered_kernels",
    "unload",
]

InputGenerator = Callable[[], Mapping[Any, tuple[Any, ...]]]
"""Returns the arguments of one call for each case."""

NAMESPACE: Final = "kernelpkg"


class AnyCall:
    """Accepts every call; a kernel without a manifest has no axes."""

    axis_names: tuple[str, ...] = ()
    unread: frozenset[int] = frozenset()  # a picker that is a function may look at all

    def axes_of(self, args: Sequence[Any]) -> tuple[Scalar, ...]:
        return ()


@frozen(kw_only=True)
class KernelParts:
    """What a kernel is made of, by a manifest or by `register_kernel`.

    `raw_kernel_func` and `helion_settings` return the Helion function and its checked settings when
    they are needed; `acceptance` makes what calls are held against, at the first call. `plan` names
    the configs of a call. Code of a build, `built`, is asked before anything is compiled, and is
    all that may run on a GPU where only `prebuilt` code may.
    """

    op_name: str
    namespace: str
    raw_kernel_func: Callable[[], Callable[..., Any]]
    schema: OpSchema
    fake_impl: Callable[..., Any] | None
    helion_settings: Callable[[], Mapping[str, Any]]
    acceptance: Callable[[], Acceptance]
    plan: Plan
    input_generator: InputGenerator | None = None
    built: BuiltCode | None = None
    prebuilt: bool = False
    backward: Backward | None = None
    spec: KernelSpec | None = None


class Follower(Protocol):
    """Keeps launchers of a kernel beyond the kernel's own table."""

    def forget(self) -> None:
        """Drop them, for the op has been given back."""


class HelionKernelWrapper:
    """One registered kernel: its op, its Helion function, its configs and its inputs.

    Calling it calls the op, so that `torch.compile` sees the op. Nothing is compiled before the
    first call. `load` and `register_kernel` make these; made by itself it is as vLLM's: the op is
    registered, or the kernel disabled where it has no configs for this platform.

    Args:
        raw_kernel_func: The Helion function, without a decorator.
        op_name: The name of the op, without namespace.
        fake_impl: Makes the results of a call without values; inferred where it is None and the
            op returns something.
        config_picker: Takes the arguments of a call and the tuned keys; returns one of these, or
            None for the default config.
        mutates_args: The names of the arguments that are written.
        helion_settings: A helion.Settings or a mapping.
        input_generator: Returns the arguments of each case.
        namespace: The op is `torch.ops.<namespace>.<op_name>`.
        configs_dir: Holds `<op>/<platform>.json`.
        miss: What calls get that no config is tuned for: "default", Helion's default config, or
            "error".

    Raises:
        PackError: The file of configs cannot be read.
        RegistrationError: The name is taken, or the signature or the settings are refused.
    """

    def __init__(
        self,
        raw_kernel_func: Callable[..., Any],
        op_name: str,
        fake_impl: Callable[..., Any] | None,
        config_picker: ConfigPicker | None,
        mutates_args: Sequence[str] | None = None,
        helion_settings: Any = None,
        input_generator: InputGenerator | None = None,
        *,
        namespace: str = NAMESPACE,
        configs_dir: ConfigsDir = None,
        miss: Miss = "error",
    ) -> None:
        from kernelpkg.compile import helion, host_code

        wrong = name_problem(op_name, private=True) or name_problem(namespace)
        if miss not in ("default", "error"):
            wrong = f"miss is {shown(miss)}; it must be 'default' or 'error'"
        if wrong is not None:
            raise RegistrationError(f"kernel '{op_name}': {wrong}")
        settings = helion.check_settings(helion.explicit_settings(helion_settings), op_name)
        schema = torch_ops.schema_of(raw_kernel_func, op_name, mutates_args)
        if fake_impl is None and schema.returns:
            fake_impl = host_code.infer_fake_impl(raw_kernel_func, helion_settings)
        plan = PickedPlan(
            op_name,
            config_picker,
            configs_dir,
            helion.platform_here,
            miss=miss,
            tunables=partial(function_tunables, raw_kernel_func),
        )
        self._assemble(
            KernelParts(
                op_name=op_name,
                namespace=namespace,
                raw_kernel_func=lambda: raw_kernel_func,
                schema=schema,
                fake_impl=fake_impl,
                helion_settings=lambda: settings,
                acceptance=AnyCall,
                plan=plan,
                input_generator=input_generator,
            )
        )
        self._given_settings = helion_settings
        self._disabled_reason: str | None = plan.lack
        if not self._disabled:
            self.backend.configured()  # here as in vLLM, so that calls have code alone to make
        self.register()
        if self._disabled:
            warnings.warn(f"op '{self.qualified}' is disabled: {plan.lack}", stacklevel=2)

    @classmethod
    def of(cls, parts: KernelParts) -> HelionKernelWrapper:
        """Return a kernel that is not registered yet.

        Args:
            parts: What it is made of.

        Returns:
            The kernel.
        """
        kernel = cls.__new__(cls)
        kernel._assemble(parts)
        return kernel

    def _assemble(self, parts: KernelParts) -> None:
        self.spec = parts.spec
        self.op_name = parts.op_name
        self.namespace = parts.namespace
        self.schema = parts.schema
        self.backward = parts.backward
        self._gradient = Gradient.of(self.qualified, parts.schema, parts.backward)
        self.plan = parts.plan
        self.backend = HelionBackend(
            op_name=parts.op_name,
            function=parts.raw_kernel_func,
            settings=parts.helion_settings,
            schema=parts.schema,
            fake=self.fake,
            select=self._select,
            tuned=parts.plan,
            built=parts.built,
            prebuilt=parts.prebuilt,
        )
        self._given_settings = None
        self._disabled_reason = None
        self._fake_impl = parts.fake_impl
        self._make_acceptance = parts.acceptance
        self._input_generator = parts.input_generator
        self._op: RegisteredOp | None = None
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self.dispatcher = Dispatcher(
            op=self.qualified,
            schema=parts.schema,
            acceptance=lambda: self.acceptance,
            plan=parts.plan,
            backend=self.backend,
        )

    @property
    def raw_kernel_func(self) -> Callable[..., Any]:
        """The Helion function, without a decorator."""
        return self.backend.function

    @property
    def helion_settings(self) -> Any:
        """Helion settings, as they were given; of a manifest, as they are given to Helion."""
        return self._given_settings if self.spec is None else self.backend.settings

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
        """The op as PyTorch has it; raises RegistrationError where it is not registered.

        Where the kernel is disabled, DisabledError.
        """
        self._check_enabled()
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
            DisabledError: The kernel has no configs on this platform, and may not run without.
            RegistrationError: The op is not registered.
        """
        return self.op(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], HelionKernelWrapper], tuple[str]]:
        """Let copies and pickles of a model hold the kernel that is registered by this name."""
        return registered, (self.qualified,)

    def fake(self, *args: Any) -> Any:
        """The fake implementation: shapes, strides and dtypes of the results, and no values.

        Args:
            args: The arguments of the op; trailing ones with defaults may be left out.

        Returns:
            Tensors without values, or None for an op that returns nothing.

        Raises:
            CallError: A tensor requires grad, tensors are on several devices, or a result is an
                argument. These would not reach the real implementation: a compiled graph takes
                gradients apart first.
        """
        graphs.trace(self.qualified)
        self.dispatcher.check_grad(args)
        check_devices(self.qualified, self.schema, args)
        if self._fake_impl is None:
            return None
        rest = self.schema.args[len(args) :]  # PyTorch leaves out what equals its default
        results = self._fake_impl(*args, *(arg.default for arg in rest))
        check_results(self.qualified, self.schema, args, results)
        return results

    def get_configured_op(self) -> helion.ConfiguredHelionKernel:
        """Return the kernel as Helion has it.

        Returns:
            It, with both of Helion's hooks from this kernel's picker; the same at each call.

        Raises:
            DisabledError: The kernel has no configs on this platform, and may not run without.
        """
        self._check_enabled()
        return self.backend.configured()

    @also_named(generator_func="generator")
    def register_input_generator(self, generator: InputGenerator) -> InputGenerator:
        """Take a function that makes inputs; usable as a decorator.

        Args:
            generator: Returns the arguments of one call for each case. `generator_func` is another
                name of this argument.

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
        from kernelpkg.compile import search

        function, settings = self.raw_kernel_func, self.backend.settings
        return search.run_autotune(function, settings, inputs, autotune_effort)

    def register(self, instead_of: HelionKernelWrapper | None = None) -> None:
        """Put the op into PyTorch and this kernel into the registry.

        It takes the place of a kernel of its own function, whose module or cell was run again.

        Args:
            instead_of: A kernel of this name that is registered, and gives its place.

        Raises:
            RegistrationError: The name is taken; nothing has changed.
        """
        with REGISTERING:
            before = REGISTRY.get(self.qualified)
            if before is not None and before is not instead_of and not self._comes_after(before):
                raise RegistrationError(
                    f"kernel '{self.qualified}' is already registered; choose another name, or "
                    "unload the other"
                )
            problem = torch_ops.name_problem(self.namespace, self.op_name)
            if before is None and problem is not None:
                raise RegistrationError(problem)
            if not self._disabled:
                self._op = RegisteredOp(
                    namespace=self.namespace,
                    name=self.op_name,
                    schema=self.schema.text,
                    implementation=self.dispatcher.implementation(),
                    fake=self.fake,
                    check_grad=self.dispatcher.check_grad,
                    gradient=self._gradient,
                    interface=graphs.interface_of(self.schema.text, self._fake_impl, self.backward),
                    instead_of=None if before is None else before._op,
                )
            elif before is not None:
                before.unregister()
            REGISTRY[self.qualified] = self
            if before is not None:
                before._op = None
                before.start_anew()
        if instead_of is None:
            graphs.drop_stale()

    def _comes_after(self, before: HelionKernelWrapper) -> bool:
        """Whether the function of another kernel is this one's, from before it was run again."""
        if self.spec is not None or before.spec is not None:
            return False
        ours, theirs = self.raw_kernel_func, before.raw_kernel_func
        same = (ours.__module__, ours.__qualname__) == (theirs.__module__, theirs.__qualname__)
        return same and ours is not theirs

    def unregister(self) -> None:
        """Give the name back; harmless where the op is not registered.

        Raises:
            RegistrationError: Another thread is calling the op, and does not end in time.
        """
        with REGISTERING:
            if self._op is not None:
                self._op.close()
                self._op = None
                for follower in tuple(self._followers):
                    follower.forget()
            if REGISTRY.get(self.qualified) is self:
                del REGISTRY[self.qualified]

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

    @property
    def _disabled(self) -> bool:
        return self._disabled_reason is not None

    def _check_enabled(self) -> None:
        if self._disabled:
            raise DisabledError(f"op '{self.qualified}' is disabled: {self._disabled_reason}")
