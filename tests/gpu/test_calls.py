"""Recorded launches on a GPU: streams, captures, alignments, threads; equal with both launchers."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.bench.reference import check_case
from kernelpkg.launch import native
from kernelpkg.manifest.cases import Case, cases_of, is_empty
from kernelpkg.runtime.warm import warm

from .test_kernels import DRY_RUN, SPECS, copies, disagreement, each_op, kernel, last_cases, sized

pytestmark = pytest.mark.skipif(DRY_RUN, reason="nothing is launched in Helion's interpreter")


def tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in values if isinstance(value, torch.Tensor)]


def moved(args: tuple[Any, ...], offset: int) -> tuple[Any, ...]:
    """The same arguments, each tensor so many elements behind an aligned start."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        space = torch.empty(span + offset, dtype=tensor.dtype, device=tensor.device)
        return space.as_strided(tensor.shape, tensor.stride(), offset).copy_(tensor)

    return tuple(move(arg) if isinstance(arg, torch.Tensor) else arg for arg in args)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    left, right = (t.contiguous().view(torch.uint8) for t in (one, other))
    return torch.equal(left, right)


@each_op
@pytest.mark.parametrize("offset", [1, 3, 8])
def test_tensors_that_start_anywhere(name: str, offset: int, device: str) -> None:
    """Tensors that start at no aligned address, or far into their storage, get right results."""
    spec = SPECS[name]
    for tokens in (1, 17):
        args = make_inputs(spec, sized(spec, tokens), device=device)
        aligned = copies(args)
        assert disagreement(spec, kernel(name), aligned, copies(args)) == []
        assert disagreement(spec, kernel(name), moved(args, offset), copies(args)) == []


@each_op
def test_another_stream(name: str, device: str) -> None:
    """A call runs on the stream that is current, behind what is queued there."""
    spec = SPECS[name]
    args = make_inputs(spec, sized(spec, 33), device=device)
    kernel(name)(*copies(args))
    stream = torch.cuda.Stream()
    held, source = copies(args), copies(args)
    for tensor in tensors(held):
        tensor.zero_()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for tensor, value in zip(tensors(held), tensors(source), strict=True):
            tensor.copy_(value)
        assert disagreement(spec, kernel(name), held, copies(args)) == []


@each_op
def test_a_replay_reads_what_is_there_then(name: str, device: str) -> None:
    """A captured launch has the pointers of its capture, and reads their values at each replay."""
    spec = SPECS[name]
    case = sized(spec, 16)
    args = make_inputs(spec, case, device=device)
    static = copies(args)
    kernel(name)(*copies(args))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = kernel(name)(*static)
    other = make_inputs(spec, case, device=device, variation=1)
    for tensor, value in zip(tensors(static), tensors(other), strict=True):
        tensor.copy_(value)
    graph.replay()
    expected = copies(other)
    wanted = kernel(name)(*expected)
    torch.cuda.synchronize()
    pairs = [*zip(tensors(static), tensors(expected), strict=True)]
    pairs += [] if result is None else [(result, wanted)]
    assert all(same(one, two) for one, two in pairs)


