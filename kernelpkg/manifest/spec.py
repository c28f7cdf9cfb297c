"""What a manifest says, as frozen values; how its keys are spelled is known to `manifest` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, Literal, NewType

from attrs import frozen

from kernelpkg.errors import quoted
from kernelpkg.expr.intervals import ANY, FLAGS, WHOLE, Range, Value, extent
from kernelpkg.expr.language import Expr, parse_expr
from kernelpkg.expr.types import WORDS, ValueType, infer, value_problem
from kernelpkg.manifest.opschema import OpSchema, scope_of

KernelName = NewType("KernelName", str)
"""A Python identifier that names a kernel, its directory and its op."""

Scalar = bool | int | float | str | None
"""An axis value: a size, flag, number, dtype's name, or None for an absent argument."""

CaseKey = Mapping[str, Scalar]
"""The axis values under which a config was tuned, by axis name; empty for the default case."""

Match = Literal["exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore"]


@frozen(kw_only=True)
class Reference:
    """A Python function by place: `file` is relative to the directory of its kernel."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"


@frozen(kw_only=True)
class Axis:
    """A fact of a call, named once: an expression over the arguments of the op."""

    name: str
    expr: Expr


_WORDS: Final[Mapping[ValueType, str]] = {**WORDS, "dtype": "the name of a dtype"}


@frozen(kw_only=True)
class AxisType:
    """The values that calls can have of one axis; `kind` is None where that is not known.

    `low` is the least of its numbers, None where there is none. One that may be `absent` reads an
    argument that a call may do without, and is None then.
    """

    kind: ValueType | None
    low: int | None
    absent: bool

    def has(self, value: Scalar) -> bool:
        """Whether a call can have a value."""
        if self.problem(value) is not None:
            return False
        return self.low is None or isinstance(value, bool | str | None) or value >= self.low

    def problem(self, value: Scalar) -> str | None:
        """Say why a case key cannot give the axis a value, or return None."""
        if value is None:
            return None if self.absent else "cannot be null, for it has a value in every call"
        if isinstance(value, str) and self.kind not in ("dtype", "text", None):
            return f"has value {quoted(value)}, which is a text, and must be {WORDS[self.kind]}"
        return value_problem(value, self.kind)

    def __str__(self) -> str:
        what = "a value" if self.kind is None else _WORDS[self.kind]
        what += "" if self.low is None else f", {self.low} or more"
        return f"{what}, or none" if self.absent else what


@frozen(kw_only=True)
class Rule:
    """How one axis of a call is matched to the tuned values of that axis.

    `exact`    the tuned value that equals the call's.
    `nearest`  the tuned value with the least distance, ties to the smaller; `max`
               bounds its relative deviation: |tuned - call| / |call| for "abs", and for
               "log" the larger of the two over the smaller, less 1.
    `ceil`     the smallest tuned value not below the call's; above all of them `over`.
    `floor`    the largest tuned value not above the call's; below all of them `under`.
    `pow2`     the call's value rounded up to a power of two, which must be tuned; above
               all of them `over`.
    `ranges`   call and tuned value fall into the same range; `bounds` are the ranges'
               last values, in rising order, and the range above the last one is open.
    `ignore`   the axis is recorded in the key and does not restrict the choice.

    `inexact` is what counts for `match` where a rule before it found no equal value:
    `floor`, or `below`, the largest tuned value below the call's, also where that is
    tuned. Below all of them both take `under`, and `below` for the smallest too.
    """

    axis: str
    match: Match
    distance: Literal["abs", "log"] = "abs"
    max: float | None = None
    over: Literal["largest", "miss"] = "largest"
    under: Literal["smallest", "miss"] = "smallest"
    inexact: Literal["floor", "below"] | None = None
    bounds: tuple[int, ...] = ()


@frozen(kw_only=True)
class Dim:
    """One entry of a shape; a `spread` one stands for any number of sizes with that product.

    With `like` these are the sizes that the argument of that name spreads, where it is given.
    """

    expr: Expr
    spread: bool = False
    like: str | None = None


ANY_SIZES: Final = Dim(expr=parse_expr("0"), spread=True)
"""A '*' alone, before it is known what another argument has there."""


@frozen(kw_only=True)
class ArgVariant:
    """What one argument is under a condition.

    Tensors have `shape`, `dtype` and, unless they are contiguous, `strides` (None for an entry
    that may be anything); scalars have `value`. `init` says what a test tensor is filled with:
    without it a written argument is empty, and any other random normal. `low`, `high`, `total` and
    `bits` say more of it, as `inits` knows.
    """

    when: Expr | None = None
    shape: tuple[Dim, ...] | None = None
    dtype: Expr | None = None
    strides: tuple[Expr | None, ...] | None = None
    init: str | float | Reference | None = None
    low: Expr | None = None
    high: Expr | None = None
    total: Expr | None = None
    bits: int | None = None
    value: Expr | None = None


@frozen(kw_only=True)
class ArgSpec:
    """One argument of the op, as its variants in order of precedence."""

    name: str
    variants: tuple[ArgVariant, ...]


@frozen(kw_only=True)
class Grid:
    """A product of axis values, times rows of axes that go together, for some uses."""

    use: tuple[str, ...]
    axes: Mapping[str, tuple[Scalar, ...]]
    rows: tuple[Mapping[str, Scalar], ...] = ({},)


@frozen(kw_only=True)
class Accuracy:
    """How far a written argument may be from the reference.

    `steps`: adjacent codes at most (FP8, INT8); `equal`: the least share of equal elements;
    `rtol` and `atol` as in `torch.testing.assert_close`. `rounding` names a tensor argument to
    whose dtype the op rounds values on its way: it allows a relative difference of twice the
    machine epsilon of that dtype, where that is more than `rtol`, and as many steps between whole
    numbers as that can make.
    """

    steps: int | None = None
    equal: float = 0.0
    rtol: float = 0.0
    atol: float = 0.0
    rounding: str | None = None

    def whole_steps(self, largest: int, epsilon: float) -> int:
        """Return how many codes apart whole numbers up to `largest` may be.

        `epsilon` is the machine epsilon of the dtype that `rounding` names: values that differ by
        twice as much are, at `largest`, this many codes apart at most.
        """
        moved = int(2 * epsilon * largest) + 1 if self.rounding is not None else 0
        return max(self.steps or 0, moved)


@frozen(kw_only=True)
class Properties:
    """What holds of an output that no reference computes, as of random ones.

    `zeros` is the share of its zeros, over the axes, which may be off by `within` and by what
    chance does to as many elements. `seed` names the whole number that its values follow. `holds`
    is a function of the output and the arguments that says of each element whether it can be right.
    """

    zeros: Expr | None = None
    within: float = 0.0
    seed: str | None = None
    holds: Reference | None = None


@frozen(kw_only=True)
class Backward:
    """The op that answers the gradients of another one, `op`.

    `args` say what its arguments are that the other op has none of the same name for: an argument,
    a result ("return", "return[1]"), or the gradient of one ("return[0].grad"). `grads` say, per
    argument, which of its outputs is the gradient.
    """

    op: KernelName
    args: Mapping[str, str]
    grads: Mapping[str, str]


@frozen(kw_only=True, eq=False)
class KernelSpec:
    """One kernel: one op, one Helion function, and all that its manifest says of them.

    Specs compare by identity: two are one kernel if they were read once.
    """

    name: KernelName
    path: str
    directory: str
    digest: str
    version: int
    summary: str
    source: Reference
    reference: Reference | None
    schema: OpSchema
    fake_impl: Literal["none", "infer"] | Reference
    backward: Backward | None
    requires: str
    settings: Mapping[str, object]
    default: Mapping[str, object] | None
    specialize: tuple[str, ...]
    axes: tuple[Axis, ...]
    guards: tuple[Expr, ...]
    rules: tuple[Rule, ...]
    picker: Reference | None
    miss: Literal["default", "error"]
    defaults: Mapping[str, Scalar]
    grids: tuple[Grid, ...]
    generator: Reference | None
    args: tuple[ArgSpec, ...]
    accuracy: Mapping[str, Accuracy]
    properties: Mapping[str, Properties]

    @property
    def key_axes(self) -> tuple[str, ...]:
        """The axes that a case key names, in the order of the rules."""
        return tuple(rule.axis for rule in self.rules)

    def properties_of(self, output: str) -> Properties | None:
        """What holds of an output that is not held against the reference; None for the others."""
        own = output in self.accuracy or output in self.properties
        name = output if own else "return"
        return None if name in self.accuracy else self.properties.get(name)

    @cached_property
    def size_axes(self) -> tuple[str, ...]:
        """The axes that are read of tensors; the others are of numbers and texts that it takes."""
        tensors = {arg.name for arg in self.schema.args if arg.is_tensor}
        return tuple(axis.name for axis in self.axes if not tensors.isdisjoint(axis.expr.names()))

    @cached_property
    def axis_types(self) -> Mapping[str, AxisType]:
        """What values each axis can have, in the order of the manifest."""
        return {axis.name: _axis_type(axis.expr, self.schema) for axis in self.axes}


class VouchedSpec(KernelSpec):
    """A kernel that a lock vouches for: what is not `known` is read when it is first asked for.

    That is by its first call. A server loads many kernels that it never calls, and what their calls
    need is most of their manifests.
    """

    _read: Callable[[], KernelSpec]

    def __init__(self, known: Mapping[str, Any], read: Callable[[], KernelSpec]) -> None:
        for name, value in {**known, "_read": read}.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Return what was not known: Python asks for it where a slot of the value is empty."""
        if name.startswith("_"):
            raise AttributeError(name)
        if "_whole" not in vars(self):
            vars(self).setdefault("_whole", self._read())  # two threads get the value of the first
        return getattr(vars(self)["_whole"], name)


