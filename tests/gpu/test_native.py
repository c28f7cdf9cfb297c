"""Routes over vLLM's own CUDA ops: every call is held against the op that it took the place of.

KERNELPKG_VLLM_LIBRARY names vLLM 0.33.0's _C_stable_libtorch.abi3.so; without it, or an installed
vLLM, nothing here is collected.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from kernelpkg import get_kernel_by_name
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.bench.reference import compare_all
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs import find
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm import plugin

ROOT = find.own_root()
DRY_RUN = os.environ.get("KERNELPKG_GPU_DRY_RUN") == "1"  # with stand-ins for the library
KEYS = ("CPU",) if DRY_RUN else ("CUDA",)
OPS = (
    "per_token_group_fp8_quant",
    "dynamic_per_token_scaled_fp8_quant",
    "rms_norm_dynamic_per_token_quant",
    "rms_norm_per_block_quant",
    "silu_and_mul_per_block_quant",
    "fused_qk_norm_rope",
)
SPECS = {name: read_kernel(ROOT, name) for name in OPS}
TOKENS = (1, 3, 130)
DTYPES = ("bfloat16", "float16", "float32")
CODES = ("float8_e4m3fn", "int8")
FLAG = (False, True)

each_op = pytest.mark.parametrize("name", OPS)


def every(**axes: Any) -> list[dict[str, Any]]:
    """Every combination of the values of some axes."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def options(name: str) -> Iterator[dict[str, Any]]:
    """The options of an op, over sizes of which some are awkward."""
    if name == "per_token_group_fp8_quant":
        for size, group in ((128, 128), (640, 64), (2880, 32), (4096, 128), (320, 16), (96, 24)):
            for row in every(in_dtype=DTYPES, scale_ue8m0=FLAG, column_major=FLAG):
                if size == 640 or row["in_dtype"] == "bfloat16":
                    yield {"hidden_size": size, "group_size": group, **row}
    elif name == "dynamic_per_token_scaled_fp8_quant":
        for size in (16, 77, 640, 2880, 8192):
            for row in every(in_dtype=DTYPES, has_scale_ub=FLAG):
                if size == 640 or row["in_dtype"] == "bfloat16":
                    yield {"hidden_size": size, **row}
    elif name == "fused_qk_norm_rope":
        sizes = ((64, 64), (64, 16), (128, 128), (128, 96), (128, 32), (128, 8), (256, 256))
        for head, rotary in sizes:
            for row in every(dtype=DTYPES[:2], cache_dtype=DTYPES, is_neox=FLAG):
                if head == 128 or row["dtype"] == row["cache_dtype"] == "bfloat16":
                    yield {
                        "num_heads_q": 4, "num_heads_k": 2, "num_heads_v": 3, "head_dim": head,
                        "rotary_dim": rotary, "max_position": 512, **row,
                    }  # fmt: skip
    else:
        blocks = name.endswith("per_block_quant")
        size_axis = "intermediate_size" if name.startswith("silu") else "hidden_size"
        flags = {"has_scale_ub": FLAG}
        flags |= {"has_residual": FLAG} if name.startswith("rms") else {}
        flags |= {"is_scale_transposed": FLAG} if blocks else {}
        for in_dtype, out_dtype in itertools.product(DTYPES, CODES):
            for row in every(**flags):
                if out_dtype == "int8" and row["has_scale_ub"]:
                    continue
                dtypes = {"in_dtype": in_dtype, "out_dtype": out_dtype}
                yield {size_axis: 640, **dtypes, **row, **({"group_size": 128} if blocks else {})}
        for size, group in ((128, 128), (192, 64), (4096, 128)) if blocks else ((77, 0), (4096, 0)):
            for row in every(**flags | ({"has_scale_ub": (False,)} if blocks else {})):
                yield {size_axis: size, **row, **({"group_size": group} if blocks else {})}


def disturb(spec: KernelSpec, args: tuple[Any, ...], how: str) -> None:
    """Put values into one row that kernels get wrong, in place."""
    given = dict(zip(spec.schema.arg_names, args, strict=True))
    row = given.get("input", given.get("qkv"))[-1]
    infinity, nan = float("inf"), float("nan")
    if how == "zeros":
        row.zero_()
    elif how == "nan":
        row[::7] = nan
    elif how == "infinity":
        row[3], row[5] = infinity, -infinity
    elif how == "mixed":
        row[1], row[2], row[-1] = infinity, nan, -infinity
    elif how == "all nan":
        row.fill_(nan)
    elif how in ("huge", "tiny"):
        exponent = 4 if row.dtype == torch.float16 else 30
        row.mul_(10.0 ** (exponent if how == "huge" else -exponent - 2))


