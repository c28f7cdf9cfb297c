"""Ops made ready before they are called: compiled in threads, on a machine that plays an H200."""

from __future__ import annotations

import contextlib
import runpy
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import triton
from torch._inductor.codecache import PyCodeCache
from triton.backends.compiler import GPUTarget

import kernelpkg
from kernelpkg.compile import code
from kernelpkg.configs.platforms import resolve
from kernelpkg.launch import driver, native, recorded
from kernelpkg.manifest.cases import Case
from kernelpkg.runtime import load as module
from kernelpkg.runtime.backend import HelionBackend
from kernelpkg.runtime.torch_ops import Machine
from kernelpkg.runtime.warm import warm_classes

LAUNCH = Path(__file__).parents[2] / "launch"
DRIVER = SimpleNamespace(**runpy.run_path(str(LAUNCH / "conftest.py")))
OPS = ("demo::twice", "demo::thrice")
SIZES = {"num_tokens": [1, 5, 16, 48, 7]}


class Target:
    """What Triton asks of a driver to compile."""

    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)


@pytest.fixture(scope="module")
def driver_path(tmp_path_factory):
    return DRIVER.compile_c(LAUNCH / "stub_driver.c", tmp_path_factory.mktemp("driver") / "stub.so")


@pytest.fixture
def gpu(driver_path, monkeypatch):
    """An H200 in place of this machine, whose tensors are on the CPU; returns its driver."""
    stub = DRIVER.open_stub(driver_path)
    monkeypatch.setattr(driver, "_opened", [])
    driver.open_driver(str(driver_path))
    here = Machine(
        device="cuda", gpu="NVIDIA H200", platform=resolve("NVIDIA H200"), interpret=False
    )
    monkeypatch.setattr(module, "detect", lambda *_, **__: here)
    monkeypatch.setattr(recorded, "current_stream", lambda device: 0)
    monkeypatch.setattr(HelionBackend, "interprets", lambda *_: False)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setenv(native.VARIABLE, "python")
    monkeypatch.setattr(triton.runtime.driver, "_active", Target())
    return stub


@pytest.fixture
def pack(demo, gpu, monkeypatch, tmp_path):
    """Two kernels with a config each, and a cache of Triton that is empty."""
    demo.kernel("thrice")
    for name in ("twice", "thrice"):
        demo.configs(name)
    kernelpkg.load(root=demo.root, environment={}, strict=True)
    start_anew(monkeypatch, tmp_path / "triton")
    return demo


@pytest.fixture
def compiled(monkeypatch):
    """The threads in which Triton has compiled something, by the name of the kernel."""
    found = []

    def listen(*, src, cache_hit, **_):
        if not cache_hit:
            found.append((src.name, threading.current_thread().name))

    monkeypatch.setattr(triton.knobs.compilation, "listener", listen)
    return found


def tables() -> dict[str, object]:
    """What is known of each op: codes by config and class, and how many calls are ready."""
    found = {}
    for name in OPS:
        kernel = kernelpkg.get_kernel_by_name(name)
        made = kernel.backend.code()._generated.items()
        codes = {key: {str(c) for c in generated.codes} for key, generated in made}
        found[name] = (codes, len(kernel.dispatcher.calls), kernel.fallbacks())
    return found


