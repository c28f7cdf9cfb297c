"""The conditions of a route, as functions of the arguments of a call."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from attrs import define, frozen

from kernelpkg.expr.language import Expr, evaluate
from kernelpkg.packs.routes import Routing
from kernelpkg.vllm.route_conditions import unmet


@frozen
class Fake:
    """What conditions read of a tensor."""

    shape: tuple[int, ...]
    dtype: str = "torch.float32"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def stride(self, place: int | None = None) -> Any:
        steps = tuple(itertools.accumulate(self.shape[:0:-1], lambda a, b: a * b, initial=1))[::-1]
        return steps if place is None else steps[place]

    def is_contiguous(self) -> bool:
        return True


TEXTS = [
    "num_tokens <= 2",
    "flag",
    "not has_bias",
    "bias_size is None",
    "bias_size is not None and bias_size > 1",
    "bias is None or bias.shape[0] == 2",
    "bias_size > 1",
    "groups == 2",
    "x.shape[1] % group == 0 and dtype in [float32, bfloat16]",
    "x.stride(0) > 2",
    "eps < 1e-3",
    "x.is_contiguous() and out.ndim == 1",
    "group in [2, 4]",
]


@pytest.mark.parametrize("texts", [*([text] for text in TEXTS), TEXTS[2:6], TEXTS], ids=str)
def test_conditions_are_what_the_language_says(routed_pack, texts):
    """The code of conditions agrees with the expressions over the axes, read one by one."""
    listed = ", ".join(f'"{text}"' for text in texts)
    routing = routed_pack.routing(f"when = [{listed}]")
    names = routing.spec.schema.arg_names
    asked = unmet(routing, routing.route.when)
    tensors = [Fake((3, 8)), Fake((1, 4), "torch.float16"), Fake((2, 5)), Fake((4,))]
    seen = set()
    for x, bias, group, flag in itertools.product(
        tensors, [None, Fake((2,)), Fake((1,))], [0, 2, 3], [False, True]
    ):
        args = (Fake((3,)), x, bias, group, 1e-6, flag)
        want = _first_that_fails(routing, dict(zip(names, args, strict=True)))
        got = asked(*args)
        assert got is want, args
        seen.add(got)
    assert seen, texts


def _first_that_fails(routing: Routing, args: dict[str, Any]) -> Expr | None:
    """The first condition that does not hold, if any."""
    for expr in routing.route.when:
        try:
            axes = {
                axis.name: evaluate(axis.expr, args)
                for axis in routing.spec.axes
                if axis.name in expr.names()
            }
            if not evaluate(expr, {**args, **axes}):
                return expr
        except (IndexError, ZeroDivisionError):
            return expr
    return None


ARGS = (Fake((3,)), Fake((3, 8)), None, 2, 1e-6, False)


def test_the_first_that_does_not_hold_is_named(routed_pack):
    """They are asked in the order of the manifest, and no more of them than have to be."""
    routing = routed_pack.routing('when = ["num_tokens == 3", "flag", "group == 3"]')
    asked = unmet(routing, routing.route.when)
    first, second, third = routing.route.when
    assert asked(*ARGS) is second
    assert asked(*ARGS[:5], True) is third
    assert asked(*ARGS[:3], 3, 1e-6, True) is None
    assert asked(Fake((4,)), Fake((4, 8)), *ARGS[2:]) is first


def test_no_conditions(routed_pack):
    """They are all met, also by a call that could not be read."""
    routing = routed_pack.routing("")
    assert unmet(routing, routing.route.when)(*[None] * len(ARGS)) is None


@define
class Counted:
    """A tensor that counts how often its shape is read."""

    fake: Fake
    reads: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        self.reads += 1
        return self.fake.shape


def test_an_axis_is_read_once(routed_pack):
    """Conditions that name the same axis share its value."""
    routing = routed_pack.routing('when = ["num_tokens < 9", "num_tokens > 1", "num_tokens == 3"]')
    x = Counted(fake=Fake((3, 8)))
    assert unmet(routing, routing.route.when)(ARGS[0], x, *ARGS[2:]) is None
    assert x.reads == 1


def test_a_condition_that_cannot_be_read(routed_pack):
    """It does not hold, and those after it are not asked."""
    texts = '"out.shape[3] == x.shape[0] + bias.shape[0]", "groups == 2", "groups * group == 4"'
    routing = routed_pack.routing(f"eager = [{texts}]")
    asked = unmet(routing, routing.route.eager)
    for args in (ARGS, (*ARGS[:3], 0, *ARGS[4:])):
        assert asked(*args) is routing.route.eager[0]
    later = unmet(routing, routing.route.eager[1:])
    assert later(*ARGS[:3], 0, *ARGS[4:]) is routing.route.eager[1], "it divides by zero"
    assert unmet(routing, routing.route.when)(*ARGS) is None
