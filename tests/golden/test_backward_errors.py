"""Every error that [op.backward] can have, word for word: one edit of a good manifest for each."""

# ruff: noqa: E501  # tables of cases have a line each

import pytest

from kernelpkg.errors import PackError
from kernelpkg.manifest.spec import Backward
from kernelpkg.packs.read import read_kernel

NOT_GIVEN = (
    "9: KP161 argument 'grad' of 'weigh_backward' is not given, for the op has no argument of this "
    'name; say in args what it is, as in grad = "return[0].grad"'
)
EDITS = {
    "an op that writes": ("(Tensor input,", "(Tensor(a!) input,",
        "9: KP162 the op writes 'input', and PyTorch takes no backward of such ops; return what it writes, or remove [op.backward]",
        "31: KP109 'input' is written by the op and has no [accuracy]; say how close it must be"),
    "no such op": ('op = "weigh_backward"', 'op = "weigh_backwards"',
        "10: KP160 'weigh_backwards' answers the gradients, and is not in kernels/; did you mean 'weigh_backward'?"),
    "no op": ('op = "weigh_backward"\n', "",
        "9: KP011 key 'op' is missing in [op.backward]; it must be an identifier (letters, digits and underscores)"),
    "no gradients": ('grads = { input = "input", weight = "return" }\n', "",
        "9: KP011 key 'grads' is missing in [op.backward]; it must be a table"),
    "a source that is not there": ('"weight" }\n', '"weights" }\n',
        "11: KP161 argument 'factors' of 'weigh_backward' is 'weights', which the op does not have; did you mean 'weight'?"),
    "a source in other words": ("return[0].grad", "return[0].gradient",
        "11: KP012 'grad' must be an argument, a result as 'return' or 'return[1]', or its gradient, 'return.grad', not 'return[0].gradient'"),
    "an argument without a source": ('grad = "return[0].grad", ', "", NOT_GIVEN),
    "an argument that is not there": ("{ grad = ", "{ grade = ", NOT_GIVEN,
        "11: KP161 'weigh_backward' has no argument 'grade'; did you mean 'grad'?"),
    "another type": ('factors = "weight"', 'factors = "factor"',
        "11: KP161 argument 'factors' of 'weigh_backward' is a Tensor, and 'factor' a float; let both agree"),
    "what may be absent": ('factors = "weight"', 'factors = "shift"',
        "11: KP161 argument 'factors' of 'weigh_backward' is always given, and 'shift' may be absent; make it 'Tensor?', or the op's always given"),
    "no gradient above": ('"return[0].grad", other = "return[1].grad"', '"return[0]", other = "return[1]"',
        "9: KP161 'weigh_backward' is given no gradient; say in args which argument is one, as in grad = \"return[0].grad\""),
    "gradients of nothing": ('{ input = "input", weight = "return" }', "{ }",
        "12: KP161 grads names no argument of the op; say whose gradients 'weigh_backward' gives, as in { input = \"input\" }"),
    "a gradient of a number": ("{ input = ", "{ factor = ",
        "12: KP161 grads names 'factor', which is not a tensor argument of the op; there are input, weight, index, shift"),
    "a gradient that is not given": ('weight = "return" }', 'weight = "grad" }',
        "12: KP161 the gradient of 'weight' is 'grad', which 'weigh_backward' does not give; it gives input, return"),
    "one gradient for two": ('weight = "return" }', 'weight = "input" }',
        "12: KP161 'input' is the gradient of 'input' and of 'weight'; give each its own"),
    "a gradient of whole numbers": ('weight = "return" }', 'index = "return" }',
        "12: KP161 grads names 'index', which is int64 in [args] and has no gradient; remove it"),
    "another dtype": ('factors = "weight"', 'factors = "index"',
        "11: KP161 argument 'factors' of 'weigh_backward' is float32 in its [args], and 'index' int64 in those of the op; let both agree"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_reported_word_for_word(copied, name):
    """What the arguments of the backward are, what it gives, and what is differentiated at all."""
    pack = copied("gradients")
    old, new, *lines = EDITS[name]
    pack.edit("kernels/weigh/kernel.toml", old, new)
    with pytest.raises(PackError) as caught:
        read_kernel(pack.root, "weigh")
    wanted = [f"kernels/weigh/kernel.toml:{line}" for line in lines]
    assert str(caught.value).split("\n") == wanted


def test_a_backward_that_fits(copied):
    """One that is broken by itself is told where it is read."""
    pack = copied("gradients")
    backward = Backward(
        op="weigh_backward",
        args={"grad": "return[0].grad", "other": "return[1].grad", "factors": "weight"},
        grads={"input": "input", "weight": "return"},
    )
    assert read_kernel(pack.root, "weigh").backward == backward
    pack.edit("kernels/weigh_backward/kernel.toml", "(Tensor grad", "(Tensor grad grad")
    assert read_kernel(pack.root, "weigh").backward == backward
