"""One call of a native op in five ways: alone, and routed with each of the outcomes of a route."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import evolve, frozen
from stub_backend import StubBackend
from timing import Time, interleave, per_call

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.configs.selection import make_selection
from kernelpkg.errors import CallError
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Route
from kernelpkg.packs.routes import Routing
from kernelpkg.runtime.dispatch import Dispatcher, Plan
from kernelpkg.vllm.override import NativeOverride

NEVER = (parse_expr("num_tokens < 0"),)
"""A condition that holds for no call, of an axis that every kernel of the first pack has."""

TOKENS = 16

ORIGINAL = "original"
TURNED_AWAY = ("by when", "by the table", "by eager")
OURS = "ours"


def arguments(spec: KernelSpec, device: str) -> tuple[Any, ...]:
    """Return arguments that every route takes: a size of models, few tokens, no upper bound."""
    case = cases_of(spec, "tune")[0]
    bound = {"has_scale_ub": False} if "has_scale_ub" in case.values else {}
    values = {**case.values, "num_tokens": TOKENS, **bound}
    return make_inputs(spec, Case(values=values, use=("bench",), grid=case.grid), device=device)


@frozen(kw_only=True)
class StandInKernel:
    """A kernel whose launcher is given, and that nothing was loaded for."""

    schema: OpSchema
    dispatcher: Dispatcher
    spec: None = None

    @property
    def plan(self) -> Plan:
        """The plan of the dispatcher."""
        return self.dispatcher.plan

    @property
    def qualified(self) -> str:
        """The name of the op."""
        return self.dispatcher.op

    def tell(self, follower: object) -> None:
        """Say nothing: this kernel is never given back."""


def stand_in(spec: KernelSpec, launch: Callable[..., Any]) -> StandInKernel:
    """Return a kernel whose every call is a given launch."""
    acceptance = CallCheck(spec, spec.name)
    dispatcher = Dispatcher(
        op=spec.name,
        schema=spec.schema,
        acceptance=lambda: acceptance,
        plan=make_selection(spec, "cpu", []),
        backend=StubBackend(launch, interprets=True),
    )
    return StandInKernel(schema=spec.schema, dispatcher=dispatcher)


def refuse(*_: Any) -> None:
    """Accept no call."""
    raise CallError("not this one")


def measure(
    pack: PackSpec,
    route: Route,
    spec: KernelSpec,
    args: Sequence[Any],
    *,
    key: str,
    kernel: Any,
    rounds: int,
    calls: int,
    settle: Callable[[], None],
) -> Mapping[str, Time]:
    """Return the microseconds of a call in each way, in turns.

    `kernel` answers for the op of the route. The conditions of the route itself are asked on
    every way, with one more that fails where the call is turned away by it. `settle` waits for
    what earlier calls have started.
    """
    namespace, name = route.target.split("::")
    call = getattr(getattr(torch.ops, namespace), name)

    @contextmanager
    def routed(changed: Route, answers: Any) -> Iterator[None]:
        made = NativeOverride(
            routing=Routing(pack=pack, route=changed, spec=spec),
            keys=(key,),
            open_kernel=lambda: answers,
            logger=logging.getLogger(),
        )
        assert made.connect(None) is None and made.status == "routed", made.report().reason
        try:
            yield
        finally:
            made.close("measured")

    @torch.inference_mode()  # as vLLM runs its models
    def timed() -> float:
        for _ in range(5):
            call(*args)
        settle()
        took = per_call(lambda: [call(*args) for _ in range(calls)], calls)
        settle()
        return took

    def routed_timed(changed: Route, answers: Any) -> float:
        with routed(changed, answers):
            return timed()

    always = evolve(route, eager=(), capture_only=False)
    refusing = stand_in(spec, refuse)
    return interleave(
        {
            ORIGINAL: timed,
            "by when": lambda: routed_timed(evolve(always, when=(*route.when, *NEVER)), kernel),
            "by the table": lambda: routed_timed(always, refusing),
            "by eager": lambda: routed_timed(evolve(always, eager=NEVER), kernel),
            OURS: lambda: routed_timed(always, kernel),
        },
        rounds=rounds,
    )


def rows(what: str, times: Mapping[str, Time], unit: str) -> list[dict[str, Any]]:
    """Return a row per side: its figures, and how far it is over the first of them."""
    least = {side: time.least for side, time in times.items()}
    first = next(iter(least.values()))
    return [
        {
            "what": what,
            "side": side,
            "least": time.least,
            "median": time.median,
            "over_first": least[side] - first,
            "unit": unit,
        }
        for side, time in times.items()
    ]


def worst(found: Sequence[Mapping[str, Any]]) -> float:
    """Return how much a call that is turned away costs at most over the original."""
    return max(row["over_first"] for row in found if row["side"] in TURNED_AWAY)
