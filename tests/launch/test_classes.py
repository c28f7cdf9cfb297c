"""Calls share code where it is right for all of them, and only there."""

from __future__ import annotations

import json

import pytest
import torch

from kernelpkg.launch.classes import ClassRule, is_far, size_classes, truths, untrue


def far(size: int, stride: int) -> torch.Tensor:
    """Rows that lie as far apart as they are told, and take no memory."""
    return torch.empty_strided((size,), (stride,), device="meta")


def test_a_class_says_what_code_depends_on():
    args = (torch.empty(3, 8, dtype=torch.bfloat16), None, True, 5, 0.5, "sum", [1, 2, 4, 5])
    found = call_class(args, {0: (False, True), 3: (False,), 6: (False, False, False, True)})
    assert json.loads(found) == [
        ["bfloat16", [2, 8, 2, 1]],
        None,
        True,
        {"int": 2},
        "float",
        "sum",
        [1, 2, 2, 5],
    ]


def call_class(args, exact, **options):
    return ClassRule(exact=exact).class_of(args, **options)


X = torch.empty(4, 8)
SAME = {
    "rows": ((X,), (torch.empty(7, 8),)),
    "columns": ((X,), (torch.empty(4, 9),)),
    "a start elsewhere": ((X,), (torch.empty(5, 8)[1:],)),
    "numbers": ((2, 0.5), (7, 1.5)),
    "elements of a list": (([1, 2],), ([1, 3],)),
}
APART = {
    "one row": ((X,), (torch.empty(1, 8),)),
    "no row": ((X,), (torch.empty(0, 8),)),
    "a column": ((X,), (torch.empty(4, 1),)),
    "the order of strides": ((X,), (torch.empty(8, 4).t(),)),
    "stride 0": ((X,), (torch.empty(8).expand(4, 8),)),
    "dimensions": ((X,), (torch.empty(4, 8, 2),)),
    "dtype": ((X,), (torch.empty(4, 8, dtype=torch.float16),)),
    "an absent one": ((X,), (None,)),
    "a number of 1": ((1,), (2,)),
    "a number of 0": ((0,), (2,)),
    "a negative number": ((-1,), (2,)),
    "a flag": ((True,), (False,)),
    "a flag and a number": ((True,), (1,)),
    "a word": (("sum",), ("mean",)),
    "a list with a 1": (([1, 2],), ([3, 2],)),
    "a longer list": (([2, 2],), ([2, 2, 2],)),
    "a whole number and another": ((2,), (2.0,)),
    "indices of 64 bits": ((far(2**31, 1),), (far(2**31 + 1, 1),)),
    "a view that lies far apart": ((far(3, 2**30 - 1),), (far(3, 2**30),)),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_calls_that_share_code(one, other):
    assert call_class(one, {}) == call_class(other, {})


@pytest.mark.parametrize(("one", "other"), APART.values(), ids=APART)
def test_calls_that_have_code_of_their_own(one, other):
    assert call_class(one, {}) != call_class(other, {})


def test_what_is_exact_tells_calls_apart():
    assert call_class((X,), {0: (False, True)}) != call_class((torch.empty(4, 9),), {0: (0, True)})
    assert call_class((X,), {0: (False, True)}) == call_class((torch.empty(5, 8),), {0: (0, True)})
    strides = {0: (False, False, True)}
    assert call_class((X,), strides) != call_class((torch.empty(4, 9),), strides)
    assert call_class((5,), {0: (True,)}) != call_class((6,), {0: (True,)})


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (far(2**31, 1), False),
        (far(2**31 + 1, 1), True),
        (far(1, 2**40), False),
        (far(0, 2**40), False),
        (torch.empty(()), False),
    ],
    ids=["last in reach", "out of reach", "one element", "none", "scalar"],
)
def test_what_32_bit_indices_do_not_reach(tensor, expected):
    assert is_far(tensor.shape, tensor.stride()) == expected


def test_a_call_whose_results_alone_are_far_has_a_class_of_its_own():
    assert call_class((X,), {}, far=True) != call_class((X,), {})
    wide = far(2**31 + 1, 1)
    assert call_class((wide,), {}, far=True) == call_class((wide,), {})


def test_size_classes_look_at_tensors_alone():
    """Of each, sizes and strides of 0, of 1, and of more."""
    assert size_classes((X, 7, None, torch.empty(1, 0).expand(3, 0))) == (
        ((2, 2), (2, 1)),
        ((2, 0), (0, 1)),
    )


def test_strides_that_lead_nowhere_make_no_class():
    """Rows of one token have the stride of what they are from, and vLLM's scales of one have 1."""
    rows = [torch.empty(8, 32)[:1], torch.empty(8, 48)[:1, :32], torch.empty(32, 1).t()]
    assert [row.stride() for row in rows] == [(32, 1), (48, 1), (1, 1)]
    assert len({call_class([row], {}) for row in rows}) == 1
    assert len({size_classes([row]) for row in rows}) == 1
    column = torch.empty(32, 8).t()[:1]
    assert call_class([column], {}) != call_class(rows[:1], {})


