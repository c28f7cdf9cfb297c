"""How much memory the inputs of a case take, by [args] alone: nothing is allocated to find out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator
from kernelpkg.manifest.spec import ArgVariant, KernelSpec, Scalar

_ALIGN: Final = 4
"""Strides that may be anything are padded to this many elements, as TMA-aligned scales are."""

_WORK: Final = 72
"""Bytes that a comparison takes per element of a tensor: it is made in float64 and int64, and holds
values, differences and masks of both sides at once."""


@frozen(kw_only=True)
class TensorSize:
    """The memory of one tensor argument: what its elements span, and how many those are."""

    name: str
    elements: int
    bytes: int


def case_bytes(spec: KernelSpec, case: Case) -> int:
    """Return the bytes of the tensor arguments of one call; raises CaseProblem as `sizes` does."""
    return sum(size.bytes for size in sizes(spec, case))


def case_elements(spec: KernelSpec, case: Case) -> int:
    """Return the elements of all tensor arguments of one call; raises CaseProblem."""
    return sum(size.elements for size in sizes(spec, case))


def check_bytes(spec: KernelSpec, case: Case) -> int:
    """Return about what holding a case against its reference takes at once; raises CaseProblem.

    Two sets of arguments, and the comparison of the largest tensor.
    """
    found = list(sizes(spec, case))
    largest = max((size.elements for size in found), default=0)
    return 2 * sum(size.bytes for size in found) + _WORK * largest


def sizes(spec: KernelSpec, case: Case, evaluate: Evaluator | None = None) -> Iterator[TensorSize]:
    """Yield the sizes of the tensor arguments that a case has.

    Raises CaseProblem for an argument that cannot be made for the case: no variant, a size that is
    no whole number from 0 on, or a division by zero.
    """
    value_of = evaluate or Evaluator()
    for arg in spec.args:
        schema = spec.schema.arg(arg.name)
        try:
            variant = value_of.variant(arg, case)
            if variant is None:
                if not schema.optional:
                    message = f"no variant of argument '{arg.name}' is for it"
                    raise CaseProblem("KP133", f"case {case}: {message}")
                continue
            if variant.shape is None or variant.dtype is None:
                if variant.value is not None:
                    value_of(variant.value, case.values)
                continue
            shape = tuple(value_of(dim.expr, case.values) for dim in variant.shape)
            if any(type(size) is not int or size < 0 for size in shape):
                message = f"argument '{arg.name}' would have shape {list(shape)}"
                raise CaseProblem("KP133", f"case {case}: {message}")
            strides = strides_of(shape, variant, case.values, value_of)
            dtype = str(value_of(variant.dtype, case.values))
        except (TypeError, ZeroDivisionError) as error:
            wrong = "divides by zero" if isinstance(error, ZeroDivisionError) else str(error)
            message = f"argument '{arg.name}': {wrong}"
            raise CaseProblem("KP133", f"case {case}: {message}") from None
        steps = zip(shape, strides, strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in steps) if all(shape) else 0
        yield TensorSize(name=arg.name, elements=math.prod(shape), bytes=span * _width(dtype))


def strides_of(
    shape: tuple[int, ...], variant: ArgVariant, values: Mapping[str, Scalar], evaluate: Evaluator
) -> tuple[int, ...]:
    """Return strides in elements: as the manifest says, and padded where it says nothing."""
    if variant.strides is None:
        return tuple(
            math.prod(max(1, size) for size in shape[at + 1 :]) for at in range(len(shape))
        )
    strides = [None if s is None else int(evaluate(s, values)) for s in variant.strides]
    span = max([1, *(n * s for n, s in zip(shape, strides, strict=True) if s is not None)])
    found = []
    for size, stride in reversed(list(zip(shape, strides, strict=True))):
        if stride is None:
            stride = -(-span // _ALIGN) * _ALIGN  # noqa: PLW2901  # free, so it is chosen here
            span = max(span, stride * size)
        found.append(stride)
    return tuple(reversed(found))


def _width(dtype: str) -> int:
    """The bytes of one element of a dtype, which its name tells."""
    digits = re.search(r"\d+", dtype)
    return 1 if digits is None else max(1, int(digits[0]) // 8)


def shown_bytes(count: float) -> str:
    """Return a number of bytes as people read it."""
    if count < 1024:
        return f"{count:.0f} bytes"
    power = next((n for n in range(1, 4) if count < 1024 ** (n + 1)), 4)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
