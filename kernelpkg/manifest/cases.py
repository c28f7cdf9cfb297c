"""The cases of a kernel: its grids, multiplied out into axis values."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from attrs import frozen

from kernelpkg.errors import KernelpkgError
from kernelpkg.expr.language import Expr, compile_exprs, without_value
from kernelpkg.manifest.inits import init_problem, takes_numbers
from kernelpkg.manifest.keys import INTERPRET
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Grid, KernelSpec, Reference, Scalar

MAX_CASES: Final = 10_000
"""How many cases a kernel may have; each of those for tuning costs minutes on a GPU."""


_QUICK: Final = 1 << 20
"""The most elements of a further case that a smoke check runs: some ms in the interpreter."""


class CaseProblem(KernelpkgError, ValueError):
    """A grid that does not make cases; carries the code of its problem."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@frozen(kw_only=True)
class Case:
    """Axis values to make inputs for, what they are for, and the grid that they come from."""

    values: Mapping[str, Scalar]
    use: tuple[str, ...]
    grid: int

    def __str__(self) -> str:
        return ", ".join(f"{name}={show(value)}" for name, value in self.values.items())

    def key(self, spec: KernelSpec) -> tuple[Scalar, ...]:
        """The values of the axes that a case key names, in the order of the rules."""
        return tuple(self.values[axis] for axis in spec.key_axes)

    def ones(self) -> int:
        """How many sizes are 1."""
        return sum(type(value) is int and value == 1 for value in self.values.values())

    def size(self) -> float:
        """A measure of how large the inputs are: the product of the whole numbers but 0."""
        return math.prod(abs(v) for v in self.values.values() if type(v) is int and v != 0)


def is_empty(spec: KernelSpec, case: Case) -> bool:
    """Whether a size of a case is 0; a number that the op takes may be, as a shift by nothing."""
    return any(type(n) is int and n == 0 for n in map(case.values.get, spec.size_axes))


def weight(spec: KernelSpec, case: Case) -> float:
    """How large the inputs of a case are, as `Case.size` says, and 0 for none."""
    return 0 if is_empty(spec, case) else case.size()