EDGES = ("", "zeros", "nan", "infinity", "mixed", "all nan", "huge", "tiny")


def packed(spec: KernelSpec, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments with scales that lie without gaps, as vLLM allocates them."""
    found = list(args)
    for place, arg in enumerate(spec.schema.args):
        if arg.name in ("scale", "scales", "output_s") and args[place].ndim == 2:
            old = args[place]
            column_major = old.stride(0) == 1 and old.stride(1) != 1
            new = torch.empty_like(
                old.t() if column_major else old, memory_format=torch.contiguous_format
            )
            found[place] = (new.t() if column_major else new).copy_(old)
    return tuple(found)


def copies(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments in other memory, with the same strides."""
    return tuple(
        torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device=a.device).copy_(a)
        if isinstance(a, torch.Tensor)
        else a
        for a in args
    )


def inputs(spec: KernelSpec, axes: Mapping[str, Any], tokens: int, device: str) -> tuple[Any, ...]:
    wanted = {**spec.defaults, **axes, "num_tokens": tokens}
    case = Case(values={a.name: wanted[a.name] for a in spec.axes}, use=("test",), grid=0)
    return make_inputs(spec, case, device=device)


def native_op(name: str) -> Any:
    return getattr(torch.ops._C, name)


def counts(name: str) -> tuple[int, int]:
    """How many calls our op has answered, and how many went on to the native one."""
    (found,) = (r for r in plugin.report() if r.target == f"_C::{name}")
    assert found.status == "routed", found.reason
    return found.ours, found.passed


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    """vLLM's CUDA ops."""
    given = os.environ.get("KERNELPKG_VLLM_LIBRARY")
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
    try:
        name = "vllm._C_stable_libtorch"
        spec = spec_from_file_location(name, given) if given else find_spec(name)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(module_from_spec(spec))
    finally:
        sys.setdlopenflags(flags)


REGISTER = """\
import json, os, sys
import torch
sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
from kernelpkg import plugin
plugin.register()
out = {"statuses": [report.status for report in plugin.report()], "told": plugin.report_text()}
out["context"] = torch.cuda.is_initialized()
if os.fork() == 0:  # where the parent has a CUDA context, a child cannot make one
    os._exit(0 if torch.zeros(4, device="cuda").add(1).sum().item() == 4 else 1)
out["child"] = os.wait()[1]
x = torch.randn(4, 4096, device="cuda", dtype=torch.bfloat16)
codes = torch.empty(4, 4096, device="cuda", dtype=torch.float8_e4m3fn)
scale = torch.empty(4, 1, device="cuda")
torch.ops._C.dynamic_per_token_scaled_fp8_quant(codes, x, scale, None)
torch.cuda.synchronize()
out["ours"] = sum(report.ours for report in plugin.report())
print(json.dumps(out))
"""


@pytest.mark.skipif(DRY_RUN, reason="there is no library to import")
def test_routes_bring_the_library_that_they_need(tmp_path: Path) -> None:
    """`register` imports vLLM's module; it makes no CUDA context, so that vLLM can still fork."""
    given = os.environ.get("KERNELPKG_VLLM_LIBRARY")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    if given:
        package = tmp_path / "vllm"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "_C_stable_libtorch.abi3.so").symlink_to(Path(given).resolve())
        paths.insert(0, str(tmp_path))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "KERNELPKG_VLLM_ROUTES": "all",
        "KERNELPKG_PATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", REGISTER],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["statuses"] == ["routed"] * len(OPS), found["told"]
    assert (found["context"], found["child"], found["ours"]) == (False, 0, 1)


