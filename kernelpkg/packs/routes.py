"""What a pack says of vLLM, held against its kernels and the native ops, without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from attrs import frozen

from kernelpkg.errors import PackError, Problem, quoted, suggestion
from kernelpkg.expr.language import Expr
from kernelpkg.expr.types import Scope, infer, wants
from kernelpkg.manifest.opschema import OpArg, OpSchema, scope_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Route
from kernelpkg.packs.read import pack_problem, read_kernel


@frozen(kw_only=True)
class NativeSchema:
    """The schema of a native op: as an op of ours has it, and what none of ours can have.

    `returns` are the types of its results; one that is an alias of an argument says so.
    """

    args: tuple[OpArg, ...]
    keyword_only: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()


@frozen(kw_only=True, eq=False)
class Routing:
    """One route of a pack that was held against its kernel."""

    pack: PackSpec
    route: Route
    spec: KernelSpec

    @property
    def op(self) -> str:
        """The name of the op that answers, as in "kernelpkg::silu_mul_fp8"."""
        return f"{self.pack.namespace}::{self.route.op}"

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """The places of the arguments that the op both reads and writes.

        A written argument that a test fills with something is read; what a generator of one's own
        fills is not known.
        """
        read = {
            arg.name
            for arg in self.spec.args
            for variant in arg.variants
            if variant.init not in (None, "empty") or self.spec.generator is not None
        }
        args = enumerate(self.spec.schema.args)
        return tuple(place for place, arg in args if arg.mutated and arg.name in read)


def read_routing(pack: PackSpec, route: Route) -> Routing:
    """Read the kernel of a route and hold the route against it.

    Raises PackError with every problem of the kernel, or of the route's conditions.
    """
    spec = read_kernel(Path(pack.root), route.op)
    problems = condition_problems(pack, route, spec)
    if problems:
        raise PackError(problems=problems)
    return Routing(pack=pack, route=route, spec=spec)


def condition_problems(pack: PackSpec, route: Route, spec: KernelSpec) -> tuple[Problem, ...]:
    """Return what is wrong with the conditions of a route to a kernel."""
    types = {name: found.kind for name, found in spec.axis_types.items()}
    scope = scope_of(spec.schema, types)
    return tuple(
        route_problem(pack, route, code, f"condition {quoted(expr.text)}: {message}", key, place)
        for key, exprs in (("when", route.when), ("eager", route.eager))
        for place, expr in enumerate(exprs)
        for code, message in _condition_problems(expr, scope)
    )


def route_problem(pack: PackSpec, route: Route, code: str, message: str, *at: str | int) -> Problem:
    """Return a problem of a route, with the line of its key in the manifest of the pack."""
    return pack_problem(pack, code, message, "vllm", "routes", route.target, *at)


def axis_name_problems(pack: PackSpec, spec: KernelSpec) -> tuple[Problem, ...]:
    """Return what is wrong with vLLM's names for the axes of a kernel, in [vllm.axes]."""
    names = pack.vllm_axes.get(spec.name, {})
    wrong = []
    for name, axis in names.items():
        if axis not in spec.key_axes:
            remedy = suggestion(axis, spec.key_axes)
            remedy = remedy or f"; it has {', '.join(spec.key_axes) or 'none'}"
            wrong.append((name, f"kernel '{spec.name}' has no rule for axis '{axis}'{remedy}"))
        elif name != axis and name in spec.key_axes and name not in names.values():
            clash = f"'{name}' stands for axis '{axis}', and axis '{name}' has no other name"
            wrong.append((name, f"{clash}; give that one a name too"))
    return tuple(
        pack_problem(pack, "KP828", message, "vllm", "axes", spec.name, name)
        for name, message in wrong
    )


def _condition_problems(expr: Expr, scope: Scope) -> Iterator[tuple[str, str]]:
    """Yield (code, message) for what is wrong with a condition, in this module's codes."""
    found, problems = infer(expr, scope)
    for code, message in problems:
        yield ("KP840" if code == "KP121" else "KP841"), message
    wrong = None if problems else wants(found, "flag")
    if wrong is not None:
        yield "KP841", f"it {wrong}"


def schema_problem(native: NativeSchema, ours: OpSchema) -> str | None:
    """Say in what the schema of a native op differs from ours, or return None.

    `int` and `SymInt`, the names of aliases, and defaults do not count.
    """
    if native.keyword_only:
        return f"it takes {', '.join(native.keyword_only)} by keyword only, as no op of a pack can"
    names, own = tuple(arg.name for arg in native.args), ours.arg_names
    if names != own:
        return f"its arguments are ({', '.join(names)}), and of the op ({', '.join(own)})"
    different = [
        f"its '{arg.name}' is {_described(arg)}, and of the op {_described(other)}"
        for arg, other in zip(native.args, ours.args, strict=True)
        if _described(arg) != _described(other)
    ]
    returns = ("Tensor",) * ours.returns
    if native.returns != returns:
        different.append(f"it returns {_listed(native.returns)}, and the op {_listed(returns)}")
    return "; ".join(different) or None


def _described(arg: OpArg) -> str:
    optional = "?" if arg.optional else ""
    return f"{arg.type}{optional}{', which it writes' if arg.mutated else ''}"


def _listed(returns: Sequence[str]) -> str:
    return f"({', '.join(returns)})" if returns else "nothing"
