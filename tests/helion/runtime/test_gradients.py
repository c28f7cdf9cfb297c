"""Ops with a backward: the gradients that they get, and what is said where there is none."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import kernelpkg
from kernelpkg.errors import CallError


@pytest.fixture
def pack(copied):
    """A pack with an op and its backward, which are loaded."""
    found = copied("gradients")
    kernelpkg.load(root=found.root, device="cpu", strict=True, environment={})
    yield found
    kernelpkg.unload()
    torch._dynamo.reset()


@pytest.fixture
def op(pack):
    return torch.ops.gradients.weigh


def made(*, grad=True, count=4):
    """Return the arguments of a call."""
    values = torch.linspace(-1, 2, count), torch.linspace(3, 1, count)
    return (*(value.requires_grad_(grad) for value in values), torch.arange(count))


def want(input, weight, index, factor=2.0):
    """What the op does, for PyTorch to differentiate."""
    return input * weight * factor, input + weight + index


def gradients(call, used=(1.0, 1.0), **options):
    """Return the gradients of both arguments; of a result with a factor None nothing is used."""
    args = made()
    first, second, *_ = call(*args)
    ramp = torch.linspace(1, 2, 4)
    total = sum(
        (result * ramp * share).sum()
        for result, share in zip((first, second), used, strict=True)
        if share is not None
    )
    return torch.autograd.grad(total, args[:2], **options)


def same(got, wanted):
    return all(torch.allclose(left, right) for left, right in zip(got, wanted, strict=True))


@pytest.mark.parametrize("used", [(1.0, 1.0), (1.0, None), (None, 1.0)], ids=str)
def test_gradients_are_those_of_pytorch(op, used):
    """A result that nobody used has a gradient of zeros."""
    assert same(gradients(op, used), gradients(want, used))


def test_scalars_and_defaults_are_handed_on(op):
    got = gradients(lambda *args: op(*args, factor=-3.0))
    assert same(got, gradients(lambda *args: want(*args, -3.0)))


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])
def test_compiled_graphs_have_the_same_gradients(op, dynamic):
    """AOT takes forward and backward apart."""
    compiled = torch.compile(
        lambda *args: op(*args)[:2], fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    assert same(gradients(compiled), gradients(want))


def test_a_gradient_that_is_not_contiguous(op):
    """The sum of a result has one that is expanded, of stride 0."""
    args = made()
    got = torch.autograd.grad(op(*args)[0].sum(), args[:2])
    assert same(got, (args[1] * 2, args[0] * 2))


def test_a_graph_that_is_kept_gives_its_gradients_again(op):
    """The backward writes over a copy of what was kept, and not over that."""
    args = made()
    before = args[0].detach().clone()
    total = op(*args)[0].sum()
    first = torch.autograd.grad(total, args[:2], retain_graph=True)
    assert same(torch.autograd.grad(total, args[:2]), first)
    assert torch.equal(args[0], before)


def test_one_gradient_of_two(op):
    """An argument that needs none gets none."""
    args = made()
    args[1].requires_grad_(False)
    op(*args)[0].sum().backward()
    assert args[0].grad.tolist() == (args[1] * 2).tolist()
    assert args[1].grad is None


def test_a_result_that_the_backward_does_not_know_has_no_gradient(op):
    """So that nothing is left out in silence."""
    first, second, largest = op(*made())
    assert (first.requires_grad, second.requires_grad) == (True, True)
    assert not largest.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
def test_where_no_gradients_are_recorded(op, mode):
    args = made()
    with mode():
        assert not any(result.requires_grad for result in op(*args))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of PyTorch 2.14 itself
def test_integers_are_not_differentiated(op):
    """`index` has no gradient, and no call asks for one."""
    assert torch.library.opcheck(op.default, made()) == dict.fromkeys(
        [
            "test_schema",
            "test_autograd_registration",
            "test_faketensor",
            "test_aot_dispatch_dynamic",
        ],
        "SUCCESS",
    )


class Seen(TorchDispatchMode):
    """Notes what is called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_way_without_gradients_passes_nothing_by(op):
    """A mode of PyTorch sees the call, and a tensor without values has a result without."""
    args = made(grad=False)
    with Seen() as seen:
        op(*args)
    assert "gradients.weigh.default" in seen.names
    with FakeTensorMode() as mode:
        fake = op(*map(mode.from_tensor, args))
    assert type(fake[0]).__name__ == "FakeTensor"


def test_a_second_gradient_is_refused(op):
    """It is where it is asked for; a graph may be made of the first without."""
    first = gradients(op, create_graph=True)
    assert same(first, gradients(want))
    args = made()
    (slope,) = torch.autograd.grad(op(*args)[0].sum(), args[0], create_graph=True)
    with pytest.raises(CallError) as caught:
        slope.sum().backward()
    assert str(caught.value) == (
        "gradients::weigh: its gradient has no gradient, for 'gradients::weigh_backward' has no "
        "backward; do not differentiate it again"
    )