@each_op
def test_a_first_call_within_a_capture(name: str, device: str) -> None:
    """A signature that is first seen while a graph is captured is recorded and captured."""
    spec, fresh = SPECS[name], kernel(name)
    fresh(*make_inputs(spec, sized(spec, 24), device=device))  # its code is there then
    args = make_inputs(spec, sized(spec, 40), device=device)
    static = copies(args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = fresh(*static)
    for tensor, value in zip(tensors(static), tensors(args), strict=True):
        tensor.copy_(value)
    graph.replay()
    expected = copies(args)
    wanted = fresh(*expected)
    pairs = [*zip(tensors(static), tensors(expected), strict=True)]
    pairs += [] if result is None else [(result, wanted)]
    assert all(same(one, two) for one, two in pairs)


@each_op
def test_threads_and_streams(name: str, device: str) -> None:
    """Eight threads, each on a stream of its own, with sizes of their own."""
    spec, wrong = SPECS[name], list[Any]()

    def work(seed: int) -> None:
        order = random.Random(seed)
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                found = check_case(
                    spec, kernel(name), sized(spec, order.randint(1, 60)), device=device
                )
                if found is not None:
                    wrong.append(found)
            torch.cuda.synchronize()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@each_op
def test_both_launchers_give_equal_bits(name: str, device: str) -> None:
    """The launcher in C and the one in Python launch the same, over the grid of tests."""
    spec, mine = SPECS[name], kernel(name)
    if native.choose({}).name != "c":
        pytest.skip("the launcher in C was not compiled")
    args = {str(case): make_inputs(spec, case, device=device) for case in _cases(name)}
    found = {}
    for launcher in ("c", "python"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KERNELPKG_LAUNCHER", launcher)
            mine.start_anew()
            for text, values in args.items():
                given = copies(values)
                result = mine.dispatcher.resolve(given)
                found[launcher, text] = [*tensors(given), *([] if result is None else [result])]
    mine.start_anew()
    for text in args:
        pairs = zip(found["c", text], found["python", text], strict=True)
        assert all(same(one, two) for one, two in pairs), text


def _cases(name: str) -> list[Case]:
    return [case for case in last_cases(SPECS[name]) if not is_empty(SPECS[name], case)]


@each_op
def test_random_shapes_leave_nothing_behind(name: str, device: str) -> None:
    """Sixty shapes and all tuned token counts, and then as many more: right rows, and no growth."""
    spec, mine = SPECS[name], kernel(name)
    order = random.Random(7)
    most = sized(spec, 1).values.get("max_position", 4000)  # of a rotary cache, whose rows are read
    tuned = {case.values["num_tokens"] for case in cases_of(spec, "tune")}  # each has its config
    usual = [order.randint(1, most) for _ in range(60)]
    for tokens in (*(count for count in tuned if count <= most), *usual):
        assert check_case(spec, mine, sized(spec, tokens), device=device) is None
    before = torch.cuda.memory_allocated(), mine.backend.compiled_count()
    for _ in range(60):
        assert check_case(spec, mine, sized(spec, order.randint(1, most)), device=device) is None
    assert (torch.cuda.memory_allocated(), mine.backend.compiled_count()) == before


@each_op
def test_warmed_ops_compile_nothing(name: str, device: str) -> None:
    """After `warm`, calls of its sizes find their launches."""
    spec, mine = SPECS[name], kernel(name)
    mine.start_anew()
    first = cases_of(spec, "tune")[0].values
    sizes = {**{k: v for k, v in first.items() if k != "num_tokens"}, "num_tokens": [1, 2, 24, 512]}
    (found,) = warm(name, sizes=sizes).ops
    assert (found.ready, found.problems) == (4, [])
    count, known = mine.backend.compiled_count(), len(mine.dispatcher.calls)
    for tokens in (1, 2, 24, 512):
        case = Case(values={**first, "num_tokens": tokens}, use=("tune",), grid=0)
        assert check_case(spec, mine, case, device=device) is None
    assert (mine.backend.compiled_count(), len(mine.dispatcher.calls)) == (count, known)


@pytest.mark.parametrize("name", ["rms_norm_dynamic_per_token_quant", "fused_qk_norm_rope"])
def test_each_call_has_its_own_epsilon(name: str, device: str) -> None:
    """One signature serves them all, by both launchers, and every result is right."""
    spec, op = SPECS[name], kernel(name)
    place = next(at for at, arg in enumerate(spec.schema.args) if arg.name.startswith("eps"))
    args = [*make_inputs(spec, sized(spec, 48), device=device)]
    op.dispatcher.calls.clear()
    for epsilon in (1e-6, 0.5, 4.0, 1e-6):
        args[place] = epsilon
        given = tuple(args)
        assert disagreement(spec, op, copies(given), copies(given)) == []
    assert len(op.dispatcher.calls) == 1
    assert place in op.dispatcher.calls.get(args).any


def test_a_build_needs_neither_helion_nor_triton(tmp_path: Path) -> None:
    """A build made here runs in a process that imports neither, and gives what compiling gives."""
    root = tmp_path / "pack"
    root.mkdir()
    for folder in ("manifests", "kernels", "configs"):  # no build of its own
        (root / folder).symlink_to(Path(__file__).parents[2] / folder)
    words = [sys.executable, "-m", "kernelpkg", "build", "silu_mul_fp8", "--root", str(root)]
    words += ["--out", str(tmp_path / "builds")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = (
        "import sys, torch, kernelpkg\n"
        "r = kernelpkg.load(root=sys.argv[1], builds=[sys.argv[2]] if sys.argv[2] else [])\n"
        "modes = {k.name: k.mode for k in r.kernels}\n"
        "torch.manual_seed(0)\n"
        "sums = []\n"
        "for n in (1, 2, 3, 16, 33, 512):\n"
        "    x = torch.randn(n, 8192, dtype=torch.bfloat16, device='cuda')\n"
        "    y = torch.ops.kernelpkg.silu_mul_fp8(x, torch.full((1,), 0.02, device='cuda'))\n"
        "    sums.append(int((y.view(torch.uint8).long() * torch.arange(y.numel(), device='cuda')"
        ".view_as(y)).sum()))\n"
        "print(modes['silu_mul_fp8'], 'helion' in sys.modules, sums)\n"
    )
    found = []
    for builds in (str(tmp_path / "builds"), ""):
        only = {"KERNELPKG_DISABLE": ",".join(n for n in SPECS if n != "silu_mul_fp8")}
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(root), builds],
            capture_output=True, text=True, check=False, env={**os.environ, **only},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        found.append(run.stdout.split(" ", 2))
    assert [one[:2] for one in found] == [["prebuilt", "False"], ["tuned", "True"]]
    assert found[0][2] == found[1][2]
