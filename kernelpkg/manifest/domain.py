"""Which values an axis can have in a call, by its expression and the op's schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from kernelpkg.expr.intervals import ANY, FLAGS, WHOLE, Range, Value, extent
from kernelpkg.expr.language import DTYPES
from kernelpkg.expr.types import ValueType, infer
from kernelpkg.manifest.kernel import scope_of
from kernelpkg.manifest.spec import Axis, KernelSpec, Scalar

_WORDS: Final[Mapping[ValueType, str]] = {
    "flag": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "dtype": "the name of a dtype",
}


@frozen(kw_only=True)
class Domain:
    """The values that calls can have of one axis; `kind` is None where that is not known.

    `low` is the least of its numbers, None where there is none. `optional` axes may be absent.
    """

    kind: ValueType | None
    low: int | None
    optional: bool

    def has(self, value: Scalar) -> bool:
        """Whether a call can have a value."""
        if value is None:
            return self.optional
        if isinstance(value, bool):
            return self.kind in (None, "flag")
        if isinstance(value, str):
            return self.kind in (None, "dtype") and value in DTYPES
        if self.kind not in (None, "number") and (self.kind != "whole" or type(value) is not int):
            return False
        return self.low is None or value >= self.low

    def __str__(self) -> str:
        what = "a value" if self.kind is None else _WORDS[self.kind]
        what += "" if self.low is None else f", {self.low} or more"
        return f"{what}, or none" if self.optional else what


def domains(spec: KernelSpec) -> dict[str, Domain]:
    """Return the domain of each axis of a kernel."""
    return {axis.name: _domain(spec, axis) for axis in spec.axes}


def _domain(spec: KernelSpec, axis: Axis) -> Domain:
    scope = scope_of(spec.schema, {})
    kind = infer(axis.expr, scope)[0]
    values: dict[str, Value] = dict.fromkeys(scope.optional, ANY)
    for name, scalar in scope.scalars.items():
        values.setdefault(name, FLAGS if scalar == "flag" else WHOLE)
    found = extent(axis.expr, values)
    low = found.low if isinstance(found, Range) and kind in ("whole", "number") else None
    read = scope.optional.intersection(axis.expr.names())
    return Domain(
        kind=kind,
        low=low if isinstance(low, int) else None,
        optional=bool(read) and axis.expr.tested is None,
    )
