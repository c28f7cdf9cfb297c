"""The code that decides on a call: conditions, signatures, and who answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve, frozen

from kernelpkg.expr.language import evaluate, parse_expr
from kernelpkg.packs.routes import Routing
from kernelpkg.vllm.route_conditions import conditions, routed_code


@frozen
class Fake:
    """What conditions and signatures read of a tensor."""

    shape: tuple[int, ...]
    dtype: str = "torch.float32"
    requires_grad: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def stride(self, place: int | None = None) -> Any:
        steps = tuple(itertools.accumulate(self.shape[:0:-1], lambda a, b: a * b, initial=1))[::-1]
        return steps if place is None else steps[place]

    def get_device(self) -> int:
        return -1

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
    tensors = [Fake((3, 8)), Fake((1, 4), "torch.float16"), Fake((2, 5)), Fake((4,))]
    seen = set()
    for x, bias, group, flag in itertools.product(
        tensors, [None, Fake((2,)), Fake((1,))], [0, 2, 3], [False, True]
    ):
        args = (Fake((3,)), x, bias, group, 1e-6, flag)
        want = _first_that_fails(routing, dict(zip(names, args, strict=True)))
        got = _called(routing, args)
        assert got == want, args
        seen.add(got)
    assert seen, texts


def _first_that_fails(routing: Routing, args: dict[str, Any]) -> str:
    """The text of the first condition that does not hold, or nothing."""
    for condition in conditions(routing)[0]:
        expr = parse_expr(condition.text)
        try:
            axes = {
                axis.name: evaluate(axis.expr, args)
                for axis in routing.spec.axes
                if axis.name in expr.names()
            }
            if not evaluate(expr, {**args, **axes}):
                return condition.text
        except (IndexError, ZeroDivisionError):
            return condition.text
    return ""


def _function(routing: Routing, said: list[str], **changes: Any) -> Callable[..., Any]:
    """The function that takes the native op's place; `said` gets what becomes of its calls."""

    def note(what: str) -> Callable[..., None]:
        return lambda *_: said.append(what)

    code, space = routed_code(routing, routing.spec.schema.args)
    space |= {
        "native": note("native"),
        "keyset": "keyset",
        "resolve": note("resolved"),
        "find": lambda key: None,
        "grad_enabled": lambda: False,
        "capturing": lambda: False,
        "by_grad": note("grad"),
        "by_capture": note("not capturing"),
    }
    for kind, found in zip(("when", "eager"), conditions(routing), strict=True):
        space |= {f"by_{kind}{n}": note(condition.text) for n, condition in enumerate(found)}
    space |= changes
    exec(code, space)
    return space["call"]


def _called(routing: Routing, args: tuple[Any, ...], **changes: Any) -> str:
    """Call the code of a route and return what became of the call, in words."""
    said: list[str] = []
    want = ("keyset", *args)
    changes["native"] = lambda *given: said.append(f"native {given == want}")
    _function(routing, said, **changes)(*args)
    assert said[-1] in ("resolved", "native True")
    return said[0] if said[0] != "resolved" else ""


ARGS = (Fake((3,)), Fake((3, 8)), None, 2, 1e-6, False)


def test_cheap_conditions_come_first(routed_pack):
    """What reads no tensor is asked before what does, and each axis is read once."""
    routing = routed_pack.routing(
        'when = ["num_tokens * groups < 9", "x.is_contiguous()", "group == 2", "flag"]'
    )
    when, eager = conditions(routing)
    assert [condition.text for condition in when] == [
        "flag",
        "group == 2",
        "x.is_contiguous()",
        "num_tokens * groups < 9",
    ]
    assert eager == ()
    code = routed_code(routing, routing.spec.schema.args)[0]
    assert code.count("_x.shape") == 1