def start_anew(monkeypatch, place) -> None:
    """Forget all code, which Triton keeps in its cache and in the modules that Helion wrote."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(place))
    PyCodeCache.cache_clear()
    for name in OPS:
        kernelpkg.get_kernel_by_name(name).start_anew()


def test_threads_compile_what_one_would(pack, gpu, compiled, monkeypatch, tmp_path):
    """One token, a multiple of 16 and any other number: three codes of each op, compiled once."""
    kernels = [kernelpkg.get_kernel_by_name(name) for name in OPS]
    for kernel in kernels:
        for size in SIZES["num_tokens"]:
            kernel.dispatcher.prepare((torch.ones(size),))
    alone, tried = tables(), compiled[:]
    assert len(alone[OPS[0]][0]) == 2
    assert alone[OPS[0]][1:] == (5, {})
    start_anew(monkeypatch, tmp_path / "again")
    compiled.clear()
    report = kernelpkg.warm(*OPS, sizes=SIZES, device="cpu", jobs=3)
    assert [(op.ready, op.compiled, op.problems) for op in report.ops] == [(5, 3, [])] * 2
    assert tables() == alone
    names = [name for name, _ in compiled]
    assert sorted(names) == sorted(name for name, _ in tried)
    assert len(names) == 6
    assert threading.current_thread().name not in {thread for _, thread in compiled}
    gpu.sizes(8, 8, 4, 8, 8)
    torch.ops.demo.thrice(torch.ones(48))
    assert (len(compiled), gpu.launches(), tables()) == (6, 1, alone)


def test_what_was_warmed_before_makes_no_difference(pack, compiled, monkeypatch, tmp_path):
    """Code of any size would do for 16 tokens; code of multiples of 16 is what a call gets."""
    kernelpkg.warm(*OPS, sizes=SIZES, device="cpu", jobs=1)
    alone = tables()
    start_anew(monkeypatch, tmp_path / "again")
    for size in (5, 16, 1, 48, 7):
        kernelpkg.warm(*OPS, sizes={"num_tokens": [size]}, device="cpu", jobs=2)
    assert tables() == alone


def test_several_threads_may_warm(pack, compiled, monkeypatch, tmp_path):
    kernelpkg.warm(*OPS, sizes=SIZES, device="cpu", jobs=1)
    alone = tables()
    start_anew(monkeypatch, tmp_path / "again")
    ready, reports = threading.Barrier(4), []

    def work(*ops: str) -> None:
        ready.wait()
        reports.append(kernelpkg.warm(*ops, sizes=SIZES, device="cpu", jobs=2))

    asked = (OPS[:1], OPS[1:], OPS, OPS[::-1])
    threads = [threading.Thread(target=work, args=ops) for ops in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(op.ready, *op.problems) for report in reports for op in report.ops} == {(5,)}
    assert tables() == alone


def test_classes_are_compiled_in_threads_too(pack, compiled):
    kernel = kernelpkg.get_kernel_by_name("demo::twice")
    case = Case(values={"num_tokens": 64}, use=(), grid=0)
    for count in (3, 0):
        found = warm_classes(kernel, [case], torch.device("cpu"), jobs=2)
        assert (found.ready, found.compiled, found.problems) == (5, count, [])
    assert threading.current_thread().name not in {thread for _, thread in compiled}
    assert len(compiled) == 3


def test_what_does_not_compile_is_said_and_the_rest_is_ready(pack, monkeypatch):
    """It fails in a thread first, and then where it is asked for; other cases are ready."""
    whole = triton.compile

    def failing(src, **options):
        if src.name == "_helion_twice":
            raise RuntimeError("ptxas:\n  no registers")
        return whole(src, **options)

    monkeypatch.setattr(triton.compiler, "compile", failing)
    twice, thrice = kernelpkg.warm(*OPS, sizes={"num_tokens": [5, 7]}, device="cpu", jobs=2).ops
    said = [f"case num_tokens={size}: RuntimeError: ptxas: no registers" for size in (5, 7)]
    assert (twice.ready, twice.compiled, twice.problems) == (0, 0, said)
    assert (thrice.ready, thrice.compiled, thrice.problems) == (2, 1, [])


def test_an_interrupt_leaves_nothing_behind(pack, compiled):
    """What is compiled next is compiled where it is asked for."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        code.compiling_in_threads([interrupted], 2)
    kernelpkg.get_kernel_by_name("demo::twice").dispatcher.prepare((torch.ones(5),))
    assert compiled == [("_helion_twice", threading.current_thread().name)]
