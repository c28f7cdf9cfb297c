"""What a kernel accepts: a call held against [args] and [guard], before anything is launched."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from kernelpkg.errors import CallError, counted
from kernelpkg.expr.language import Expr, compile_exprs, dtype_name, without_value
from kernelpkg.manifest.cases import Case, Evaluator, call_of, show
from kernelpkg.manifest.opschema import VALUES, OpSchema
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Axis, Dim, KernelSpec, Scalar

AxesFunction = Callable[..., tuple[Scalar, ...]]


def compile_axes(spec: KernelSpec) -> AxesFunction:
    """Return one function of the op's arguments that returns all axis values, in order."""
    exprs = [axis.expr for axis in spec.axes]
    return compile_exprs(exprs, spec.schema.arg_names, nullable=spec.schema.optional)


def contradictions(spec: KernelSpec, cases: Iterable[Case]) -> Iterator[tuple[Case, str, str]]:
    """Yield (case, axis, what is wrong) where the inputs of a case have another value, or none.

    Inputs that a function makes are not known here. An axis of an argument that is absent has no
    value, which a case cannot say.
    """
    loose = [axis for axis in spec.axes if not _follows(spec, axis)]
    if spec.generator is not None or not loose:
        return
    read = {name for axis in loose for name in axis.expr.names()}
    axes = [*loose, *(axis for axis in spec.axes if axis.expr.tested in read)]
    evaluate = Evaluator()
    axes_of = compile_exprs(
        [axis.expr for axis in axes], spec.schema.arg_names, nullable=spec.schema.optional
    )
    for case in cases:
        try:
            args = call_of(spec, case, evaluate, read)
            found = axes_of(*args)
        except (TypeError, ValueError, ArithmeticError):
            continue  # which is told of the argument, or by the first call
        except IndexError:
            for axis, why in _unread(spec, axes, args):
                yield case, axis.name, f"axis '{axis.name}' {why}; correct the axis or [args]"
            continue
        wrong = [
            (axis, value)
            for axis, value in zip(axes, found, strict=True)
            if value is not None and case.values.get(axis.name, value) != value
        ]
        if all(axis.expr.tested is None for axis, _ in wrong):
            for axis, value in wrong:
                told = f"its inputs have {axis.name}={show(value)}; correct the case"
                yield case, axis.name, told


def _unread(
    spec: KernelSpec, axes: Sequence[Axis], args: Sequence[Any]
) -> Iterator[tuple[Axis, str]]:
    """Yield those of some axes that have no value in a call, and why."""
    schema = spec.schema
    for axis in axes:
        read = compile_exprs([axis.expr], schema.arg_names, nullable=schema.optional)
        try:
            read(*args)
        except ArithmeticError as error:
            yield axis, f"= '{axis.expr.text}' {without_value(error)}"
        except IndexError:
            values = {name: args[schema.arg_names.index(name)] for name in axis.expr.names()}
            given = ", ".join(
                f"'{name}' has {extent_of(value)}"
                for name, value in values.items()
                if schema.arg(name).type not in VALUES
            )
            yield axis, f"= '{axis.expr.text}' cannot be read: {given}"


def _follows(spec: KernelSpec, axis: Axis) -> bool:
    """Whether [args] makes an argument of an axis just where the axis reads it."""
    tree = axis.expr.tree
    if axis.expr.tested is not None:
        return True
    names = axis.expr.names()
    variants = next((arg.variants for arg in spec.args if [arg.name] == list(names)), ())
    match tree:
        case ast.Name():
            made = [variant.value for variant in variants]
        case ast.Attribute(attr="dtype"):
            made = [variant.dtype for variant in variants]
        case ast.Subscript(value=ast.Attribute(attr="shape"), slice=ast.Constant(value=int(at))):
            shapes = [variant.shape or () for variant in variants]
            made = [shape[at].expr if at < len(shape) else None for shape in shapes]
        case _:
            return False
    return all(expr is not None and expr.name == axis.name for expr in made)


