"""What vendored ops share in vLLM: how a call gets its case key, and results their tolerances.

kernelpkg runs nothing of this file itself: `op_picker.write_shared` copies it into vLLM's tree,
with what it needs of `configs`. What is copied has lines of 88 columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import torch

from kernelpkg.configs.picker import MEMO_LIMIT, Picker
from kernelpkg.manifest.spec import Rule, Scalar

Axes = Callable[[tuple[Any, ...]], tuple[Scalar, ...]]
"""Reads out of the arguments of a call the axes of the rules, in their order."""

Key = TypeVar("Key", bound=Mapping[str, Any])

_DEFAULT: Final = "default"
"""What marks the keys of default entries, beside the sizes that are 1."""

_UNASKED: Final[Any] = (None, None)


def rule_picker(
    rules: tuple[Rule, ...],
    axes: Axes,
    answers: dict[Any, Any],
    ones: tuple[str, ...] = (),
) -> Callable[[tuple[Any, ...], Sequence[Key]], Key | None]:
    """Return what picks the key of a call: each rule narrows the tuned keys by an axis.

    An axis that a key does not name matches any value; keys that name more axes come
    first. `answers` remembers, by the axes of a call, the list of keys and the one that
    was picked. `ones` are axes that are sizes; those without a rule come last in what
    `axes` gives. What Helion compiles where one of them is 1 is wrong for larger sizes,
    and vLLM tells compiled code apart by key alone. So a size of 1 reaches only keys
    that name it, and calls without a tuned key have a default of their own there. A
    size of 0 counts as 2: what is compiled for larger sizes launches nothing for it.
    """
    names = [*dict.fromkeys([*(rule.axis for rule in rules), *ones])]
    # One name for all that goes together: threads may ask with other keys meanwhile.
    last: tuple[Any, dict[tuple[bool, ...], list[Any]]] = (None, {})

    def pick(args: tuple[Any, ...], config_keys: Sequence[Key]) -> Key | None:
        """Return the key that a call runs with, or None for the default one, {}."""
        nonlocal last
        values = axes(args)
        asked, found = answers.get(values, _UNASKED)
        if asked is config_keys:  # vLLM never changes a list, so identity will do
            key: Key | None = found
            return key
        keys, pickers = last
        if keys is not config_keys:
            pickers = _pickers(rules, ones, config_keys)
            last = config_keys, pickers
        facts = _sized(dict(zip(names, values, strict=True)), ones)
        for named, tuned, picker in pickers.get(_class(facts, ones), ()):
            index = picker.pick(tuple(facts[axis] for axis in named)).index
            if index is not None:
                key = tuned[index]
                break
        else:
            key = _default(config_keys, facts, ones)
        if len(answers) >= MEMO_LIMIT:
            answers.clear()
        answers[values] = config_keys, key
        return key

    return pick


def _pickers(
    rules: tuple[Rule, ...],
    ones: tuple[str, ...],
    config_keys: Sequence[Key],
) -> dict[tuple[bool, ...], list[Any]]:
    """Return for each class of sizes of 1 its pickers: axes, keys, and rules over them.

    There is one for each set of axes that keys name, that of the most axes first.
    """
    groups: dict[Any, dict[tuple[Scalar, ...], Key]] = {}
    for key in _tuned(config_keys):
        named = tuple(rule.axis for rule in rules if rule.axis in key)
        rows = groups.setdefault((_class(key, ones), named), {})
        rows.setdefault(tuple(key[axis] for axis in named), key)
    found: dict[tuple[bool, ...], list[Any]] = {}
    for kind, named in sorted(groups, key=lambda group: -len(group[1])):
        rows = groups[kind, named]
        narrowing = [rule for rule in rules if rule.axis in named]
        picker = Picker(narrowing, [*enumerate(rows)])
        found.setdefault(kind, []).append((named, [*rows.values()], picker))
    return found


def own_picker(
    choose: Callable[[Any, Any], Any],
    axes: Axes | None = None,
    ones: tuple[str, ...] = (),
) -> Callable[[tuple[Any, ...], Sequence[Key]], Key | None]:
    """Return what picks as a function of the kernel says, which gets the tuned keys.

    Its answer counts where it is one of them, and fits the call's sizes of 1.
    """

    def pick(args: tuple[Any, ...], config_keys: Sequence[Key]) -> Key | None:
        """Return the key that a call runs with, or None for the default one, {}."""
        values = axes(args) if axes is not None else ()
        facts = _sized(dict(zip(ones, values, strict=True)), ones)
        keys = _tuned(config_keys)
        best = choose(args, keys) if keys else None
        for key in keys:
            if key == best and _class(key, ones) == _class(facts, ones):
                return key
        return _default(config_keys, facts, ones)

    return pick


def _tuned(config_keys: Sequence[Key]) -> list[Key]:
    return [key for key in config_keys if key and _DEFAULT not in key]


def _sized(facts: dict[str, Scalar], ones: tuple[str, ...]) -> dict[str, Scalar]:
    """Return the axes of a call, with 2 for a size of 0."""
    return facts | {axis: 2 for axis in ones if facts[axis] == 0}


def _class(values: Mapping[str, Any], ones: tuple[str, ...]) -> tuple[bool, ...]:
    """Return which sizes of a call, or of a key, are 1."""
    return tuple(values.get(axis) == 1 for axis in ones)


def _default(
    config_keys: Sequence[Key],
    facts: Mapping[str, Scalar],
    ones: tuple[str, ...],
) -> Key | None:
    """Return the key of the default entry for calls with the same sizes of 1.

    Raises ValueError where there is none but that of larger sizes, {}.
    """
    found = {axis: 1 for axis in ones if facts[axis] == 1}
    wanted = {_DEFAULT: True, **found}
    key = next((key for key in config_keys if found and key == wanted), None)
    if found and key is None and not all(config_keys):
        raise ValueError(
            f"no config is for calls with {' and '.join(found)} of 1, and code for "
            f"larger sizes is not theirs; add one with the key {json.dumps(wanted)}"
        )
    return key


class AccuracyCheck:
    """Raises AssertionError where a config's results are too far from the baseline's.

    `tolerances` are, by dtype, the relative and the absolute one, and at None those of
    all other dtypes. Codes are compared as numbers; bit by bit, as Helion does it, 0
    and -0 are far apart.
    """

    def __init__(
        self,
        tolerances: Mapping[torch.dtype | None, tuple[float, float]],
    ) -> None:
        self.tolerances = tolerances

    def __call__(self, actual: Any, expected: Any) -> None:
        """Compare what a config returns or has written with what the baseline does."""
        if isinstance(actual, torch.Tensor):
            actual, expected = [actual], [expected]
        for got, want in zip(actual or (), expected or (), strict=True):
            if isinstance(got, torch.Tensor):
                other = self.tolerances[None]
                rtol, atol = self.tolerances.get(got.dtype, other)
                torch.testing.assert_close(
                    got.float(), want.float(), rtol=rtol, atol=atol, equal_nan=True
                )
