"""What a host part does is found on stand-ins, or refused by name: nothing is guessed."""

from __future__ import annotations

import ast

import pytest
import torch

from kernelpkg.launch.host import (
    HostCall,
    NotRecorded,
    Pointer,
    arch_of,
    host_text,
    make_host,
    record,
    stand_in,
)

CUDA = torch.device("cuda", 1)
F32, F16, FP8 = torch.float32, torch.float16, torch.float8_e4m3fn


def recorded(body: str, *args: object, params: str = "x, y") -> HostCall:
    """Record a host part of some lines that launches `k`."""
    names = ", ".join(params.split(", ")[: len(args)])
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = f"def host({names}, *, _launcher):\n{lines}\n"
    return record(make_host(text, "host", "k", 132), args, CUDA)


def refusal(body: str, *args: object, params: str = "x, y") -> str:
    with pytest.raises(NotRecorded) as caught:
        recorded(body, *args, params=params)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pointer(source: int, delta: int = 0, dtype: torch.dtype = F32) -> Pointer:
    return Pointer(source=source, delta=delta, dtype=dtype)


def test_a_whole_host_part_is_written_down():
    """One that splits its input, allocates what it returns, and returns a view of that."""
    call = recorded(
        """
        rows = x.view(-1, 8)
        out = torch.empty([rows.shape[0], 4], dtype=torch.float8_e4m3fn, device=x.device)
        _launcher(k, (rows.size(0), 2), rows[:, :4], rows[:, 4:], out, y, rows.stride(0), 0.5, None,
                  True, "sum", num_warps=4, num_stages=1)
        return out.view(2, 3, 4)
        """.replace("        ", ""),
        torch.empty(2, 3, 8, dtype=F16),
        7,
    )
    assert call == HostCall(
        kernel="k",
        grid=(6, 2, 1),
        args=(
            *(pointer(0, 0, F16), pointer(0, 8, F16), pointer(-1, 0, FP8)),
            *(7, 8, 0.5, None, True, "sum"),
        ),
        options={"num_warps": 4, "num_stages": 1},
        allocations=(((2, 3, 4), (12, 4, 1), FP8, CUDA),),
        results=0,
    )


def test_a_float_that_is_only_handed_on_may_have_any_value():
    call = recorded(
        "_launcher(k, (4,), x, z, y, z)", torch.empty(4, 8), 0.5, 1.5, None, params="x, y, z, w"
    )
    assert call.args == (pointer(0), 1.5, 0.5, 1.5)
    assert (call.any, call.passed) == ({1, 2}, {1: 2, 2: 1, 3: 2})


LOOKS = {
    "arithmetic": "_launcher(k, (4,), x, 1 / y)",
    "negation": "_launcher(k, (4,), x, -y)",
    "a function": "_launcher(k, (4,), x, math.sqrt(y))",
    "a conversion": "_launcher(k, (4,), x, int(y))",
    "a comparison": "_launcher(k, (4,), x, y > 0.25)",
    "equality": "_launcher(k, (4,), x, y == 0.5)",
    "truth": "_launcher(k, (4,), x, y or 1.0)",
    "its class": "_launcher(k, (4,), x, 1.0 if isinstance(y, float) else 2.0)",
    "a grid": "_launcher(k, (4 * round(y + 1),), x, y)",
    "a raw grid": "_launcher(k, (y + 3.5,), x, y)",
    "an option": "_launcher(k, (4,), x, y, num_warps=y)",
    "a text": "_launcher(k, (4,), x, len(f'{y}'))",
    "a tensor": "_launcher(k, (4,), x[: int(y * 4)], y)",
    "a list": "_launcher(k, (4,), x, [2.0, y][1])",
    "the largest": "_launcher(k, (4,), x, max(y, 0.25))",
}


@pytest.mark.parametrize("body", LOOKS.values(), ids=LOOKS)
def test_a_float_that_is_looked_at_is_part_of_what_is_recorded(body):
    """Of a list, only the element is handed on, and that is no look."""
    call = recorded(body, torch.empty(4, 8), 0.5)
    handed = body == LOOKS["a list"]
    assert (call.any, call.passed) == (({1}, {1: 1}) if handed else (frozenset(), {}))
    assert call.args[0] == pointer(0)


