"""[args] and [inputs] to plain Python: what vLLM makes the arguments of a vendored op with.

`make_case_inputs` makes those of one call; `generate_inputs` loops over the cases for tuning.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from attrs import frozen

from kernelpkg.expr.language import DTYPES, Expr
from kernelpkg.expr.types import ValueType
from kernelpkg.manifest.cases import Case, cases_of, expand, needed_axes, uses_function
from kernelpkg.manifest.inits import takes_numbers
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Grid, KernelSpec, Reference, Scalar
from kernelpkg.vllm.vendor.op_code import (
    STEP,
    WIDTH,
    AxisCode,
    Doc,
    Group,
    assign,
    call,
    collection,
    flat,
    lay,
    literal,
    python,
    unhidden,
)

_RUN: Final = 4
"""How many values of one step a range takes the place of, in a list that is too long for a line."""

_TAKEN: Final = frozenset(
    {"Any", "CaseKey", "args", "axes", "device", "generator", "getattr", "inputs", "key", "max"}
    | {"make_case_inputs", "product", "range", "torch", "tuple"}
)
"""Names that the code of both generators uses itself."""

_TYPES: Final[Mapping[ValueType, str]] = {
    "flag": "bool", "whole": "int", "number": "float", "dtype": "str", "text": "str",
}  # fmt: skip
_DRAWN: Final = frozenset({"float64", "float32", "float16", "bfloat16"})
"""The dtypes that torch draws random numbers of."""


def tupled(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' * (len(items) == 1)})"


@frozen
class Made:
    """How a value is made: an expression, and a method that is called on what it gives."""

    first: Doc
    then: Doc = ""

    def flat(self) -> str:
        return flat(self.first) + flat(self.then)

    def assigned(self, name: str, indent: int) -> list[str]:
        """Return the lines that give it a name; in one statement where a line holds that."""
        if not self.then:
            return assign(name, self.first, indent)
        if indent + len(f"{name} = {self.flat()}") <= WIDTH:
            return assign(name, self.flat(), indent)
        return [
            *assign(name, self.first, indent),
            *lay(self.then, indent, before=f"{name} = {name}"),
        ]


class CaseInputsWriter:
    """Writes the function that makes the arguments of one case.

    `axes` are its parameters, `names` what these and the arguments of the op are called in it.
    """

    def __init__(
        self, spec: KernelSpec, codes: Mapping[str, AxisCode], taken: frozenset[str]
    ) -> None:
        """Take what may not be hidden: `taken` are the names of the file that it goes into."""
        self.spec = spec
        self.codes = codes
        self.whole = spec.generator is not None or uses_function(spec)
        needed = {*needed_axes(spec), *spec.key_axes}
        self.axes = [axis.name for axis in spec.axes if self.whole or axis.name in needed]
        self.names = unhidden((*self.axes, *spec.schema.arg_names), _TAKEN | taken)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the function."""
        params = []
        for axis in sorted(self.axes, key=lambda axis: axis in self.spec.defaults):
            kind = _TYPES[self.codes[axis].type] + " | None" * self.codes[axis].nullable
            default = self.spec.defaults.get(axis, ...)
            given = "" if default is ... else f" = {literal(default)}"
            params.append(f"{self.names[axis]}: {kind}{given}")
        star = ["*"] if params else []
        head = call("def make_case_inputs", "device: str", *star, *params)
        yield from lay(head, after=" -> tuple[Any, ...]:")
        yield '    """Return the arguments of a call with these facts, in order."""'
        if self.whole:
            axes = [f'"{axis}": {self.names[axis]}' for axis in self.axes]
            yield from assign("axes", collection("{}", axes))
            yield "    generator = torch.Generator(device)"
        if self.spec.generator is not None:
            made = f"{self.spec.generator.name}(axes, generator, torch.device(device))"
            yield f"    return tuple({made})"
            return
        values: dict[str, str] = {}
        for arg in self.spec.args:
            lines, values[arg.name] = self._argument(arg, values)
            yield from lines
        line = f"    return {', '.join(values.values())}"
        if len(values) > 1 and len(line) <= WIDTH:
            yield line
        else:
            yield from lay(collection("()", values.values()), STEP, before="return ")

    def _argument(self, arg: ArgSpec, before: Mapping[str, str]) -> tuple[list[str], str]:
        """Return the lines that make an argument, and what stands for it in the result."""
        schema = self.spec.schema.arg(arg.name)
        if not arg.variants:
            return [], "None"
        first = arg.variants[0]
        if first.when is None and first.value is not None and _short(first.value.tree):
            return [], self._scalar(first.value, floating=schema.type == "float")
        name = self.names[arg.name]
        branches: list[tuple[str, Made]] = []
        otherwise = Made("None")
        for variant in arg.variants:
            if variant.value is not None:
                value = Made(self._scalar(variant.value, floating=schema.type == "float"))
            else:
                value = self._tensor(variant, before, written=schema.mutated)
            if variant.when is None:
                otherwise = value
            else:
                branches.append((self._condition(variant.when), value))
        return list(_choice(name, branches, otherwise)), name

    def _condition(self, when: Expr) -> str:
        """Return a condition, which does not hold where it reads an axis that is absent."""
        code = python(when, self.names)
        absent = [n for n in when.names() if n in self.codes and self.codes[n].nullable]
        if when.tested is not None or not absent:
            return code
        inner = f"({code})" if isinstance(when.tree, ast.BoolOp) else code
        return " and ".join([*(f"{self.names[name]} is not None" for name in absent), inner])

    def _scalar(self, value: Expr, *, floating: bool) -> str:
        code = python(value, self.names)
        if not floating:
            return code
        try:
            return repr(float(code))
        except ValueError:
            return f"float({code})"

    def _tensor(self, variant: ArgVariant, before: Mapping[str, str], *, written: bool) -> Made:
        """Return what makes a tensor."""
        init = variant.init
        if isinstance(init, Reference):
            made = [f'"{name}": {value}' for name, value in before.items()]
            return Made(call(init.name, "axes", collection("{}", made), "generator"))
        assert variant.shape is not None and variant.dtype is not None
        if init is None:
            init = "empty" if written else "randn"
        sizes = [python(dim.expr, self.names) for dim in variant.shape]
        dtype = python(variant.dtype, self.names, dtypes=True)
        strides = self._strides(variant, sizes)
        if strides is None:
            return self._filled(variant, init, sizes, dtype)
        shape, kind = tupled(sizes), [f"dtype={dtype}", "device=device"]
        strided = call("torch.empty_strided", shape, tupled(strides), *kind)
        if init == "empty":
            return Made(strided)
        drawn = dtype if takes_numbers(variant) else "torch.float32"
        values = self._filled(variant, init, sizes, drawn)
        return Made(strided, call(".copy_", values.flat()))

    def _drawn(self, dtype: Expr | None) -> bool:
        """Whether torch draws random numbers of a dtype, in every case."""
        assert dtype is not None
        cases = (*cases_of(self.spec, "tune"), *cases_of(self.spec, "test"))
        found = {str(case.values.get(dtype.text)) for case in cases}
        return ({dtype.text} if dtype.text in DTYPES else found) <= _DRAWN

    def _filled(
        self, variant: ArgVariant, init: str | float, sizes: Sequence[str], dtype: str
    ) -> Made:
        """Return what makes a contiguous tensor with its values."""
        kind, shape, listed = [f"dtype={dtype}", "device=device"], tupled(sizes), sizes or ["()"]
        if isinstance(init, int | float):
            return Made(call("torch.full", shape, repr(init), *kind))
        if init in ("empty", "zeros", "ones"):
            return Made(call(f"torch.{init}", *listed, *kind))
        if init == "arange":
            count = " * ".join(map(_factor, sizes)) or "1"
            view = "" if len(sizes) == 1 else call(".view", *listed)
            return Made(call("torch.arange", count, *kind), view)
        if takes_numbers(variant):
            return self._whole(variant, sizes, dtype)
        function = "torch.rand" if init == "uniform" else "torch.randn"
        if dtype == "torch.float32" or self._drawn(variant.dtype):
            return Made(call(function, *listed, *kind))
        return Made(call(function, *listed, "device=device"), call(".to", dtype))

    def _whole(self, variant: ArgVariant, sizes: Sequence[str], dtype: str) -> Made:
        """Return what makes whole numbers, as `bench/inputs.fill` does."""
        kind, shape = (f"dtype={dtype}", "device=device"), tupled(sizes)
        exprs = (variant.low, variant.high, variant.total)
        low, high, total = ("" if e is None else python(e, self.names) for e in exprs)
        if variant.init == "permutation":
            count = " * ".join(map(_factor, sizes)) or "1"
            view = "" if len(sizes) == 1 else flat(call(".view", *(sizes or ["()"])))
            cut = f"[:{count}]" if high else ""
            return Made(call("torch.randperm", high or count, *kind), cut + view)
        if variant.init == "offsets":
            inner = (f"{_factor(total)} + 1", f"({sizes[0]} - 2,)", *kind)
            starts = Group("torch.randint(", inner, ").sort().values")
            ends = call("torch.zeros", "1", *kind), call("torch.full", "(1,)", total, *kind)
            return Made(call("torch.cat", collection("()", (ends[0], starts, ends[1]))))
        if variant.init == "packed":
            return self._packed(variant, sizes, dtype, low, high)
        drawn = call("torch.randint", *((low,) if low else ()), high, shape, *kind)
        return Made(drawn, ".sort().values" if variant.init == "sorted" else "")

    def _packed(
        self, variant: ArgVariant, sizes: Sequence[str], dtype: str, low: str, high: str
    ) -> Made:
        """Return what makes packed codes; those of all bits are any whole numbers."""
        assert variant.bits is not None
        width = f"8 * {dtype}.itemsize"
        if not low and not high:
            facts = f"torch.iinfo({dtype})"
            ends = (f"{facts}.min", f"{facts}.max + 1")
            return Made(
                call("torch.randint", *ends, tupled(sizes), f"dtype={dtype}", "device=device")
            )
        high = high or str(1 << variant.bits - 1)
        shape = tupled([*sizes, f"{width} // {variant.bits}"])
        codes = call("torch.randint", low or "0", high, shape, "device=device")
        bits = call("torch.bitwise_and", codes, str((1 << variant.bits) - 1))
        places = call("torch.arange", "0", width, str(variant.bits), "device=device")
        shifted = call("torch.bitwise_left_shift", bits, places)
        return Made(call("torch.sum", shifted, "-1"), f".to({dtype})")

    def _strides(self, variant: ArgVariant, sizes: Sequence[str]) -> list[str] | None:
        """Return strides in elements, or None where the tensor may be contiguous.

        A stride that may be anything is chosen as small as can be, from the last one on.
        """
        if variant.strides is None:
            return None
        given = [None if s is None else python(s, self.names) for s in variant.strides]
        if {*given[:-1]} <= {None} and given[-1:] in ([], [None], ["1"]):
            return None
        spans = [_times(size, s) for size, s in zip(sizes, given, strict=True) if s is not None]
        span = spans[0] if len(spans) == 1 else f"max({', '.join(spans)})"
        found = []
        for size, stride in reversed(list(zip(sizes, given, strict=True))):
            found.append(span if stride is None else stride)
            if stride is None:
                span = _times(span, size)
        return found[::-1]


