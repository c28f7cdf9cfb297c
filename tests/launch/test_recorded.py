"""A recorded launch takes pointers from the arguments at hand, in C as in Python."""

from __future__ import annotations

import ctypes
import threading

import pytest
import torch

from kernelpkg.launch import native, recorded
from kernelpkg.launch.driver import LaunchError, OutOfResources

CPU = torch.device("cpu")


def record(launcher, **changed):
    """Return a recorded launch of a kernel that reads one tensor."""
    given = {
        "kernel": 0xBEEF,
        "grid": (2, 3, 4),
        "threads": 128,
        "shared": 1024,
        "params": ((0, 0),),
        "allocations": (),
        "results": None,
        "device": -1,
    }
    return launcher.recorded(**{**given, **changed})


CURRENT_STREAM = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p)
)


class Exchange(ctypes.Structure):
    """PyTorch's table of functions, as DLPack's C exchange API has it."""

    _fields_ = (
        ("version", ctypes.c_uint32 * 2),
        ("others", ctypes.c_void_p * 5),
        ("current_stream", CURRENT_STREAM),
    )


def stream_of(kind, device, stream):
    stream[0] = 0x50 + device if kind == 2 else 0
    return 0


@pytest.fixture
def streams(monkeypatch, launcher, request):
    """Let device 1 have the stream 0x51; PyTorch here knows no GPU."""
    monkeypatch.setattr(recorded, "current_stream", lambda device: 0x50 + device)
    if launcher.name != "c":
        yield
        return
    python = ctypes.pythonapi
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = b"dlpack_exchange_api"
    place = python.PyCapsule_GetPointer(torch.Tensor.__dlpack_c_exchange_api__, name)
    exchange = Exchange.from_buffer_copy(
        (ctypes.c_char * ctypes.sizeof(Exchange)).from_address(place)
    )
    exchange.current_stream = CURRENT_STREAM(stream_of)
    extension = request.getfixturevalue("extension")
    with monkeypatch.context() as patch:
        capsule = python.PyCapsule_New(ctypes.addressof(exchange), name, None)
        patch.setattr(torch.Tensor, "__dlpack_c_exchange_api__", capsule)
        native.set_up(extension)
        yield
    native.set_up(extension)


def test_what_is_launched_is_what_was_recorded(launcher, stub):
    stub.sizes(8)
    x = torch.zeros(4)
    assert record(launcher)(x) is None
    last = stub.last()
    assert (last.kernel, [*last.grid], [*last.block]) == (0xBEEF, [2, 3, 4], [128, 1, 1])
    assert (last.shared, last.stream, last.device) == (1024, 0, -1)
    assert last.params[0] == x.data_ptr()


def test_pointers_are_those_of_the_call_with_their_deltas(launcher, stub):
    """Nothing of the call that was recorded is left in the next one."""
    stub.sizes(8, 8, 8)
    launch = record(launcher, params=((1, 0), (0, 4), (0, -8)))
    for _ in range(3):
        x, y = torch.zeros(16), torch.zeros(8)[2:]
        launch(x, y)
        wanted = [y.data_ptr(), x.data_ptr() + 4, x.data_ptr() - 8]
        assert list(stub.last().params[:3]) == wanted


def test_an_empty_tensor_has_no_pointer_whatever_its_delta(launcher, stub):
    stub.sizes(8, 8)
    record(launcher, params=((0, 64), (0, 0)))(torch.zeros(0, 4))
    assert list(stub.last().params[:2]) == [0, 0]


def test_scalars_have_their_bytes(launcher, stub):
    stub.sizes(1, 2, 4, 8)
    params = (b"\x07", b"\x01\x02", b"\x00\x00\x80\xbf", b"\x01\x00\x00\x00\x00\x00\x00\x80")
    record(launcher, params=params)()
    assert list(stub.last().params[:4]) == [7, 0x0201, 0xBF800000, 0x8000000000000001]


