"""Helion, called with configs of ours: the one module that knows how Helion is asked for a kernel.

Helion finds compiled code by a cache key and, where it has none, asks an autotuner for a config.
Both hooks, `key` and `autotuner_fn`, are made here from one selector, so that the key and the
config can never disagree. Works with Helion 1.4 and 1.5.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Final

import helion
import torch
from attrs import frozen
from helion.autotuner.base_search import BaseAutotuner
from helion.runtime import default_launcher
from helion.runtime.ref_mode import RefMode
from helion.runtime.settings import default_autotuner_fn
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kernelpkg.errors import ConfigError, RegistrationError, suggestion
from kernelpkg.launch.classes import is_far, size_classes
from kernelpkg.manifest.keys import REFUSED_SETTINGS

Selector = Callable[[Sequence[Any]], "Selection"]
"""Takes the arguments of a call and returns what it runs with; raises ConfigError for nothing."""

HELION_VERSION: Final = importlib.metadata.version("helion")

_PRESET: Final = {"static_shapes": False, "force_autotune": False, "autotune_effort": "full"}
"""Settings under which Helion asks `autotuner_fn` and nothing else; the last two keep
HELION_FORCE_AUTOTUNE and HELION_AUTOTUNE_EFFORT=none from going around it."""

PINNED: Final[Mapping[str, Any]] = {"enable_fp_fusion": True}
"""Options of Triton that decide what code computes, and whose defaults change between releases:
Triton 3.10 no longer contracts a product and a sum, which changes every kernel of the first pack.
What is compiled at run time is compiled with the same."""

WORKING: Final = threading.RLock()
"""Held while Helion works: kernels are compiled by several threads, and Helion 1.4 changes a table
of PyTorch meanwhile. It holds Python's own lock for nearly all of that time anyway."""

_IGNORED: Final = ("TensorOperationInWrapper",)
"""Helion warnings that say nothing of a kernel here: views in the host part are the usual form."""


@frozen(kw_only=True)
class Selection:
    """The config of a call: equal ids stand for equal configs; None is Helion's own default."""

    config_id: Hashable
    config: Mapping[str, Any] | None


class PresetConfigSearch(BaseAutotuner):  # type: ignore[misc]  # Helion carries no types
    """An autotuner that searches nothing: it returns the config that the selector names.

    Args:
        args: The arguments of the call that Helion has no compiled code for.
        select: Takes the arguments of a call and returns its helion.Config.
    """

    def __init__(
        self, args: Sequence[Any], select: Callable[[Sequence[Any]], helion.Config]
    ) -> None:
        self.args = args
        self.select = select

    def autotune(self, *, skip_cache: bool = False) -> helion.Config:
        """Return the preset config.

        Args:
            skip_cache: As Helion gives it; there is no cache to skip.

        Returns:
            What `select` says of the arguments.
        """
        return self.select(self.args)


@lru_cache(maxsize=64)
def requires_problem(requires: str) -> str | None:
    """Say that the installed Helion is not what a kernel requires, or return None."""
    try:
        wanted = SpecifierSet(requires)
    except InvalidSpecifier:
        return f"requires '{requires}' is not a version specifier such as '>=1.4'"
    if not wanted.contains(HELION_VERSION, prereleases=True):
        return f"requires Helion {requires}, and {HELION_VERSION} is installed"
    return None


def check_settings(settings: Mapping[str, Any], op_name: str) -> dict[str, Any]:
    """Return settings as Helion takes them; names of warnings become their classes.

    Raises RegistrationError for a setting that kernelpkg makes from the rules, and for one that
    Helion does not have. `static_shapes=True` is overridden, with a warning.
    """
    known = [setting.name for setting in dataclasses.fields(helion.Settings)]
    found = dict(settings)
    for name, value in settings.items():
        if name == "static_shapes":
            if value:
                warnings.warn(
                    f"kernel '{op_name}': static_shapes=True is overridden to False, for one "
                    "compiled kernel serves many token counts",
                    stacklevel=3,
                )
            del found[name]
        elif name == "autotuner_fn" and value is default_autotuner_fn:
            del found[name]
        elif name in REFUSED_SETTINGS:
            raise RegistrationError(
                f"kernel '{op_name}': setting '{name}' is made from the config picker; remove it"
            )
        elif name not in known:
            raise RegistrationError(
                f"kernel '{op_name}': Helion {HELION_VERSION} has no setting '{name}'"
                f"{suggestion(name, known)}"
            )
    ignored = [*_IGNORED, *found.pop("ignore_warnings", ())]
    found["ignore_warnings"] = [_warning(word, op_name) for word in dict.fromkeys(ignored)]
    return found


