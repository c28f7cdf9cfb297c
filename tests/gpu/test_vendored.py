"""The pack, vendored into vLLM 0.33.0, on a GPU: vLLM's registration, vLLM's key, our kernels.

KERNELPKG_VLLM_DIR holds the Python files of vLLM's wheel; without it, nothing here is collected.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.bench.reference import check_case, compare_all
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.packs import find
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.packs.sources import load_function

ROOT = find.own_root()
DRY_RUN = os.environ.get("KERNELPKG_GPU_DRY_RUN") == "1"  # with HELION_INTERPRET=1
PACK = read_pack(ROOT, "kernelpkg")
SPECS = {name: read_kernel(ROOT, name) for name in PACK.kernels}
COMPILED = ("_C_stable_libtorch", "_moe_C_stable_libtorch", "_qutlass_C", "_flashmla_C")

each_op = pytest.mark.parametrize("name", PACK.kernels)


@pytest.fixture(scope="module")
def wrappers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """vLLM's wrappers of the vendored ops, by name."""
    tree = tmp_path_factory.mktemp("vllm")
    wheel = Path(os.environ["KERNELPKG_VLLM_DIR"])
    shutil.copytree(wheel / "vllm", tree / "vllm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in COMPILED:
        (tree / "vllm" / f"{name}.py").touch()
    info = tree / "vllm-0.33.0.dist-info"  # by which vLLM knows that it is not built for CPUs
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n")
    command = [sys.executable, "-m", "kernelpkg", "vendor", "--into", str(tree), "--replace"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(tree))
    helion = "vllm.kernels.helion"
    if DRY_RUN:
        utils = importlib.import_module(f"{helion}.utils")
        utils.get_canonical_gpu_name = lambda device_id=None: "nvidia_h200"
    for name in PACK.kernels:
        module = importlib.import_module(f"{helion}.ops.{name}")
        assert Path(module.__file__ or "").is_relative_to(tree)
    found: dict[str, Any] = importlib.import_module(helion).get_registered_kernels()
    return found


def op(name: str) -> Any:
    return getattr(torch.ops.vllm_helion, name)


def sized(name: str, tokens: int, **axes: Any) -> Case:
    """A case of the test grid with another token count."""
    spec = SPECS[name]
    case = next(case for case in cases_of(spec, "test") if case.use == ("test",))
    return Case(values={**case.values, "num_tokens": tokens, **axes}, use=("test",), grid=1)


@each_op
def test_vllm_registers_the_op_for_this_gpu(name: str, wrappers: dict[str, Any]) -> None:
    wrapper = wrappers[name]
    assert (wrapper._disabled, wrapper._disabled_reason) == (False, None)
    assert wrapper.get_configured_op().platform == "nvidia_h200"


@each_op
def test_it_agrees_with_the_reference(name: str, wrappers: dict[str, Any], device: str) -> None:
    """Every option of the test grid, and tuned sizes of one and of many tokens."""
    cases = [case for case in cases_of(SPECS[name], "test") if case.use == ("test",)]
    tuned = [case for case in cases_of(SPECS[name], "tune") if case.values["num_tokens"] in (1, 16)]
    chosen = [case for case in (*cases, *tuned[:4]) if case.values["num_tokens"]]
    problems = [check_case(SPECS[name], op(name), case, device=device) for case in chosen]
    assert [problem for problem in problems if problem is not None] == []


@each_op
@pytest.mark.parametrize("order", [(1, 16), (16, 1)], ids=["one first", "many first"])
def test_one_token_and_many_do_not_share_code(
    name: str, order: tuple[int, int], wrappers: dict[str, Any], device: str
) -> None:
    """Of tuned variants and of those that take the default, by vLLM's key alone."""
    sizes = {"hidden_size": 384, "intermediate_size": 384, "num_heads_q": 6}
    known = {axis.name for axis in SPECS[name].axes}
    axes = {axis: size * (1 + (order[0] > 1)) for axis, size in sizes.items() if axis in known}
    problems = [
        check_case(SPECS[name], op(name), sized(name, tokens, **axes), device=device)
        for tokens in order
    ]
    assert problems == [None, None]


@each_op
def test_vllms_autotune_entry_takes_it(name: str, wrappers: dict[str, Any], device: str) -> None:
    """Without a search, it gives a config that the kernel compiles with."""
    if DRY_RUN:
        return
    args = make_inputs(SPECS[name], sized(name, 16), device=device)
    config = wrappers[name].run_autotune(args, "none")
    assert config.config["num_warps"] >= 1


@each_op
def test_a_captured_graph_replays_it(name: str, wrappers: dict[str, Any], device: str) -> None:
    if DRY_RUN:
        return
    spec = SPECS[name]
    args = make_inputs(spec, sized(name, 16), device=device)
    fresh = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    op(name)(*args)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = op(name)(*args)
    want_args = make_inputs(spec, sized(name, 16), device=device)
    for place, value in enumerate(fresh):
        if isinstance(value, torch.Tensor):
            args[place].copy_(value)
    graph.replay()
    torch.cuda.synchronize()
    want = load_function(Path(spec.directory), spec.reference)(*want_args)
    found = compare_all(spec.schema, (args, result), (want_args, want), spec.accuracy)
    assert not [agreement.problem for agreement in found if agreement.problem]