def test_a_backward_that_has_one_is_differentiated_again(demo):
    """Each of two ops answers the gradient of the other."""
    demo.kernel("thrice")
    for name, other in (("twice", "thrice"), ("thrice", "twice")):
        backward = '[op.backward]\nop = "OTHER"\nargs = { input = "return.grad" }\n'
        backward += 'grads = { input = "return" }\n[helion]\n'
        demo.edit(f"kernels/{name}/kernel.toml", "[helion]\n", backward.replace("OTHER", other))
    kernelpkg.load(root=demo.root, device="cpu", strict=True, environment={})
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (slope,) = torch.autograd.grad((torch.ops.demo.twice(x) * x).sum(), x, create_graph=True)
    assert slope.tolist() == [4.0, 8.0]
    assert torch.autograd.grad(slope.sum(), x)[0].tolist() == [4.0, 4.0]
    kernelpkg.unload()


def test_an_argument_without_a_gradient(op):
    """It would be taken for a constant in silence."""
    shift = torch.ones(4, requires_grad=True)
    with pytest.raises(CallError) as caught:
        op(*made(grad=False), shift)
    assert str(caught.value) == (
        "gradients::weigh: argument 'shift' requires grad, and [op.backward] of the op gives it "
        "none; detach it"
    )
    with torch.no_grad():
        assert op(*made(), shift)[1].tolist() == (want(*made())[1] + 1).tolist()


def test_a_backward_that_is_not_there(pack, op):
    """A call that wants a gradient says so, and the others are as they were."""
    kept = op(*made())[0].sum()
    kernelpkg.unload("weigh_backward")
    line = (
        "'gradients::weigh_backward', which answers it, is not loaded or switched off; load it, "
        "or call the op under torch.no_grad()"
    )
    with pytest.raises(CallError) as caught:
        op(*made())
    first = "gradients::weigh: argument 'input' requires grad, and "
    assert str(caught.value) == first + line
    with pytest.raises(CallError) as caught:
        kept.backward()
    assert str(caught.value) == f"gradients::weigh: a gradient is wanted, and {line}"
    assert op(*made(grad=False))[0].tolist() == want(*made(grad=False))[0].tolist()
    disabled = {"KERNELPKG_DISABLE": "weigh_backward"}
    kernelpkg.load(root=pack.root, device="cpu", environment=disabled)
    with pytest.raises(CallError, match="is not loaded or switched off"):
        op(*made())
    kernelpkg.load(root=pack.root, device="cpu", environment={})
    assert same(gradients(op), gradients(want))


def test_a_transform_of_torch_func(op):
    """It takes no backward that is registered for an op."""
    x, weight, index = made(grad=False)
    with pytest.raises(CallError) as caught:
        torch.func.grad(lambda x: op(x, weight, index)[0].sum())(x)
    assert str(caught.value) == (
        "gradients::weigh: argument 'input' requires grad under a transform of torch.func, which "
        "takes no backward of an op; use torch.autograd, or detach it"
    )


def test_an_edited_backward_counts_from_the_next_load(pack, op):
    """The op's own object stays good; a graph from before keeps what it was made with."""
    demo = "kernels/weigh/kernel.toml"
    kept = made()
    total = op(*kept)[0].sum()
    pack.edit(
        demo,
        '"return[0].grad", other = "return[1].grad"',
        '"return[1].grad", other = "return[0].grad"',
    )
    kernelpkg.load(root=pack.root, device="cpu", strict=True, environment={})
    args = made()
    got = torch.autograd.grad(torch.ops.gradients.weigh(*args)[1].sum(), args[:2])
    assert same(got, (args[1] * 2, args[0] * 2))
    assert same(torch.autograd.grad(total, kept[:2]), (kept[1] * 2, kept[0] * 2))


def test_a_backward_that_comes_and_goes(pack, op):
    """An op gets one by an edit, and loses it by another."""
    path = "kernels/weigh/kernel.toml"
    text = (pack.root / path).read_text()
    backward = text[text.index("[op.backward]") : text.index("[axes]")]
    for old, new, refused in ((backward, "", True), ("[axes]", backward + "[axes]", False)):
        pack.edit(path, old, new)
        kernelpkg.load(root=pack.root, device="cpu", strict=True, environment={})
        if refused:
            with pytest.raises(CallError, match="requires grad, and the op has no backward"):
                torch.ops.gradients.weigh(*made())
        else:
            assert same(gradients(torch.ops.gradients.weigh), gradients(want))


def test_a_backward_with_another_schema_than_at_the_call(pack, op):
    """What was kept does not fit it, which is said."""
    total = op(*made())[0].sum()
    for file in ("kernel.toml", "kernel.py", "host.py"):
        pack.edit(f"kernels/weigh_backward/{file}", "more", "rest")
    kernelpkg.load(root=pack.root, device="cpu", strict=True, environment={})
    with pytest.raises(CallError) as caught:
        total.backward()
    assert str(caught.value) == (
        "gradients::weigh: 'gradients::weigh_backward' has another schema than when the op was "
        "called; call the op again"
    )
    assert same(gradients(op), gradients(want))