@pytest.mark.parametrize(
    ("value", "single", "double"),
    [
        (1.5, 0x3FC00000, 0x3FF8000000000000),
        (-0.0, 0x80000000, 0x8000000000000000),
        (3, 0x40400000, 0x4008000000000000),
        (1e300, 0x7F800000, 0x7E37E43C8800759C),
        (float("nan"), 0x7FC00000, 0x7FF8000000000000),
        (0.1, 0x3DCCCCCD, 0x3FB999999999999A),
    ],
)
def test_floats_are_those_of_the_call(launcher, stub, value, single, double):
    """Rounded to what the kernel takes; too large a one is infinite."""
    stub.sizes(4, 8)
    launch = record(launcher, params=(("fp32", 1), ("fp64", 1)), any=(1,))
    for given in (2.0, value):
        launch(None, given)
    assert launch.any == (1,)
    assert list(stub.last().params[:2]) == [single, double]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((1.0,), "a launch takes argument 1, and 1 were given"),
        ((1.0, "2"), "argument 1 is not a number but str"),
        ((1.0, None), "argument 1 is not a number but NoneType"),
    ],
)
def test_a_float_that_is_not_there_is_not_launched_with(launcher, stub, args, text):
    with pytest.raises(TypeError, match=rf"^{text}$"):
        record(launcher, params=(("fp32", 1),))(*args)
    assert stub.launches() == 0


def test_a_float_that_is_too_large_is_refused(launcher, stub):
    with pytest.raises(OverflowError, match=r"^int too large to convert to float$"):
        record(launcher, params=(("fp32", 0),))(10**400)
    assert stub.launches() == 0


def test_allocations_are_made_at_each_call_and_returned(launcher, stub):
    stub.sizes(8, 8)
    launch = record(
        launcher,
        params=((-1, 0), (-2, 2)),
        allocations=(
            ((2, 3), (1, 2), torch.float32, CPU),
            ((5,), (1,), torch.bfloat16, CPU),
        ),
        results=(1, 0),
    )
    first, second = launch(), launch()
    assert isinstance(second, tuple)
    short, tall = second
    assert (tall.shape, tall.stride(), tall.dtype) == ((2, 3), (1, 2), torch.float32)
    assert (short.shape, short.stride(), short.dtype) == ((5,), (1,), torch.bfloat16)
    assert list(stub.last().params[:2]) == [tall.data_ptr(), short.data_ptr() + 2]
    assert first[0].data_ptr() != short.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bool, torch.int64])
def test_allocations_without_elements_and_of_rank_0_are_made(launcher, stub, dtype):
    stub.sizes(8, 8)
    allocations = (((0, 3), (3, 1), dtype, CPU), ((), (), dtype, torch.device("cpu:0")))
    launch = record(launcher, params=((-1, 16), (-2, 0)), allocations=allocations, results=(0, 1))
    empty, scalar = launch()
    assert (empty.shape, scalar.shape, empty.dtype, scalar.dtype) == ((0, 3), (), dtype, dtype)
    assert list(stub.last().params[:2]) == [0, scalar.data_ptr()]


def test_an_allocation_that_cannot_be_made_raises(launcher, stub):
    """The next call works, and what was made before it is freed."""
    allocations = (((2,), (1,), torch.int8, CPU), ((2**62,), (1,), torch.int8, CPU))
    launch = record(launcher, params=(), allocations=allocations, results=0)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            launch()
    assert stub.launches() == 0


def test_one_result_is_returned_alone(launcher, stub):
    stub.sizes(8)
    allocations = (((2,), (1,), torch.float32, CPU), ((3,), (1,), torch.float32, CPU))
    made = record(launcher, params=((-1, 0),), allocations=allocations, results=1)()
    assert made.shape == (3,)