def _short(tree: ast.expr) -> bool:
    """Whether a value is short enough to stand among the arguments."""
    if isinstance(tree, ast.UnaryOp):
        return isinstance(tree.operand, ast.Constant)
    return isinstance(tree, ast.Constant | ast.Name)


def _factor(code: str) -> str:
    return code if code.isidentifier() or code.isdigit() else f"({code})"


def _times(left: str, right: str) -> str:
    if "1" in (left, right):
        return right if left == "1" else left
    return f"{_factor(left)} * {_factor(right)}"


def _choice(name: str, branches: Sequence[tuple[str, Made]], otherwise: Made) -> Iterator[str]:
    """Assign the value of the first condition that holds; in one line where that holds it."""
    if not branches:
        yield from otherwise.assigned(name, STEP)
        return
    if len(branches) == 1:
        ((when, value),) = branches
        line = f"    {name} = {value.flat()} if {when} else {otherwise.flat()}"
        if len(line) <= WIDTH:
            yield line
            return
    absent = otherwise == Made("None")
    if absent:
        yield f"    {name} = None"
    for place, (when, value) in enumerate(branches):
        yield f"    {'elif' if place else 'if'} {when}:"
        yield from value.assigned(name, 2 * STEP)
    if not absent:
        yield "    else:"
        yield from otherwise.assigned(name, 2 * STEP)


