"""The routed ops against vLLM's CUDA ops on this GPU: which calls are worth a route.

Both sides in one run, on the same tensors, alternating. `cold` is the median of replayed CUDA
graphs of one launch, each after a write that fills the L2; `warm` is one of twenty launches in one
graph; `host` is the time that the host spends in one eager call. All in microseconds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from bench_gpu import cold_us
from timing import host_us

import kernelpkg
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs import find
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.native_ops import load_library

TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
NO_BOUND = {"has_scale_ub": False}
SIZES: dict[str, list[dict[str, Any]]] = {
    "per_token_group_fp8_quant": [{"hidden_size": size} for size in (2048, 4096, 7168)],
    "dynamic_per_token_scaled_fp8_quant": [
        {"hidden_size": size, **NO_BOUND} for size in (2048, 4096, 8192)
    ],
    "rms_norm_dynamic_per_token_quant": [
        {"hidden_size": size, "has_residual": residual, **NO_BOUND}
        for size in (2048, 4096, 8192)
        for residual in (False, True)
    ],
    "rms_norm_per_block_quant": [
        {"hidden_size": size, "has_residual": residual, **NO_BOUND}
        for size in (2048, 4096, 7168)
        for residual in (False, True)
    ],
    "silu_and_mul_per_block_quant": [
        {"intermediate_size": size, **NO_BOUND} for size in (2048, 8192, 14336)
    ],
    "fused_qk_norm_rope": [{"num_heads_q": heads} for heads in (16, 32, 64)],
}
WARM = 20


def captured(call: Callable[[], Any], times: int) -> Callable[[], None]:
    """Return what replays a graph of so many calls."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            call()
    replay: Callable[[], None] = graph.replay
    return replay


def warm_us(calls: list[Callable[[], Any]]) -> list[float]:
    """The median GPU time of a call of each among others of its own, in turns."""
    replays = [captured(call, WARM) for call in calls]
    events: list[list[Any]] = [[] for _ in replays]
    for _ in range(7):
        for place, replay in enumerate(replays):
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            pair[0].record()
            replay()
            pair[1].record()
            events[place].append(pair)
    torch.cuda.synchronize()
    return [statistics.median(a.elapsed_time(b) for a, b in found) * 1e3 / WARM for found in events]


def measure(spec: KernelSpec, axes: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Time one case of one op on both sides."""
    wanted = {**spec.defaults, **axes, "num_tokens": tokens}
    values = {axis.name: wanted[axis.name] for axis in spec.axes}
    args = make_inputs(spec, Case(values=values, use=("bench",), grid=0), device="cuda")
    ours = getattr(torch.ops.kernelpkg, spec.name)
    native = getattr(torch.ops._C, spec.name)
    calls = [lambda: ours(*args), lambda: native(*args)]
    found = {"op": spec.name, "axes": axes, "tokens": tokens}
    found |= {"cold": cold_us(calls, 25), "warm": warm_us(calls)}
    return found | ({"host": host_us(calls)} if tokens == 64 else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, required=True, help="_C_stable_libtorch.abi3.so")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load_library(options.library)
    root = find.own_root()
    kernelpkg.load(root=root, device="cuda", strict=True)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "triton", "helion")}
    print(torch.cuda.get_device_name(), versions, "ours / native")
    rows = []
    for name, sizes in SIZES.items():
        spec = read_kernel(root, name)
        for axes in sizes:
            for tokens in TOKENS:
                row = measure(spec, axes, tokens)
                rows.append(row)
                told = "  ".join(
                    f"{what} {row[what][0]:7.2f} /{row[what][1]:7.2f}"
                    for what in ("cold", "warm", "host")
                    if what in row
                )
                print(f"{name} {axes} T={tokens:5} {told}", flush=True)
    if options.json is not None:
        found = {"gpu": torch.cuda.get_device_name(), "versions": versions, "rows": rows}
        options.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