def test_trailing_arguments_have_the_native_defaults(routed_pack):
    """PyTorch leaves out what equals its default, so the native op's default is what is meant."""
    routing = routed_pack.routing('when = ["flag"]')
    args = routing.spec.schema.args
    native = (*args[:4], evolve(args[4], default=1e-3), evolve(args[5], default=True))
    code, space = routed_code(routing, native)
    assert code.splitlines()[0] == (
        "def call(_out, _x, _bias, _group, _eps=default_eps, _flag=default_flag):"
    )
    assert (space["default_eps"], space["default_flag"]) == (1e-3, True)


@pytest.mark.parametrize(
    ("text", "capturing", "launch", "said"),
    [
        pytest.param("", False, True, ["counted", "launched"], id="any call"),
        pytest.param("", False, False, ["counted", "native"], id="declined"),
        pytest.param("capture_only = true", False, True, ["not capturing", "native"], id="eager"),
        pytest.param("capture_only = true", True, True, ["counted", "launched"], id="captured"),
        pytest.param("capture_only = true", True, False, ["counted", "native"], id="both"),
        pytest.param('eager = ["flag"]', False, True, ["flag", "native"], id="small and eager"),
        pytest.param('eager = ["flag"]', True, True, ["counted", "launched"], id="small, captured"),
        pytest.param('eager = ["not flag"]', False, True, ["counted", "launched"], id="large"),
        pytest.param('eager = ["flag"]', True, False, ["counted", "native"], id="small, declined"),
    ],
)
def test_a_signature_that_was_seen(routed_pack, text, capturing, launch, said):
    """Its launcher answers, unless this is an eager call and the route leaves such alone."""
    got: list[str] = []
    seen: set[Any] = set()
    launcher = (lambda *args: got.append("launched")) if launch else None
    call = _function(
        routed_pack.routing(text),
        got,
        find=lambda key: (launcher, lambda: got.append("counted")),
        seen=seen,
        see=seen.add,
        capturing=lambda: capturing,
    )
    for _ in range(2):
        got.clear()
        call(*ARGS)
    assert got == said


def test_a_tensor_that_requires_grad(routed_pack):
    """It is asked for at every call, and only where gradients are recorded."""
    routing = routed_pack.routing("")
    args = (ARGS[0], Fake((3, 8), requires_grad=True), *ARGS[2:])
    assert _called(routing, args) == ""
    assert _called(routing, args, grad_enabled=lambda: True) == "grad"
    assert _called(routing, ARGS, grad_enabled=lambda: True) == ""


@pytest.mark.parametrize("text", ['eager = ["num_tokens > 4"]', "capture_only = true"])
def test_what_is_seen_at_a_glance(routed_pack, text):
    """The first eager call of a size, scalars and given tensors goes on; the others do not."""
    got: list[str] = []
    seen: set[Any] = set()
    capturing, bias = [False], Fake((4,))
    call = _function(
        routed_pack.routing(text),
        got,
        seen=seen,
        see=seen.add,
        capturing=lambda: capturing[0],
        by_capture=lambda: None,
        by_eager0=lambda: None,
    )
    for args in (ARGS, (*ARGS[:3], 4, *ARGS[4:]), (*ARGS[:2], bias, *ARGS[3:])):
        for want in ("resolved", "native", "native"):
            call(*args)
            assert got.pop() == want
    assert len(seen) == 3
    capturing[0] = True
    call(*ARGS)
    assert got == ["resolved"]
    large = (Fake((5,)), Fake((5, 8)), *ARGS[2:])
    capturing[0] = False
    got.clear()
    for _ in range(2):
        call(*large)
    assert got == (["resolved", "resolved"] if "num" in text else ["resolved", "native"])


def test_an_eager_condition_that_cannot_be_read(routed_pack):
    """It does not hold, and what it would have read is there for what comes after it."""
    texts = '"out.shape[3] == x.shape[0] + bias.shape[0]", "groups == 2", "groups * group == 4"'
    routing = routed_pack.routing(f"eager = [{texts}]")
    for args in (ARGS, (*ARGS[:3], 0, *ARGS[4:])):
        assert _called(routing, args, seen=set(), see=lambda glance: None) == ""
        assert _called(routing, args, capturing=lambda: True) == ""
