"""How long ops take to be ready, and what one eager call costs the host, on this GPU.

Each mode starts in a process of its own, after PyTorch and CUDA are up: from a build, in which
neither Helion nor Triton may be imported; and compiled, with an empty and with a full cache of
Triton. `ready` is the time for the calls of 51 capture sizes of every op, `load` that before them.
Host times are taken in the process of the build, in turns with vLLM's CUDA ops, where their library
is given.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import report
from unbuilt import unbuilt

SIZES = [1, 2, 4, *range(8, 257, 8), *range(272, 513, 16)]
MODES = ("prebuilt", "compiled, empty cache", "compiled, full cache")
HEAVY = ("helion", "triton")


def start(root: Path, builds: Path | None) -> dict[str, Any]:
    """Load the pack and call every op with every size; returns seconds, and what was imported."""
    import torch

    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    begin = time.perf_counter()
    import kernelpkg
    from kernelpkg.bench.inputs import make_inputs
    from kernelpkg.packs.read import read_kernel
    from kernelpkg.runtime.warm import sized_cases

    found = kernelpkg.load(root=root, device="cuda", builds=[] if builds is None else [builds])
    loaded = time.perf_counter()
    calls = {}
    for kernel in found.kernels:
        spec = read_kernel(root, kernel.name)
        first = next(iter(sized_cases(spec, {}))).values
        fixed = {name: value for name, value in first.items() if name != "num_tokens"}
        cases = sized_cases(spec, {**fixed, "num_tokens": SIZES})
        calls[kernel.name] = [make_inputs(spec, case, device="cuda") for case in cases]
    torch.cuda.synchronize()
    ready = time.perf_counter()
    for name, args in calls.items():
        op = getattr(torch.ops.kernelpkg, name)
        for values in args:
            op(*values)
    torch.cuda.synchronize()
    took = time.perf_counter() - ready
    return {
        "load": loaded - begin,
        "ready": took,
        "calls": sum(map(len, calls.values())),
        "modes": sorted({str(kernel.mode) for kernel in found.kernels}),
        "imported": [name for name in HEAVY if name in sys.modules],
    }


def host_times(root: Path, library: Path) -> list[dict[str, Any]]:
    """Time eager calls of 64 tokens against vLLM's CUDA ops, in turns."""
    import torch
    from bench_native_gpu import SIZES as SHAPES
    from bench_native_gpu import load_native
    from timing import host_us

    from kernelpkg.bench.inputs import make_inputs
    from kernelpkg.packs.read import read_kernel
    from kernelpkg.runtime.warm import sized_cases

    load_native(library)

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
    rows.append({"op": "geometric mean", "ours": 0.0, "cuda": 0.0, "ratio": mean})
    return rows


def child(root: Path, builds: str, library: str) -> None:
    found: dict[str, Any] = start(root, Path(builds) if builds else None)
    if library:
        found["host"] = host_times(root, Path(library))
    print("FOUND " + json.dumps(found), flush=True)


def measure(mode: str, options: Any, cache: str, bare: Path) -> dict[str, Any]:
    built = mode == "prebuilt"
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
        builds,
        library,
    ]
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
        child(Path(sys.argv[2]), *sys.argv[3:5])
        return
    parser = report.options(__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--builds", type=Path, help="a build; that of the pack unless given")
    parser.add_argument("--library", type=Path, help="_C_stable_libtorch.abi3.so of vLLM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        bare = unbuilt(options.root, Path(cache))
        found = [measure(mode, options, cache, bare) for mode in MODES]
    rows = [
        {
            "mode": row["mode"],
            "load s": row["load"],
            "ready s": row["ready"],
            "calls": row["calls"],
            "runs": ", ".join(row["modes"]),
            "imported": ", ".join(row["imported"]) or "neither",
        }
        for row in found
    ]
    built = found[0]
    targets = [report.target("ready from a build", built["load"] + built["ready"], 1.0, "s")]
    if "host" in built:
        mean = built["host"][-1]["ratio"]
        worst = max(row["ratio"] for row in built["host"])
        targets.append(report.target("eager call over CUDA ops, mean", mean, 1.3, "x"))
        targets.append(report.target("eager call over CUDA ops, worst", worst, 1.8, "x"))
        print("\n".join(report.table(built["host"])), end="\n\n")
    report.finish("startup", rows, targets, options.json)


if __name__ == "__main__":
    main()