def show(value: Scalar) -> str:
    """Return an axis value as TOML spells it, without quotes; an absent one is `none`."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def count(grid: Grid) -> int:
    """How many cases a grid has, without making them."""
    return len(grid.rows) * math.prod(len(values) for values in grid.axes.values())


def expand(spec: KernelSpec, grid: int, needed: Sequence[str] | None = None) -> list[Case]:
    """Multiply out one grid of a kernel; raises CaseProblem where a case lacks an axis.

    `needed` are `needed_axes` of the kernel, for whoever has them.
    """
    table = spec.grids[grid]
    needed = needed_axes(spec) if needed is None else needed
    cases = []
    for row in table.rows:
        base = {**spec.defaults, **dict.fromkeys(table.axes), **row}
        lacking = [axis for axis in needed if axis not in base]
        if lacking:
            raise CaseProblem(
                "KP141",
                f"cases have no value for axis '{lacking[0]}'; give it in the grid or in "
                "[inputs] default",
            )
        ordered = {axis.name: base[axis.name] for axis in spec.axes if axis.name in base}
        for product in itertools.product(*table.axes.values()):
            values = ordered.copy()
            values.update(zip(table.axes, product, strict=True))
            cases.append(Case(values=values, use=table.use, grid=grid))
    return cases


def cases_of(spec: KernelSpec, use: str) -> tuple[Case, ...]:
    """The distinct cases of a kernel for one use ("tune", "test" or "bench"), in grid order."""
    found: dict[tuple[Any, ...], Case] = {}
    for grid, table in enumerate(spec.grids):
        if use in table.use:
            for case in expand(spec, grid):
                # By their texts, for True == 1 == 1.0, and each of them is a case of its own.
                found.setdefault(tuple(map(repr, case.values.values())), case)
    return tuple(found.values())


def cases_for_tests(spec: KernelSpec, *, interpret: bool) -> tuple[Case, ...]:
    """The cases for tests: where calls are interpreted, of the grids for that, if there are any."""
    return (cases_of(spec, INTERPRET) if interpret else ()) or cases_of(spec, "test")


def smallest_case(spec: KernelSpec, *, interpret: bool = False) -> Case:
    """The smallest case that can show a mistake, of those for tests if there are any.

    Empty inputs show none, and a size of one hides many: a sum over the wrong dimension, a row
    that was not written, a factor that cancels.
    """
    cases = _any(spec, interpret=interpret)
    return min(cases, key=lambda case: (is_empty(spec, case), case.ones(), case.size()))


def _any(spec: KernelSpec, *, interpret: bool) -> tuple[Case, ...]:
    return cases_for_tests(spec, interpret=interpret) or tuple(
        case for grid in range(len(spec.grids)) for case in expand(spec, grid)
    )


def smoke_cases(spec: KernelSpec, *, interpret: bool = False) -> tuple[Case, ...]:
    """The smallest case that can show a mistake, and one with more sizes of one, if it is quick.

    Code for sizes of one is other code: what fails for one token alone is shown by no other case.
    """
    first = smallest_case(spec, interpret=interpret)
    cases = _any(spec, interpret=interpret)
    ones = min(cases, key=lambda case: (is_empty(spec, case), -case.ones(), case.size()))
    if ones.ones() <= first.ones() or case_elements(spec, ones) > _QUICK:
        return (first,)
    return (first, ones)


def needed_axes(spec: KernelSpec) -> tuple[str, ...]:
    """The axes that inputs and case keys are made from, and results are checked by."""
    names = {name for expr in input_exprs(spec) for name in expr.names()} | set(spec.key_axes)
    shares = (item.zeros for item in spec.properties.values() if item.zeros is not None)
    names |= {name for share in shares for name in share.names()}
    return tuple(axis.name for axis in spec.axes if axis.name in names)


def input_exprs(spec: KernelSpec) -> Iterator[Expr]:
    """Every expression that the arguments of a kernel are made from."""
    for arg in spec.args:
        for variant in arg.variants:
            yield from variant_exprs(variant)


def variant_exprs(variant: ArgVariant) -> Iterator[Expr]:
    """Every expression of one variant of an argument, in a fixed order."""
    yield from (dim.expr for dim in variant.shape or ())
    yield from (stride for stride in variant.strides or () if stride is not None)
    bounds = (variant.low, variant.high, variant.total)
    for expr in (variant.when, variant.dtype, variant.value, *bounds):
        if expr is not None:
            yield expr


def uses_function(spec: KernelSpec) -> bool:
    """Whether some argument is filled by a function, which gets all axes."""
    return any(isinstance(variant.init, Reference) for arg in spec.args for variant in arg.variants)


def guard_problem(spec: KernelSpec, case: Case) -> str | None:
    """Say which guard refuses a case, or return None; guards over tensors are for calls."""
    return next((wrong for _, _, wrong in guard_problems(spec, [case])), None)


def guard_problems(
    spec: KernelSpec, cases: Iterable[Case], evaluate: Evaluator | None = None
) -> Iterator[tuple[Case, Expr, str]]:
    """Yield (case, guard, what is wrong) for each case that a guard refuses; the first guard.

    `evaluate` is for whoever asks about cases of one kernel more than once.
    """
    evaluate = evaluate or Evaluator()
    for case in cases:
        values = case.values
        try:
            if all(evaluate.each(spec.guards, values)):
                continue
        except ArithmeticError:
            pass
        for guard in spec.guards:
            if not values.keys() >= set(guard.names()):
                continue
            try:
                wrong = None if evaluate(guard, values) else "refuses it"
            except ArithmeticError as error:
                wrong = without_value(error)
            if wrong is not None:
                yield case, guard, f"guard '{guard.text}' {wrong}"
                break


class Evaluator:
    """Values of expressions over the axis values of cases, each expression compiled once.

    It knows expressions by their identity, so it lives no longer than their kernel.
    """

    def __init__(self) -> None:
        self._made: dict[object, Callable[..., tuple[Any, ...]]] = {}

    def __call__(self, expr: Expr, values: Mapping[str, Scalar]) -> Any:
        """Return the value of one expression; raises ArithmeticError."""
        if expr.name is not None:  # the usual one; a name that is not an axis is a dtype
            return values.get(expr.name, expr.name)
        read = self._made.get((id(expr), *values)) or self._make(expr, (expr,), values)
        return read(*values.values())[0]

    def each(self, exprs: tuple[Expr, ...], values: Mapping[str, Scalar]) -> tuple[Any, ...]:
        """Return the values of those that read nothing but axes; raises ArithmeticError."""
        read = self._made.get((id(exprs), *values))
        if read is None:
            over = tuple(expr for expr in exprs if values.keys() >= set(expr.names()))
            read = self._make(exprs, over, values)
        return read(*values.values())

    def variant(self, arg: ArgSpec, case: Case) -> ArgVariant | None:
        """Return the variant of an argument that a case takes, or None where it is not given."""
        for variant in arg.variants:
            if variant.when is None or self(variant.when, case.values):
                return variant
        return None

    def _make(
        self, what: object, exprs: tuple[Expr, ...], values: Mapping[str, Scalar]
    ) -> Callable[..., tuple[Any, ...]]:
        """Compile expressions in which an axis may be absent, which makes them False."""
        names = tuple(values)
        read = compile_exprs(exprs, names, nullable=frozenset(names), absent=False)
        self._made[(id(what), *names)] = read
        return read


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


@frozen(kw_only=True)
class TensorFacts:
    """A tensor as expressions see one: what it is, without its values."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    def numel(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def stride(self, place: int) -> int:
        """How many elements lie between two along a dimension."""
        return self.strides[place]

    def is_contiguous(self) -> bool:
        """Whether its elements lie one behind the other; along sizes of 1 no step is made."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step and self.numel():
                return False
            step *= size
        return True


def call_of(
    spec: KernelSpec, case: Case, evaluate: Evaluator, read: Collection[str] | None = None
) -> tuple[Any, ...]:
    """Return the arguments of a case by [args], as expressions see them.

    Those that are not `read` are None, where some are named.
    Raises TypeError, ValueError or ArithmeticError where one cannot be made.
    """
    found: list[Any] = []
    for arg in spec.args:
        needed = read is None or arg.name in read
        variant = evaluate.variant(arg, case) if needed else None
        if variant is None or variant.shape is None or variant.dtype is None:
            value = None if variant is None else variant.value
            found.append(None if value is None else evaluate(value, case.values))
            continue
        shape = tuple(int(evaluate(dim.expr, case.values)) for dim in variant.shape)
        strides = strides_of(shape, variant, case.values, evaluate)
        dtype = str(evaluate(variant.dtype, case.values))
        found.append(TensorFacts(shape=shape, strides=strides, dtype=dtype))
    return tuple(found)


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
            if takes_numbers(variant):
                bound = partial(value_of, values=case.values)
                wrong = init_problem(variant, shape, dtype, bound)
                if wrong is not None:
                    raise CaseProblem("KP133", f"case {case}: argument '{arg.name}' {wrong}")
        except (TypeError, ArithmeticError) as error:
            wrong = without_value(error) if isinstance(error, ArithmeticError) else str(error)
            message = f"argument '{arg.name}': {wrong}"
            raise CaseProblem("KP133", f"case {case}: {message}") from None
        steps = zip(shape, strides, strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in steps) if all(shape) else 0
        yield TensorSize(name=arg.name, elements=math.prod(shape), bytes=span * element_size(dtype))


def strides_of(
    shape: tuple[int, ...],
    variant: ArgVariant,
    values: Mapping[str, Scalar],
    evaluate: Evaluator,
    *,
    dense: bool = False,
    gap: int = 0,
) -> tuple[int, ...]:
    """Return strides in elements: as the manifest says, and padded where it says "*".

    `dense` makes those as small as they can be: along one element, where no step is made, 1. With a
    `gap` of elements they are larger than they have to be, as of a part of a wider tensor.
    """
    if variant.strides is None:
        return tuple(
            math.prod(max(1, size) for size in shape[at + 1 :]) for at in range(len(shape))
        )
    strides = [None if s is None else int(evaluate(s, values)) for s in variant.strides]
    span = max([1, *(n * s for n, s in zip(shape, strides, strict=True) if s is not None)])
    found = []
    for size, stride in reversed(list(zip(shape, strides, strict=True))):
        if stride is None:
            stride = _free_stride(size, span, dense=dense) + gap  # noqa: PLW2901
            span = max(span, stride * size)
        found.append(stride)
    return tuple(reversed(found))


def _free_stride(size: int, span: int, *, dense: bool) -> int:
    if dense:
        return span if size > 1 else 1
    return -(-span // _ALIGN) * _ALIGN


def element_size(dtype: str) -> int:
    """The bytes of one element of a dtype, which its name tells."""
    digits = re.search(r"\d+", dtype)
    return 1 if digits is None else max(1, int(digits[0]) // 8)


def shown_bytes(count: float) -> str:
    """Return a number of bytes as people read it."""
    if count >= 2**63:  # beyond what an op can take, and maybe beyond floats
        return "more than 8 EiB"
    if count < 1024:
        return f"{count:.0f} bytes"
    power = next((n for n in range(1, 4) if count < 1024 ** (n + 1)), 4)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
