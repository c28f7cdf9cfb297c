"""Recorded launches on a GPU: streams, graphs, threads, failures; in C and in Python."""

from __future__ import annotations

import threading

import pytest
import torch
import triton
import triton.language as tl

from kernelpkg.launch import calls, driver, native, recorded
from kernelpkg.launch.driver import LaunchError, OutOfResources

if not torch.cuda.is_available():
    pytest.skip("there is nothing to launch on", allow_module_level=True)

LENGTH = 1000
BLOCK = 256


@triton.jit
def add_one(x, out, count, BLOCK: tl.constexpr):  # noqa: N803  # Triton's convention
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < count)
    tl.store(out + place, value + 1, mask=place < count)


@pytest.fixture(scope="module")
def compiled():
    x = torch.zeros(LENGTH, device="cuda")
    return add_one.warmup(x, x, LENGTH, BLOCK=BLOCK, grid=(1,))


@pytest.fixture(scope="module")
def kernel(compiled):
    return driver.load_kernel(compiled.asm["cubin"], compiled.metadata.name)


@pytest.fixture(params=["python", "c"])
def launcher(request):
    if request.param == "python":
        return native.Launcher(
            name="python", calls=calls.Calls, recorded=recorded.Recorded, reason="a test"
        )
    extension, problem = native.load_extension()
    if extension is None:
        pytest.skip(problem)
    return native.Launcher(
        name="c", calls=extension.Calls, recorded=extension.Recorded, reason="a test"
    )


@pytest.fixture
def launch(launcher, kernel, compiled):
    """A launch of `add_one`, which makes its result."""
    device = torch.device("cuda", torch.cuda.current_device())
    return launcher.recorded(
        kernel,
        (-(-LENGTH // BLOCK), 1, 1),
        32 * compiled.metadata.num_warps,
        compiled.metadata.shared,
        ((0, 0), (-1, 0), LENGTH.to_bytes(4, "little"), bytes(8), bytes(8)),
        (((LENGTH,), (1,), torch.float32, device),),
        0,
        device.index,
    )


def test_a_launch_computes_what_its_kernel_does(launch):
    x = torch.randn(LENGTH, device="cuda")
    assert torch.equal(launch(x), x + 1)
    y = torch.randn(LENGTH + 4, device="cuda")[4:]
    assert torch.equal(launch(y), y + 1)


def test_it_runs_on_the_current_stream(launch):
    """What was put on the stream before is done when the kernel reads."""
    stream = torch.cuda.Stream()
    big = torch.zeros(1 << 26, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            big.add_(1)
        got = launch(big[:LENGTH])
    stream.synchronize()
    assert torch.equal(got, torch.full_like(got, 21))


def test_it_is_captured_and_replayed(launch, compiled):
    """A kernel may be loaded meanwhile."""
    x = torch.zeros(LENGTH, device="cuda")
    launch(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = launch(x)
        driver.load_kernel(compiled.asm["cubin"], compiled.metadata.name)
    for value in (3.0, 5.0):
        x.fill_(value)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(got, torch.full_like(got, value + 1))


def test_a_thread_that_pytorch_has_not_used_launches(launch):
    x = torch.randn(LENGTH, device="cuda")
    results = [None] * 8

    def run(place):
        for _ in range(200):
            results[place] = launch(x)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.cuda.synchronize()
    assert all(torch.equal(result, x + 1) for result in results)


def test_a_launch_that_fails_raises_and_the_next_one_works(launcher, launch, kernel):
    too_much = launcher.recorded(kernel, (1, 1, 1), 128, 200_000, (), (), None, 0)
    with pytest.raises(
        LaunchError, match=r"^a kernel cannot be launched: CUDA_ERROR_INVALID_VALUE"
    ):
        too_much()
    x = torch.randn(LENGTH, device="cuda")
    assert torch.equal(launch(x), x + 1)


def test_a_call_is_looked_up_and_launched(launcher, launch):
    table = launcher.make_calls(
        "t", lambda args: None, grad_enabled=torch.is_grad_enabled, check_grad=print
    )
    x = torch.randn(LENGTH, device="cuda")
    table.put((x,), launch)
    y = torch.randn(LENGTH, device="cuda")
    assert torch.equal(table.call(y), y + 1)
    assert table.call(y[:-1]) is None
    assert table.count(0) == 1


def test_shared_memory_is_allowed_up_to_what_the_gpu_has(compiled):
    image, name = compiled.asm["cubin"], compiled.metadata.name
    most = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    assert driver.load_kernel(image, name, most - compiled.metadata.shared)
    with pytest.raises(OutOfResources, match=r"bytes of shared memory, and the GPU has"):
        driver.load_kernel(image, name, most + 1)


@pytest.mark.parametrize("image", [b"", b"\x7fELF" + bytes(200), b"junk"])
def test_a_binary_that_is_none_is_refused(compiled, image):
    """Truncated ones too; the driver says so, and nothing is launched."""
    cut = compiled.asm["cubin"][: len(compiled.asm["cubin"]) // 2]
    for damaged in (image, cut):
        with pytest.raises(LaunchError, match=r"^kernel 'add_one' cannot be loaded: "):
            driver.load_kernel(damaged, "add_one")


def test_a_kernel_that_the_binary_lacks_is_refused(compiled):
    with pytest.raises(LaunchError, match=r"CUDA_ERROR_NOT_FOUND \(500\); the binary has another"):
        driver.load_kernel(compiled.asm["cubin"], "another")
