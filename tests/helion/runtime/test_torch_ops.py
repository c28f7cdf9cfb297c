"""Ops of PyTorch: names, registration and its undoing, calls that are refused, opcheck."""

from __future__ import annotations

import inspect
import sys
import threading
import types

import pytest
import torch
from torch.autograd import forward_ad

import kernelpkg
from kernelpkg.errors import CallError, RegistrationError
from kernelpkg.runtime import torch_ops
from kernelpkg.runtime.register import get_kernel_by_name
from kernelpkg.runtime.torch_ops import RegisteredOp

pytestmark = pytest.mark.usefixtures("pack")
EACH_KERNEL = True

CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)


def _bytes(tensor):
    return tensor.detach().clone(memory_format=torch.contiguous_format).view(torch.uint8)


def _op(schema, implementation, fake, name="thing", **options):
    return RegisteredOp(
        namespace="kp_test_ops",
        name=name,
        schema=schema,
        implementation=implementation,
        fake=fake,
        **options,
    )


def _plus(n):
    return lambda x: x + n


def test_register_and_close():
    """An op is callable while it is registered; closing gives its name back."""
    op = _op("(Tensor x) -> Tensor", _plus(1), torch.empty_like)
    assert op.qualified == "kp_test_ops::thing"
    assert torch.equal(torch.ops.kp_test_ops.thing(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.Tag.pt2_compliant_tag in op.call.default.tags
    op.close()
    assert not hasattr(torch.ops.kp_test_ops, "thing")
    assert "thing" not in dir(torch.ops.kp_test_ops)
    assert torch_ops.name_problem("kp_test_ops", "thing") is None


def test_an_op_held_after_it_was_closed():
    """Who still holds a closed op, or a graph of it, gets an error; PyTorch itself would crash."""
    op = _op("(Tensor x) -> Tensor", _plus(1), torch.empty_like)
    packet, overload = op.call, op.call.default
    numbers = {packet: 1, overload: 2}
    compiled = torch.compile(lambda x: overload(x) * 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    op.close()
    with pytest.raises((AttributeError, RegistrationError), match="thing"):
        compiled(torch.ones(2))
    for call in (packet, overload):
        with pytest.raises(RegistrationError) as caught:
            call(torch.ones(2))
        assert str(caught.value) == "op 'kp_test_ops::thing' was unloaded; load its pack again"
    assert (numbers[packet], numbers[overload]) == (1, 2)
    again = _op("(Tensor x) -> Tensor", _plus(2), torch.empty_like)
    assert torch.equal(torch.ops.kp_test_ops.thing(torch.ones(1)), torch.full((1,), 3.0))
    again.close()


def test_a_name_can_have_another_schema_later():
    """A closed op leaves nothing behind: another schema may take the name, compiled too."""
    for schema, extra in (("(Tensor x) -> Tensor", ()), ("(Tensor x, int n) -> Tensor", (3,))):
        op = _op(schema, lambda x, n=1: x + n, lambda x, n=1: x.new_empty(x.shape))
        want = torch.full((2,), 1.0 + (extra[0] if extra else 1))
        assert torch.equal(torch.ops.kp_test_ops.thing(torch.ones(2), *extra), want)
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda x, *rest: torch.ops.kp_test_ops.thing(x, *rest) * 1,
            fullgraph=True,
            backend="aot_eager",
        )
        assert torch.equal(compiled(torch.ones(2), *extra), want)
        op.close()


@pytest.fixture
def busy():
    """Keeps a thread within a call of an op until it is told; `ended` has how the call ended."""
    go_on, inside, ended = threading.Event(), threading.Event(), []

    def implementation(x):
        inside.set()
        go_on.wait(60)
        return x + 1

    op = _op("(Tensor x) -> Tensor", implementation, torch.empty_like)

    def call():
        ended.append(torch.ops.kp_test_ops.thing(torch.ones(1)).item())

    thread = threading.Thread(target=call)
    thread.start()
    inside.wait(60)
    yield types.SimpleNamespace(op=op, go_on=go_on, ended=ended, thread=thread)
    go_on.set()
    thread.join()
    op.close()


def test_an_op_is_not_closed_while_it_is_called(busy, monkeypatch):
    """Closing waits for calls of other threads; after some time it gives up, and the op stays."""
    monkeypatch.setattr(torch_ops, "LONGEST_CALL", 0.01)
    with pytest.raises(RegistrationError) as caught:
        busy.op.close()
    assert str(caught.value) == (
        "op 'kp_test_ops::thing' is being called, and cannot be unloaded; wait for the call to end"
    )
    busy.go_on.set()
    assert torch.ops.kp_test_ops.thing(torch.ones(1)).item() == 2.0
    monkeypatch.undo()
    busy.op.close()
    busy.thread.join()  # the call has ended, and its thread may not have said so yet
    assert busy.ended == [2.0]
    assert not hasattr(torch.ops.kp_test_ops, "thing")


def test_an_op_takes_the_place_of_another_while_that_is_called(busy):
    """Of the same schema it does so at once; the call that is on its way ends as it began."""
    packet = torch.ops.kp_test_ops.thing
    again = _op("(Tensor x) -> Tensor", _plus(2), lambda x: x.new_empty(7), instead_of=busy.op)
    assert torch.ops.kp_test_ops.thing is packet
    assert packet(torch.ones(1)).item() == 3.0
    assert packet(torch.ones(1, device="meta")).shape == (7,)
    busy.go_on.set()
    busy.op.close()  # it has nothing any more
    assert packet(torch.ones(1)).item() == 3.0
    again.close()
    busy.thread.join()  # the call has ended, and its thread may not have said so yet
    assert busy.ended == [2.0]


def test_an_op_of_another_schema_takes_the_place_of_one():
    """And where that cannot be registered, the one that was there is there again."""
    one = _op("(Tensor x) -> Tensor", _plus(1), torch.empty_like)
    with pytest.raises(RegistrationError, match="cannot be registered"):
        _op("(Tensr x) -> Tensor", _plus(2), torch.empty_like, instead_of=one)
    assert torch.ops.kp_test_ops.thing(torch.ones(1)).item() == 2.0
    two = _op(
        "(Tensor x, int n) -> Tensor", lambda x, n: x + n, lambda x, n: x.clone(), instead_of=one
    )
    assert torch.ops.kp_test_ops.thing(torch.ones(1), 4).item() == 5.0
    two.close()


def test_an_op_is_registered_without_a_search_through_all_modules(monkeypatch):
    """PyTorch asks which module registers a fake implementation; `inspect` would look at each."""

    class Module(types.ModuleType):
        @property
        def __file__(self):
            searched.append(self.__name__)
            return f"/{self.__name__}.py"

    searched = []
    monkeypatch.setitem(sys.modules, "kp_test_module", Module("kp_test_module"))
    monkeypatch.setattr(inspect, "modulesbyfile", {})
    torch_ops.know_this_module()
    _op("(Tensor x) -> Tensor", _plus(1), torch.empty_like).close()
    assert searched == []


def test_closing_one_op_leaves_the_others():
    """Ops of one namespace are closed apart."""
    one = _op("(Tensor x) -> Tensor", _plus(1), torch.empty_like, name="one")
    two = _op("(Tensor x) -> Tensor", _plus(2), torch.empty_like, name="two")
    one.close()
    assert torch.equal(torch.ops.kp_test_ops.two(torch.zeros(1)), torch.full((1,), 2.0))
    two.close()


@pytest.mark.parametrize("namespace", ["aten", "prim", "prims", "c10", "_C"])
def test_reserved_namespaces(namespace):
    """Namespaces of PyTorch and vLLM are never written to."""
    assert torch_ops.name_problem(namespace, "thing") == (
        f"namespace '{namespace}' is in use by PyTorch or vLLM; give the pack its own"
    )


@pytest.mark.parametrize("implemented", [True, False], ids=["implemented", "defined"])
def test_a_name_of_another_library(implemented):
    """An op that someone else defined is seen, implemented or not."""
    library = torch.library.Library("kp_test_ops", "FRAGMENT")
    library.define("other(Tensor x) -> Tensor")
    if implemented:
        library.impl("other", _plus(1), "CPU")
    assert torch_ops.name_problem("kp_test_ops", "other") == (
        "op 'kp_test_ops::other' is registered already, by another library"
    )
    library._destroy()
    assert torch_ops.name_problem("kp_test_ops", "other") is None


def test_a_failed_registration_leaves_nothing():
    """A schema that PyTorch does not read is one line, and the name stays free."""
    with pytest.raises(RegistrationError) as caught:
        _op("(Tensor x, Tensr y) -> Tensor", _plus(1), torch.empty_like)
    assert str(caught.value).startswith("op 'kp_test_ops::thing' cannot be registered: ")
    assert "\n" not in str(caught.value)
    assert torch_ops.name_problem("kp_test_ops", "thing") is None
    assert not hasattr(torch.ops.kp_test_ops, "thing")


def test_a_clash_leaves_the_first_op():
    """Registering over an op fails, and takes nothing from the op that was there."""
    first = _op("(Tensor x) -> Tensor", _plus(1), torch.empty_like)
    with pytest.raises(RegistrationError, match="op 'kp_test_ops::thing' cannot be registered: "):
        _op("(Tensor x) -> Tensor", _plus(2), torch.empty_like)
    assert torch.equal(torch.ops.kp_test_ops.thing(torch.ones(1)), torch.full((1,), 2.0))
    first.close()


@pytest.mark.parametrize("check", CHECKS)
def test_opcheck(name, check, make_args):
    """PyTorch's own checks pass; the one that cannot compare FP8 on a CPU is made below."""
    op = getattr(torch.ops.kernelpkg, name).default
    args = make_args(name)
    found = torch.library.opcheck(op, args, test_utils=(check,), raise_exception=False)
    if found[check] != "SUCCESS":
        assert check == "test_schema"
        assert "not implemented for 'Float8_e4m3fn'" in str(found[check])
        assert any(getattr(arg, "dtype", None) == torch.float8_e4m3fn for arg in args)


def test_schema_tells_the_truth(name, make_args):
    """Bytes change in the arguments that the schema says are written, and in no other.

    It says for FP8 arguments what opcheck's test_schema says for the rest: nothing is written in
    secret, and no result shares memory with an argument.
    """
    kernel = get_kernel_by_name(name)
    args = make_args(name)
    tensors = {
        arg.name: value
        for arg, value in zip(kernel.schema.args, args, strict=False)
        if isinstance(value, torch.Tensor)
    }
    before = {key: _bytes(value) for key, value in tensors.items()}
    result = kernel(*args)
    changed = {key for key, value in tensors.items() if not torch.equal(before[key], _bytes(value))}
    assert changed == set(kernel.schema.written)
    places = {value.untyped_storage().data_ptr() for value in tensors.values()}
    assert (result is None) == (kernel.schema.returns == 0)
    if result is not None:
        assert result.untyped_storage().data_ptr() not in places


def test_schema_is_the_manifests(name):
    """PyTorch holds the schema of the manifest, names, types, defaults and mutation."""
    schema = get_kernel_by_name(name).schema
    found = getattr(torch.ops.kernelpkg, name).default._schema
    assert [arg.name for arg in found.arguments] == list(schema.arg_names)
    for theirs, ours in zip(found.arguments, schema.args, strict=True):
        assert (theirs.alias_info is not None and theirs.alias_info.is_write) == ours.mutated
        assert theirs.has_default_value() == (ours.default.__class__ is not object)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
def test_tensors_that_require_grad(mode):
    """They are refused where gradients are recorded, and taken where none are."""
    x, scale = torch.randn(2, 64, requires_grad=True), torch.ones(1)
    line = (
        "kernelpkg::silu_mul_fp8: argument 'input' requires grad, and the op has no backward; "
        "detach it, or call the op under torch.no_grad()"
    )
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            torch.ops.kernelpkg.silu_mul_fp8(x, scale)
        assert str(caught.value) == line
        with mode():
            got = torch.ops.kernelpkg.silu_mul_fp8(x, scale)
        want = torch.ops.kernelpkg.silu_mul_fp8(x.detach(), scale)
        assert torch.equal(_bytes(got), _bytes(want))
        assert not got.requires_grad


@pytest.fixture
def double(demo):
    """An op of a pack that doubles its input."""
    kernelpkg.load(root=demo.root, device="cpu", environment={}, strict=True)
    yield torch.ops.demo.twice
    torch._dynamo.reset()


BACKWARD = "argument 'input' requires grad, and the op has no backward; detach it, or call the op"
FORWARD = "argument 'input' has a tangent, and the op has no forward derivative; detach it"


def _dual(op, x):
    with forward_ad.dual_level():
        return op(forward_ad.make_dual(x, torch.ones(4)))


def _compiled_grad(op, x):
    call = torch.func.grad(lambda v: op(v).sum())
    return torch.compile(lambda v: call(v), backend="aot_eager")(x)  # noqa: PLW0108


WANTED = {
    "grad": (BACKWARD, lambda op, x: torch.func.grad(lambda v: op(v).sum())(x)),
    "vjp": (BACKWARD, torch.func.vjp),
    "jacrev": (BACKWARD, lambda op, x: torch.func.jacrev(op)(x)),
    "hessian": (BACKWARD, lambda op, x: torch.func.hessian(lambda v: op(v).sum())(x)),
    "grad-of-vmap": (
        BACKWARD,
        lambda op, x: torch.func.grad(lambda v: torch.vmap(op)(v).sum())(x.view(2, 2)),
    ),
    "vmap-of-grad": (
        BACKWARD,
        lambda op, x: torch.vmap(torch.func.grad(lambda v: op(v).sum()))(x.view(2, 2)),
    ),
    "grad-in-grad": (
        BACKWARD,
        lambda op, x: torch.func.grad(
            lambda v: torch.func.grad(lambda w: (w * op(v)).sum())(v).sum()
        )(x),
    ),
    "compiled-grad": (BACKWARD, _compiled_grad),
    "jvp": (FORWARD, lambda op, x: torch.func.jvp(op, (x,), (torch.ones(4),))),
    "jacfwd": (FORWARD, lambda op, x: torch.func.jacfwd(op)(x)),
    "linearize": (FORWARD, torch.func.linearize),
    "dual": (FORWARD, _dual),
}


@pytest.mark.parametrize("way", WANTED)
def test_a_gradient_that_is_wanted_by_another_way(double, way):
    """Nothing says so on the tensors that an implementation gets; it would be zero in silence."""
    line, call = WANTED[way]
    with pytest.raises(Exception, match=f"demo::twice: {line}"):
        call(double, torch.arange(4.0))


def _without_grad(op, x):
    with torch.no_grad():
        return op(x)


UNWANTED = {
    "vmap": (lambda op, x: torch.vmap(op)(x.view(2, 2)).view(4), [0, 2, 4, 6]),
    "grad-of-the-rest": (
        lambda op, x: torch.func.grad(lambda v: (v * op(torch.ones(4) * 1)).sum())(x),
        [2, 2, 2, 2],
    ),
    "grad-of-another": (
        lambda op, x: torch.func.grad(lambda v: (v * op(x)).sum())(x),
        [0, 2, 4, 6],
    ),
    "detached": (
        lambda op, x: torch.func.grad(lambda v: (v * op(v.detach())).sum())(x),
        [0, 2, 4, 6],
    ),
    "no-grad": (
        lambda op, x: torch.func.grad(lambda v: (v * _without_grad(op, v)).sum())(x),
        [0, 2, 4, 6],
    ),
    "jvp-of-the-rest": (
        lambda op, x: torch.func.jvp(lambda v: v * op(x), (x,), (torch.ones(4),))[1],
        [0, 2, 4, 6],
    ),
    "functionalize": (lambda op, x: torch.func.functionalize(op)(x), [0, 2, 4, 6]),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("way", UNWANTED)
def test_a_transform_that_wants_no_gradient_of_the_op(double, way):
    """It gets what it would get without kernelpkg's look at its tensors."""
    call, want = UNWANTED[way]
    assert call(double, torch.arange(4.0)).tolist() == want


def test_a_derivative_that_is_registered_for_an_op():
    """PyTorch's own way to give one works; its transforms do not take it, and say so."""

    def check_grad(args):
        if torch.is_grad_enabled() and args[0].requires_grad:
            raise CallError("no backward")

    op = _op("(Tensor x) -> Tensor", _plus(1), torch.empty_like, check_grad=check_grad)
    total = torch.func.grad(lambda v: torch.ops.kp_test_ops.thing(v).sum())
    with pytest.raises(CallError, match="no backward"):
        total(torch.ones(2))
    library = torch.library.Library("kp_test_ops", "FRAGMENT")
    torch.library.register_autograd("kp_test_ops::thing", lambda _, grad: grad * 3, lib=library)
    given = torch.ones(2, requires_grad=True)
    torch.ops.kp_test_ops.thing(given).sum().backward()
    assert given.grad.tolist() == [3.0, 3.0]
    with pytest.raises(RuntimeError, match="with functorch transforms"):
        total(torch.ones(2))
    library._destroy()
    op.close()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_kernel_that_returns_its_argument(demo, compiled):
    """PyTorch takes a result for memory of its own; a graph would write to another copy of it."""
    demo.edit(
        "kernels/twice/kernel.py",
        "    out = ",
        "    if input.size(0) == 1:\n        return input.view(-1)\n    out = ",
    )
    kernelpkg.load(root=demo.root, device="cpu", environment={}, strict=True)

    def call(x):
        return torch.ops.demo.twice(x).add_(1)

    function = torch.compile(call, backend="aot_eager") if compiled else call
    assert function(torch.ones(2)).tolist() == [3.0, 3.0]
    with pytest.raises(Exception, match="the kernel returns argument 'input', or a view of it"):
        function(torch.ones(1))
    torch._dynamo.reset()


def _quant(**changes):
    """Arguments of dynamic_per_token_scaled_fp8_quant for 2 tokens of 64, with changes."""
    args = {
        "result": torch.zeros(2, 64, dtype=torch.float8_e4m3fn),
        "input": torch.ones(2, 64, dtype=torch.bfloat16),
        "scale": torch.zeros(2, 1),
        "scale_ub": torch.ones(1),
    }
    return {**args, **changes}


BAD_CALLS = {
    "dtype": (_quant(input=torch.ones(2, 64, dtype=torch.float64)),
        "guard 'in_dtype in [bfloat16, float16, float32]' does not hold (in_dtype = float64)"),
    "dtype-of-output": (_quant(result=torch.zeros(2, 64, dtype=torch.int8)),
        "argument 'result' has dtype int8, and must have float8_e4m3fn"),
    "dtype-of-option": (_quant(scale_ub=torch.ones(1, dtype=torch.float64)),
        "argument 'scale_ub' has dtype float64, and must have float32"),
    "rank": (_quant(input=torch.ones(64)),
        "axis hidden_size = 'input.shape[1]' cannot be read: 'input' has 1 dimension"),
    "shape": (_quant(scale=torch.zeros(3, 1)),
        "argument 'scale' has shape (3, 1), and must have (2, 1), from [num_tokens, 1]"),
    "shape-of-option": (_quant(scale_ub=torch.ones(2)),
        "argument 'scale_ub' has shape (2,), and must have (*1), from [*1]"),
    "transposed": (_quant(input=torch.ones(64, 2, dtype=torch.bfloat16).t()),
        "argument 'input' has strides (1, 2), and must have (*, 1)"),
    "not-contiguous": (_quant(scale=torch.zeros(2, 2)[:, :1]),
        "argument 'scale' has strides (2, 1), and must be contiguous"),
    "input-on-meta": (_quant(input=torch.ones(2, 64, dtype=torch.bfloat16, device="meta")),
        "argument 'input' is on meta, and 'result' on cpu; all must be on one device"),
    "option-on-meta": (_quant(scale_ub=torch.ones(1, device="meta")),
        "argument 'scale_ub' is on meta, and 'result' on cpu; all must be on one device"),
    "output-on-meta": (_quant(result=torch.zeros(2, 64, dtype=torch.float8_e4m3fn, device="meta")),
        "argument 'input' is on cpu, and 'result' on meta; all must be on one device"),
}  # fmt: skip


@pytest.mark.parametrize("call", BAD_CALLS)
def test_bad_calls(call):
    """A call that the manifest does not take is one exact line, and no argument is written."""
    args, message = BAD_CALLS[call]
    before = {key: _bytes(arg) for key, arg in args.items() if arg.device.type == "cpu"}
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            torch.ops.kernelpkg.dynamic_per_token_scaled_fp8_quant(**args)
        assert str(caught.value) == f"kernelpkg::dynamic_per_token_scaled_fp8_quant: {message}"
    for key, held in before.items():
        assert torch.equal(held, _bytes(args[key]))


def test_a_guard_over_two_axes():
    """A guard that divides two axes says what both were."""
    args = (
        torch.ones(2, 100, dtype=torch.bfloat16),
        torch.zeros(2, 100, dtype=torch.float8_e4m3fn),
        torch.zeros(2, 1),
    )
    with pytest.raises(CallError) as caught:
        torch.ops.kernelpkg.per_token_group_fp8_quant(*args, 64, 1e-10, -448.0, 448.0, False)
    assert str(caught.value) == (
        "kernelpkg::per_token_group_fp8_quant: guard 'hidden_size % group_size == 0' does not "
        "hold (hidden_size = 100, group_size = 64)"
    )


def test_what_pytorch_itself_refuses():
    """Missing arguments and wrong kinds do not reach the op at all."""
    with pytest.raises(RuntimeError, match="missing value for argument 'scale'"):
        torch.ops.kernelpkg.silu_mul_fp8(torch.ones(2, 64))
    with pytest.raises((RuntimeError, TypeError), match="input"):
        torch.ops.kernelpkg.silu_mul_fp8(3, torch.ones(1))


def test_all_on_meta():
    """Tensors that are all without data give a result without data."""
    x, scale = torch.empty(3, 64, device="meta"), torch.empty(1, device="meta")
    found = torch.ops.kernelpkg.silu_mul_fp8(x, scale)
    assert (found.shape, found.dtype, found.device.type) == ((3, 32), torch.float8_e4m3fn, "meta")


def test_no_tokens_do_not_reach_helion(name, make_args, monkeypatch):
    """A call whose outputs are empty returns before Helion, and has the shape of the others."""
    kernel = get_kernel_by_name(name)

    def reached():
        raise AssertionError("Helion was asked for a call without tokens")

    kernel.dispatcher.calls.clear()
    monkeypatch.setattr(kernel.backend, "configured", reached)
    for _ in range(2):
        result = kernel(*make_args(name, num_tokens=0))
        if kernel.schema.returns:
            assert (result.shape[0], result.dtype) == (0, torch.float8_e4m3fn)
        else:
            assert result is None
    kernel.dispatcher.calls.clear()


def test_keywords_and_defaults(make_args):
    """An op takes keywords, and the defaults of its schema, which PyTorch leaves out."""
    op = torch.ops.kernelpkg.silu_and_mul_per_block_quant
    made = make_args("silu_and_mul_per_block_quant", has_scale_ub=False, out_dtype="int8")
    x, group_size = made[1], made[3]
    groups = x.shape[1] // 2 // group_size
    results = []
    for call in (
        lambda out, scales: op(out, x, scales, group_size, None, False),
        lambda out, scales: op(out, x, scales, group_size),
        lambda out, scales: op(out, x, scales, group_size=group_size, scale_ub=None),
        lambda out, scales: op(scales=scales, group_size=group_size, input=x, out=out),
    ):
        out = torch.zeros(3, x.shape[1] // 2, dtype=torch.int8)
        scales = torch.zeros(3, groups)
        assert call(out, scales) is None
        results.append((out, scales))
    for out, scales in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(scales, results[0][1])
    assert results[0][0].abs().max() == 127


def test_threads_calling_at_once(make_args):
    """First calls of one op from several threads at once are all answered, and alike."""
    kernel = get_kernel_by_name("silu_mul_fp8")
    kernel.dispatcher.calls.clear()
    kernel.backend.forget()
    args = {tokens: make_args("silu_mul_fp8", num_tokens=tokens) for tokens in (2, 3)}
    ready, found, failed = threading.Barrier(6), [], []

    def call(tokens):
        ready.wait()
        try:
            found.append((tokens, torch.ops.kernelpkg.silu_mul_fp8(*args[tokens])))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=(2 + place % 2,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(found) == 6
    for tokens, result in found:
        assert torch.equal(_bytes(result), _bytes(torch.ops.kernelpkg.silu_mul_fp8(*args[tokens])))
    assert len(kernel.dispatcher.calls) == 2