def _warning(word: Any, op_name: str) -> Any:
    if not isinstance(word, str):
        return word
    found = getattr(helion.exc, word, None)
    if found is None:
        raise RegistrationError(
            f"kernel '{op_name}': ignore_warnings names '{word}', which helion.exc does not have"
            f"{suggestion(word, dir(helion.exc))}"
        )
    return found


def explicit_settings(settings: helion.Settings | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings that differ from Helion's defaults, as keywords."""
    if settings is None:
        return {}
    if not isinstance(settings, helion.Settings):
        return dict(settings)
    default = helion.Settings().to_dict()
    return {name: value for name, value in settings.to_dict().items() if value != default.get(name)}


class ConfiguredHelionKernel:
    """One Helion kernel whose configs come from a selector.

    Calls with equal configs and equal size classes share one compiled kernel, however many cases
    they come from.

    Args:
        op_name: The name of the op, for messages.
        raw_kernel_func: The Helion function, without a decorator.
        select: Takes the arguments of a call and returns the config that it runs with.
        settings: Helion settings, as `check_settings` returns them.
    """

    def __init__(
        self,
        *,
        op_name: str,
        raw_kernel_func: Callable[..., Any],
        select: Selector,
        settings: Mapping[str, Any],
    ) -> None:
        self.op_name = op_name
        self.raw_kernel_func = raw_kernel_func
        self._select = select
        self._forced = threading.local()
        preset = {**settings, **_PRESET}
        hooks = {"key": self.key, "autotuner_fn": self._autotuner, "ref_mode": RefMode.OFF}
        # Helion chooses 32-bit indices from the arguments of the first call; a later view that
        # lies further apart would wrap around, so calls that need 64 bits have their own kernel.
        wide = {"index_dtype": torch.int64}
        self._kernel = helion.kernel(**{**preset, **hooks})(raw_kernel_func)
        self._wide_kernel = helion.kernel(**{**wide, **preset, **hooks})(raw_kernel_func)
        eager = {"ref_mode": RefMode.EAGER, "print_output_code": False}  # it refuses to print
        self._interpreter = helion.kernel(**{**preset, **eager})(raw_kernel_func)

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
            The id of the call's config, and which of its sizes and strides are 0 or 1.
        """
        return (self._selection(args).config_id, size_classes(args))

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
        """
        return self._interpreter(*args)

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
            return kernel.bind(tuple(args))

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
            bound = kernel.bind(tuple(args))
            if bound._run is None:
                self._configure(bound, selection.config)
        if "tensor_descriptor" not in str(bound._config):
            return partial(bound._run, _launcher=partial(default_launcher, **PINNED))

        def launch_aligned(*args: Any) -> Any:
            # The code depends on the alignment of pointers, which Helion looks at per call.
            with WORKING, self._forcing(selection):
                found = kernel.bind(args)
                if found._run is None:
                    self._configure(found, selection.config)
            return found._run(*args, _launcher=partial(default_launcher, **PINNED))

        return launch_aligned

    def _configure(self, bound: Any, config: Mapping[str, Any] | None) -> None:
        try:
            bound.set_config(
                bound.config_spec.default_config() if config is None else to_config(config)
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
                else to_config(selection.config)
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
        kernels = (self._kernel, self._wide_kernel)
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
            config = self.selected_config(args)
            return bound.config_spec.default_config() if config is None else config

        return PresetConfigSearch(args, select)


def to_config(config: Mapping[str, Any]) -> helion.Config:
    """Return a Helion config of a stored one; arrays may be tuples."""
    return helion.Config(**{name: _plain(value) for name, value in config.items()})


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def run_autotune(
    raw_kernel_func: Callable[..., Any],
    settings: Mapping[str, Any],
    inputs: Sequence[Any],
    autotune_effort: str = "quick",
) -> helion.Config:
    """Search a config for one set of inputs, on their device, with Helion's own autotuner.

    `autotune_effort` is "none", "quick" or "full", as in Helion's settings.
    """
    chosen = {
        **settings,
        "static_shapes": False,
        "ref_mode": RefMode.OFF,
        "autotune_effort": autotune_effort,
        "autotune_ignore_errors": True,
    }
    kernel = helion.kernel(**chosen)(raw_kernel_func)
    found = kernel.autotune(tuple(inputs))
    assert isinstance(found, helion.Config)
    return found


def out_of_resources() -> tuple[type[Exception], ...]:
    """The errors by which a launch says that its config needs more than this GPU has."""
    from triton.runtime.errors import OutOfResources  # where nothing is launched, not needed

    return (OutOfResources,)
