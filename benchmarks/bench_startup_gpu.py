"""How long ops take to be ready, and what one eager call costs the host, on this GPU.

Each mode starts in a process of its own, after PyTorch and CUDA are up: from a build, in which
neither Helion nor Triton may be imported; and compiled, with an empty and with a full cache of
Triton, beside vLLM's own Helion ops where the tree that has them is given. `ready` is the time for
the calls of 51 capture sizes of every op, `load` that before them, and what compiles has imported
its tools before both. Host times are taken in the process of the build, in turns with vLLM's CUDA
ops, where their library is given.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import report
from unbuilt import unbuilt

SIZES = [1, 2, 4, *range(8, 257, 8), *range(272, 513, 16)]
MODES = ("prebuilt", "compiled, empty cache", "compiled, full cache")
VLLMS = ("vLLM's Helion ops, empty cache", "vLLM's Helion ops, full cache")
HEAVY = ("helion", "triton")
DEVICE: Final = "cuda"


def settled() -> float:
    """Wait for the GPU, and return the time."""
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def inputs(root: Path, names: Iterable[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the arguments of calls of each op, one for each capture size."""
    from kernelpkg.bench.inputs import make_inputs
    from kernelpkg.packs.read import read_kernel
    from kernelpkg.runtime.warm import sized_cases

    calls = {}
    for name in names:
        spec = read_kernel(root, name)
        first = next(iter(sized_cases(spec, {}))).values
        fixed = {axis: value for axis, value in first.items() if axis != "num_tokens"}
        cases = sized_cases(spec, {**fixed, "num_tokens": SIZES})
        calls[name] = [make_inputs(spec, case, device=DEVICE) for case in cases]
    return calls