def test_joining_keeps_what_is_exact_in_either():
    one, other = {0: (True, False), 2: (True,)}, {0: (False, False, True), 1: (False,)}
    expected = {0: (True, False, True), 1: (False,), 2: (True,)}
    learned = [ClassRule(exact=a).learned((), b, ()) for a, b in ((one, other), (other, one))]
    assert [rule.exact for rule in learned] == [expected, expected]
    assert ClassRule(exact=one).learned((), {}, ()).exact == one


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        pytest.param((2, 64), (512, 64), True, id="tokens"),
        pytest.param((1, 64), (2, 64), False, id="one-row"),
        pytest.param((0, 64), (1, 64), False, id="no-row"),
        pytest.param((4, 1), (4, 2), False, id="one-column"),
        pytest.param((4, 4, 4), (4, 16), False, id="dimensions"),
    ],
)
def test_size_classes_of_shapes(left, right, same):
    """Sizes count by 0, 1 and more, in every dimension."""
    found = [size_classes((torch.empty(shape), 1, None)) for shape in (left, right)]
    assert (found[0] == found[1]) is same


def test_size_classes_of_strides():
    """A stride of 1 is told from others, for code may be made for it; an expanded one is 0."""
    rows, columns = torch.empty(8, 4), torch.empty(4, 8).t()
    padded, expanded = torch.empty(8, 6)[:, :4], torch.empty(1, 4).expand(8, 4)
    classes = [size_classes((t,)) for t in (rows, columns, padded, expanded)]
    assert classes[0] == classes[2]
    assert len(set(classes)) == 3


FACTS = ("a0.shape[1] == a2.shape[0]", "a0.shape[1] // a1 == 1", "a3.shape[0] == 4")


def facts_rule(*args):
    """A rule that has learned all facts of one call."""
    return ClassRule().learned(args, {1: (True,)}, FACTS)


def test_a_class_says_which_facts_are_not_true():
    call = (torch.empty(4, 64), 64, torch.empty(64), None)
    rule = facts_rule(*call)
    found = {rule.class_of((torch.empty(4, n), 64, torch.empty(m), None)) for n, m in
             ((64, 64), (96, 96), (128, 128), (64, 32))}  # fmt: skip
    assert len(found) == 3
    assert json.loads(rule.class_of(call))[-1] == "not 4"  # an absent argument is not four
    other = (torch.empty(4, 64), 32, torch.empty(64), None)
    assert ClassRule(exact=rule.exact).class_of(other) == rule.class_of(
        other
    )  # none are of its own


def test_a_fact_without_a_value_is_not_true():
    call = (torch.empty(4, 64), torch.empty(0))
    rule = ClassRule().learned(call, {}, ["a0.shape[1] % a1.shape[0] == 0"])
    assert json.loads(rule.class_of(call))[-1] == "not 1"


def test_what_is_known_already_changes_no_rule():
    call = (torch.empty(4, 64), 64, torch.empty(64), None)
    rule = facts_rule(*call)
    assert rule.learned(call, {1: (True,)}, FACTS[:1]) is rule
    more = rule.learned(call, {0: (False, True)}, FACTS[:1])
    assert [*more.facts.values()] == [(*sorted(FACTS),), FACTS[:1]]  # by what was and is exact


@pytest.mark.parametrize(("fact", "said", "expected"), [(FACTS[0], True, False),
    (FACTS[0], False, True), (FACTS[2], False, False)])  # fmt: skip
def test_whether_what_was_said_is_untrue(fact, said, expected):
    assert untrue({fact: said}, (torch.empty(4, 64), 64, torch.empty(64), None)) is expected


def test_a_stride_that_leads_nowhere_counts_where_it_is_a_number_in_the_code():
    rows = [torch.empty(8, 32)[:1], torch.empty(8, 48)[:1, :32]]
    assert len({call_class([row], {0: (False, False, True)}) for row in rows}) == 2


@pytest.mark.parametrize("arg", [[3, 4], torch.empty(5)], ids=["list", "tensor"])
def test_arguments_of_fewer_sizes_than_what_is_exact_have_a_class(arg):
    assert call_class([arg], {0: (True, False, True)}) != call_class([arg], {})


def test_facts_are_read_one_by_one_where_one_has_no_value():
    facts = ("a0.shape[0] == 4", "a0.shape[1] % a1.shape[0] == 0", "a0.shape[1] == 64", "a3 == 1")
    args = (torch.empty(4, 64), torch.empty(0))
    assert truths(facts, args) == (True, False, True, False)  # nor has what was left out
    assert truths((), args) == ()
