"""Code is launched for calls that have the facts it was compiled for, as Triton tells them."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.launch import code as module
from kernelpkg.launch.code import Code, choose, pointer_offsets, recorded
from kernelpkg.launch.host import HostCall, NotRecorded, Pointer
from kernelpkg.launch.native import Launcher

CPU = torch.device("cpu")


def call_of(*args, **options) -> HostCall:
    return HostCall(
        kernel="k", grid=(3, 1, 1), args=args, options=options, allocations=(), results=None
    )


def code_of(*types, constants=None, divisible=(), parameters=(), **changes) -> Code:
    found = Code(
        types=types,
        constants=constants or {},
        divisible=frozenset(divisible),
        cubin="sha256-0",
        entry="k",
        parameters=tuple(parameters),
        shared=0,
        threads=128,
    )
    return evolve(found, **changes)


def pointer(source=0, delta=0, dtype=torch.float32) -> Pointer:
    return Pointer(source=source, delta=delta, dtype=dtype)


def fits(code: Code, *args, offsets=(0, 0, 0)) -> bool:
    return code.fits(call_of(*args), offsets)


def test_code_is_read_as_it_is_described():
    found = Code.of(
        {
            "types": ["*fp32", "constexpr"],
            "constants": {"1": 1},
            "divisible": [0],
            "cubin": "sha256-0",
            "entry": "k",
            "parameters": [],
            "shared": 0,
            "threads": 128,
        }
    )
    assert found == code_of("*fp32", "constexpr", constants={1: 1}, divisible=[0])


def test_a_pointer_must_be_as_aligned_and_of_its_dtype():
    code = code_of("*fp32", divisible=[0])
    assert fits(code, pointer())
    assert fits(code, pointer(delta=32))
    assert fits(code, pointer(delta=8), offsets=(8,))
    assert not fits(code, pointer(delta=8))
    assert not fits(code, pointer(), offsets=(4,))
    assert not fits(code, pointer(dtype=torch.int32))
    assert fits(code_of("*fp32"), pointer(delta=8))


def test_an_allocation_starts_aligned_whatever_arguments_do():
    code = code_of("*fp32", divisible=[0])
    assert fits(code, pointer(source=-1), offsets=(4,))
    assert not fits(code, pointer(source=-1, delta=4), offsets=(0,))


def test_a_constant_must_be_the_same_in_kind_too():
    code = code_of("constexpr", constants={0: 1})
    assert fits(code, 1)
    assert [fits(code, value) for value in (True, 1.0, 2, None, pointer())] == [False] * 5
    assert fits(code_of("constexpr", constants={0: None}), None)
    assert fits(code_of("constexpr", constants={0: "sum"}), "sum")
    assert not fits(code_of("constexpr", constants={0: None}), 0)
    nan = float("nan")
    assert not fits(code_of("constexpr", constants={0: nan}), nan)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, "i32"),
        (-(2**31), "i32"),
        (2**31 - 1, "i32"),
        (2**31, "i64"),
        (-(2**31) - 1, "i64"),
        (2**63 - 1, "i64"),
        (-(2**63), "i64"),
        (2**63, "u64"),
        (2**64 - 1, "u64"),
        (2**64, None),
        (-(2**63) - 1, None),
    ],
)
def test_a_number_has_the_type_that_holds_it(value, kind):
    found = [name for name in ("i32", "i64", "u64", "i1", "fp32") if fits(code_of(name), value)]
    assert found == ([] if kind is None else [kind])


def test_code_of_another_number_of_arguments_does_not_fit():
    assert not fits(code_of("*fp32"), pointer(), 3)
    assert not fits(code_of("*fp32", "i32"), pointer())
    assert choose([], call_of(), ()) is None


def test_offsets_are_counted_from_multiples_of_16_bytes():
    x = torch.empty(64, dtype=torch.uint8)
    start = -x.data_ptr() % 16
    assert pointer_offsets((x[start:], x[start + 3 :], None, 7)) == (0, 3, 0, 0)
    meta = torch.empty(3, device="meta")
    assert pointer_offsets((meta,)) == (0,)


@lru_cache(maxsize=1)
def triton_backend() -> object:
    """What Triton asks of an H200; it takes long to make."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend

    return make_backend(GPUTarget("cuda", 90, 32))


def specialised(value, offsets) -> tuple[str, bool]:
    """Return the type that Triton gives an argument, and whether it says a multiple of 16."""
    from triton.runtime import jit

    if isinstance(value, Pointer):
        start = 0 if value.source < 0 else offsets[value.source]
        value = Address(value.dtype, start + value.delta)
    kind, key = jit.native_specialize_impl(type(triton_backend()), value, False, True, True)
    return kind, key == "D"


