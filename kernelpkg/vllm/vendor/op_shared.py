"""What vendored ops share in vLLM: how a call gets its case key, and results their tolerances.

kernelpkg runs nothing of this file itself: `op_picker.write_shared` copies it into vLLM's tree,
with what it needs of `configs`. What is copied has lines of 88 columns.
"""

from __future__ import annotations

import math
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

_UNKNOWN: Final[Any] = object()


def rule_picker(
    rules: tuple[Rule, ...],
    axes: Axes,
    ones: tuple[str, ...] = (),
) -> Callable[[tuple[Any, ...], Sequence[Key]], Key | None]:
    """Return what picks the key of a call: each rule narrows the tuned keys by an axis.

    `ones` are axes that are sizes; those without a rule come last in what `axes` gives.
    What Helion compiles where one of them is 1 is wrong for larger sizes, and vLLM
    tells compiled code apart by key alone. So no key serves both, and calls without a
    tuned key have a default of their own where a size is 1. A size of 0 counts as 2:
    what is compiled for larger sizes launches nothing for it.
    """
    names = [*dict.fromkeys([*(rule.axis for rule in rules), *ones])]
    # One name for all that goes together: threads may ask with other keys meanwhile.
    last: tuple[Any, ...] = (None, (), None, {})

    def pick(args: tuple[Any, ...], config_keys: Sequence[Key]) -> Key | None:
        """Return the key that a call runs with, or None for the default one, {}."""
        nonlocal last
        values = axes(args)
        asked, tuned, picker, answers = last
        if asked is not config_keys:  # vLLM never changes a list, so identity will do
            rows: dict[tuple[Scalar, ...], Key] = {}
            for key in _tuned(config_keys):
                rows.setdefault(tuple(key[rule.axis] for rule in rules), key)
            tuned, answers = [*rows.values()], {}
            picker = Picker(rules, [*enumerate(rows)])
            last = config_keys, tuned, picker, answers
        found: Key | None = answers.get(values, _UNKNOWN)
        if found is _UNKNOWN:
            facts = _sized(dict(zip(names, values, strict=True)), ones)
            index = picker.pick(tuple(facts.values())[: len(rules)]).index
            none = index is None
            found = _default(config_keys, facts, ones) if none else tuned[index]
            if len(answers) >= MEMO_LIMIT:
                answers.clear()
            answers[values] = found
        return found

    return pick


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
            fits = ((key[axis] == 1) == (facts[axis] == 1) for axis in ones)
            if key == best and all(fits):
                return key
        return _default(config_keys, facts, ones)

    return pick


def _tuned(config_keys: Sequence[Key]) -> list[Key]:
    return [key for key in config_keys if key and _DEFAULT not in key]


def _sized(facts: dict[str, Scalar], ones: tuple[str, ...]) -> dict[str, Scalar]:
    """Return the axes of a call, with 2 for a size of 0."""
    return facts | {axis: 2 for axis in ones if facts[axis] == 0}


def _default(
    config_keys: Sequence[Key],
    facts: Mapping[str, Scalar],
    ones: tuple[str, ...],
) -> Key | None:
    """Return the key of the default entry for calls with the same sizes of 1."""
    found = {axis: 1 for axis in ones if facts[axis] == 1}
    wanted = {_DEFAULT: True, **found}
    return next((key for key in config_keys if found and key == wanted), None)


def refuse_split(op: str, arg: str, leading: Sequence[int]) -> None:
    """Refuse leading sizes of which one is 1: keys know no more than their product."""
    if 1 in leading and math.prod(leading) != 1:
        raise ValueError(
            f"{op}: flatten {arg}; what is compiled where one of its leading sizes is "
            "1 is wrong for others"
        )


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
