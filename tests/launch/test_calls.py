"""A call is looked up by all that a launch depends on, in C as in Python."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.autograd import forward_ad


class Op:
    """An op whose `resolve` keeps what it is asked, and answers with its number."""

    def __init__(self, launcher, kinds, *, keep=True, gradients=False, **options):
        self.asked = []
        self.refused = []
        self.keep = keep
        self.calls = launcher.make_calls(
            kinds,
            self.resolve,
            grad_enabled=(lambda: True) if gradients else (lambda: False),
            check_grad=self.check_grad,
            **options,
        )
        self.call = self.calls.call

    def resolve(self, args):
        number = len(self.asked)
        self.asked.append(args)
        if self.keep:
            self.calls.put(args, lambda *given: ("launched", number))
        return ("resolved", number)

    def check_grad(self, args):
        self.refused.append(args)
        raise ValueError("requires grad")


def alike(op, *calls):
    """Say of each call whether an earlier one has answered it."""
    return [op.call(*args)[0] == "launched" for args in calls]


class Plain(torch.Tensor):
    """A tensor with memory of its own, as vLLM's parameters are."""


X = torch.zeros(64)


@pytest.mark.parametrize(
    ("kinds", "first", "second"),
    [
        ("t", X[:4], X[:4].clone()),
        ("t", X[:4], torch.nn.Parameter(torch.ones(4), requires_grad=False)),
        ("t", X[4:8], X[8:12]),
        ("t", X[:4], X[:4].as_subclass(Plain)),
        ("T", None, None),
        ("i", 3, 3),
        ("f", 1.5, 1.5),
        ("f", float("nan"), float("nan")),
        ("f", 2.0, 2),
        ("b", True, True),
        ("s", "ab", "".join(["a", "b"])),
        ("s", "\ud800", "\ud800"),
        ("l", [1, 2], (1, 2)),
        ("l", [], []),
        ("o", torch.float32, torch.float32),
    ],
)
def test_equal_calls_are_one_signature(launcher, kinds, first, second):
    assert alike(Op(launcher, kinds), (first,), (second,)) == [False, True]


@pytest.mark.parametrize(
    ("kinds", "first", "second"),
    [
        ("t", X[:4], X[:5]),
        ("t", X[:4], X[:4].view(2, 2)),
        ("t", X[:4], X[:8:2]),
        ("t", X[:4], X[1:5]),
        ("t", X[:4], X[:4].to(torch.int32)),
        ("t", X[:4].half(), X[:4].bfloat16()),
        ("t", torch.zeros(0, 4), torch.zeros(4, 0)),
        ("t", torch.zeros(()), torch.zeros(1)),
        ("t", torch.zeros(1, 4), torch.zeros(1, 4).as_strided((1, 4), (9, 1))),
        ("T", None, X[:4]),
        ("i", 3, 4),
        ("i", -1, 2**63 - 1),
        ("I", None, 0),
        ("f", 0.0, -0.0),
        ("f", 1.0, 1.0 + 2**-52),
        ("f", float("inf"), float("nan")),
        ("F", None, 0.0),
        ("b", True, False),
        ("B", None, False),
        ("s", "a", "a\0"),
        ("s", "", "\0"),
        ("S", None, ""),
        ("l", [1, 2], [2, 1]),
        ("l", [1], [1, 0]),
        ("L", None, []),
        ("o", torch.float32, torch.int8),
    ],
)
def test_what_a_launch_depends_on_is_in_the_signature(launcher, kinds, first, second):
    assert alike(Op(launcher, kinds), (first,), (second,), (first,)) == [False, False, True]


def test_lists_and_texts_end_where_they_end(launcher):
    op = Op(launcher, "lls")
    calls = [([1], [2, 3], "x"), ([1, 2], [3], "x"), ([], [1, 2, 3], "x")]
    assert alike(op, *calls, *calls) == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("kinds", "value"),
    [
        ("t", None),
        ("t", 3),
        ("t", torch.zeros(2, 2).to_sparse()),
        ("i", 2**63),
        ("i", -(2**63) - 1),
        ("i", True),
        ("i", 1.0),
        ("i", None),
        ("f", True),
        ("f", "1"),
        ("f", 10**400),
        ("b", 1),
        ("s", b"x"),
        ("l", [2**63]),
        ("l", [1.0]),
        ("l", [True]),
        ("l", 3),
        ("o", []),
    ],
)
def test_what_has_no_signature_is_resolved_each_time(launcher, kinds, value):
    op = Op(launcher, kinds)
    assert alike(op, (value,), (value,)) == [False, False]
    assert len(op.calls) == 0
    assert op.calls.put((value,), print) is False
    assert op.calls.get((value,)) is None


