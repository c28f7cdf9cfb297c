"""The host's time in one eager call of each routed op: alone, turned away, and answered by ours.

With `--library` the native ops are vLLM's own, of its _C_stable_libtorch.abi3.so; else stand-ins
that do nothing. Ours are the ops of the first pack, on this GPU; with `--device cpu`, to see that
this runs, stand-ins that do nothing. All in microseconds, over calls of a few tokens, whose GPU
time is less than the host's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from native_ops import NativeOps, nothing
from report import finish, options, target
from routed_calls import arguments, measure, rows, stand_in, worst

import kernelpkg
from kernelpkg.packs import find
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.native_ops import load_library

MOST = 6.0
"""The target, in microseconds."""


def main() -> int:
    """Measure every route of the first pack."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--library", type=Path, metavar="FILE", help="vLLM's compiled library")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    chosen = parser.parse_args()
    on_gpu = chosen.device == "cuda"
    ops = None
    if chosen.library is None:
        ops = NativeOps(lambda _: nothing, key=chosen.device.upper())
    else:
        load_library(chosen.library)
    root = find.own_root()
    pack = read_pack(root, "kernelpkg")
    if on_gpu:
        kernelpkg.load(root=root, device="cuda", strict=True)
    settle: Callable[[], None] = torch.cuda.synchronize if on_gpu else nothing
    found = []
    for route in pack.routes:
        spec = read_kernel(root, route.op)
        ours = kernelpkg.get_kernel_by_name(f"kernelpkg::{route.op}") if on_gpu else None
        times = measure(
            pack,
            route,
            spec,
            arguments(spec, chosen.device),
            key=chosen.device.upper(),
            kernel=ours or stand_in(spec, nothing),
            rounds=2 if chosen.quick else chosen.rounds,
            calls=20 if chosen.quick else 200,
            settle=settle,
        )
        found += rows(route.op, times, "us")
    if ops is not None:
        ops.close()
    targets = [target("call turned away, over the original", worst(found), MOST, "us")]
    name = f"routes, host microseconds of an eager call on {chosen.device}"
    finish(name, found, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
