"""`register_kernel`: an op of a Helion function, without a manifest.

Before: whoever has such a function, written for vLLM maybe. After: `register`, which makes the op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from kernelpkg.configs.picked import ConfigsDir, Miss
from kernelpkg.configs.tuned_key import ConfigPicker
from kernelpkg.errors import shown
from kernelpkg.runtime.register import NAMESPACE, HelionKernelWrapper, InputGenerator
from kernelpkg.runtime.registry import also_named


@overload
def register_kernel(
    op_name: Callable[..., Any],
    /,
    *,
    config_picker: ConfigPicker | None = None,
    fake_impl: Callable[..., Any] | None = None,
    mutates_args: Sequence[str] | None = None,
    helion_settings: Any = None,
    input_generator: InputGenerator | None = None,
    namespace: str = NAMESPACE,
    configs_dir: ConfigsDir = None,
    miss: Miss = "default",
) -> HelionKernelWrapper: ...
@overload
def register_kernel(
    op_name: str | None = None,
    *,
    config_picker: ConfigPicker | None = None,
    fake_impl: Callable[..., Any] | None = None,
    mutates_args: Sequence[str] | None = None,
    helion_settings: Any = None,
    input_generator: InputGenerator | None = None,
    namespace: str = NAMESPACE,
    configs_dir: ConfigsDir = None,
    miss: Miss = "default",
) -> Callable[[Callable[..., Any]], HelionKernelWrapper]: ...
@also_named(op_name_or_func="op_name")
def register_kernel(
    op_name: str | Callable[..., Any] | None = None,
    *,
    config_picker: ConfigPicker | None = None,
    fake_impl: Callable[..., Any] | None = None,
    mutates_args: Sequence[str] | None = None,
    helion_settings: Any = None,
    input_generator: InputGenerator | None = None,
    namespace: str = NAMESPACE,
    configs_dir: ConfigsDir = None,
    miss: Miss = "default",
) -> HelionKernelWrapper | Callable[[Callable[..., Any]], HelionKernelWrapper]:
    """Register a Helion function as an op, without a manifest.

    A decorator, bare or with arguments, and a function that takes the Helion function and the same
    arguments.

    Args:
        op_name: The name of the op, the function's unless given; or the Helion function itself.
            `op_name_or_func` is another name of this argument.
        config_picker: Takes the arguments of a call and the tuned keys, sorted by their texts;
            returns one of these or its text, or None for the default.
        fake_impl: Has the arguments of the function and returns tensors of the results' shapes and
            dtypes; inferred from the host part where the function returns something.
        mutates_args: The names of the arguments that are written.
        helion_settings: A helion.Settings or a mapping; `key`, `autotuner_fn`, `config` and
            `configs` in it are refused, and `static_shapes` is False.
        input_generator: Returns the arguments of one call for each case.
        namespace: The op is `torch.ops.<namespace>.<op_name>`.
        configs_dir: Holds `<op>/<platform>.json` in the format of docs/reference/configs.md, or in
            vLLM's.
        miss: What calls get that no config is tuned for: "default", Helion's default config; or
            "error", as in vLLM, and an op that nothing is tuned for on this platform is disabled.

    Returns:
        The registered kernel, or a decorator that makes one of a function.

    Raises:
        PackError: The file of configs cannot be read.
        RegistrationError: The name is taken, or the signature or the settings are refused.
    """

    def decorate(function: Callable[..., Any]) -> HelionKernelWrapper:
        name = None if callable(op_name) else op_name
        return HelionKernelWrapper(
            function,
            name or str(getattr(function, "__name__", shown(function))),
            fake_impl,
            config_picker,
            mutates_args,
            helion_settings,
            input_generator,
            namespace=namespace,
            configs_dir=configs_dir,
            miss=miss,
        )

    return decorate(op_name) if callable(op_name) else decorate