@pytest.mark.parametrize("grid", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_grid_of_zero_launches_nothing_and_returns_its_results(launcher, stub, grid):
    allocations = (((0, 3), (3, 1), torch.float32, CPU),)
    launch = record(launcher, grid=grid, params=(), allocations=allocations, results=0)
    assert launch().shape == (0, 3)
    assert stub.launches() == 0


def test_the_stream_is_the_current_one_of_the_device(launcher, stub, streams):
    stub.library.stub_set_current(1)
    record(launcher, device=1, params=())()
    assert (stub.last().stream, stub.last().device) == (0x51, 1)
    assert "cuCtxPushCurrent" not in stub.history()


@pytest.mark.parametrize("current", [-1, 0], ids=["none", "another"])
def test_the_context_is_that_of_the_device(launcher, stub, streams, current):
    """A thread that PyTorch has not used yet has none; the one before comes back."""
    stub.library.stub_set_current(current)
    launch = record(launcher, device=1, params=())
    launch()
    launch()
    assert stub.last().device == 1
    assert stub.library.stub_current() == current
    words = [word for word in stub.history() if "Push" in word or "Pop" in word or "Retain" in word]
    assert words[-4:] == ["cuCtxPushCurrent", "cuCtxPopCurrent"] * 2


def test_attributes_are_given_with_their_values(launcher, stub):
    cluster = 2 | 3 << 32 | 4 << 64
    record(launcher, params=(), attributes=((4, cluster), (6, 1)))()
    last = stub.last()
    assert last.attribute_count == 2
    assert [attribute.id for attribute in last.attributes[:2]] == [4, 6]
    assert bytes(last.attributes[0].value) == cluster.to_bytes(64, "little")
    assert bytes(last.attributes[1].value) == (1).to_bytes(64, "little")


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (1, LaunchError, "CUDA_ERROR_INVALID_VALUE (1); the grid, the threads or the shared"),
        (701, OutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (701); it needs more registers"),
        (9999, LaunchError, "an unknown error (9999); CUDA's manual"),
    ],
)
def test_a_launch_that_fails_raises_and_the_next_one_works(launcher, stub, code, kind, text):
    stub.sizes(8)
    launch = record(launcher)
    x = torch.zeros(4)
    stub.fail("cuLaunchKernelEx", code)
    with pytest.raises(LaunchError) as caught:
        launch(x)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"a kernel cannot be launched: {text}")
    stub.fail("", 0)
    launch(x)
    assert stub.last().params[0] == x.data_ptr()


@pytest.mark.parametrize("function", ["cuCtxGetDevice", "cuCtxPushCurrent"])
def test_a_context_that_fails_raises_and_the_next_launch_works(launcher, stub, streams, function):
    launch = record(launcher, device=1, params=())
    stub.fail(function, 700)
    with pytest.raises(LaunchError, match=r"^device 1 cannot be used: CUDA_ERROR_ILLEGAL_ADDRESS"):
        launch()
    stub.fail("", 0)
    launch()
    assert stub.launches() == 1
    assert stub.library.stub_current() == -1


@pytest.mark.parametrize("given", [None, 3, "x"])
def test_an_argument_without_a_pointer_is_refused(launcher, stub, given):
    name = type(given).__name__
    with pytest.raises(TypeError, match=rf"^argument 0 is not a tensor but {name}$"):
        record(launcher)(given)
    assert stub.launches() == 0


def test_an_argument_that_is_not_given_is_refused(launcher, stub):
    with pytest.raises(TypeError, match=r"^a launch takes argument 0, and 0 were given$"):
        record(launcher)()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"grid": (1, 1)}, "grid must be three numbers of 0 to 2147483647"),
        ({"grid": (1, -1, 1)}, "grid must be three numbers of 0 to 2147483647"),
        ({"grid": (2**31, 1, 1)}, "grid must be three numbers of 0 to 2147483647"),
        ({"threads": 0}, "threads must be 1 to 1024"),
        ({"threads": 1025}, "threads must be 1 to 1024"),
        ({"device": 64}, "device must be -1 to 63"),
        ({"device": -2}, "device must be -1 to 63"),
        ({"allocations": (((1,), (1,), CPU, CPU),) * 65}, "allocations must be 64 at most"),
        ({"shared": -1}, "shared must be 0 to 2147483647"),
        ({"params": (b"",)}, "a scalar must have 1 to 8 bytes"),
        ({"params": (b"123456789",)}, "a scalar must have 1 to 8 bytes"),
        ({"params": ((-1, 0),)}, "a parameter names an allocation that is not there"),
        ({"params": (("i32", 0),)}, "a number must be fp32 or fp64"),
        ({"params": (("fp32", -1),)}, "a parameter names an argument that is not there"),
        ({"params": (b"1",) * 1025}, "params must be 1024 at most"),
        ({"results": 0}, "a result names an allocation that is not there"),
        ({"results": (-1,)}, "a result names an allocation that is not there"),
    ],
)
def test_what_cannot_be_launched_is_refused(launcher, changed, text):
    with pytest.raises(ValueError, match=rf"^{text}$"):
        record(launcher, **changed)


def test_threads_launch_at_once(launcher, stub):
    stub.sizes(8)
    launch = record(launcher)
    x = torch.zeros(4)
    threads = [threading.Thread(target=lambda: [launch(x) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stub.launches() == 2000


def test_a_recorded_launch_is_told_from_other_functions(launcher):
    made = launcher.recorded(7, (1, 1, 1), 32, 0, (), (), None, -1)
    assert launcher.is_recorded(made)
    assert not launcher.is_recorded(lambda: None)
