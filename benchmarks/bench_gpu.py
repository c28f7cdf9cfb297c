"""The ops of the first pack on this GPU: kernel time, and host time of an eager call.

Three sides in one run, on the same tensors: our op; the same Helion function called through
Helion with both hooks, as vLLM's wrapper calls it; the float32 reference under torch.compile.
GPU times are medians of events around single launches, each after a write that fills the L2.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import kernelpkg
from kernelpkg.bench.reference import make_inputs
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel
from kernelpkg.packs.sources import load_function

SIZES = {
    "silu_mul_fp8": {"intermediate_size": 14336},
    "per_token_group_fp8_quant": {"hidden_size": 4096},
    "dynamic_per_token_scaled_fp8_quant": {"hidden_size": 4096},
    "rms_norm_dynamic_per_token_quant": {"hidden_size": 4096},
    "rms_norm_per_block_quant": {"hidden_size": 4096},
    "silu_and_mul_per_block_quant": {"intermediate_size": 12288},
    "fused_qk_norm_rope": {"num_heads_q": 32},
}


def gpu_us(call: Callable[[], Any], repeats: int) -> float:
    """The median GPU time of one launch with a cold L2, in microseconds."""
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    for _ in range(3):
        call()
    pairs = []
    for _ in range(repeats):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs) * 1e3


def graph_us(call: Callable[[], Any], repeats: int) -> float:
    """The median GPU time of one launch inside a replayed graph, cold L2, in microseconds."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return gpu_us(graph.replay, repeats)


def host_us(call: Callable[[], Any], rounds: int = 7, calls: int = 200) -> float:
    """The best mean time that the host spends in one call, in microseconds."""
    found = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        found.append((time.perf_counter() - start) / calls * 1e6)
        torch.cuda.synchronize()
    return min(found)


def moved_bytes(spec: KernelSpec, args: Any, result: Any) -> int:
    """The fewest bytes that a call moves: each input read once, each output written once."""
    total = 0
    for arg, value in zip(spec.schema.args, args, strict=True):
        if not isinstance(value, torch.Tensor):
            continue
        size = value.numel() * value.element_size()
        if arg.name == "cos_sin_cache":
            size = min(size, args[0].shape[0] * value.shape[1] * value.element_size())
        total += size * (2 if arg.name in ("residual", "qkv") else 1)
    if isinstance(result, torch.Tensor):
        total += result.numel() * result.element_size()
    return total


def measure(spec: KernelSpec, tokens: int, repeats: int) -> dict[str, Any]:
    base = next(case for case in cases_of(spec, "bench") if case.values["num_tokens"] > 1)
    values = {**base.values, "num_tokens": tokens, **SIZES[spec.name]}
    args = make_inputs(spec, Case(values=values, use=("bench",), grid=0), device="cuda")
    kernel = kernelpkg.get_kernel_by_name(f"kernelpkg::{spec.name}")
    op, helion = kernel.op, kernel.get_configured_op()
    reference = load_function(Path(spec.directory), spec.reference)
    compiled = torch.compile(reference, dynamic=False)
    total = moved_bytes(spec, args, op(*args))
    return {
        "op": spec.name,
        "tokens": tokens,
        "gpu_us": gpu_us(lambda: op(*args), repeats),
        "graph_us": graph_us(lambda: op(*args), repeats),
        "compiled_reference_us": graph_us(lambda: compiled(*args), repeats),
        "gb_per_s": 0.0,
        "bytes": total,
        "host_us": host_us(lambda: op(*args)),
        "host_through_helion_us": host_us(lambda: helion(*args)),
    }


def copy_bandwidth() -> float:
    """Bytes read and written per second by a large copy, in GB/s."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    took = gpu_us(lambda: target.copy_(source), 10)
    return 2 * source.numel() * 4 / took / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 64, 4096])
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    root = find.own_root()
    kernelpkg.load(root=root, device="cuda", strict=True)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "triton", "helion")}
    print(torch.cuda.get_device_name(), versions, f"copy {copy_bandwidth():.0f} GB/s")
    rows = []
    head = ["op", "tokens", "gpu", "graph", "reference", "GB/s", "host", "through-helion"]
    print("{:36}{:>7}{:>8}{:>8}{:>11}{:>7}{:>7}{:>16}".format(*head))
    for name in kernel_names(root):
        for tokens in options.tokens:
            row = measure(read_kernel(root, name), tokens, options.repeats)
            row["gb_per_s"] = row["bytes"] / row["graph_us"] / 1e3
            rows.append(row)
            print(
                f"{name:36}{tokens:7}{row['gpu_us']:8.1f}{row['graph_us']:8.1f}"
                f"{row['compiled_reference_us']:11.1f}{row['gb_per_s']:7.0f}"
                f"{row['host_us']:7.1f}{row['host_through_helion_us']:16.1f}",
                flush=True,
            )
    if options.json is not None:
        found = {"gpu": torch.cuda.get_device_name(), "versions": versions, "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
