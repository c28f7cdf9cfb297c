"""The ops of the first pack on this GPU: kernel time, and host time of an eager call.

Three sides in one run, on the same tensors: our op; the same Helion function called through
Helion with both hooks, as vLLM's wrapper calls it; the float32 reference under torch.compile.
GPU times are medians of replayed graphs of one launch, in turns, each after a write that fills the
L2. All in microseconds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from report import finish, options
from timing import host_us

import kernelpkg
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.bench.timing import time_cold
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


def measure(spec: KernelSpec, tokens: int, rounds: int) -> dict[str, Any]:
    """Time one case of one op on all sides."""
    base = next(case for case in cases_of(spec, "bench") if case.values["num_tokens"] > 1)
    values = {**base.values, "num_tokens": tokens, **SIZES[spec.name]}
    args = make_inputs(spec, Case(values=values, use=("bench",), grid=0), device="cuda")
    kernel = kernelpkg.get_kernel_by_name(f"kernelpkg::{spec.name}")
    op, helion = kernel.op, kernel.get_configured_op()
    reference = load_function(Path(spec.directory), spec.reference)
    compiled = torch.compile(reference, dynamic=False)
    ours, theirs = cold_us([lambda: op(*args), lambda: compiled(*args)], rounds)
    host, through_helion = host_us([lambda: op(*args), lambda: helion(*args)])
    return {
        "op": spec.name,
        "tokens": tokens,
        "ours": ours,
        "reference": theirs,
        "gb_per_s": moved_bytes(spec, args, op(*args)) / ours / 1e3,
        "host": host,
        "through_helion": through_helion,
    }


def cold_us(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the median GPU time of each call with a cold L2, in microseconds."""
    times = zip(*time_cold(calls, rounds), strict=True)
    return [statistics.median(column) * 1e3 for column in times]


def copy_bandwidth() -> float:
    """Bytes read and written per second by a large copy, in GB/s."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    (took,) = cold_us([lambda: target.copy_(source)], 10)
    return 2 * source.numel() * 4 / took / 1e3


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 64, 4096])
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    root = find.own_root()
    kernelpkg.load(root=root, device="cuda", strict=True)
    name = f"ops on one {torch.cuda.get_device_name()}, which copies {copy_bandwidth():.0f} GB/s"
    rows = [
        measure(read_kernel(root, op), tokens, 10 if chosen.quick else chosen.rounds)
        for op in kernel_names(root)
        for tokens in (chosen.tokens[:1] if chosen.quick else chosen.tokens)
    ]
    finish(name, rows, [], chosen.json)


if __name__ == "__main__":
    main()