class Address:
    """A tensor as Triton looks at it."""

    def __init__(self, dtype, address):
        self.dtype = dtype
        self.address = address

    def data_ptr(self):
        return self.address

    @staticmethod
    def ptr_range():
        return 0


def compiled(args, offsets) -> Code:
    """Return code that Triton would compile for a call: without its binary."""
    facts = [specialised(value, offsets) for value in args]
    return code_of(
        *(kind for kind, _ in facts),
        constants={n: args[n] for n, (kind, _) in enumerate(facts) if kind == "constexpr"},
        divisible=[n for n, (_, divisible) in enumerate(facts) if divisible],
    )


@pytest.mark.helion
@pytest.mark.parametrize("kind", sorted({*module._POINTERS} - {"*i1", "*u1"}))
def test_pointers_have_the_types_of_triton(kind):
    dtype = module._POINTERS[kind]
    assert specialised(pointer(dtype=dtype), (0,)) == (kind, True)


@pytest.mark.helion
def test_flags_have_one_of_the_types_of_triton():
    """Releases call it `i1` and `u1`."""
    for value in (pointer(dtype=torch.bool), True, False):
        kind, _ = specialised(value, (0,))
        assert fits(code_of(kind), value)
        assert code_of(kind).types[0] in ("*i1", "*u1", "i1", "u1")


SIZES = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-40, 40),
    st.sampled_from([2**31, 2**31 - 1, 2**31 + 16, -(2**31), -(2**31) - 1, 2**63, 2**63 - 1]),
)
POINTERS = st.builds(
    pointer,
    source=st.integers(-2, 2),
    delta=st.sampled_from([0, 2, 4, 8, 12, 16, 20, 2**33, 2**33 + 4]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bool, torch.float8_e4m3fn]),
)
VALUES = {
    "pointer": POINTERS,
    "number": SIZES,
    "fraction": st.floats(allow_nan=False, width=32),
    "flag": st.booleans(),
    "absent": st.none() | POINTERS,
}
OFFSETS = st.tuples(*[st.sampled_from([0, 0, 2, 4, 8, 12])] * 3)


@st.composite
def families(draw):
    """Return calls of one kernel: arguments of the same kinds, with offsets of its tensors."""
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    args = st.tuples(*(VALUES[kind] for kind in kinds))
    return draw(st.lists(st.tuples(args, OFFSETS), min_size=1, max_size=6))


@pytest.mark.helion
@given(families())
def test_the_code_that_is_chosen_is_what_triton_compiles_for_the_call(family):
    """Among codes for several calls, it is the call's own; without that, one that asks for less."""
    made = [compiled(args, offsets) for args, offsets in family]
    for (args, offsets), own in zip(family, made, strict=True):
        call = call_of(*args)
        assert choose(made, call, offsets) == own
        others = [code for code in made if code != own]
        chosen = choose(others, call, offsets)
        if chosen is not None:
            assert chosen.divisible <= own.divisible
            assert chosen.constants.items() <= own.constants.items()
            plain = [n for n, kind in enumerate(own.types) if kind != "constexpr"]
            assert [chosen.types[n] for n in plain] == [own.types[n] for n in plain]
            assert all(
                code.special <= chosen.special for code in others if code.fits(call, offsets)
            )


@pytest.mark.helion
@given(families(), st.data())
def test_code_fits_no_call_that_lacks_its_facts(family, data):
    """Whatever a call gets, Triton would have said the same of each of the code's facts."""
    (made_for, offsets), (args, others) = data.draw(
        st.tuples(st.sampled_from(family), st.sampled_from(family))
    )
    code = compiled(made_for, offsets)
    own = compiled(args, others)
    lacks = not code.divisible <= own.divisible or any(
        own.types[n] != kind if kind != "constexpr" else own.constants.get(n, ...) != value
        for n, (kind, value) in enumerate(zip(code.types, made_for, strict=True))
        if not (kind == "i32" and own.types[n] == "constexpr" and own.constants[n] == 1)
    )
    assert code.fits(call_of(*args), others) == (not lacks)


class Launched:
    """What a launcher was asked for."""

    def __init__(self, **given):
        self.given = given


@pytest.fixture
def launched(monkeypatch):
    chosen = Launcher(name="python", calls=Launched, recorded=Launched, reason="a test")
    monkeypatch.setattr(module.native, "choose", lambda: chosen)