def left_out(found: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return which ops could not be called, by the reason."""
    reasons: dict[str, list[str]] = {}
    for name, why in {name: why for row in found for name, why in row["left"].items()}.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def called(ops: Any, calls: Mapping[str, Sequence[tuple[Any, ...]]]) -> dict[str, Any]:
    """Call ops of a namespace; returns the seconds of each, and why one was left out."""
    took, left = {}, {}
    for name, args in calls.items():
        if not hasattr(ops, name):
            left[name] = "not registered, as where vLLM has no configs for this GPU"
            continue
        begin = settled()
        try:
            for values in args:
                getattr(ops, name)(*values)
            took[name] = settled() - begin
        except Exception as error:  # of vLLM's ops, which have configs for some sizes alone
            left[name] = f"{type(error).__name__}: {error}"[:200]
    return {"ops": took, "left": left, "calls": sum(len(calls[name]) for name in took)}


def start(root: Path, builds: Sequence[Path], *, compiles: bool) -> dict[str, Any]:
    """Load the pack and call every op with every size; returns seconds, and what was imported."""
    import torch

    torch.zeros(1, device=DEVICE)
    if compiles:
        import kernelpkg.compile.code
    begin = settled()
    import kernelpkg

    found = kernelpkg.load(root=root, device=DEVICE, builds=builds)
    loaded = time.perf_counter()
    calls = called(torch.ops.kernelpkg, inputs(root, [kernel.name for kernel in found.kernels]))
    if calls["left"]:
        raise SystemExit(f"ops of ours fail: {calls['left']}")
    return {
        "load": loaded - begin,
        **calls,
        "modes": sorted({str(kernel.mode) for kernel in found.kernels}),
        "imported": [name for name in HEAVY if name in sys.modules],
    }


def start_vllms(root: Path, tree: Path) -> dict[str, Any]:
    """Do the same with vLLM's own Helion ops; what imports them is not counted."""
    import torch

    from kernelpkg.packs.read import kernel_names

    torch.zeros(1, device=DEVICE)
    sys.path.insert(0, str(tree))
    importlib.import_module("vllm.kernels.helion.ops").import_all_kernels()
    calls = called(torch.ops.vllm_helion, inputs(root, kernel_names(root)))
    return {"load": 0.0, **calls, "modes": ["tuned"], "imported": [*HEAVY]}


def host_times(root: Path, library: Path) -> list[dict[str, Any]]:
    """Time eager calls of 64 tokens against vLLM's CUDA ops, in turns."""
    import torch
    from bench_native_gpu import SIZES as SHAPES
    from timing import host_us

    from kernelpkg.bench.inputs import make_inputs
    from kernelpkg.packs.read import read_kernel
    from kernelpkg.runtime.warm import sized_cases
    from kernelpkg.vllm.native_ops import load_library

    load_library(library)

    def timed(name: str) -> dict[str, Any]:
        spec = read_kernel(root, name)
        axes = SHAPES.get(name, [{}, {"intermediate_size": 14336}])[1]
        case = next(iter(sized_cases(spec, {**axes, "num_tokens": 64})))
        args = make_inputs(spec, case, device="cuda")
        ours = getattr(torch.ops.kernelpkg, name)
        native = getattr(torch.ops._C, name, None) or allocating
        with torch.inference_mode():
            took = host_us([lambda: ours(*args), lambda: native(*args)])
        return {"op": name, "ours": took[0], "cuda": took[1], "ratio": took[0] / took[1]}

    def allocating(x: Any, scale: Any) -> Any:
        out = torch.empty(x.shape[0], x.shape[1] // 2, dtype=torch.float8_e4m3fn, device="cuda")
        torch.ops._C.silu_and_mul_quant(out, x, scale)
        return out

    rows = [timed(name) for name in (*SHAPES, "silu_mul_fp8")]
    mean = math.exp(sum(math.log(row["ratio"]) for row in rows) / len(rows))
    rows.append({"op": "geometric mean", "ours": "", "cuda": "", "ratio": mean})
    return rows


def child(root: Path, mode: str, builds: str, library: str, tree: str) -> None:
    if mode in VLLMS:
        found = start_vllms(root, Path(tree))
    else:
        given = [Path(builds)] if builds else []
        found = start(root, given, compiles=mode != MODES[0])
    if library:
        found["host"] = host_times(root, Path(library))
    print("FOUND " + json.dumps(found), flush=True)


def measure(mode: str, options: Any, cache: str, bare: Path) -> dict[str, Any]:
    built = mode == MODES[0]
    builds, library = (
        str(path or "") if built else "" for path in (options.builds, options.library)
    )
    words = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--child",
        str(options.root if built else bare),
        mode,
        builds,
        library,
        str(options.vllm or ""),
    ]
    cache = f"{cache}/{'vllm' if mode in VLLMS else 'ours'}"  # each side has caches of its own
    environment = {**os.environ, "TRITON_CACHE_DIR": f"{cache}/triton"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = f"{cache}/inductor"
    if not built:
        environment["KERNELPKG_BUILDS"] = ""
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    line = next((ln for ln in done.stdout.splitlines() if ln.startswith("FOUND ")), None)
    if line is None:
        raise SystemExit(f"{mode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return {"mode": mode, **json.loads(line.removeprefix("FOUND "))}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), *sys.argv[3:7])
        return
    parser = report.options(__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--builds", type=Path, help="a build; that of the pack unless given")
    parser.add_argument("--library", type=Path, help="_C_stable_libtorch.abi3.so of vLLM")
    parser.add_argument("--vllm", type=Path, help="the directory that has vllm/, compiled")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        bare = unbuilt(options.root, Path(cache))
        modes = (*MODES, *(VLLMS if options.vllm else ()))
        found = [measure(mode, options, cache, bare) for mode in modes]
    rows = [
        {
            "mode": row["mode"],
            "load s": row["load"],
            "ready s": sum(row["ops"].values()),
            "ops": len(row["ops"]),
            "calls": row["calls"],
            "runs": ", ".join(row["modes"]),
            "imported": ", ".join(row["imported"]) or "neither",
        }
        for row in found
    ]
    built = found[0]
    ready = built["load"] + sum(built["ops"].values())
    targets = [report.target("ready from a build", ready, 1.0, "s")]
    for ours, theirs, most in zip(found[1:], found[3:], (0.25, 0.10), strict=False):
        both = ours["ops"].keys() & theirs["ops"].keys()
        if not both:
            continue
        mine, native = (sum(row["ops"][name] for name in both) for row in (ours, theirs))
        what = f"{theirs['mode'].rpartition(', ')[2]}, over vLLM's Helion path, {len(both)} ops"
        targets.append(report.target(what, (mine + ours["load"]) / native, most, "x"))
    for why, names in left_out(found).items():
        print(f"left out of vLLM's Helion ops: {', '.join(names)}: {why}")
    if "host" in built:
        mean = built["host"][-1]["ratio"]
        worst = max(row["ratio"] for row in built["host"])
        targets.append(report.target("eager call over CUDA ops, mean", mean, 1.3, "x"))
        targets.append(report.target("eager call over CUDA ops, worst", worst, 1.8, "x"))
        print("\n".join(report.table(built["host"])), end="\n\n")
    report.finish("startup", rows, targets, options.json)


if __name__ == "__main__":
    main()
