"""Helion, called with configs of ours: the one module that knows how Helion is asked for a kernel.

Helion finds compiled code by a cache key and, where it has none, asks an autotuner for a config.
Both hooks, `key` and `autotuner_fn`, are made here from one selector, so that the key and the
config can never disagree. Works with Helion 1.4 and 1.5.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Final, Protocol

import helion
import torch
from attrs import frozen
from helion.autotuner.base_search import BaseAutotuner
from helion.runtime import default_launcher
from helion.runtime.ref_mode import RefMode

from kernelpkg.bench.gpu import first_gpu
from kernelpkg.compile import absent_gpu, interpreter
from kernelpkg.compile.granted import facts_of
from kernelpkg.compile.settings import (
    HELION_VERSION,
    check_settings,
    create_helion_decorated_kernel,
    explicit_settings,
    requires_problem,
)
from kernelpkg.configs import platforms, store
from kernelpkg.configs.picked import ConfigsDir, PickedPlan, none_picked
from kernelpkg.configs.tuned_key import ConfigPicker, KeyPicker, TunedKey
from kernelpkg.errors import ConfigError, DisabledError
from kernelpkg.launch.classes import is_far, size_classes, truths, untrue
from kernelpkg.locks import make_lock
from kernelpkg.manifest.helion_config import Config, function_tunables

__all__ = (
    "HELION_VERSION", "PINNED", "ConfiguredHelionKernel", "PresetConfigSearch", "Selection",
    "Selector", "TunedConfigs", "check_settings", "complete", "explicit_settings",
    "out_of_resources", "platform_here", "requires_problem", "to_config",
)  # fmt: skip

Selector = Callable[[Sequence[Any]], "Selection"]
"""Takes the arguments of a call and returns what it runs with; raises ConfigError for nothing."""

_PRESET: Final = {"static_shapes": False, "force_autotune": False, "autotune_effort": "full"}
"""Settings under which Helion asks `autotuner_fn` and nothing else; the last two keep
HELION_FORCE_AUTOTUNE and HELION_AUTOTUNE_EFFORT=none from going around it."""

_BACKEND: Final = {"backend": "triton"}
"""What a kernel is compiled by unless its settings say another, whatever HELION_BACKEND does."""

PINNED: Final[Mapping[str, Any]] = {"enable_fp_fusion": True}
"""Options of Triton that decide what code computes, and whose defaults change between releases:
Triton 3.10 no longer contracts a product and a sum, which changes every kernel of the first pack.
What is compiled at run time is compiled with the same."""

WORKING: Final = make_lock()
"""Held while Helion works: kernels are compiled by several threads, and Helion 1.4 changes a table
of PyTorch meanwhile. It holds Python's own lock for nearly all of that time anyway."""


@frozen(kw_only=True)
class Selection:
    """The config of a call: equal ids stand for equal configs; None is Helion's own default."""

    config_id: Hashable
    config: Mapping[str, Any] | None


class PresetConfigSearch(BaseAutotuner):  # type: ignore[misc]  # Helion carries no types
    """An autotuner that searches nothing: it returns the config that the selector names.

    Args:
        args: The arguments of the call that Helion has no compiled code for.
        config_selector: Takes the arguments of a call and returns its helion.Config.
    """

    def __init__(
        self, args: Sequence[Any], config_selector: Callable[[Sequence[Any]], helion.Config]
    ) -> None:
        self.args = args
        self.config_selector = config_selector

    def autotune(self, *, skip_cache: bool = False) -> helion.Config:
        """Return the preset config.

        Args:
            skip_cache: As Helion gives it; there is no cache to skip.

        Returns:
            What `config_selector` says of the arguments.
        """
        return self.config_selector(self.args)


class TunedConfigs(Protocol):
    """What is tuned for a kernel on one platform; a plan of configs is that."""

    @property
    def platform(self) -> str:
        """The platform."""

    @property
    def configs(self) -> Mapping[TunedKey, Config]:
        """Its configs, by their keys."""


def platform_here() -> str:
    """Return the platform of the GPU that this process uses, or "cpu"; CUDA is not started."""
    if torch.cuda.device_count() == 0:
        return platforms.CPU
    gpu = first_gpu(os.environ)
    return platforms.resolve(gpu.called, arch=gpu.arch).name


