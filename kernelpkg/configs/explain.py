"""What one call gets, and why: axis values from the command line, and the answer in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen

from kernelpkg.configs import directories, platforms
from kernelpkg.configs.picker import Step
from kernelpkg.configs.selection import Chosen, ConfigOutcome, read_selection
from kernelpkg.errors import UsageError, quoted, suggestion
from kernelpkg.expr.language import DTYPES, fits
from kernelpkg.manifest.cases import needed_axes, show
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Scalar


@frozen(kw_only=True)
class Explanation:
    """The config of one call, with the steps that led to it.

    `filled` are the axes whose values came from `[inputs] default`. `chosen` is None where no
    config may be used, and `file` where it is a default one.
    """

    kernel: str
    platform: str
    axes: Mapping[str, Scalar]
    filled: tuple[str, ...]
    outcome: ConfigOutcome
    chosen: Chosen | None
    file: str | None
    reason: str
    trace: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `explain --json`."""
        chosen = self.chosen
        return {
            "kernel": self.kernel,
            "platform": self.platform,
            "axes": dict(self.axes),
            "filled": list(self.filled),
            "key": None if chosen is None or chosen.key is None else dict(chosen.key),
            "outcome": self.outcome,
            "config": None if chosen is None or chosen.config is None else dict(chosen.config),
            "tuned_on": None if chosen is None else chosen.platform,
            "file": self.file,
            "reason": self.reason,
            "trace": [asdict(step) for step in self.trace],
        }


def explain(
    pack: PackSpec, spec: KernelSpec, platform: str, given: Mapping[str, str]
) -> Explanation:
    """Say what a call with the given axis values, as texts, runs with on a platform.

    Axes that are not given come from `[inputs] default`. Raises UsageError for a platform that is
    not known, an axis that the kernel does not have, that has no value, or whose value it cannot
    take, and PackError for config files that are wrong.
    """
    here = platforms.platform_of(pack, platform)
    if here.arch is None:  # else it is known, and no directory has to be read for that
        platforms.chosen_platforms(pack, [platform], directories.tuned_platforms(pack))
    if spec.picker is not None:
        raise UsageError(
            f"kernel '{spec.name}' picks with '{spec.picker}', which needs the arguments of a call"
        )
    read = {name: _read_axis(spec, name, text) for name, text in given.items()}
    lacking = [n for n in spec.key_axes if n not in given and n not in spec.defaults]
    if lacking:
        what = f"axes {', '.join(lacking)} have" if len(lacking) > 1 else f"axis {lacking[0]} has"
        raise UsageError(f"{what} no default; give {' '.join(f'{n}=VALUE' for n in lacking)}")
    filled = tuple(n for n in needed_axes(spec) if n not in given and n in spec.defaults)
    values = {**{name: spec.defaults[name] for name in filled}, **read}
    axes = {axis.name: values[axis.name] for axis in spec.axes if axis.name in values}
    selection = read_selection(pack, spec, here)
    found = selection.answer(axes)
    chosen = found.chosen
    origin = None if chosen is None else chosen.platform
    return Explanation(
        kernel=spec.name,
        platform=here.name,
        axes=axes,
        filled=filled,
        outcome="miss" if chosen is None else chosen.outcome,
        chosen=chosen,
        file=None if origin is None else directories.place_of(pack, spec.name, origin).shown,
        reason=found.reason,
        trace=selection.trace([axes.get(axis.name) for axis in spec.axes]),
    )


def _read_axis(spec: KernelSpec, name: str, text: str) -> Scalar:
    """Read the value of an axis; raises UsageError for one that no call can have."""
    if name not in spec.axis_types:
        hint = suggestion(name, spec.axis_types) or f"; it has {', '.join(spec.axis_types)}"
        raise UsageError(f"kernel '{spec.name}' has no axis '{name}'{hint}")
    known = spec.axis_types[name]
    if known.kind == "text" and not (known.absent and text == "none"):
        return text
    value = read_value(text)
    words = {"flag": "true or false", "dtype": "the name of a dtype"}
    wanted = words.get(known.kind or "", "a number")
    if value is not None and _kind(value) != wanted:
        raise UsageError(f"axis '{name}' is '{text}'; it must be {wanted}")
    if isinstance(value, str) and value not in DTYPES:
        raise UsageError(
            f"axis '{name}' is '{text}', which is not a dtype{suggestion(text, DTYPES)}"
        )
    if not known.has(value):
        raise UsageError(f"axis '{name}' is '{text}'; it must be {known}")
    return value


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "the name of a dtype" if isinstance(value, str) else "a number"


def read_value(text: str) -> Scalar:
    """Read an axis value of the command line: true, false, none, a number, or a dtype's name."""
    words: dict[str, Scalar] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if text.lstrip("+-").isdecimal() and (len(text) > 20 or not fits(int(text))):
        raise UsageError(f"{quoted(text)} is a whole number of more than 64 bits")
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text


def lines(found: Explanation) -> list[str]:
    """Return an explanation for people."""
    axes = [
        f"{name}={show(value)}{' (from [inputs] default)' if name in found.filled else ''}"
        for name, value in found.axes.items()
    ]
    text = [f"{found.kernel} on {found.platform}", f"call:    {', '.join(axes) or 'no axes'}"]
    for step in found.trace:
        rule = f"rule:    {step.axis} {step.match}: {show(step.value)} {step.text}"
        other = step.chosen is not None and step.chosen != step.value
        text.append(f"{rule}: {show(step.chosen)}" if other else rule)
    begin = "" if found.reason.startswith(f"{found.outcome} ") else f"{found.outcome}; "
    text.append(f"outcome: {begin}{found.reason}")
    if found.chosen is not None:
        items = (found.chosen.config or {}).items()
        config = ", ".join(f"{name}={_plain(value)}" for name, value in items)
        text.append(f"config:  {config or 'as Helion chooses'}")
    if found.file is not None:
        text.append(f"file:    {found.file}")
    return text


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: lists for tuples."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
