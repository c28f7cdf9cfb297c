"""The cases of a kernel that a command is asked for: those with some values of axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kernelpkg.errors import UsageError, suggestion
from kernelpkg.manifest.cases import Case, show
from kernelpkg.manifest.spec import KernelSpec


def read_wanted(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read --axis options; values of one axis that is given twice add up. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for text in texts:
        axis, equals, values = text.partition("=")
        listed = [value.strip() for value in values.split(",")]
        if not equals or not axis or not all(listed):
            raise UsageError(f"'{text}' is not of the form AXIS=VALUE[,VALUE]")
        found.setdefault(axis, []).extend(listed)
    return found


def with_cases(
    specs: Sequence[KernelSpec],
    wanted: Mapping[str, Sequence[str]],
    cases: Callable[[KernelSpec], Sequence[Case]],
    what: str,
) -> list[KernelSpec]:
    """Return the kernels that have cases with the wanted values; all where nothing is wanted.

    `cases` are those of a kernel, and `what` they are for. Raises UsageError for a value that no
    kernel has.
    """
    able = [spec for spec in specs if wanted.keys() <= {axis.name for axis in spec.axes}]
    found = []
    errors: list[UsageError] = []
    for spec in able or specs:
        try:
            wanted_cases(spec, cases(spec), wanted, what)
            found.append(spec)
        except UsageError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    return found


def wanted_cases(
    spec: KernelSpec, cases: Sequence[Case], wanted: Mapping[str, Sequence[str]], what: str
) -> list[Case]:
    """Return the cases with the wanted values, in their order.

    Raises UsageError for an axis that the kernel does not have, and for a value that no case has.
    """
    for axis, values in wanted.items():
        known = [name.name for name in spec.axes]
        if axis not in known:
            raise UsageError(f"'{spec.name}' has no axis '{axis}'{suggestion(axis, known)}")
        there = list(dict.fromkeys(show(case.values.get(axis)) for case in cases))
        for value in values:
            if value not in there:
                raise UsageError(
                    f"no case for {what} '{spec.name}' has {axis}={value}; there are "
                    f"{', '.join(there)}"
                )
    return [case for case in cases if all(_has(case, *item) for item in wanted.items())]


def _has(case: Case, axis: str, values: Sequence[str]) -> bool:
    return axis in case.values and show(case.values[axis]) in values
