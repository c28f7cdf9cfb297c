"""The seven ops on a GPU, against their float32 references and inside PyTorch."""

from __future__ import annotations

import os
import runpy
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attrs import evolve

from kernelpkg import get_kernel_by_name
from kernelpkg.bench.inputs import SENTINEL, make_inputs
from kernelpkg.bench.reference import check_case, compare_all
from kernelpkg.errors import CallError
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel
from kernelpkg.packs.sources import load_function

EXTREMES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "extremes.py")))
ROOT = find.own_root()
SPECS = {name: read_kernel(ROOT, name) for name in kernel_names(ROOT)}
DRY_RUN = os.environ.get("KERNELPKG_GPU_DRY_RUN") == "1"

each_op = pytest.mark.parametrize("name", list(SPECS))


def kernel(name: str) -> Any:
    found = get_kernel_by_name(f"kernelpkg::{name}")
    assert found is not None
    return found


def sized(spec: KernelSpec, tokens: int, **axes: Any) -> Case:
    """A case of the last grid for tests with another token count and other axes."""
    base = last_cases(spec)[0]
    return evolve(base, values={**base.values, "num_tokens": tokens, **axes}, use=("test",))


def last_cases(spec: KernelSpec) -> list[Case]:
    """The cases of the last grid that is for tests."""
    cases = cases_of(spec, "test")
    return [case for case in cases if case.grid == cases[-1].grid]


def disagreement(spec: KernelSpec, call: Any, args: Any, want_args: Any) -> list[str]:
    """What a call writes, held against what the reference writes."""
    reference = load_function(find.Path(spec.directory), spec.reference)
    got, want = call(*args), reference(*want_args)
    found = compare_all(spec.schema, (args, got), (want_args, want), spec.accuracy)
    return [agreement.problem for agreement in found if agreement.problem is not None]


def copies(args: Any) -> tuple[Any, ...]:
    """The same arguments in other memory, with the same strides."""
    return tuple(
        torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device=a.device).copy_(a)
        if isinstance(a, torch.Tensor)
        else a
        for a in args
    )


@each_op
def test_whole_grid(name: str, device: str) -> None:
    """Every case of the test grid agrees with the reference."""
    spec = SPECS[name]
    cases = last_cases(spec) if DRY_RUN else cases_of(spec, "test")
    problems = [check_case(spec, kernel(name), case, device=device) for case in cases]
    assert [problem for problem in problems if problem is not None] == []
    assert len(cases) >= 12


EDGES = {
    "zero": lambda x: x.zero_(),
    "nan": lambda x: x.view(-1)[::7].fill_(float("nan")),
    "inf": lambda x: x.view(-1)[3::11].fill_(float("inf")),
    "minus inf": lambda x: x.view(-1)[5::13].fill_(float("-inf")),
    "large": lambda x: x.mul_(1e4),
    "small": lambda x: x.mul_(1e-6),
}


@each_op
@pytest.mark.parametrize("edge", list(EDGES))
@pytest.mark.parametrize("tokens", [1, 5])
def test_edges(name: str, edge: str, tokens: int, device: str) -> None:
    """Zeros, infinities, NaN, large and small values are treated as by the reference."""
    spec = SPECS[name]
    case = sized(spec, tokens)
    args = make_inputs(spec, case, device=device)
    place = spec.schema.arg_names.index("qkv" if "qkv" in spec.schema.arg_names else "input")
    EDGES[edge](args[place][: max(1, tokens - 1)])
    assert disagreement(spec, kernel(name), args, copies(args)) == []


@each_op
@pytest.mark.parametrize("order", [(1, 16), (16, 1), (1, 2, 1, 33)], ids=str)
def test_no_wrong_rows(name: str, order: tuple[int, ...], device: str) -> None:
    """One kernel called with one token and with many gives right rows, in both orders."""
    spec, fresh = SPECS[name], kernel(name)
    fresh.start_anew()
    for tokens in order:
        assert check_case(spec, fresh, sized(spec, tokens), device=device) is None
    assert_compiled(spec, fresh, order, device)


def assert_compiled(spec: KernelSpec, kernel: Any, counts: Any, device: str) -> None:
    """One compiled kernel for each distinct config, apart for one token and for more."""
    names = [axis.name for axis in spec.axes]
    wanted = set()
    for tokens in counts:
        case = sized(spec, tokens)
        axes = [case.values.get(name) for name in names]
        chosen = next(kernel.plan.options(axes))
        wanted.add((chosen.config_id, tokens == 1))
    if device == "cuda":
        assert kernel.backend.code().compiled_count() == len(wanted)
    assert len(wanted) <= len(set(counts))