@pytest.fixture(scope="module")
def large_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first pack with routes that leave small eager calls to the native ops."""
    root = tmp_path_factory.mktemp("pack")
    for folder in ("kernels", "configs"):
        (root / folder).symlink_to(ROOT / folder)
    shutil.copytree(ROOT / "manifests", root / "manifests")
    manifest = root / "manifests" / "kernelpkg.toml"
    text = manifest.read_text()
    manifest.write_text(re.sub(r'(?m)^op = ".*"$', r"\g<0>\neager = ['num_tokens >= 4096']", text))
    return root


@pytest.fixture
def routed() -> Iterator[None]:
    plugin.install("all", root=ROOT, device_keys=KEYS)
    yield
    plugin.revoke()


@pytest.fixture
def sparing(large_only: Path) -> Iterator[None]:
    plugin.install("all", root=large_only, device_keys=KEYS)
    yield
    plugin.revoke()


@pytest.mark.usefixtures("routed")
@each_op
@pytest.mark.parametrize("part", range(4), ids="part{}".format)
def test_no_call_gets_another_answer(name: str, part: int, device: str) -> None:
    """Codes and scales are the native op's to the bounds of [accuracy], whoever answers."""
    spec, wrong, answered, calls = SPECS[name], [], 0, 0
    native = plugin.original(f"_C::{name}")
    for axes in list(options(name))[part::4]:
        for tokens, layout in itertools.product(TOKENS, (packed, lambda _, args: args)):
            made = layout(spec, inputs(spec, axes, tokens, device))
            for edge in EDGES:
                ours, theirs = copies(made), copies(made)
                disturb(spec, ours, edge)
                disturb(spec, theirs, edge)
                before = counts(name)[0]
                try:
                    native(*theirs)
                except RuntimeError as refusal:
                    with pytest.raises(type(refusal)):
                        native_op(name)(*ours)
                    assert counts(name)[0] == before, f"{axes}: {refusal}"
                    break
                native_op(name)(*ours)
                mine = counts(name)[0] > before
                answered, calls = answered + mine, calls + 1
                if mine:
                    found = compare_all(spec.schema, (ours, None), (theirs, None), spec.accuracy)
                    told = [agreement.problem for agreement in found if agreement.problem]
                else:
                    told = [
                        "the native op differs from itself"
                        for one, other in zip(ours, theirs, strict=True)
                        if isinstance(one, torch.Tensor) and not same_bits(one, other)
                    ]
                wrong += [f"{axes} T={tokens} {edge}: {problem}" for problem in told]
    assert not wrong, "\n".join([f"{len(wrong)} of {calls}", *wrong[:20]])
    assert answered > calls // 5, f"our op answered {answered} of {calls}"  # `when` takes the rest


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    size = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return torch.equal(one.contiguous().view(size), other.contiguous().view(size))


@pytest.mark.usefixtures("routed")
@each_op
def test_the_whole_grid_of_the_manifest(name: str, device: str) -> None:
    spec, wrong = SPECS[name], []
    native = plugin.original(f"_C::{name}")
    for case in cases_of(spec, "test"):
        if not case.values["num_tokens"]:
            continue  # the native ops launch a grid of no blocks then, which is an error
        ours = packed(spec, make_inputs(spec, case, device=device))
        theirs = copies(ours)
        try:
            native(*theirs)
        except RuntimeError:  # the native op does not take it
            continue
        native_op(name)(*ours)
        found = compare_all(spec.schema, (ours, None), (theirs, None), spec.accuracy)
        wrong += [f"{case}: {agreement.problem}" for agreement in found if agreement.problem]
    assert not wrong, "\n".join(wrong[:20])
    assert counts(name)[0] > 0


def warmed(name: str, args: tuple[Any, ...]) -> Callable[[], None]:
    """Call an op as vLLM does before it captures: once, eagerly, on the stream of the capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        native_op(name)(*args)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        native_op(name)(*args)
    replay: Callable[[], None] = graph.replay
    return replay


@pytest.mark.usefixtures("sparing")
@each_op
@pytest.mark.parametrize("tokens", [1, 16])
def test_a_captured_call_is_ours_and_an_eager_one_is_not(
    name: str, tokens: int, device: str
) -> None:
    """A graph replays our kernel on new values, and replays are not calls."""
    spec = SPECS[name]
    args = packed(spec, inputs(spec, base(spec), tokens, device))
    start = copies(args)
    replay = warmed(name, args)
    ours, passed = counts(name)
    assert ours >= 2, "the eager call that compiles, and the captured one"
    native_op(name)(*args)
    assert counts(name) == (ours, passed + 1), "a small eager call is the native op's"
    for _ in range(3):
        for place, value in enumerate(start):
            if isinstance(value, torch.Tensor):
                args[place].copy_(value)
        replay()
    torch.cuda.synchronize()
    want = copies(start)
    plugin.original(f"_C::{name}")(*want)
    found = compare_all(spec.schema, (args, None), (want, None), spec.accuracy)
    assert not [agreement.problem for agreement in found if agreement.problem]
    assert counts(name) == (ours, passed + 1)


def base(spec: KernelSpec) -> dict[str, Any]:
    """Sizes and options that every route takes."""
    bound = {"has_scale_ub": False} if "has_scale_ub" in spec.defaults else {}
    case = next(case for case in cases_of(spec, "tune"))
    return {**case.values, **bound}


@pytest.mark.usefixtures("sparing")
@each_op
def test_nothing_is_compiled_while_a_graph_is_captured(name: str, device: str) -> None:
    """A call that is first seen then is the native op's, and the graph is right."""
    spec = SPECS[name]
    args = packed(spec, inputs(spec, base(spec), 24, device))
    want = copies(args)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        native_op(name)(*args)
    ours, passed = counts(name)
    assert (ours, passed) == (0, 1)
    graph.replay()
    plugin.original(f"_C::{name}")(*want)
    torch.cuda.synchronize()
    assert all(
        same_bits(a, b) for a, b in zip(args, want, strict=True) if isinstance(a, torch.Tensor)
    )


