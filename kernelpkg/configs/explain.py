"""Which config a call gets, and why; without PyTorch, Helion or a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from kernelpkg.configs import platforms, search_path
from kernelpkg.configs.picker import Step
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.selection import Chosen, ConfigPlan, Outcome, read_plan
from kernelpkg.errors import UsageError, suggestion
from kernelpkg.expr.language import DTYPES
from kernelpkg.manifest.cases import Case, guard_problem, needed_axes, show
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
    outcome: Outcome
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
            "trace": [
                {
                    "axis": step.axis,
                    "match": step.match,
                    "value": step.value,
                    "candidates": list(step.candidates),
                    "chosen": step.chosen,
                    "outcome": step.outcome,
                    "text": step.text,
                }
                for step in self.trace
            ],
        }


def explain(
    pack: PackSpec, spec: KernelSpec, platform: str, given: Mapping[str, str]
) -> Explanation:
    """Say what a call with the given axis values, as texts, runs with on a platform.

    Axes that are not given come from `[inputs] default`. Raises UsageError for a platform without
    a name, an axis that the kernel does not have, that has no value, or whose value it cannot
    take, and PackError for config files that are wrong.
    """
    try:
        here = platforms.resolve(platform, extra=pack.platforms, variants=pack.variants)
    except ValueError:
        raise UsageError(
            f"platform '{platform}' is not a name such as nvidia_h200 or cpu"
        ) from None
    if spec.picker is not None:
        raise UsageError(
            f"kernel '{spec.name}' picks with '{spec.picker}', which needs the arguments of a call"
        )
    names = [axis.name for axis in spec.axes]
    axes = {name: _read_axis(spec, name, text) for name, text in given.items()}
    values = {name: axes.get(name, spec.defaults.get(name)) for name in names}
    lacking = [n for n in spec.key_axes if n not in given and n not in spec.defaults]
    if lacking:
        what = f"axes {', '.join(lacking)} have" if len(lacking) > 1 else f"axis {lacking[0]} has"
        raise UsageError(f"{what} no default; give {' '.join(f'{n}=VALUE' for n in lacking)}")
    filled = tuple(n for n in needed_axes(spec) if n not in given and n in spec.defaults)
    known = {name: value for name, value in values.items() if name in given or name in filled}
    plan = read_plan(pack, spec, here)
    refused = guard_problem(spec, Case(values=known, use=(), grid=0))
    options = () if refused is not None else plan.options([values[name] for name in names])
    chosen = next(iter(options), None)
    return Explanation(
        kernel=spec.name,
        platform=here.name,
        axes=known,
        filled=filled,
        outcome="miss" if chosen is None else chosen.outcome,
        chosen=chosen,
        file=_file(pack, spec, chosen),
        reason=_reason(chosen, refused) + _unknown(here, plan),
        trace=plan.trace([values[name] for name in names]),
    )


def _file(pack: PackSpec, spec: KernelSpec, chosen: Chosen | None) -> str | None:
    if chosen is None or chosen.platform is None:
        return None
    place = search_path.locate(pack, spec.name, chosen.platform)
    return None if place is None else place.shown


def _reason(chosen: Chosen | None, refused: str | None) -> str:
    if refused is not None:
        return f"the kernel does not take the call: {refused}"
    return "no config is tuned, and [miss] action is 'error'" if chosen is None else chosen.reason


def _unknown(here: Platform, plan: ConfigPlan) -> str:
    """Point out a platform that is probably misspelt: no GPU that is known, and nothing tuned."""
    if here.arch is not None or here.name == platforms.CPU or plan.tables:
        return ""
    return f"; {platforms.stranger(here.name)}"


def _read_axis(spec: KernelSpec, name: str, text: str) -> Scalar:
    """Read the value of an axis; raises UsageError for one that no call can have."""
    axis = next((axis for axis in spec.axes if axis.name == name), None)
    if axis is None:
        names = [axis.name for axis in spec.axes]
        hint = suggestion(name, names) or f"; it has {', '.join(names)}"
        raise UsageError(f"kernel '{spec.name}' has no axis '{name}'{hint}")
    value = read_value(text)
    grids = [grid for grid in spec.grids if name in grid.axes]
    seen = [value for grid in grids for value in grid.axes[name]]
    seen += [row[name] for grid in spec.grids for row in grid.rows if name in row]
    seen += [spec.defaults[name]] if name in spec.defaults else []
    kinds = {_kind(value) for value in seen}
    kind = _kind(value)
    if value is not None and kinds and kind not in kinds:
        raise UsageError(f"axis '{name}' is '{text}'; it must be {' or '.join(sorted(kinds))}")
    if kind == "the name of a dtype" and value is not None and value not in DTYPES:
        raise UsageError(f"axis '{name}' is '{text}', which is no dtype{suggestion(text, DTYPES)}")
    if not spec.axis_types[name].has(value):
        raise UsageError(f"axis '{name}' is '{text}'; it must be {spec.axis_types[name]}")
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
    text.append(f"outcome: {found.outcome}; {found.reason}")
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
