"""Which config a call gets, and why; without PyTorch, Helion or a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from kernelpkg import platforms
from kernelpkg.cases import Case, guard_problem, needed_axes, show
from kernelpkg.errors import UsageError, suggestion
from kernelpkg.fallback import Chosen, Outcome, read_plan
from kernelpkg.picker import Step
from kernelpkg.spec import KernelSpec, PackSpec, Scalar


@frozen(kw_only=True)
class Explanation:
    """The config of one call, with the steps that led to it.

    `filled` are the axes whose values came from `[inputs] default`. `chosen` is None where no
    config may be used.
    """

    kernel: str
    platform: str
    axes: Mapping[str, Scalar]
    filled: tuple[str, ...]
    outcome: Outcome
    chosen: Chosen | None
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

    Axes that are not given come from `[inputs] default`. Raises UsageError for an axis that the
    kernel does not have or that has no value, and PackError for config files that are wrong.
    """
    here = platforms.resolve(platform, extra=pack.platforms, variants=pack.variants)
    names = [axis.name for axis in spec.axes]
    for name in given:
        if name not in names:
            hint = suggestion(name, names) or f"; it has {', '.join(names)}"
            raise UsageError(f"kernel '{spec.name}' has no axis '{name}'{hint}")
    if spec.picker is not None:
        raise UsageError(
            f"kernel '{spec.name}' picks with '{spec.picker}', which needs the arguments of a call"
        )
    axes: dict[str, Scalar] = {name: read_value(text) for name, text in given.items()}
    values = {name: axes.get(name, spec.defaults.get(name)) for name in names}
    for name in spec.key_axes:
        if name not in given and name not in spec.defaults:
            raise UsageError(f"axis '{name}' has no default; give {name}=VALUE")
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
        reason=_reason(chosen, refused),
        trace=plan.trace([values[name] for name in names]),
    )


def _reason(chosen: Chosen | None, refused: str | None) -> str:
    if refused is not None:
        return f"the kernel does not take the call: {refused}"
    return "no config is tuned, and [miss] action is 'error'" if chosen is None else chosen.reason


def read_value(text: str) -> Scalar:
    """Read an axis value of the command line: true, false, none, a number, or a dtype's name."""
    words: dict[str, Scalar] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def lines(found: Explanation) -> list[str]:
    """Return an explanation for people."""
    axes = [
        f"{name}={show(value)}{' (default)' if name in found.filled else ''}"
        for name, value in found.axes.items()
    ]
    text = [f"{found.kernel} on {found.platform}: {', '.join(axes)}"]
    for step in found.trace:
        text.append(f"  {step.axis} = {show(step.value)}  [{step.match}]  {step.text}")
    text.append(f"outcome: {found.outcome}; {found.reason}")
    if found.chosen is not None and found.chosen.config is not None:
        config = ", ".join(f"{name}={value}" for name, value in found.chosen.config.items())
        text.append(f"config:  {config}")
    return text
