"""Which launcher is used and why; the one in C against the one in Python; that nothing leaks."""

from __future__ import annotations

import gc
import itertools
import struct
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelpkg.errors import UsageError
from kernelpkg.launch import calls, native


@pytest.fixture
def no_choice(monkeypatch):
    """Forget what was chosen for this process, before and after."""
    native._chosen.cache_clear()
    yield
    native._chosen.cache_clear()


@pytest.fixture
def installed(monkeypatch, extension, no_choice):
    """The extension where an installation has it."""
    monkeypatch.setitem(sys.modules, "kernelpkg.launch._native", extension)


@pytest.fixture
def not_installed(monkeypatch, no_choice):
    monkeypatch.setitem(sys.modules, "kernelpkg.launch._native", None)


def test_c_is_used_where_it_was_compiled(installed, extension, monkeypatch):
    monkeypatch.delenv(native.VARIABLE, raising=False)
    chosen = native.choose()
    assert (chosen.name, chosen.calls) == ("c", extension.Calls)
    assert native.status() == "C (compiled, and fits)"


@pytest.mark.parametrize("asked", ["python", " Python "])
def test_python_is_used_where_it_is_asked_for(installed, asked):
    chosen = native.choose({native.VARIABLE: asked})
    assert (chosen.name, chosen.calls) == ("python", calls.Calls)
    assert chosen.reason == "KERNELPKG_LAUNCHER asks for Python"


def test_an_op_with_an_argument_that_c_does_not_read_is_called_through_python(installed):
    chosen = native.choose({})
    options = {"grad_enabled": bool, "check_grad": print}
    assert isinstance(chosen.make_calls("to", print, **options), calls.Calls)
    assert isinstance(chosen.make_calls("ti", print, **options), chosen.calls)


def test_without_the_extension_python_is_used_and_says_why(not_installed, monkeypatch):
    monkeypatch.delenv(native.VARIABLE, raising=False)
    chosen = native.choose({})
    assert chosen.name == "python"
    assert native.status() == (
        "Python (not compiled: no C compiler was there when kernelpkg was installed)"
    )


def test_c_that_is_asked_for_and_not_there_is_an_error(not_installed, monkeypatch):
    text = (
        "KERNELPKG_LAUNCHER asks for C: not compiled: no C compiler was there when kernelpkg was "
        "installed"
    )
    with pytest.raises(UsageError) as caught:
        native.choose({native.VARIABLE: "c"})
    assert str(caught.value) == text
    monkeypatch.setenv(native.VARIABLE, "c")
    assert native.status() == text


def test_another_word_is_an_error(no_choice):
    with pytest.raises(UsageError) as caught:
        native.choose({native.VARIABLE: "rust"})
    assert str(caught.value) == "KERNELPKG_LAUNCHER is 'rust'; it takes auto, c, python"


def test_an_extension_of_another_kernelpkg_is_not_used(installed, extension, monkeypatch):
    monkeypatch.setattr(native, "INTERFACE", native.INTERFACE + 1)
    chosen = native.choose({})
    assert chosen.name == "python"
    assert chosen.reason == (
        f"{extension.__file__} was compiled for another kernelpkg; install it again"
    )


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a library"])
def test_a_damaged_extension_or_one_of_another_machine_is_not_used(
    tmp_path, monkeypatch, no_choice, content
):
    (tmp_path / "_native.abi3.so").write_bytes(content)
    package = sys.modules["kernelpkg.launch"]
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "kernelpkg.launch._native", raising=False)
    chosen = native.choose({})
    assert chosen.name == "python"
    assert chosen.reason.startswith(f"cannot be used: {tmp_path}/_native.abi3.so: ")
    assert "\n" not in chosen.reason


def test_a_pytorch_without_the_exchange_has_python(installed, monkeypatch):
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert native.choose({}).reason == (
        "cannot be used: PyTorch has no C exchange API of DLPack; 2.11 and later have it"
    )