VIEWS = {
    "view": ("x.view(-1)", 0),
    "row": ("x[2]", 2 * 8 * 4),
    "column": ("x[:, 3]", 3 * 4),
    "step": ("x[1::2, 2::3]", (8 + 2) * 4),
    "transposed": ("x.t()[1:]", 4),
    "expanded": ("x[1:2].expand(5, 8)", 8 * 4),
    "as bytes": ("x.view(torch.uint8)[1, 3:]", 8 * 4 + 3),
    "narrowed twice": ("x.narrow(0, 1, 2).narrow(1, 2, 2)", (8 + 2) * 4),
    "strided": ("x[1:].as_strided((2, 2), (16, 1))", 8 * 4),
    "diagonal": ("x.diagonal(1)", 4),
    "split": ("x.split(2, dim=1)[1]", 2 * 4),
    "unbound": ("x.unbind(0)[3]", 3 * 8 * 4),
    "reshaped": ("x.reshape(2, 16)[1]", 16 * 4),
    "contiguous": ("x.contiguous()[1]", 8 * 4),
    "detached": ("x.detach()[1]", 8 * 4),
}


@pytest.mark.parametrize(("view", "delta"), VIEWS.values(), ids=VIEWS)
def test_a_view_is_a_pointer_into_its_argument(view, delta):
    x = torch.empty(4, 8)
    call = recorded(f"v = {view}\n_launcher(k, (1,), v, v.stride(-1))", x)
    found, stride = call.args
    real = eval(view, {"x": x, "torch": torch})
    assert (found.source, found.delta, found.dtype) == (0, delta, real.dtype)
    assert found.delta == real.data_ptr() - x.data_ptr()
    assert stride == real.stride(-1)


def test_several_pointers_may_be_of_one_argument():
    call = recorded("_launcher(k, (1,), x, x[1], x[2:], x)", torch.empty(4, 8))
    assert [arg.delta for arg in call.args] == [0, 32, 64, 0]
    assert {arg.source for arg in call.args} == {0}


def test_arguments_that_share_storage_are_told_apart():
    """The next call of the signature may have separate tensors: no pointer is of another's."""
    base = torch.empty(8, 8)
    body = "_launcher(k, (1,), x[1], y[1])"
    shared = recorded(body, base[:4], base[4:])
    assert shared == recorded(body, torch.empty(4, 8), torch.empty(4, 8))
    assert shared.args == (pointer(0, 32), pointer(1, 32))
    twice = recorded(body, base, base)
    assert twice.args == (pointer(0, 32), pointer(1, 32))


def test_where_an_argument_starts_in_its_storage_does_not_matter():
    base = torch.empty(100)
    body = "_launcher(k, (1,), x[1:])"
    assert recorded(body, base[3:9]) == recorded(body, torch.empty(6))
    assert recorded(body, base[3:9]).args == (pointer(0, 4),)


@pytest.mark.parametrize(
    "x",
    [
        torch.empty(0, 8),
        torch.empty(1, 8),
        torch.empty(4, 1),
        torch.empty(8).expand(4, 8),
        torch.empty(()),
        torch.empty(8, 4).t(),
        torch.empty(4, 8, dtype=torch.bool),
    ],
    ids=["no rows", "one row", "one column", "stride 0", "scalar", "transposed", "bool"],
)
def test_a_stand_in_has_the_sizes_strides_and_dtype_of_its_tensor(x):
    made = stand_in(x)
    assert (made.shape, made.stride(), made.dtype) == (x.shape, x.stride(), x.dtype)
    assert made.is_meta
    strides = ", ".join(f"x.stride({place})" for place in range(x.ndim)) or "1"
    call = recorded(f"_launcher(k, (x.numel(),), x, {strides})", x)
    assert call.grid == (x.numel(), 1, 1)
    assert call.args == (pointer(0, 0, x.dtype), *(x.stride() or (1,)))


def test_what_is_no_tensor_stands_for_itself():
    assert stand_in(-3) == -3
    call = recorded("_launcher(k, (1,), x, y, -x, -1, -2.5)", -5, float("inf"))
    assert call.args == (-5, float("inf"), 5, -1, -2.5)


def test_offsets_of_more_than_2_to_the_31_bytes_are_whole():
    """No memory is taken for what is looked at."""
    x = torch.empty(2**20, 2**13, device="meta")
    call = recorded("_launcher(k, (x.size(0) // 2,), x[2**19:], x.stride(0) * 2**19)", x)
    assert call.args == (pointer(0, 2**34), 2**32)


@pytest.mark.parametrize(
    ("given", "grid"),
    [("(3,)", (3, 1, 1)), ("(3, 4)", (3, 4, 1)), ("[3, 4, 5]", (3, 4, 5)), ("(0,)", (0, 1, 1))],
    ids=["one", "two", "three", "none"],
)
def test_a_grid_has_three_dimensions(given, grid):
    assert recorded(f"_launcher(k, {given}, x)", torch.empty(3)).grid == grid


