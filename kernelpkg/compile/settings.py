"""Helion's settings of a kernel: what they may be, and a kernel of Helion's made with them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import helion
import torch
from helion.runtime.settings import default_autotuner_fn
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kernelpkg.errors import RegistrationError, shown, suggestion
from kernelpkg.manifest.keys import REFUSED_SETTINGS

HELION_VERSION: Final = importlib.metadata.version("helion")

_IGNORED: Final = ("TensorOperationInWrapper",)
"""Helion warnings that say nothing of a kernel here: views in the host part are the usual form."""


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
    """Return settings as Helion takes them; names of warnings and dtypes become these.

    Raises RegistrationError for a setting that kernelpkg makes from the rules, and for one that
    Helion does not have. `static_shapes=True` is overridden, with a warning.
    """
    known = [setting.name for setting in dataclasses.fields(helion.Settings)]
    found = dict(settings)
    for name, value in settings.items():
        if name == "static_shapes":
            if value:
                warnings.warn(
                    f"kernel '{op_name}': static_shapes=True is overridden to False, because one "
                    "compiled kernel serves many token counts",
                    stacklevel=3,
                )
            del found[name]
        elif name == "autotuner_fn" and value is default_autotuner_fn:
            del found[name]
        elif name in REFUSED_SETTINGS:
            raise RegistrationError(
                f"kernel '{op_name}' uses a custom autotuner, for which setting '{name}' is made "
                "from the config picker; remove it"
            )
        elif name not in known:
            raise RegistrationError(
                f"kernel '{op_name}': Helion {HELION_VERSION} has no setting '{name}'"
                f"{suggestion(name, known)}"
            )
    if found.get("index_dtype") is not None:
        found["index_dtype"] = _index_dtype(found["index_dtype"], op_name)
    ignored = [*_IGNORED, *found.pop("ignore_warnings", ())]
    found["ignore_warnings"] = [_warning(word, op_name) for word in dict.fromkeys(ignored)]
    return found


def _index_dtype(value: Any, op_name: str) -> torch.dtype:
    known = {"int32": torch.int32, "int64": torch.int64}
    word = str(value).removeprefix("torch.")
    if word not in known:
        raise RegistrationError(
            f"kernel '{op_name}': index_dtype is {shown(value)}; Helion takes {' and '.join(known)}"
        )
    return known[word]


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
    given = _given(settings)
    if settings is None or isinstance(settings, Mapping):
        return dict(given)
    default = helion.Settings().to_dict()
    return {name: value for name, value in given.items() if value != default.get(name)}


def _given(settings: helion.Settings | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return settings as keywords, the defaults of a helion.Settings too."""
    if settings is None or isinstance(settings, Mapping):
        return settings or {}
    try:
        found: Mapping[str, Any] = settings.to_dict()
    except AttributeError:
        message = "give a helion.Settings, a mapping or None"
        raise RegistrationError(f"helion_settings is {shown(settings)}; {message}") from None
    return found


def validate_helion_settings(
    helion_settings: helion.Settings | Mapping[str, Any] | None, op_name: str
) -> None:
    """Refuse settings that a kernel cannot have, as vLLM's function of this name.

    A warning says that `static_shapes=True`, which is Helion's default, is overridden.

    Args:
        helion_settings: A helion.Settings, a mapping or None.
        op_name: The name of the op, for messages.

    Raises:
        RegistrationError: A setting is made from the config picker, or Helion does not have it.
    """
    check_settings(_given(helion_settings), op_name)


def create_helion_decorated_kernel(
    raw_kernel_func: Callable[..., Any],
    helion_settings: helion.Settings | Mapping[str, Any] | None = None,
    extra_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Return a kernel of Helion's, whose sizes are arguments of its code.

    Args:
        raw_kernel_func: The Helion function, without a decorator.
        helion_settings: A helion.Settings, a mapping or None.
        extra_kwargs: Further settings, which go before those.

    Returns:
        The helion.Kernel.

    Raises:
        RegistrationError: The settings are none.
    """
    chosen = {**explicit_settings(helion_settings), "static_shapes": False, **(extra_kwargs or {})}
    return helion.kernel(**chosen)(raw_kernel_func)
