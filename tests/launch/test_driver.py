"""Kernels are loaded with as much shared memory as they need, and each failure has its line."""

from __future__ import annotations

import pytest

from kernelpkg.launch import driver
from kernelpkg.launch.driver import LaunchError, OutOfResources

CUBIN = b"\x7fELF\x02" + bytes(59)
"""As much of a cubin as is looked at here; the driver of the tests refuses one with another end."""


def message(call, *args, **kwargs):
    with pytest.raises(LaunchError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_kernel_is_loaded_in_relaxed_capture_mode(stub):
    """A graph may be captured by this thread or another: loading must not end its capture."""
    stub.library.stub_reset()
    assert driver.load_kernel(CUBIN, "kernel") == 0xBEEF
    wanted = ["relaxed", "cuLibraryLoadData", "cuLibraryGetKernel", "as-it-was"]
    assert stub.history() == wanted


def test_more_than_48_kb_of_shared_memory_is_asked_for_on_every_gpu(stub):
    stub.library.stub_set_devices(2, 227 * 1024, 1024)
    driver.load_kernel(CUBIN, "kernel", 226 * 1024)
    allowed = [word for word in stub.history() if word.startswith("set")]
    assert allowed == ["set(8,231424,0)", "set(8,231424,1)"]


def test_48_kb_need_no_asking(stub):
    driver.load_kernel(CUBIN, "kernel", 48 * 1024)
    assert [word for word in stub.history() if word.startswith("set")] == []


@pytest.mark.parametrize("device", [None, 0])
def test_a_kernel_that_needs_too_much_is_out_of_resources(stub, device):
    """What the kernel itself has, statically, is not there for its launches."""
    stub.library.stub_set_devices(1, 227 * 1024, 1025)
    with pytest.raises(OutOfResources) as caught:
        driver.load_kernel(CUBIN, "kernel", 226 * 1024, device=device)
    assert str(caught.value) == (
        "kernel 'kernel' needs 231424 bytes of shared memory, and the GPU has 231423 for it; "
        "choose a smaller config"
    )
    assert stub.history()[-2:] == ["cuLibraryUnload", "as-it-was"]


REFUSED = "an unknown error (200); the binary is damaged; build it again"
MISSING = "CUDA_ERROR_NOT_FOUND (500); the binary has another kernel; build it again"


@pytest.mark.parametrize(
    ("image", "name", "text"),
    [(CUBIN[:-1] + b"x", "kernel", REFUSED), (CUBIN, "missing", MISSING)],
    ids=["damaged", "another"],
)
def test_a_binary_that_the_driver_refuses_says_why(stub, image, name, text):
    wanted = f"kernel '{name}' cannot be loaded: {text}"
    assert message(driver.load_kernel, image, name) == wanted
    assert stub.history()[-1] == "as-it-was"


@pytest.mark.parametrize("place", [0x20, 0x28], ids=["programs", "sections"])
def test_a_binary_that_is_cut_off_never_gets_to_the_driver(stub, place):
    """Its tables would lie behind its end, where the driver reads on."""
    stub.library.stub_reset()
    cut = bytearray(CUBIN)
    cut[place : place + 8] = (1000).to_bytes(8, "little")
    for image in (b"", b"junk" * 20, CUBIN[:-1], bytes(cut)):
        assert message(driver.load_kernel, image, "kernel") == (
            "kernel 'kernel' cannot be loaded: the binary is damaged; build it again"
        )
    assert stub.history() == []


@pytest.fixture(params=["python", "c"])
def open_driver(request, stub):
    """What opens a driver, for the launcher in Python and for the one in C."""
    if request.param == "python":
        return driver.open_driver
    return request.getfixturevalue("extension").open_driver


def test_a_driver_that_is_not_there_says_so(open_driver):
    got = message(open_driver, "libnone.so.1")
    assert got.startswith("no NVIDIA driver: libnone.so.1: cannot open shared object file")
    assert got.endswith("; install one, or use a CPU")


def test_a_driver_that_is_too_old_says_so(open_driver, old_driver_path):
    assert message(open_driver, str(old_driver_path)) == (
        "driver too old: it has no cuLaunchKernelEx; update it to one of CUDA 12.0 or later"
    )


def test_a_driver_that_cannot_start_says_so_and_the_one_before_it_stays(open_driver, stub):
    open_driver(str(stub.path))
    stub.fail("cuInit", 700)
    got = message(open_driver, str(stub.path))
    assert got.startswith("the driver cannot be started: CUDA_ERROR_ILLEGAL_ADDRESS (700); ")
    stub.fail("", 0)
    assert driver.load_kernel(CUBIN, "kernel") == 0xBEEF


@pytest.mark.parametrize("code", [1, 701, 12345])
def test_a_failure_names_the_error_and_what_to_do(code):
    name = {1: "CUDA_ERROR_INVALID_VALUE", 701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"}.get(code, "")
    error = driver.failure("a kernel cannot be launched", code, name)
    assert isinstance(error, OutOfResources) == (code == 701)
    assert str(error) == "a kernel cannot be launched: " + {
        1: "CUDA_ERROR_INVALID_VALUE (1); the grid, the threads or the shared memory are more "
        "than this GPU takes",
        701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (701); it needs more registers or shared memory "
        "than this GPU has; choose a smaller config",
        12345: "an unknown error (12345); CUDA's manual of the driver says what it means",
    }.get(code, "")