def test_a_grid_of_no_dimensions_or_four_is_refused():
    assert refusal("_launcher(k, (), x)", 1) == "its grid has 0 dimensions"
    assert refusal("_launcher(k, (1, 2, 3, 4), x)", 1) == "its grid has 4 dimensions"


MADE = {
    "empty": "torch.empty((3, 4), dtype=x.dtype, device=x.device)",
    "empty_like": "torch.empty_like(x)",
    "new_empty": "x.new_empty((3, 4))",
    "empty_strided": "torch.empty_strided((3, 4), (4, 1), device=x.device)",
    "new_empty_strided": "x.new_empty_strided((3, 4), (4, 1))",
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_what_is_allocated_is_made_where_the_call_is(made):
    call = recorded(f"out = {made}\n_launcher(k, (1,), x, out[1])\nreturn out", torch.empty(3, 4))
    assert call.args == (pointer(0), pointer(-1, 16))
    assert call.allocations == (((3, 4), (4, 1), F32, CUDA),)
    assert call.results == 0


def test_an_allocation_is_made_with_the_strides_that_are_returned():
    """Of the same elements: it is a transposed matrix from the start."""
    call = recorded(
        "out = x.new_empty(4, 3)\n_launcher(k, (1,), out)\nreturn out.t()", torch.ones(1)
    )
    assert call.allocations == (((3, 4), (1, 3), F32, CUDA),)


def test_results_may_be_several_in_any_order_and_scratch_is_none_of_them():
    body = """
a, b, c = x.new_empty(3), x.new_empty(4, dtype=torch.float16), x.new_empty(5)
_launcher(k, (1,), a, b, c)
return c, a
"""
    call = recorded(body, torch.ones(1))
    assert [made[0] for made in call.allocations] == [(3,), (4,), (5,)]
    assert call.args == (pointer(-1), pointer(-2, 0, F16), pointer(-3))
    assert call.results == (2, 0)


@pytest.mark.parametrize(
    ("returned", "results"), [("None", None), ("(a,)", (0,)), ("[a]", (0,)), ("a", 0)]
)
def test_results_have_the_form_that_they_are_returned_in(returned, results):
    call = recorded(f"a = x.new_empty(3)\n_launcher(k, (1,), a)\nreturn {returned}", torch.ones(1))
    assert call.results == results


PART = "it returns a part of what it allocates, or as another dtype"
ELSE = "it returns something else than what it allocates"
RESULTS = {
    "an input": ("x", ELSE),
    "a view of an input": ("a, x[1:]", ELSE),
    "a number": ("a, 3", ELSE),
    "nothing among others": ("a, None", ELSE),
    "one twice": ("a, a", "it returns one allocation twice"),
    "one twice, as a view": ("a, a.view(4, 2)", "it returns one allocation twice"),
    "a part": ("a[1:]", PART),
    "the first part": ("a[:4]", PART),
    "every second": ("a[::2]", PART),
    "another dtype": ("a.view(torch.int32)", PART),
    "another size of dtype": ("a.view(torch.int8)", PART),
    "more by stride 0": ("a.expand(2, 8)", PART),
    "as many, of which some are the same": ("a.as_strided((8,), (0,))", PART),
}


@pytest.mark.parametrize(("returned", "reason"), RESULTS.values(), ids=RESULTS)
def test_results_that_are_not_whole_allocations_are_refused(returned, reason):
    body = f"a = x.new_empty(8)\n_launcher(k, (1,), a)\nreturn {returned}"
    assert refusal(body, torch.ones(8)) == reason


CALLS = {
    "zeros": ("torch.zeros(3, device=x.device)", "zeros"),
    "ones": ("torch.ones(3, device=x.device)", "ones"),
    "full": ("torch.full((3,), 2.0, device=x.device)", "full"),
    "new_zeros": ("x.new_zeros(3)", "new_zeros"),
    "zeros_like": ("torch.zeros_like(x)", "zeros_like"),
    "clone": ("x.clone()", "clone"),
    "copy": ("x.copy_(x)", "copy_"),
    "fill": ("x.fill_(0)", "fill_"),
    "to": ("x.to(torch.float16)", "_to_copy"),
    "contiguous that copies": ("x.t().contiguous()", "clone"),
    "reshape that copies": ("x.t().reshape(-1)", "clone"),
    "arithmetic": ("x + 1", "add"),
    "reduction": ("x.sum()", "sum"),
    "cat": ("torch.cat([x, x])", "cat"),
    "as_strided with a start": ("x.as_strided((2,), (1,), 1)", "as_strided"),
    "as_strided with a start by name": (
        "torch.as_strided(x, (2,), (1,), storage_offset=1)",
        "as_strided",
    ),
    "sizes changed in place": ("x.unsqueeze_(0)", "unsqueeze_"),
    "resized": ("x.resize_(3)", "resize_"),
}


@pytest.mark.parametrize(("code", "name"), CALLS.values(), ids=CALLS)
def test_whatever_computes_or_copies_is_refused_by_name(code, name):
    body = f"v = {code}\n_launcher(k, (1,), v)"
    assert refusal(body, torch.ones(4, 8)) == f"its host part calls {name}"


DATA = {
    "item": ("x.item()", "item"),
    "tolist": ("x.tolist()", "tolist"),
    "pointer": ("x.data_ptr()", "data_ptr"),
    "is_cuda": ("x.is_cuda", "is_cuda"),
    "kind of device": ("x.device.type", "type"),
    "device": ("x.get_device()", "get_device"),
    "start": ("x.storage_offset()", "storage_offset"),
    "gradient": ("x.requires_grad", "requires_grad"),
    "in a comprehension": ("[v.item() for v in (x,)]", "item"),
}


@pytest.mark.parametrize(
    "dtype", ["torch.promote_types(x.dtype, y.dtype)", "torch.result_type(x, y)"]
)
def test_dtypes_follow_from_a_signature(dtype):
    """As Helion's examples allocate what a product of two is."""
    body = (
        f"out = torch.empty(4, dtype={dtype}, device=x.device)\n_launcher(k, (1,), out)\nreturn out"
    )
    call = recorded(body, torch.empty(4, dtype=F16), torch.empty(4, dtype=F32))
    assert [made[2] for made in call.allocations] == [F32]


@pytest.mark.parametrize(("code", "name"), DATA.values(), ids=DATA)
def test_what_a_signature_does_not_tell_is_not_asked_of_a_stand_in(code, name):
    body = f"v = {code}\n_launcher(k, (1,), x)"
    assert refusal(body, torch.ones(1)) == f"its host part uses {name}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("if x.sum() > 0:\n    pass\n_launcher(k, (1,), x)", "its host part calls sum"),
        ("n = int(x[0])\n_launcher(k, (n,), x)", "its host part calls _local_scalar_dense"),
        ("n = x[x > 0]\n_launcher(k, (1,), n)", "its host part calls gt"),
    ],
    ids=["condition", "number", "mask"],
)
def test_code_that_depends_on_data_is_refused(body, reason):
    assert refusal(body, torch.ones(3)) == reason


