"""[args] to `make_case_inputs`: the arguments of one call of a vendored op, as plain Python."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.expr.language import DTYPES, Expr
from kernelpkg.expr.types import ValueType
from kernelpkg.manifest.cases import cases_of, needed_axes, uses_function
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, KernelSpec, Reference
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
    python,
    unhidden,
)

_TAKEN: Final = frozenset(
    {"Any", "CaseKey", "args", "axes", "device", "generator", "getattr", "inputs", "key", "max"}
    | {"make_case_inputs", "product", "range", "torch", "tuple"}
)
"""Names that the code of both generators uses itself."""

_TYPES: Final[Mapping[ValueType, str]] = {
    "flag": "bool",
    "whole": "int",
    "number": "float",
    "dtype": "str",
}
_DRAWN: Final = frozenset({"float64", "float32", "float16", "bfloat16"})
"""The dtypes that torch draws random numbers of."""


def literal(value: object) -> str:
    """Return a value of a manifest as Python spells it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def tupled(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' * (len(items) == 1)})"


@frozen
class Made:
    """How a value is made: an expression, and methods that are called on what it gives."""

    first: Doc
    then: tuple[Group, ...] = ()

    def flat(self) -> str:
        return flat(self.first) + "".join(part.flat() for part in self.then)

    def assigned(self, name: str, indent: int) -> Iterator[str]:
        """Yield the lines that give it a name; in one statement where a line holds that."""
        whole = f"{name} = {self.flat()}"
        if not self.then or indent + len(whole) <= WIDTH:
            yield from assign(name, self.first if not self.then else self.flat(), indent)
            return
        yield from assign(name, self.first, indent)
        for part in self.then:
            yield from lay(part, indent, before=f"{name} = {name}")


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
            return self._filled(variant, init, sizes, dtype, drawn=self._drawn(variant.dtype))
        shape, kind = tupled(sizes), [f"dtype={dtype}", "device=device"]
        strided = call("torch.empty_strided", shape, tupled(strides), *kind)
        if init == "empty":
            return Made(strided)
        values = self._filled(variant, init, sizes, "torch.float32", drawn=True)
        return Made(strided, (call(".copy_", values.flat()),))

    def _drawn(self, dtype: Expr) -> bool:
        """Whether torch draws random numbers of a dtype, in every case."""
        cases = (*cases_of(self.spec, "tune"), *cases_of(self.spec, "test"))
        found = {str(case.values.get(dtype.text)) for case in cases}
        return ({dtype.text} if dtype.text in DTYPES else found) <= _DRAWN

    def _filled(
        self,
        variant: ArgVariant,
        init: str | float,
        sizes: Sequence[str],
        dtype: str,
        *,
        drawn: bool,
    ) -> Made:
        """Return what makes a contiguous tensor with its values."""
        kind, shape, listed = [f"dtype={dtype}", "device=device"], tupled(sizes), sizes or ["()"]
        if isinstance(init, int | float):
            return Made(call("torch.full", shape, repr(init), *kind))
        if init in ("empty", "zeros", "ones"):
            return Made(call(f"torch.{init}", *listed, *kind))
        if init == "arange":
            count = " * ".join(map(_factor, sizes)) or "1"
            view = () if len(sizes) == 1 else (call(".view", *listed),)
            return Made(call("torch.arange", count, *kind), view)
        if init == "randint":
            high = "1" if variant.high is None else python(variant.high, self.names)
            return Made(call("torch.randint", high, shape, *kind))
        function = "torch.rand" if init == "uniform" else "torch.randn"
        if drawn:
            return Made(call(function, *listed, *kind))
        return Made(call(function, *listed, "device=device"), (call(".to", dtype),))

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
