"""Ops inside torch.compile: whole graphs, no recompilation, the results of eager."""

from __future__ import annotations

import pytest
import torch

from kernelpkg.runtime.register import get_kernel_by_name

pytestmark = pytest.mark.usefixtures("pack")
EACH_KERNEL = True

TOKENS = (5, 2, 17, 63, 3)


def _bytes(tensor):
    return tensor.contiguous().view(torch.uint8)


def _calling(op):
    """A function of a user that calls an op."""

    def call(*args):
        return op(*args)

    return call


def _outcome(op, args):
    """Everything that a call can have changed or made."""
    result = op(*args)
    found = [arg for arg in args if isinstance(arg, torch.Tensor)]
    return [*found, *([] if result is None else [result])]


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_one_graph_for_all_token_counts(name, make_args):
    """A whole graph, compiled once for all token counts from 2 on, gives what eager gives."""
    op = getattr(torch.ops.kernelpkg, name)
    compiled = torch.compile(_calling(op), fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in TOKENS:
            got = _outcome(compiled, make_args(name, num_tokens=tokens))
            want = _outcome(op, make_args(name, num_tokens=tokens))
            for left, right in zip(got, want, strict=True):
                assert torch.equal(_bytes(left), _bytes(right))


def test_the_graph_holds_the_op_alone(name, make_args):
    """What is compiled is one call of the op, not the Python behind it."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    op = getattr(torch.ops.kernelpkg, name)
    compiled = torch.compile(_calling(op), fullgraph=True, backend=backend)
    compiled(*make_args(name))
    calls = [node.target for node in graphs[-1].graph.nodes if node.op == "call_function"]
    assert calls == [op]


def test_between_other_operations():
    """A compiled function around an op sees its result, in shape and dtype and value."""

    def around(x, scale):
        return torch.ops.kernelpkg.silu_mul_fp8(x * 2, scale).float() + 1

    compiled = torch.compile(around, fullgraph=True, dynamic=True, backend="aot_eager")
    scale = torch.tensor([0.02])
    for tokens in TOKENS:
        x = torch.randn(tokens, 4, 64, generator=torch.Generator().manual_seed(tokens))
        assert torch.equal(compiled(x, scale), around(x, scale))


def test_a_written_argument_is_read_afterwards():
    """A compiled function that reads what an op wrote gets the new values."""

    def around(x):
        result = torch.zeros(x.shape, dtype=torch.float8_e4m3fn)
        scale = torch.zeros(x.shape[0], 1)
        torch.ops.kernelpkg.dynamic_per_token_scaled_fp8_quant(result, x, scale, None)
        return result.float() * scale

    compiled = torch.compile(around, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in TOKENS:
        x = torch.randn(tokens, 64, generator=torch.Generator().manual_seed(tokens))
        assert torch.equal(compiled(x), around(x))
        torch.testing.assert_close(compiled(x), x, rtol=2**-3, atol=1e-2)


def test_the_wrapper_is_traced_through(make_args):
    """Calling the kernel object instead of the op makes the same graph."""
    kernel = get_kernel_by_name("silu_mul_fp8")
    compiled = torch.compile(_calling(kernel), fullgraph=True, backend="aot_eager")
    args = make_args("silu_mul_fp8")
    assert torch.equal(_bytes(compiled(*args)), _bytes(kernel(*args)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
def test_without_gradients(name, mode, make_args):
    """Under no_grad and inference_mode, compiled and eager calls take tensors of a module."""
    op = getattr(torch.ops.kernelpkg, name)
    compiled = torch.compile(_calling(op), fullgraph=True, backend="aot_eager")
    with mode():
        got = _outcome(compiled, make_args(name))
        want = _outcome(op, make_args(name))
    for left, right in zip(got, want, strict=True):
        assert torch.equal(_bytes(left), _bytes(right))


@pytest.mark.parametrize("fullgraph", [True, False], ids=["fullgraph", "breaks"])
def test_gradients_are_refused_while_compiling(fullgraph):
    """An input that requires grad is refused when the graph is traced, with the line of eager."""
    op = torch.ops.kernelpkg.silu_mul_fp8
    compiled = torch.compile(_calling(op), fullgraph=fullgraph, backend="aot_eager", dynamic=True)
    x, scale = torch.randn(2, 64, requires_grad=True), torch.ones(1)
    line = (
        "kernelpkg::silu_mul_fp8: argument 'input' requires grad, and the op has no backward; "
        "detach it, or call the op under torch.no_grad()"
    )
    with pytest.raises(torch._dynamo.exc.TorchRuntimeError) as caught:
        compiled(x, scale)
    assert line in str(caught.value)
    with torch.no_grad():
        assert torch.equal(_bytes(compiled(x, scale)), _bytes(op(x.detach(), scale)))