def test_launches_are_counted():
    assert refusal("return None", 1) == "its host part launches 0 kernels"
    twice = "_launcher(k, (1,), x)\n_launcher(k, (1,), x)"
    assert refusal(twice, 1) == "its host part launches 2 kernels"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("(1, 2)", "its kernel takes a tuple"),
        ("torch.float32", "its kernel takes a dtype"),
        ("x.device", "its kernel takes a device"),
        (
            "torch.tensor([1.0])",
            "its kernel takes a tensor that is neither an argument nor made here",
        ),
    ],
    ids=["tuple", "dtype", "device", "constant tensor"],
)
def test_what_cannot_be_given_again_is_refused(given, reason):
    assert refusal(f"_launcher(k, (1,), {given})", torch.ones(1)) == reason


def test_an_allocation_elsewhere_is_refused():
    body = "out = torch.empty(3)\n_launcher(k, (1,), out)\nreturn out"
    reason = "it allocates on another device than that of its arguments"
    assert refusal(body, torch.ones(3)) == reason


def test_a_host_part_that_raises_is_refused_and_raises_where_it_is_run():
    body = "assert x.size(0) == 4, 'four\\nrows'\n_launcher(k, (1,), x)"
    assert refusal(body, torch.ones(3)) == (
        "its host part fails without data: AssertionError: four rows"
    )


def test_recording_changes_no_argument_and_no_mode():
    x = torch.ones(3)
    with torch.inference_mode():
        recorded("_launcher(k, (1,), x[1:])", x)
        assert torch.is_inference_mode_enabled()
    assert x.tolist() == [1.0, 1.0, 1.0]