def test_a_launch_gets_the_arguments_of_its_call(launcher):
    seen = []
    op = Op(launcher, "tTi", keep=False)
    x, y = torch.zeros(4), torch.zeros(4)
    op.calls.put((x, None, 3), lambda *args: seen.append(args))
    op.call(y, None, 3)
    assert seen[0][0] is y
    assert seen[0][1:] == (None, 3)


def test_trailing_arguments_have_their_defaults(launcher):
    op = Op(launcher, "tfI", defaults=(0.5, None))
    x = torch.zeros(4)
    assert alike(op, (x,), (x, 0.5), (x, 0.5, None), (x, 0.25)) == [False, True, True, False]
    assert op.asked[0][1:] == (0.5, None)
    assert op.calls.get((x,)) is not None


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_and_too_many_arguments_are_refused(launcher, count):
    op = Op(launcher, "tfI", defaults=(0.5, None))
    with pytest.raises(TypeError):
        op.call(*[X] * count)
    assert op.asked == []


def test_a_tensor_that_requires_grad_is_refused_where_gradients_are_recorded(launcher):
    x, grad = torch.zeros(4), torch.zeros(4, requires_grad=True)
    op = Op(launcher, "tT", gradients=True)
    assert alike(op, (x, None), (x, x)) == [False, False]
    for args in ((grad, None), (x, grad)):
        with pytest.raises(ValueError, match="requires grad"):
            op.call(*args)
    assert [len(args) for args in op.refused] == [2, 2]
    op = Op(launcher, "tT", gradients=False)
    assert alike(op, (grad, None), (x, None)) == [False, True]


def test_a_tensor_with_a_tangent_is_refused(launcher):
    """Forward gradients are wanted of it; of others beside it, and behind it, none are."""
    x = torch.zeros(4)
    op = Op(launcher, "tTi")
    assert alike(op, (x, None, 1)) == [False]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones(4))
        for args in ((dual, None, 1), (x, dual, 1)):
            with pytest.raises(ValueError, match="requires grad"):
                op.call(*args)
        assert alike(op, (x, None, 1), (x, 7, 1)) == [True, False]
    assert alike(op, (x, None, 1)) == [True]
    assert [len(args) for args in op.refused] == [3, 3]


def test_a_launch_of_its_own_answers_while_a_graph_is_captured(launcher):
    capturing = [False]
    op = Op(launcher, "i", keep=False, capturing=lambda: capturing[0])
    op.calls.put((1,), lambda _: "eager", 3, lambda _: "captured", 4)
    op.calls.put((2,), lambda _: "eager", 3)
    assert (op.call(1), op.call(2)) == ("eager", "eager")
    capturing[0] = True
    assert (op.call(1), op.call(2)) == ("captured", "eager")
    assert (op.calls.count(3), op.calls.count(4), op.calls.count(5)) == (3, 1, 0)


def test_reading_a_count_does_not_change_it(launcher):
    op = Op(launcher, "i", keep=False)
    op.calls.put((1,), lambda _: None, 7)
    for answered in range(3):
        assert [op.calls.count(7) for _ in range(3)] == [answered] * 3
        op.call(1)
    op.calls.clear()
    assert (len(op.calls), op.calls.count(7)) == (0, 3)


