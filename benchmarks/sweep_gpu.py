"""Times a few configs per op over its tuning grid on this GPU, and writes the best to the store.

This is how configs/ of the first pack was made. Compilation runs in several processes; timing is
serialised by a lock, so that no two measurements share the GPU. A time is the median of replayed
CUDA graphs of one launch, each after a write that fills the L2. Of the configs within 3% of the
best, the one that is best for the most cases is taken, so that few kernels have to be compiled.
"""

from __future__ import annotations

import argparse
import ast
import collections
import importlib.metadata
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

from kernelpkg import configs, discover
from kernelpkg.cases import Case, cases_of
from kernelpkg.manifest import kernel_names, read_kernel
from kernelpkg.source import source_digest

NEAR = 1.03
REPEATS = 15
PACKAGES = ("torch", "triton", "helion")


def _tiles(*choices: tuple[list[int], int]) -> list[dict[str, Any]]:
    return [{"block_sizes": sizes, "num_warps": warps} for sizes, warps in choices]


ROWS = _tiles(([1], 2), ([1], 4), ([1], 8), ([1], 16), ([2], 4), ([2], 8), ([2], 16), ([4], 16))
GROUPS = _tiles(
    ([4, 1], 1), ([8, 1], 2), ([8, 1], 4), ([16, 1], 4), ([32, 1], 4), ([32, 1], 8), ([8, 2], 4),
    ([8, 4], 4), ([4, 4], 2), ([16, 4], 8),
)  # fmt: skip
CANDIDATES = {
    "silu_mul_fp8": _tiles(
        ([256, 1], 2), ([512, 1], 2), ([512, 1], 4), ([1024, 1], 4), ([1024, 1], 8),
        ([2048, 1], 4), ([2048, 1], 8), ([4096, 1], 8), ([1024, 2], 8), ([512, 4], 8),
    ),
    "per_token_group_fp8_quant": GROUPS,
    "silu_and_mul_per_block_quant": GROUPS,
    "dynamic_per_token_scaled_fp8_quant": ROWS,
    "rms_norm_dynamic_per_token_quant": ROWS,
    "rms_norm_per_block_quant": ROWS,
    "fused_qk_norm_rope": _tiles(
        ([4, 1], 1), ([8, 1], 1), ([8, 1], 2), ([16, 1], 2), ([16, 1], 4), ([32, 1], 4),
        ([8, 2], 2), ([8, 4], 4), ([4, 4], 2), ([16, 2], 4),
    ),
}  # fmt: skip

_LOCK: Any = None


def _start(lock: Any) -> None:
    global _LOCK  # noqa: PLW0603  # how a worker of a pool gets a lock
    _LOCK = lock


def _time(launch: Any, args: Any, flush: Any) -> float:
    """The median time of one launch in a replayed graph with a cold L2, in milliseconds."""
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch(*args)
    pairs = []
    for _ in range(REPEATS):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs)


def measure(task: tuple[str, tuple[Case, ...]]) -> list[tuple[Case, list[float]]]:
    """Time every candidate over cases of one op that differ in their token counts only."""
    import torch

    from kernelpkg import seam
    from kernelpkg.inputs import make_inputs
    from kernelpkg.source import load_function

    name, cases = task
    spec = read_kernel(discover.own_root(), name)
    kernel = seam.ConfiguredHelionKernel(
        op_name=name,
        raw_kernel_func=load_function(Path(spec.directory), spec.source),
        select=lambda _: seam.Selection(config_id=None, config=None),
        settings=seam.check_settings(spec.settings, name),
    )
    selections = [
        seam.Selection(config_id=number, config=config)
        for number, config in enumerate(CANDIDATES[name])
    ]
    smallest = [
        next(c for c in cases if c.values["num_tokens"] == 1),
        next(c for c in cases if c.values["num_tokens"] != 1),
    ]
    for case in smallest:
        args = make_inputs(spec, case, device="cuda")
        for selection in selections:
            kernel.launcher(args, selection)(*args)
    flush = torch.empty(128 << 20, dtype=torch.int8, device="cuda")
    found = []
    for case in cases:
        args = make_inputs(spec, case, device="cuda")
        launches = [kernel.launcher(args, selection) for selection in selections]
        with _LOCK:
            torch.cuda.synchronize()
            found.append((case, [_time(launch, args, flush) for launch in launches]))
        del args
        torch.cuda.empty_cache()
    return found


def tasks_of(name: str) -> list[tuple[str, tuple[Case, ...]]]:
    """The tuning cases of an op, in groups that share compiled code."""
    spec = read_kernel(discover.own_root(), name)
    groups: dict[Any, list[Case]] = collections.defaultdict(list)
    for case in cases_of(spec, "tune"):
        groups[tuple(v for k, v in case.values.items() if k != "num_tokens")].append(case)
    return [(name, tuple(cases)) for cases in groups.values()]


def write(root: Path, name: str, measured: list[tuple[Case, list[float]]], gpu: str) -> None:
    """Write the best configs of one op to its config file."""
    from kernelpkg import platforms

    spec = read_kernel(discover.own_root(), name)
    wins = collections.Counter(
        place
        for _, times in measured
        for place, took in enumerate(times)
        if took <= NEAR * min(times)
    )
    cases = []
    for case, times in measured:
        near = [place for place, took in enumerate(times) if took <= NEAR * min(times)]
        best = max(near, key=lambda place: (wins[place], -times[place]))
        key = {axis: case.values[axis] for axis in spec.key_axes}
        cases.append(configs.TunedCase(key=key, config=best, ms=round(times[best], 6)))
    used = sorted({case.config for case in cases})
    platform = platforms.resolve(gpu).name
    file = configs.ConfigFile(
        kernel=name,
        platform=platform,
        tuned_with={
            **{
                package: importlib.metadata.version(package)
                for package in ("torch", "triton", "helion")
            },
            "gpu": gpu,
            "source": source_digest(ast.parse(Path(spec.directory, spec.source.file).read_bytes())),
            "effort": f"{len(CANDIDATES[name])} configs",
            "date": time.strftime("%Y-%m-%d"),
        },
        configs=tuple(CANDIDATES[name][place] for place in used),
        cases=tuple(
            configs.TunedCase(key=c.key, config=used.index(c.config), ms=c.ms) for c in cases
        ),
    )
    path = root / "configs" / name / f"{platform}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    configs.write(path, file)
    print(f"{name}: {len(cases)} cases, {len(used)} configs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="where configs/ is written")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--only", nargs="+", metavar="OP", help="all ops unless given")
    options = parser.parse_args()
    import torch

    gpu = torch.cuda.get_device_name()
    context = multiprocessing.get_context("spawn")
    measured = collections.defaultdict(list)
    root = discover.own_root()
    names = options.only or kernel_names(root)
    tasks = [task for name in names for task in tasks_of(name)]
    with context.Pool(options.workers, _start, (context.Lock(),), maxtasksperchild=None) as pool:
        for number, found in enumerate(pool.imap(measure, tasks)):
            measured[tasks[number][0]] += found
    for name, rows in measured.items():
        write(options.into, name, rows, gpu)


if __name__ == "__main__":
    main()