MODULE = '''\
from __future__ import annotations

import torch
import helion
import triton
import triton.language as tl
from helion.runtime import default_launcher as _default_launcher

_BLOCK_SIZE_1 = tl.constexpr(1024)
_LIMIT = 4

@triton.jit
def _add(a, b):
    return a + b

@triton.jit
def _helion_scale(x, out, n, _BLOCK_SIZE_0: tl.constexpr):
    tl.store(out, tl.load(x))

def scale(x: torch.Tensor, factor: float=2.0, *, _launcher=_default_launcher) -> torch.Tensor:
    """Scale."""
    # src[kernel.py:1]
    out = torch.empty_like(x)
    _BLOCK_SIZE_0 = min(_LIMIT, 64)
    grid = (triton.cdiv(x.size(0), _BLOCK_SIZE_1),)
    _launcher(_helion_scale, grid, x, out, x.size(0), _BLOCK_SIZE_0, num_warps=4, num_stages=1)
    return out
'''


def test_the_host_part_of_a_module_is_code_of_its_own():
    """Without annotations, defaults, comments and imports, and with the constants that it reads."""
    text = host_text(MODULE, "scale")
    assert text == (
        "_BLOCK_SIZE_1 = 1024\n"
        "_LIMIT = 4\n"
        "\n"
        "def scale(x, factor, *, _launcher):\n"
        "    out = torch.empty_like(x)\n"
        "    _BLOCK_SIZE_0 = min(_LIMIT, 64)\n"
        "    grid = (triton.cdiv(x.size(0), _BLOCK_SIZE_1),)\n"
        "    _launcher(_helion_scale, grid, x, out, x.size(0), _BLOCK_SIZE_0, num_warps=4, "
        "num_stages=1)\n"
        "    return out\n"
    )
    call = record(make_host(text, "scale", "_helion_scale", 132), (torch.empty(5000), 2.0), CUDA)
    assert (call.kernel, call.grid) == ("_helion_scale", (5, 1, 1))
    assert call.args == (pointer(0), pointer(-1), 5000, 4)
    ast.parse(text)


BODY = "    out = torch.empty_like(x)\n"
USES = {
    "a function of the module": ("    _helper(x)\n", "its host part uses _helper"),
    "builtin": ("    open('/etc/passwd')\n", "its host part uses open"),
    "import": ("    __import__('os')\n", "its host part uses __import__"),
    "data": ("    n = x.item()\n", "its host part uses item"),
    "pointer": ("    n = x.data_ptr()\n", "its host part uses data_ptr"),
    "type": ("    n = x.device.type\n", "its host part uses type"),
    "two kernels": ("    _add(x)\n", "its host part launches 2 kernels"),
}


@pytest.mark.parametrize(("line", "reason"), USES.values(), ids=USES)
def test_a_host_part_that_uses_more_is_refused_by_name(line, reason):
    with pytest.raises(NotRecorded) as caught:
        host_text(MODULE.replace(BODY, BODY + line), "scale")
    assert str(caught.value) == reason


def test_a_module_without_its_function_is_refused():
    with pytest.raises(NotRecorded) as caught:
        host_text(MODULE, "other")
    assert str(caught.value) == "its code has no function 'other'"


@pytest.mark.parametrize(("reserved", "grid"), [(0, 132), (100, 32), (200, 1)])
def test_grids_of_persistent_kernels_are_made_of_the_multiprocessors(reserved, grid):
    line = f"_launcher(k, (helion.runtime.get_num_sm(x.device, reserved_sms={reserved}),), x)"
    assert recorded(line, torch.empty(3)).grid == (grid, 1, 1)


def test_arithmetic_of_helion_and_triton_is_there():
    line = "_launcher(k, (helion.cdiv(7, 2), triton.cdiv(8, 2), helion.next_power_of_2(5)), "
    line += "triton.next_power_of_2(0), math.ceil(1.5))"
    call = recorded(line, 1)
    assert (call.grid, call.args) == ((4, 4, 8), (1, 2))


def test_a_result_out_of_reach_of_32_bit_indices_is_told():
    """Its arguments need not be: Helion looks at those alone."""
    body = "out = x.new_empty((x.size(0), {}))\n_launcher(k, (1,), x, out)\nreturn out"
    x = torch.empty(2**20, 1, device="meta")
    assert not recorded(body.format(2**11), x).far
    assert recorded(body.format(2**11 + 1), x).far


def test_the_architecture_of_a_gpu_is_that_of_the_one_a_tensor_is_on(monkeypatch):
    """And there is none of a CPU, nor of a GPU of AMD's, which PyTorch calls cuda too."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8 + device.index, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert [arch_of(torch.device("cuda", index)) for index in (0, 1, 4)] == [
        *("sm_80", "sm_90", "sm_120")
    ]
    assert arch_of(torch.device("cpu")) == ""
    monkeypatch.setattr(torch.version, "cuda", None)
    assert arch_of(CUDA) == ""