class ConfiguredHelionKernel:
    """One Helion kernel whose configs come from a picker or from a selector.

    Calls with equal configs and equal size classes share one compiled kernel, however many cases
    they come from.

    Args:
        op_name: The name of the op, for messages.
        config_picker: Takes the arguments of a call and the tuned keys; returns one of these, or
            None for the default config.
        raw_kernel_func: The Helion function, without a decorator.
        helion_settings: A helion.Settings or a mapping.
        configs_dir: Holds `<op>/<platform>.json`, of which the picker takes configs.
        select: In place of a picker: takes the arguments of a call and returns the config that it
            runs with.
        settings: In place of `helion_settings`: as `check_settings` returns them.
        tuned: Beside a selector: what is tuned, for who asks for it.

    Raises:
        ConfigError: There is neither a picker nor a selector, or nothing is tuned for the picker.
        PackError: The file of configs cannot be read.
        RegistrationError: The settings are refused.
    """

    def __init__(
        self,
        op_name: str,
        config_picker: ConfigPicker | None = None,
        raw_kernel_func: Any = None,  # required, but behind one that is not
        helion_settings: helion.Settings | Mapping[str, Any] | None = None,
        *,
        configs_dir: ConfigsDir = None,
        select: Selector | None = None,
        settings: Mapping[str, Any] | None = None,
        tuned: TunedConfigs | None = None,
    ) -> None:
        self.op_name = op_name
        self.config_picker = config_picker
        self.raw_kernel_func: Callable[..., Any] = raw_kernel_func
        self.helion_settings = helion_settings if settings is None else settings
        if settings is None:
            settings = check_settings(explicit_settings(helion_settings), op_name)
        if select is None:
            tuned = PickedPlan(
                op_name,
                config_picker,
                configs_dir,
                platform_here,
                miss="error",
                tunables=partial(function_tunables, raw_kernel_func),
            )
            if tuned.lack is not None:
                raise DisabledError(tuned.lack)
        self._tuned = tuned
        self._settings = settings = {**_BACKEND, **settings}
        self._select = select or self._picked()
        self._forced = threading.local()
        self._facts: dict[Hashable, tuple[str, ...]] = {}
        self._learning = make_lock()
        absent_gpu.tell_sms(raw_kernel_func)

    # These are made when they are needed: Helion starts CUDA for the settings of a kernel, and a
    # process that is forked after that cannot use it.
    @cached_property
    def _kernel(self) -> Any:
        return self._made()

    @cached_property
    def _wide_kernel(self) -> Any:
        # Helion chooses 32-bit indices from the arguments of the first call; a later view that
        # lies further apart would wrap around, so calls that need 64 bits have their own kernel.
        return self._made(index_dtype=torch.int64)

    def _made(self, **settings: Any) -> Any:
        hooks = {"key": self.key, "autotuner_fn": self._autotuner, "ref_mode": RefMode.OFF}
        return create_helion_decorated_kernel(
            self.raw_kernel_func, {**self._settings, **settings}, {**_PRESET, **hooks}
        )

    @cached_property
    def _interpreter(self) -> Any:
        # It refuses to print, and has a default for whatever its config does not name.
        eager = {"ref_mode": RefMode.EAGER, "print_output_code": False, "config": helion.Config()}
        return create_helion_decorated_kernel(
            self.raw_kernel_func, self._settings, {**_PRESET, **eager}
        )

    @property
    def platform(self) -> str:
        """The platform that configs are tuned for; empty where that is not known."""
        return "" if self._tuned is None else self._tuned.platform

    @cached_property
    def configs(self) -> Mapping[TunedKey, helion.Config]:
        """The configs that are tuned for the platform, by their keys."""
        found = {} if self._tuned is None else self._tuned.configs
        return {key: to_config(config) for key, config in found.items()}

    def _create_key_computer(self) -> Callable[..., str | None]:
        """Return a function of the arguments of a call to the text of its key, as vLLM has it."""
        if self.config_picker is None:
            raise DisabledError(
                f"No config picker registered for kernel '{self.op_name}'; give one"
            )
        picker = KeyPicker(self.config_picker, self.op_name, self.configs)

        def key_computer(*args: Any) -> str | None:
            key = picker.pick(args)
            return None if key is None else str(key)

        return key_computer

    def _create_config_selector(
        self, key_computer: Callable[..., str | None]
    ) -> Callable[[Sequence[Any]], helion.Config]:
        """Return a function of the arguments of a call to its config, as vLLM has it."""
        configs = {str(key): config for key, config in self.configs.items()}

        def config_selector(args: Sequence[Any]) -> helion.Config:
            text = key_computer(*args)
            if text is None:
                raise ConfigError(none_picked(self.op_name, self.configs))
            return configs[text]

        return config_selector

    def _picked(self) -> Selector:
        config_of = self._create_config_selector(self._create_key_computer())

        def select(args: Sequence[Any]) -> Selection:
            config = config_of(args)
            return Selection(config_id=store.config_id(dict(config)), config=config)

        return select

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call through Helion, with both hooks.

        Args:
            args: The arguments of the Helion function, on one GPU.
            kwargs: Those that are given by name.

        Returns:
            What the function returns.

        Raises:
            ConfigError: No config may be used for the call.
        """
        given = self._kernel.normalize_args(*args, **kwargs)
        return self._kernel_for(given)(*given)

    def key(self, *args: Any) -> Hashable:
        """Return the part of Helion's cache key that is ours.

        Args:
            args: The arguments of a call.

        Returns:
            The id of the call's config, which of its sizes and strides are 0 or 1, and which facts
            are true of it that code was seen to take for granted of calls with such sizes.
        """
        sizes = size_classes(args)
        facts = self._facts.get(sizes, ())
        return (self._selection(args).config_id, sizes, truths(facts, args))

    def selected_config(self, args: Sequence[Any]) -> helion.Config | None:
        """Return the config that a call runs with.

        Args:
            args: The arguments of the call.

        Returns:
            The config, or None for Helion's own default.

        Raises:
            ConfigError: No config may be used for the call.
        """
        config = self._selection(args).config
        return None if config is None else to_config(config)

    def interpret(self, *args: Any) -> Any:
        """Run a call in Helion's interpreter, on the device of its tensors.

        Args:
            args: The arguments of the Helion function.

        Returns:
            What the function returns.

        Raises:
            NotInterpreted: The interpreter cannot run something of the function.
        """
        return interpreter.interpret(self._interpreter, self.raw_kernel_func.__code__, args)

    def bind(self, args: Sequence[Any], *, far: bool = False) -> Any:
        """Return what Helion makes of a call before it has a config; nothing is compiled.

        Args:
            args: The arguments of the call.
            far: Whether indices have 64 bits though those of the arguments need 32.

        Returns:
            Helion's BoundKernel, which is good for every config.
        """
        kernel = self._wide_kernel if far else self._kernel_for(args)
        with WORKING, self._forcing(Selection(config_id=None, config=None)):
            return self._bound_for(kernel, args)

    def launcher(self, args: Sequence[Any], selection: Selection) -> Callable[..., Any]:
        """Compile a call with a given selection and return what launches it.

        Args:
            args: The arguments of the call.
            selection: The config to compile it with.

        Returns:
            A function of the arguments, for calls with the shapes, strides, dtypes and scalars of
            `args` only.

        Raises:
            ConfigError: Helion refuses the config.
        """
        kernel = self._kernel_for(args)
        with WORKING, self._forcing(selection):
            bound = self._bound_for(kernel, args)
            if bound._run is None:
                self._configure(bound, selection.config)
        if "tensor_descriptor" not in str(bound._config):
            return partial(bound._run, _launcher=partial(default_launcher, **PINNED))

        def launch_aligned(*args: Any) -> Any:
            # The code depends on the alignment of pointers, which Helion looks at per call.
            with WORKING, self._forcing(selection):
                found = self._bound_for(kernel, args)
                if found._run is None:
                    self._configure(found, selection.config)
            return found._run(*args, _launcher=partial(default_launcher, **PINNED))

        return launch_aligned

    def _bound_for(self, kernel: Any, args: Sequence[Any]) -> Any:
        """Return what Helion makes of a call; it keeps that by the facts that are known so far."""
        while True:
            before = self._facts.get(size_classes(args))
            bound = kernel.bind(tuple(args))
            if not untrue(self._learn(bound, args), args):
                return bound
            assert self._facts.get(size_classes(args)) != before  # or it is bound to no such call

    def _learn(self, bound: Any, args: Sequence[Any]) -> Mapping[str, bool]:
        """Return what a bound kernel takes for granted; calls of which it is not true get another
        key from now on."""
        if facts := facts_of(bound):
            sizes = size_classes(args)
            with self._learning:  # Helion asks for configs in several threads
                known = self._facts.get(sizes, ())
                self._facts[sizes] = (*known, *(fact for fact in facts if fact not in known))
        return facts

    def _configure(self, bound: Any, config: Mapping[str, Any] | None) -> None:
        try:
            bound.set_config(
                bound.config_spec.default_config() if config is None else complete(bound, config)
            )
        except helion.exc.InvalidConfig as error:
            raise self._refused(config, error) from None

    def _refused(self, config: Mapping[str, Any] | None, error: Exception) -> ConfigError:
        text = " ".join(str(error).split())
        return ConfigError(
            f"kernel '{self.op_name}': Helion {HELION_VERSION} refuses the config {config}: {text}"
        )

    def host_part(self, bound: Any, selection: Selection) -> Callable[..., Any]:
        """Have Helion make the module of a config.

        Args:
            bound: What `bind` returned.
            selection: The config.

        Returns:
            The host part of the module, which takes `_launcher` too.

        Raises:
            ConfigError: Helion refuses the config.
        """
        with WORKING:
            config = (
                bound.config_spec.default_config()
                if selection.config is None
                else complete(bound, selection.config)
            )
            try:
                found: Callable[..., Any] = bound.compile_config(config)
            except helion.exc.InvalidConfig as error:
                raise self._refused(selection.config, error) from None
        return found

    def compiled_count(self) -> int:
        """Return how many kernels were compiled so far, for calls through Helion.

        Returns:
            A count over both index widths.
        """
        made = vars(self)
        kernels = [made[name] for name in ("_kernel", "_wide_kernel") if name in made]
        bound = [found for kernel in kernels for found in kernel._bound_kernels.values()]
        return len({id(found) for found in bound if found._run is not None})

    def _kernel_for(self, args: Sequence[Any]) -> Any:
        """Return the kernel that can address all elements of a call.

        Helion takes 64-bit indices where a tensor has 2**31 elements; a view of fewer elements
        can lie as far apart.
        """
        tensors = (arg for arg in args if isinstance(arg, torch.Tensor))
        far = any(is_far(arg.shape, arg.stride()) for arg in tensors)
        return self._wide_kernel if far else self._kernel

    def _selection(self, args: Sequence[Any]) -> Selection:
        forced: Selection | None = getattr(self._forced, "selection", None)
        return self._select(args) if forced is None else forced

    @contextmanager
    def _forcing(self, selection: Selection) -> Iterator[None]:
        """Let both hooks answer with one selection, in this thread."""
        self._forced.selection = selection
        try:
            yield
        finally:
            self._forced.selection = None

    def _autotuner(self, bound: Any, args: Sequence[Any], **_: Any) -> PresetConfigSearch:
        def select(args: Sequence[Any]) -> helion.Config:
            given = self.selected_config(args)
            config = bound.config_spec.default_config() if given is None else complete(bound, given)
            bound.compile_config(config)  # as Helion would: it may have to know more of the call
            self._learn(bound, args)
            return config

        return PresetConfigSearch(args, select)


def to_config(config: Mapping[str, Any]) -> helion.Config:
    """Return a Helion config of a stored one, whose arrays may be tuples."""
    if isinstance(config, helion.Config):
        return config
    return helion.Config(**{name: _plain(value) for name, value in config.items()})


def complete(bound: Any, config: Mapping[str, Any]) -> helion.Config:
    """Return a config with the default of each field that the kernel registers and it has not.

    Helion has defaults for its own fields, and fails with a KeyError for others.
    """
    registered = bound.config_spec.user_defined_tunables
    lacking = {name: registered[name].default() for name in registered if name not in config}
    return to_config({**lacking, **config} if lacking else config)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def out_of_resources() -> tuple[type[Exception], ...]:
    """The errors by which a launch says that its config needs more than this GPU has."""
    from triton.runtime.errors import OutOfResources  # where nothing is launched, not needed

    return (OutOfResources,)