def _axis_type(expr: Expr, schema: OpSchema) -> AxisType:
    scope = scope_of(schema, {})
    kind = infer(expr, scope)[0]
    values: dict[str, Value] = dict.fromkeys(schema.optional, ANY)
    for name, scalar in scope.scalars.items():
        values.setdefault(name, FLAGS if scalar == "flag" else WHOLE)
    found = extent(expr, values)
    low = found.low if isinstance(found, Range) and kind in ("whole", "number") else None
    return AxisType(
        kind=kind,
        low=low if isinstance(low, int) else None,
        absent=expr.tested is None and not schema.optional.isdisjoint(expr.names()),
    )


@frozen(kw_only=True)
class Route:
    """One native op of vLLM that an op of the pack can answer.

    `when` are conditions over the axes and arguments of the op, and `eager` further ones on calls
    while no CUDA graph is being captured, of which `capture_only` leaves all to the native op.
    """

    target: str
    op: str
    when: tuple[Expr, ...] = ()
    eager: tuple[Expr, ...] = ()
    capture_only: bool = False


@frozen(kw_only=True)
class PackSpec:
    """A pack: kernels that are loaded, locked, built and vendored together.

    `vllm_requires` is a version specifier, empty for any release; `vllm_axes` names per kernel
    the axis that a name in vLLM's config files stands for. `overlays` are directories of configs
    that go before the pack's own. `installed` says that a package brought the pack.
    """

    name: str
    path: str
    root: str
    digest: str
    version: str
    namespace: str
    license: str
    kernels: tuple[KernelName, ...]
    platforms: Mapping[str, str]
    variants: Literal["together", "apart"]
    models: Mapping[str, Mapping[str, Scalar]]
    vllm_requires: str
    vllm_axes: Mapping[KernelName, Mapping[str, str]]
    routes: tuple[Route, ...]
    overlays: tuple[str, ...] = ()
    installed: bool = False