def test_a_launch_that_raises_is_not_counted(launcher):
    op = Op(launcher, "i", keep=False)
    op.calls.put((1,), lambda _: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            op.call(1)
    assert op.calls.count(0) == 0


@pytest.mark.parametrize("counter", [-1, 65_536])
def test_a_counter_out_of_range_is_refused(launcher, counter):
    op = Op(launcher, "i")
    with pytest.raises(ValueError, match=r"^a counter must be 0 to 65535$"):
        op.calls.put((1,), print, counter)
    assert len(op.calls) == 0


@pytest.mark.parametrize(
    ("kinds", "options", "text"),
    [
        ("x", {}, "kinds has 'x', which is none of tTiIfFbBsSlLo"),
        ("i", {"limit": 0}, "limit must be 1 to 16777216"),
        ("i", {"limit": 2**24 + 1}, "limit must be 1 to 16777216"),
        ("i", {"defaults": (1, 2)}, "defaults must not be more than kinds"),
    ],
)
def test_what_calls_cannot_be_made_of_is_refused(launcher, kinds, options, text):
    with pytest.raises(ValueError, match=rf"^{text}$"):
        Op(launcher, kinds, **options)


def test_a_new_signature_takes_the_place_of_the_oldest(launcher):
    op = Op(launcher, "i", limit=3)
    assert alike(op, (1,), (2,), (3,), (1,)) == [False, False, False, True]
    assert alike(op, (4,), (2,), (3,), (4,)) == [False, True, True, True]  # 1 is gone
    assert len(op.calls) == 3
    assert alike(op, (1,), (2,)) == [False, False]  # 1 took the place of 2


def test_putting_a_signature_again_replaces_its_launch_in_its_place(launcher):
    op = Op(launcher, "i", keep=False, limit=2)
    for value in (1, 2, 1):
        op.calls.put((value,), lambda _, put=value: put)
    op.calls.put((1,), lambda _: "again", 5)
    assert (op.call(1), len(op.calls), op.calls.count(5)) == ("again", 2, 1)
    op.calls.put((3,), lambda _: None)
    assert [op.calls.get((value,)) is None for value in (1, 2, 3)] == [True, False, False]


def test_a_launch_may_be_taken_out_while_it_runs(launcher):
    """Vllm's threads call while others put; here, the launch itself puts."""
    op = Op(launcher, "i", keep=False, limit=1)

    def launch(value):
        for other in range(100, 120):
            op.calls.put((other,), lambda _: None)
        op.calls.clear()
        return "answered"

    op.calls.put((1,), launch)
    del launch
    assert op.call(1) == "answered"
    assert op.calls.get((1,)) is None


def test_floats_of_any_value_are_in_no_signature(launcher):
    """Whether they are there is, and so are other floats; all that was known is forgotten."""
    op = Op(launcher, "fFf", defaults=(None, 0.5))
    assert alike(op, (1.0, 2.0), (1.0, 3.0)) == [False, False]
    op.calls.accept_any([0, 1])
    assert len(op.calls) == 0
    calls = [(1.0, 2.0), (-0.0, float("nan")), (7, 2**60), (1.0,), (2.0, None), (1.0, 2.0, 0.25)]
    assert alike(op, *calls) == [False, True, True, False, True, False]
    assert alike(op, (1.0, "x"), (True, 2.0), (10**400, 2.0)) == [False] * 3
    op.calls.accept_any(())
    assert alike(op, (1.0, 2.0), (1.0, 3.0), (1.0, 2.0)) == [False, False, True]


@pytest.mark.parametrize("places", [[1], [-1], [2], [0, 1]])
def test_what_is_no_float_has_a_signature(launcher, places):
    op = Op(launcher, "fi")
    with pytest.raises(ValueError, match=r"^a place must be that of a float$"):
        op.calls.accept_any(places)
    assert alike(op, (1.0, 1), (2.0, 1)) == [False, False]


def test_counts_are_exact_with_threads(launcher):
    op = Op(launcher, "ti", limit=4)
    x = torch.zeros(4)

    def run(start):
        for number in range(2000):
            op.call(x, (start + number) % 6)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert op.calls.count(0) + len(op.asked) == 8000


def test_a_recorded_launch_is_an_entry_like_any_other(launcher, stub):
    stub.sizes(8, 8)
    recorded = launcher.recorded(
        7, (1, 1, 1), 32, 0, ((0, 0), (-1, 0)), (((4,), (1,), X.dtype, X.device),), 0, -1
    )
    op = Op(launcher, "ti", keep=False)
    op.calls.put((X[:4], 1), recorded, 2)
    assert op.calls.get((X[:4], 1)) is recorded
    x = torch.ones(4)
    made = op.call(x, 1)
    assert list(stub.last().params[:2]) == [x.data_ptr(), made.data_ptr()]
    assert op.calls.count(2) == 1
    with pytest.raises(TypeError):
        recorded(x, key=3)


def test_an_error_of_resolve_reaches_the_caller(launcher):
    op = Op(launcher, "i")
    op.calls.clear()

    def refuse(args):
        raise KeyError(args)

    calls = launcher.make_calls("i", refuse, grad_enabled=torch.is_grad_enabled, check_grad=print)
    with pytest.raises(KeyError):
        calls.call(1)