def check_devices(op: str, schema: OpSchema, args: Sequence[Any]) -> None:
    """Raise CallError for tensors on several devices.

    Trailing arguments with defaults may be left out, as a fake implementation gets them.
    """
    first: tuple[str, Any] | None = None
    for arg, value in zip(schema.args, args, strict=False):
        if not arg.is_tensor or value is None:
            continue
        if first is None:
            first = arg.name, value.device
        elif value.device != first[1]:
            raise CallError(
                f"{op}: argument '{arg.name}' is on {value.device}, and '{first[0]}' on "
                f"{first[1]}; all must be on one device"
            )


def extent_of(value: Any) -> str:
    """Say how many dimensions a tensor has, or how many elements a list."""
    if isinstance(value, list | tuple):
        return counted(len(value), "element")
    return counted(value.ndim, "dimension")


def _spread_sizes(shape: Sequence[Dim], value: Any) -> tuple[int, ...]:
    """Return the sizes of a tensor for which the one entry stands that its shape spreads."""
    place = next(place for place, dim in enumerate(shape) if dim.spread)
    return tuple(value.shape[place : value.ndim - (len(shape) - place - 1)])


class CallCheck:
    """Holds calls of one op against its manifest; made once, used once per signature.

    `device_type` is not looked at: that the op has an implementation for it is PyTorch's check.
    `unread` are the places of arguments whose values nothing here looks at.
    """

    def __init__(self, spec: KernelSpec, op: str) -> None:
        self.op = op
        self.spec = spec
        self.axis_names = tuple(axis.name for axis in spec.axes)
        self._axes = compile_axes(spec)
        names = frozenset(self.axis_names)
        params = (*self.axis_names, *(n for n in spec.schema.arg_names if n not in names))
        nullable = names | spec.schema.optional
        self._guards = [
            (guard, compile_exprs([guard], params, nullable=nullable, absent=False))
            for guard in spec.guards
        ]
        read = {name for axis in spec.axes for name in axis.expr.names()}
        read |= {name for guard in spec.guards for name in guard.names()}
        if spec.picker is not None:  # it gets all arguments
            read.update(spec.schema.arg_names)
        self.unread = frozenset(
            place for place, name in enumerate(spec.schema.arg_names) if name not in read
        )
        self._extra = [n for n in spec.schema.arg_names if n not in names]
        self._variants: dict[str, Callable[..., tuple[Any, ...]]] = {}

    def axes_of(self, args: Sequence[Any]) -> tuple[Scalar, ...]:
        """Return the axis values of a call, in the order of the manifest.

        Raises CallError where the call is not accepted: other dtypes, shapes or strides than
        [args] says, tensors on several devices, or a guard that does not hold.
        """
        check_devices(self.op, self.spec.schema, args)
        axes = self._read_axes(args)
        self._check_guards(axes, args)
        for arg, value in zip(self.spec.args, args, strict=True):
            if self.spec.schema.arg(arg.name).is_tensor and value is not None:
                variant = self._variant(arg, axes)
                self._check_variant(arg.name, variant, value, axes)
                self._check_like(arg.name, variant, args, axes)
        return axes

    def _refuse(self, message: str) -> CallError:
        return CallError(f"{self.op}: {message}")

    def _read_axes(self, args: Sequence[Any]) -> tuple[Scalar, ...]:
        try:
            return self._axes(*args)
        except (IndexError, ArithmeticError):
            pass
        for axis, why in _unread(self.spec, self.spec.axes, args):
            raise self._refuse(f"axis {axis.name} {why}")
        raise AssertionError("each axis can be read alone, but not all together")

    def _check_guards(self, axes: tuple[Scalar, ...], args: Sequence[Any]) -> None:
        by_name = dict(zip(self.spec.schema.arg_names, args, strict=True))
        values = (*axes, *(by_name[name] for name in self._extra))
        for guard, holds in self._guards:
            try:
                if holds(*values)[0]:
                    continue
                wrong = "does not hold"
            except ArithmeticError as error:
                wrong = without_value(error)
            except IndexError:
                wrong = "reads a dimension or an element that does not exist"
            raise self._refuse(f"guard '{guard.text}' {wrong}{self._given(guard, axes)}")

    def _given(self, expr: Expr, axes: tuple[Scalar, ...]) -> str:
        by_name = dict(zip(self.axis_names, axes, strict=True))
        told = [f"{name} = {show(by_name[name])}" for name in expr.names() if name in by_name]
        return f" ({', '.join(told)})" if told else ""

    def _variant(self, arg: ArgSpec, axes: tuple[Scalar, ...]) -> ArgVariant:
        for variant in arg.variants:
            if variant.when is None or self._value(variant.when, axes):
                return variant
        conditions = " or ".join(
            f"'{variant.when.text}'" for variant in arg.variants if variant.when
        )
        raise self._refuse(f"argument '{arg.name}' is given, but is only allowed when {conditions}")

    def _value(self, expr: Expr, axes: tuple[Scalar, ...]) -> Any:
        read = self._variants.get(expr.text)
        if read is None:
            nullable = frozenset(self.axis_names)
            read = compile_exprs([expr], self.axis_names, nullable=nullable)
            self._variants[expr.text] = read
        try:
            return read(*axes)[0]
        except ArithmeticError as error:
            wrong = without_value(error)
            raise self._refuse(f"'{expr.text}' {wrong}{self._given(expr, axes)}") from None

    def _check_variant(
        self, name: str, variant: ArgVariant, value: Any, axes: tuple[Scalar, ...]
    ) -> None:
        assert variant.dtype is not None and variant.shape is not None
        wanted = self._value(variant.dtype, axes)
        if dtype_name(value.dtype) != wanted:
            raise self._refuse(
                f"argument '{name}' has dtype {dtype_name(value.dtype)}, and must have {wanted}"
            )
        self._check_shape(name, variant, value, axes)
        if variant.strides is None:
            if not value.is_contiguous():
                raise self._refuse(
                    f"argument '{name}' has strides {tuple(value.stride())}, and must be contiguous"
                )
            return
        strides = [None if s is None else self._value(s, axes) for s in variant.strides]
        for size, stride, want in zip(value.shape, value.stride(), strides, strict=True):
            # Along no or one element no step is made, and PyTorch keeps whatever stride there was.
            if size > 1 and want is not None and stride != want:
                shown = ", ".join("*" if s is None else str(s) for s in strides)
                raise self._refuse(
                    f"argument '{name}' has strides {tuple(value.stride())}, "
                    f"and must have ({shown})"
                )

    def _check_like(
        self, name: str, variant: ArgVariant, args: Sequence[Any], axes: tuple[Scalar, ...]
    ) -> None:
        """Refuse a tensor of which the sizes that it spreads are not those of another one."""
        like = next((dim.like for dim in variant.shape or () if dim.like is not None), None)
        if like is None:
            return
        names = self.spec.schema.arg_names
        mine, other = args[names.index(name)], args[names.index(like)]
        if other is None:
            return
        lent = self._variant(self.spec.args[names.index(like)], axes)
        found = _spread_sizes(variant.shape or (), mine)
        wanted = _spread_sizes(lent.shape or (), other)
        if found != wanted:
            raise self._refuse(
                f"argument '{name}' has shape {tuple(mine.shape)}, of which {found} must be "
                f"{wanted}, as of '{like}'"
            )

    def _check_shape(
        self, name: str, variant: ArgVariant, value: Any, axes: tuple[Scalar, ...]
    ) -> None:
        assert variant.shape is not None
        sizes = [self._value(dim.expr, axes) for dim in variant.shape]
        shape = tuple(value.shape)
        spread = next((i for i, dim in enumerate(variant.shape) if dim.spread), None)
        if spread is None:
            fits = shape == tuple(sizes)
        else:
            after = len(sizes) - spread - 1
            fits = (
                len(shape) >= len(sizes) - 1
                and shape[:spread] == tuple(sizes[:spread])
                and shape[len(shape) - after :] == tuple(sizes[spread + 1 :])
                and math.prod(shape[spread : len(shape) - after]) == sizes[spread]
            )
        if not fits:
            shown = ", ".join(
                f"{'*' if dim.spread else ''}{size}"
                for dim, size in zip(variant.shape, sizes, strict=True)
            )
            said = ", ".join(f"{'*' if dim.spread else ''}{dim.expr.text}" for dim in variant.shape)
            raise self._refuse(
                f"argument '{name}' has shape {shape}, and must have ({shown}), from [{said}]"
            )