def test_a_float_that_is_handed_on_is_that_of_each_call(launched):
    """But where the code has it in itself."""
    code = code_of(*("fp32", "fp64", "fp32"), constants={}, parameters=[4, 8, 4, 8, 8])
    call = evolve(call_of(0.5, 1.5, 2.5), any=frozenset({1, 4, 5}), passed={0: 4, 1: 1})
    given = recorded(code, call, 1, lambda _: 77).given
    assert given["params"][:3] == (("fp32", 4), ("fp64", 1), b"\0\0\x20\x40")
    assert given["any"] == (1, 4, 5)
    code = code_of(*("constexpr", "fp64"), constants={0: 0.5}, parameters=[8, 8, 8])
    call = evolve(call_of(0.5, 1.5), any=frozenset({1, 4}), passed={0: 4, 1: 1})
    assert recorded(code, call, 1, lambda _: 77).given["any"] == (1,)


def test_a_launch_has_the_parameters_of_its_code(launched):
    """Constants are not passed; numbers are as wide as their types; scratch stands last."""
    code = code_of(
        *("*fp32", "constexpr", "i32", "i64", "u64", "fp32", "u1", "constexpr", "*fp16"),
        constants={1: 1, 7: None},
        parameters=[8, 4, 8, 8, 4, 1, 8, 8, 8],
    )
    args = (pointer(0, 32), 1, -2, 2**40, 2**63, 0.5, True, None, pointer(-1, 0, torch.float16))
    call = evolve(
        call_of(*args, num_warps=4, num_stages=1),
        allocations=(((3,), (1,), torch.float16, CPU),),
        results=0,
    )
    found = recorded(code, call, 1, lambda given: 77 if given is code else 0)
    assert found.given == {
        "kernel": 77,
        "grid": (3, 1, 1),
        "threads": 128,
        "shared": 0,
        "params": (
            (0, 32),
            b"\xfe\xff\xff\xff",
            (2**40).to_bytes(8, "little"),
            (2**63).to_bytes(8, "little"),
            b"\0\0\0\x3f",
            b"\1",
            (-1, 0),
            bytes(8),
            bytes(8),
        ),
        "allocations": call.allocations,
        "results": 0,
        "device": 1,
        "any": (),
    }


@pytest.mark.parametrize(
    "parameters", [[], [4], [8, 4], [8, 8, 4]], ids=["too few", "narrow", "narrow scratch", "more"]
)
def test_code_with_other_parameters_is_refused(launched, parameters):
    with pytest.raises(NotRecorded) as caught:
        recorded(code_of("*fp32", parameters=parameters), call_of(pointer()), 0, lambda _: 1)
    assert str(caught.value) == (
        "its code takes other parameters than Triton gives code of its kind"
    )


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"num_warps": 8, "num_stages": 3, "maxnreg": 64}, None),
        ({"launch_cooperative_grid": False, "num_ctas": 1, "ptx_options": None}, None),
        ({"launch_cooperative_grid": True}, "launch_cooperative_grid=True"),
        ({"launch_pdl": True}, "launch_pdl=True"),
        ({"num_ctas": 2}, "num_ctas=2"),
        ({"ptx_options": "-O1"}, "ptx_options=-O1"),
    ],
)
def test_options_that_a_launch_needs_triton_for_are_refused(launched, options, refused):
    call = call_of(pointer(), **options)
    code = code_of("*fp32", parameters=[8])
    if refused is None:
        assert recorded(code, call, 0, lambda _: 1).given["kernel"] == 1
        return
    with pytest.raises(NotRecorded) as caught:
        recorded(code, call, 0, lambda _: 1)
    assert str(caught.value) == f"it is launched with {refused}"


def test_a_launch_that_is_larger_than_a_launcher_does_is_refused(stub):
    call = evolve(call_of(), grid=(2**31, 1, 1))
    with pytest.raises(NotRecorded) as caught:
        recorded(code_of(), call, -1, lambda _: 1)
    assert str(caught.value) == "grid must be three numbers of 0 to 2147483647"


def test_a_recorded_call_launches(stub, launcher, monkeypatch):
    """With the driver that only records: a pointer of the call at hand, and a number."""
    monkeypatch.setattr(module.native, "choose", lambda: launcher)
    stub.sizes(8, 4)
    code = code_of("*fp32", "i32", divisible=[0], parameters=[8, 4])
    launch = recorded(code, call_of(pointer(0, 4), 7), -1, lambda _: 0xBEEF)
    for x in (torch.ones(4), torch.ones(9)):
        launch(x)
        record = stub.last()
        assert [*record.params[:2]] == [x.data_ptr() + 4, 7]
        assert [*record.grid, *record.block] == [3, 1, 1, 128, 1, 1]


def test_a_number_that_its_code_cannot_hold_is_not_recorded():
    """Triton would pass infinity; such a call takes the longer way."""
    code = code_of("fp32", parameters=[4])
    with pytest.raises(NotRecorded) as caught:
        recorded(code, call_of(1e39), -1, lambda _: 1)
    assert str(caught.value) == "1e+39 does not fit into the fp32 of its code"