@each_op
def test_equal_configs_share_code(name: str, device: str) -> None:
    """Fifty-one token counts compile a kernel per distinct config and size class, no more."""
    spec, fresh = SPECS[name], kernel(name)
    fresh.start_anew()
    counts = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    assert len(counts) == 51
    for tokens in counts:
        fresh(*make_inputs(spec, sized(spec, tokens), device=device))
    assert len(fresh.dispatcher.calls) == 51
    assert_compiled(spec, fresh, counts, device)


@each_op
def test_compiles_without_breaks(name: str, device: str) -> None:
    """torch.compile sees one op, in one graph, for every token count."""
    spec, op = SPECS[name], kernel(name).op
    torch._dynamo.reset()
    frames = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    compiled = torch.compile(
        lambda *args: op(*args),  # noqa: PLW0108  # Dynamo takes functions
        fullgraph=True,
        dynamic=True,
        backend=frames,
    )
    traced = []
    for tokens in (7, 11, 33):  # none equals a size or a head count, which would be one symbol
        args = make_inputs(spec, sized(spec, tokens), device=device)
        assert disagreement(spec, compiled, args, copies(args)) == []
        traced.append(frames.frame_count)
    assert len(set(traced)) == 1


@each_op
def test_opcheck(name: str, device: str) -> None:
    """torch.library.opcheck finds nothing."""
    spec = SPECS[name]
    args = make_inputs(spec, sized(spec, 3), device=device)
    checks = ["test_autograd_registration", "test_faketensor"]
    if not any("float8" in str(arg.dtype) for arg in args if isinstance(arg, torch.Tensor)):
        checks.append("test_schema")  # which multiplies arguments, as FP8 tensors cannot be
    if device == "cuda":
        checks.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(kernel(name).op, args, test_utils=checks)


@each_op
@pytest.mark.skipif(DRY_RUN, reason="the CPU has no CUDA graphs")
def test_cuda_graph(name: str, device: str) -> None:
    """A captured call replays with new values in its inputs."""
    spec, call = SPECS[name], kernel(name)
    case = sized(spec, 4)
    args = make_inputs(spec, case, device=device)
    call(*copies(args))
    torch.cuda.synchronize()
    static = copies(args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(*static)
    fresh = make_inputs(spec, case, device=device)
    place = spec.schema.arg_names.index("qkv" if "qkv" in spec.schema.arg_names else "input")
    fresh[place].mul_(0.5)
    for there, here in zip(static, fresh, strict=True):
        if isinstance(there, torch.Tensor):
            there.copy_(here)
    graph.replay()
    torch.cuda.synchronize()
    assert disagreement(spec, lambda *_: result, static, copies(fresh)) == []


@each_op
def test_first_calls_from_threads(name: str, device: str) -> None:
    """Several threads may make the first call of an op at once."""
    spec, fresh = SPECS[name], kernel(name)
    fresh.start_anew()
    problems: list[str | None] = []
    threads = [
        threading.Thread(
            target=lambda: problems.append(check_case(spec, fresh, sized(spec, 6), device=device))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [None] * 4


@each_op
def test_empty_call_launches_nothing(name: str, device: str) -> None:
    """No tokens: outputs of the right shape, and no kernel is compiled."""
    spec, fresh = SPECS[name], kernel(name)
    fresh.start_anew()
    result = fresh(*make_inputs(spec, sized(spec, 0), device=device))
    assert (fresh.backend._configured, fresh.backend._code) == (None, None)
    assert result is None or result.numel() == 0


@pytest.mark.skipif(DRY_RUN, reason="one device is not enough")
@each_op
def test_two_devices_are_refused(name: str, device: str) -> None:
    """Tensors on several devices are refused before anything is launched."""
    spec = SPECS[name]
    args = list(make_inputs(spec, sized(spec, 3), device=device))
    place = max(i for i, arg in enumerate(args) if isinstance(arg, torch.Tensor))
    args[place] = args[place].cpu()
    with pytest.raises(CallError, match="all must be on one device"):
        kernel(name)(*args)


@pytest.mark.parametrize("name", EXTREMES.NAMES)
def test_codes_at_the_ends_of_what_floats_can_say(name: str, device: str) -> None:
    """Each is that of its exact quotient or the next one, and never of the other sign."""
    for seed in range(200):
        args = EXTREMES.arguments(name, seed, device)
        result = getattr(torch.ops.kernelpkg, name)(*args)
        assert EXTREMES.wrong(name, args, result) is None


def test_sentinel_is_seen() -> None:
    """The check notices an element that the kernel leaves unwritten."""
    spec = SPECS["dynamic_per_token_scaled_fp8_quant"]
    case = sized(spec, 3)
    got = make_inputs(spec, case, device="cpu", sentinel=SENTINEL)
    want = make_inputs(spec, case, device="cpu", sentinel=-SENTINEL)
    assert disagreement(spec, lambda *_: None, got, want) != []
