"""The cases of a kernel that a command is asked for: those with some values of axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

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
    *,
    named: bool = False,
) -> tuple[list[KernelSpec], list[str]]:
    """Return the kernels that have cases with the wanted values, and notes on those left out.

    `cases` are those of a kernel, and `what` they are for. All kernels are kept where nothing is
    wanted. Of several values of an axis a kernel needs one. Raises UsageError for an axis or a
    value that no kernel has, where no kernel is left, and, where kernels are `named`, for one that
    would be left out.
    """
    able = [spec for spec in specs if wanted.keys() <= {*_axes(spec)}]
    if specs and not able:
        raise UsageError(_no_axis(specs, [*wanted]))
    without: dict[str, list[str]] = {}
    for spec in specs:
        if missing := [f"'{axis}'" for axis in wanted if axis not in _axes(spec)]:
            without.setdefault(" or ".join(missing), []).append(spec.name)
    if named and without:
        raise UsageError(_no_axis([spec for spec in specs if spec not in able], [*wanted]))
    found: dict[KernelSpec, Sequence[Case]] = {}
    errors: list[UsageError] = []
    for spec in able:
        grid = cases(spec)
        try:
            wanted_cases(spec, grid, wanted, what)
            found[spec] = grid
        except UsageError as error:
            errors.append(error)
    if errors and (named or not found):
        raise errors[0]
    _check_values(found, wanted, what)
    notes = [f"left out: {', '.join(ops)} (no axis {axes})" for axes, ops in without.items()]
    return [*found], [*notes, *(f"left out: {error}" for error in errors)]


def _check_values(
    grids: Mapping[KernelSpec, Sequence[Case]], wanted: Mapping[str, Sequence[str]], what: str
) -> None:
    """Raise UsageError for a value that no case of any kernel has."""
    for axis, values in wanted.items():
        there = dict.fromkeys(value for grid in grids.values() for value in _values(grid, axis))
        for value in values:
            if value not in there:
                raise UsageError(_no_value([*grids], axis, [value], there, what))


def _values(cases: Sequence[Case], axis: str) -> list[str]:
    return list(dict.fromkeys(show(case.values.get(axis)) for case in cases))


def _no_value(
    specs: Sequence[KernelSpec], axis: str, values: Sequence[str], there: Iterable[str], what: str
) -> str:
    of = f" '{specs[0].name}'" if len(specs) == 1 else ""
    return f"no case for {what}{of} has {axis}={' or '.join(values)}; there are {', '.join(there)}"


def _axes(spec: KernelSpec) -> list[str]:
    return [axis.name for axis in spec.axes]


def _no_axis(specs: Sequence[KernelSpec], wanted: Sequence[str]) -> str:
    """Say why no kernel has all axes that are wanted."""
    known = dict.fromkeys(axis for spec in specs for axis in _axes(spec))
    for axis in wanted:
        if axis not in known:
            has = f"'{specs[0].name}' has no" if len(specs) == 1 else "no op has an"
            return f"{has} axis '{axis}'{suggestion(axis, known)}"
    axes = " and ".join(f"'{axis}'" for axis in wanted)
    return f"no op has the axes {axes} together; give the axes of one op at a time"


def wanted_cases(
    spec: KernelSpec, cases: Sequence[Case], wanted: Mapping[str, Sequence[str]], what: str
) -> list[Case]:
    """Return the cases with the wanted values, in their order.

    Raises UsageError for an axis that the kernel does not have, and where no case has one of its
    values.
    """
    for axis, values in wanted.items():
        known = _axes(spec)
        if axis not in known:
            raise UsageError(f"'{spec.name}' has no axis '{axis}'{suggestion(axis, known)}")
        there = _values(cases, axis)
        if not {*values} & {*there}:
            raise UsageError(_no_value([spec], axis, values, there, what))
    return [case for case in cases if all(_has(case, *item) for item in wanted.items())]


def _has(case: Case, axis: str, values: Sequence[str]) -> bool:
    return axis in case.values and show(case.values[axis]) in values