def write_inputs(
    spec: KernelSpec,
    codes: Mapping[str, AxisCode],
    taken: frozenset[str],
    theirs: Mapping[str, str] = {},
) -> list[str]:
    """Write the functions that make the arguments of one case, and of every case for tuning.

    `codes` are the axes, `taken` the names of the file that the functions go into, `theirs` vLLM's
    names of axes by ours. They may use `product` of itertools.
    """
    writer = CaseInputsWriter(spec, codes, taken)
    lines = [*writer.lines(), "", ""]
    lines += [
        "def generate_inputs() -> dict[CaseKey, tuple[Any, ...]]:",
        '    """Return the arguments of every case that is tuned, by its key."""',
        '    device = "cuda" if torch.cuda.is_available() else "cpu"',
        "    inputs: dict[CaseKey, tuple[Any, ...]] = {}",
    ]
    seen: set[tuple[str, ...]] = set()
    for place, grid in enumerate(spec.grids):
        if "tune" in grid.use:
            keys = _keys(spec, place, writer.axes)
            again = len({*keys}) < len(keys) or not seen.isdisjoint(keys)
            lines += _loop(writer, grid, theirs, again=again)
            seen |= {*keys}
    return [*lines, "    return inputs"]


def _keys(spec: KernelSpec, place: int, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the keys of a grid's cases, once for cases of the same inputs."""
    found: dict[tuple[str, ...], Case] = {}
    for case in expand(spec, place):
        found.setdefault(tuple(repr(case.values[axis]) for axis in axes), case)
    return [tuple(map(repr, case.key(spec))) for case in found.values()]


def _loop(
    writer: CaseInputsWriter, grid: Grid, theirs: Mapping[str, str], *, again: bool
) -> Iterator[str]:
    """Yield the loop over a grid: over its rows, as far as these differ, and over each long axis.

    What does not vary is written out. `again` says that some keys come more than once.
    """
    spec, names = writer.spec, writer.names
    rows = [{**spec.defaults, **row} for row in grid.rows]
    first: dict[str, Scalar] = {**rows[0], **{axis: found[0] for axis, found in grid.axes.items()}}
    alone = {axis: v for axis, v in grid.axes.items() if axis in writer.axes and len(v) > 1}
    together = [
        axis
        for axis in writer.axes
        if axis not in grid.axes and len({repr(row[axis]) for row in rows}) > 1
    ]
    targets = [names[axis] for axis in alone]
    sources = [collection("[]", _items(found)) for found in alone.values()]
    if together:
        values = [[literal(row[axis]) for axis in together] for row in rows]
        several = len(together) > 1
        items = (tupled(row) if several else row[0] for row in values)
        sources.insert(0, collection("[]", dict.fromkeys(items)))
        joined = ", ".join(names[axis] for axis in together)
        targets.insert(0, f"({joined})" if several and alone else joined)

    def value(axis: str) -> str:
        return names[axis] if axis in alone or axis in together else literal(first[axis])

    indent = STEP
    if targets:
        indent += STEP
        lists = call("product", *sources) if len(sources) > 1 else sources[0]
        yield from lay(lists, STEP, before=f"for {', '.join(targets)} in ", after=":")
    named = [f'"{theirs.get(axis, axis)}": {value(axis)}' for axis in spec.key_axes]
    key = collection("{}", named)
    yield from assign("key", call("CaseKey", key), indent)
    if again:
        yield f"{' ' * indent}if key not in inputs:"
        indent += STEP
    defaults = {axis: literal(found) for axis, found in spec.defaults.items()}
    given = [
        f"{names[axis]}={value(axis)}"
        for axis in writer.axes
        if value(axis) != defaults.get(axis)  # a name is no literal
    ]
    yield from assign("inputs[key]", call("make_case_inputs", "device", *given), indent)


def _items(values: Sequence[Any]) -> list[str]:
    """Return the items of a list; where one line does not hold them, rising steps become ranges."""
    items = [literal(value) for value in values]
    fits = len(", ".join(items)) + 2 * STEP + len("[],") <= WIDTH
    if fits or not all(type(value) is int for value in values):
        return items
    found, rest = [], list(values)
    while rest:
        steps = [after - before for before, after in pairwise(rest)]
        ends = (n for n, step in enumerate(steps) if step != steps[0] or step <= 0)
        run = 1 + next(ends, len(steps))
        if run < _RUN:
            run = 1
            found.append(literal(rest[0]))
        else:
            found.append(f"*range({rest[0]}, {rest[run - 1] + steps[0]}, {steps[0]})")
        rest = rest[run:]
    return found