@pytest.mark.usefixtures("sparing")
@each_op
@pytest.mark.parametrize("known_by", ["a call", "preparing"])
def test_what_our_op_knows_is_ours_in_a_capture(name: str, known_by: str, device: str) -> None:
    """A signature that the route never saw is answered by its launcher, if there is one."""
    spec = SPECS[name]
    few = packed(spec, inputs(spec, base(spec), 16, device))
    native_op(name)(*few)
    kernel = get_kernel_by_name(f"kernelpkg::{name}")
    assert kernel is not None
    kernel.start_anew()
    native_op(name)(*few)  # for the route has forgotten the kernel
    args = packed(spec, inputs(spec, base(spec), 24, device))
    start, want = copies(args), copies(args)
    if known_by == "a call":
        kernel(*copies(args))
    else:
        kernel.dispatcher.prepare(args)
    before = counts(name)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        native_op(name)(*args)
    assert counts(name) == (before[0] + 1, before[1])
    for place, value in enumerate(start):
        if isinstance(value, torch.Tensor):
            args[place].copy_(value)
    graph.replay()
    plugin.original(f"_C::{name}")(*want)
    torch.cuda.synchronize()
    found = compare_all(spec.schema, (args, None), (want, None), spec.accuracy)
    assert not [agreement.problem for agreement in found if agreement.problem]


@pytest.mark.usefixtures("sparing")
@each_op
def test_a_large_eager_call_is_ours_where_that_pays(name: str, device: str) -> None:
    """The first call compiles, whatever the route; of the next ones the route decides."""
    spec = SPECS[name]
    for tokens, taken in ((4096, 3), (4095, 1)):
        args = packed(spec, inputs(spec, base(spec), tokens, device))
        before = counts(name)
        for _ in range(3):
            native_op(name)(*args)
        assert counts(name) == (before[0] + taken, before[1] + 3 - taken)


@pytest.mark.usefixtures("routed")
@each_op
def test_compiled_models_call_our_op(name: str, device: str) -> None:
    """The native op stays in the graph of torch.compile, and the dispatcher brings it to us."""
    spec = SPECS[name]
    args = packed(spec, inputs(spec, base(spec), 8, device))
    want = copies(args)

    @torch.compile(fullgraph=True)
    def model(*args: Any) -> torch.Tensor:
        native_op(name)(*args)
        return next(arg for arg in args if isinstance(arg, torch.Tensor)).clone()

    model(*args)
    assert counts(name)[0] == 1
    plugin.original(f"_C::{name}")(*want)
    found = compare_all(spec.schema, (args, None), (want, None), spec.accuracy)
    assert not [agreement.problem for agreement in found if agreement.problem]


@pytest.mark.usefixtures("routed")
@each_op
def test_threads_and_inference_mode(name: str, device: str) -> None:
    """Eight threads call it at once, each under inference mode, and every call is counted."""
    spec, problems = SPECS[name], []
    made = [packed(spec, inputs(spec, base(spec), tokens, device)) for tokens in (1, 2, 5, 64)]

    def work(number: int) -> None:
        with torch.inference_mode():
            for step in range(20):
                start = made[(number + step) % len(made)]
                ours, theirs = copies(start), copies(start)
                native_op(name)(*ours)
                plugin.original(f"_C::{name}")(*theirs)
                found = compare_all(spec.schema, (ours, None), (theirs, None), spec.accuracy)
                problems.extend(agreement.problem for agreement in found if agreement.problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert counts(name) == (160, 0)


@each_op
def test_a_revoked_route_leaves_the_native_op_as_it_was(name: str, device: str) -> None:
    spec = SPECS[name]
    made = packed(spec, inputs(spec, base(spec), 5, device))
    before, during, after = copies(made), copies(made), copies(made)
    native_op(name)(*before)
    plugin.install("all", root=ROOT, device_keys=KEYS)
    native_op(name)(*during)
    assert counts(name) == (1, 0)
    plugin.revoke()
    native_op(name)(*after)
    assert not any(report.status == "routed" for report in plugin.report())
    tensors = [(a, b) for a, b in zip(before, after, strict=True) if isinstance(a, torch.Tensor)]
    assert all(same_bits(a, b) for a, b in tensors)