def test_a_tensor_is_made_on_its_own_device_where_another_one_is_current(extension, monkeypatch):
    """PyTorch's quick function makes it on the current one; then its public one is asked."""
    asked = []

    def quickly(sizes, strides, dtype):
        asked.append("quickly")
        return torch.zeros(sizes, dtype=dtype)  # its device has the index 0

    def publicly(sizes, strides, *, dtype, device):
        asked.append(str(device))
        return torch.zeros(sizes, dtype=dtype)

    with monkeypatch.context() as patch:
        patch.setattr(native, "quick_allocators", lambda: {"cuda": quickly})
        patch.setattr(torch, "empty_strided", publicly)
        native.set_up(extension)
        for name in ("cuda:0", "cuda:1", "cpu", "cuda"):
            allocations = (((4,), (1,), torch.int8, torch.device(name)),)
            extension.Recorded(1, (0, 1, 1), 32, 0, (), allocations, 0, 0)()
    native.set_up(extension)
    assert asked == ["quickly", "quickly", "cuda:1", "cpu", "quickly"]


class Wrapping(torch.Tensor):
    """A tensor that only says what it would be."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (4,))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(function)


def test_a_tensor_that_wraps_others_has_no_signature_in_c(extension):
    """It has no memory that a kernel could read."""
    table = extension.Calls("t", lambda args: "resolved", grad_enabled=bool, check_grad=print)
    assert table.put((Wrapping(),), print) is False
    assert table.call(Wrapping()) == "resolved"


class Overload:
    """An overload of PyTorch 2.14, as far as PyObject dispatch goes."""

    def __init__(self, tensors=True):
        self.enabled = False
        self.tensors = tensors

    def _enable_pyobj_dispatch(self):
        self.enabled = self.tensors

    def _is_pyobj_dispatcher_enabled(self):
        return self.enabled


def test_quick_dispatch_is_enabled_for_every_overload():
    overloads = [Overload(), Overload()]
    packet = SimpleNamespace(op_overloads=lambda: overloads)
    assert native.enable_quick_dispatch(packet) == ""
    assert [overload.enabled for overload in overloads] == [True, True]
    assert native.enable_quick_dispatch(Overload(tensors=False)) == (
        "PyTorch has no PyObject dispatch for an op that returns other than tensors"
    )


def test_a_pytorch_without_quick_dispatch_says_so():
    op = torch.ops.aten.add
    assert native.enable_quick_dispatch(SimpleNamespace()) == (
        f"PyTorch {torch.__version__} has no PyObject dispatch; 2.14 and later have it"
    )
    if not hasattr(op.Tensor, "_enable_pyobj_dispatch"):
        assert "2.14 and later" in native.enable_quick_dispatch(op)


def test_a_quick_dispatch_that_pytorch_has_changed_is_not_used():
    changed = SimpleNamespace(_enable_pyobj_dispatch=lambda: None)
    assert native.enable_quick_dispatch(changed).startswith("PyTorch refuses PyObject dispatch: ")


def test_the_extension_is_linked_with_neither_pytorch_nor_cuda(extension_path):
    names = (b"libtorch", b"libc10", b"libcudart", b"libpython")
    content = extension_path.read_bytes()
    assert [name for name in names if name in content] == []


# One argument of each kind, and those next to it in meaning or in bits.
NUMBERS = st.one_of(st.integers(-2, 2), st.sampled_from([2**63 - 1, 2**63, -(2**63), 2**32]))
REALS = st.sampled_from([0.0, -0.0, 1.0, 1, 2.5, float("nan"), float("inf"), 10**400])
NANS = st.just(struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf8\x7f")[0])
OTHERS = st.sampled_from([None, True, False, 1, 0, 1.0, "1", b"1", (), torch.float32])
VALUES = {
    "i": st.one_of(NUMBERS, OTHERS),
    "f": st.one_of(REALS, NANS, OTHERS),
    "b": st.one_of(st.booleans(), OTHERS),
    "s": st.one_of(st.sampled_from(["", "a", "a\0", "\0", "é", "\ud800"]), OTHERS),
    "l": st.one_of(st.lists(NUMBERS, max_size=3), OTHERS, st.just((1, 2))),
}
DTYPES = st.sampled_from([torch.float32, torch.int32, torch.bfloat16, torch.float8_e4m3fn])
STORAGE = torch.zeros(4096, dtype=torch.int8)


@st.composite
def tensors(draw):
    """Tensors that differ in one thing or in none: dtype, sizes, strides, offset, class."""
    dtype = draw(DTYPES)
    sizes = draw(st.sampled_from([(), (0,), (1,), (4,), (2, 2), (4, 0), (2, 1), (1, 2), (2, 2, 1)]))
    made = torch.as_strided(
        STORAGE.view(dtype),
        sizes,
        [draw(st.sampled_from([1, 2, 4])) for _ in sizes],
        draw(st.sampled_from([0, 1, 4, 16])),
    )
    return torch.nn.Parameter(made, requires_grad=False) if draw(st.booleans()) else made


@st.composite
def ops(draw):
    """Kinds of arguments, and calls of an op of these."""
    kinds = draw(st.text("tTiIfFbBsSlL", max_size=4))
    strategies = []
    for kind in kinds:
        value = st.one_of(tensors(), OTHERS) if kind in "tT" else VALUES[kind.lower()]
        strategies.append(st.one_of(value, value, st.none()))
    calls = draw(st.lists(st.tuples(*strategies), min_size=1, max_size=6))
    order = st.lists(st.integers(0, len(calls) - 1), max_size=24)
    return kinds, [calls[place] for place in draw(order)]


def told(made, kinds, given_calls, limit):
    """Return what one side does: what each call got, how full the table is, what is left in it."""
    numbers = itertools.count()

    def resolve(args):
        number = next(numbers)
        return ("resolved", table.put(args, lambda *_: ("launched", number), 1))

    table = made(kinds, resolve, grad_enabled=bool, check_grad=print, limit=limit)
    found = [(table.call(*args), len(table)) for args in given_calls]
    return found, table.count(1), [table.get(args) is None for args in given_calls]


@settings(max_examples=400)
@given(op=ops(), limit=st.integers(1, 4))
def test_c_and_python_tell_calls_apart_alike(extension, op, limit):
    """The same calls, in the same order, are answered, resolved and forgotten by both."""
    kinds, given_calls = op
    sides = [told(made, kinds, given_calls, limit) for made in (extension.Calls, calls.Calls)]
    assert sides[0] == sides[1]


def test_nothing_leaks_over_a_hundred_thousand_calls(extension):
    """Arguments, launches and results have as many references after as before, and no block more
    of memory is in use."""
    x = torch.zeros(16)
    text, numbers, result = "a text", [1, 2, 3], object()

    def launch(*args):
        return result

    table = extension.Calls(
        "tTsli", lambda args: None, grad_enabled=torch.is_grad_enabled, check_grad=print, limit=50
    )
    recorded = extension.Recorded(
        1, (0, 1, 1), 32, 0, ((0, 0),), (((2,), (1,), x.dtype, x.device),), 0, -1, ((4, 1),)
    )

    def run(times):
        for number in range(times):
            args = (x, None, text, numbers, number % 100)
            table.put(args, recorded if number % 2 else launch, number % 7, launch)
            table.call(*args)
            table.call(x, x, text, numbers, 2**70)
            table.get(args)
            if number % 1000 == 0:
                table.clear()
                extension.Recorded(1, (1, 1, 1), 32, 0, (b"1", (0, 8)), (), None, -1)
        table.clear()
        gc.collect()
        counts = [sys.getrefcount(held) for held in (x, text, numbers, result, launch, recorded)]
        return counts, sys.getallocatedblocks()

    run(1000)
    before, blocks = run(1000)
    after, more = run(100_000)
    assert after == before
    assert more - blocks < 100


def test_a_table_that_its_launch_refers_to_is_freed(extension):
    """A dispatcher holds its table, which holds its launches, which hold the dispatcher."""

    class Held:
        freed = 0

        def __del__(self):
            Held.freed += 1

    def make():
        circle = [Held()]
        table = extension.Calls("i", lambda _: circle, grad_enabled=bool, check_grad=print)
        circle.append(table)
        held = Held()
        table.put((1,), lambda _: (table, held))

    make()
    gc.collect()
    assert Held.freed == 2
