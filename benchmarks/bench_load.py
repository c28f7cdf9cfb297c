"""Packs of 10, 100 and 1,000 kernels: the time and memory that registering them takes.

A pack is made of the first pack's kernels, copied under new names, each with tuned cases for one
GPU. `ours` is `kernelpkg.load`, made to believe that this machine has that GPU: everything is
read, checked and registered; `locked` is the same where every file has to be as a lock says, which
vouches for what was checked when it was written. With `--against DIR`, a checkout of another
version, whose kernels are copied then, `before` is the locked side of that version. The other
sides do what vLLM's Helion path does at import, and check nothing. `floor`: each kernel's file is
run, its JSON is parsed, and an op is registered with `torch.library` under an inferred schema.
`vllm`: like vLLM's register.py and config_manager.py, a `helion.Config` per case and a Helion
kernel per op are made too.

Every measurement is a process of its own, in turns. The clock and the memory start after torch,
triton, helion and, for ours, kernelpkg's own modules were imported.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import finish, options, target
from timing import Time, interleave

SIDES = ("ours", "locked", "floor", "vllm")
BEFORE = "before"
SIZES, QUICK = (10, 100, 1000), (3,)
CASES, DISTINCT = 50, 33
"""Tuned cases of a kernel, and how many of them differ; of vLLM's 308 of silu_mul_fp8, 206 do."""

MOST, MOST_LOCKED, MOST_MEMORY = 5.0, 3.0, 100.0
"""The targets for the largest pack: seconds, those of a locked one, and KB of memory per kernel."""

PLATFORM, GPU = "nvidia_h200", "NVIDIA H200"

CONFIG = {
    "block_sizes": [64, 32], "loop_orders": [[0, 1]], "flatten_loops": [True],
    "l2_groupings": [1], "range_unroll_factors": [0], "range_warp_specializes": [],
    "range_num_stages": [0], "range_multi_buffers": [None], "range_flattens": [None],
    "load_eviction_policies": ["", "", ""], "num_warps": 2, "num_stages": 1,
    "indexing": ["pointer", "pointer", "pointer", "pointer"], "pid_type": "flat",
}  # fmt: skip
"""A config as vLLM ships them for silu_mul_fp8."""


def make_root(root: Path, sizes: tuple[int, ...], own: Path | None = None) -> None:
    """Write kernels, their configs in both formats, and a pack per size."""
    from kernelpkg.configs import store
    from kernelpkg.configs.store import ConfigFile, TunedCase
    from kernelpkg.manifest.cases import cases_of
    from kernelpkg.packs import find
    from kernelpkg.packs.read import kernel_names, read_kernel

    own = own or find.own_root()
    specs = [read_kernel(own, name) for name in kernel_names(own)]
    variants = tuple({**CONFIG, "block_sizes": [1 << n // 9, 1 << n % 9]} for n in range(DISTINCT))
    names = []
    for number in range(max(sizes)):
        spec = specs[number % len(specs)]
        name = f"{spec.name}_{number}"
        names.append(name)
        directory = root / "kernels" / name
        directory.mkdir(parents=True)
        for file in sorted(Path(spec.directory).glob("*.*")):
            text = file.read_text(encoding="utf-8")
            text = re.sub(rf"\b{spec.name}\b", name, text)
            (directory / file.name).write_text(text, encoding="utf-8")
        keys = [dict(zip(spec.key_axes, c.key(spec), strict=True)) for c in cases_of(spec, "tune")]
        keys = grown(keys)
        file = ConfigFile(
            kernel=name,
            platform=PLATFORM,
            configs=variants,
            cases=tuple(TunedCase(key=key, config=n % DISTINCT) for n, key in enumerate(keys)),
        )
        store.write(root / "configs" / name / f"{PLATFORM}.json", file)
        entries = [{"key": key, "config": variants[n % DISTINCT]} for n, key in enumerate(keys)]
        (root / "vllm").mkdir(exist_ok=True)
        (root / "vllm" / f"{name}.json").write_text(json.dumps(entries, indent=2))
        written = json.dumps(list(spec.schema.written))
        (root / "vllm" / f"{name}.written").write_text(written)
    (root / "manifests").mkdir()
    for size in sizes:
        text = 'edition = 1\n\n[pack]\nname = "{0}"\nversion = "0.1.0"\nnamespace = "{0}"\n'
        text += 'license = "Apache-2.0"\nkernels = {1}\n'
        pack = f"pack_{size}"
        (root / "manifests" / f"{pack}.toml").write_text(text.format(pack, names[:size]))
    lock(root)


def lock(root: Path) -> None:
    """Lock the same packs below another root."""
    from kernelpkg.packs.drift import take_inventory
    from kernelpkg.packs.lock import Lock, LockedPack, toolchain, write_lock
    from kernelpkg.packs.read import read_pack

    locked: dict[str, LockedPack] = {}
    (root / "locked").mkdir()
    for name in ("manifests", "kernels", "configs"):
        (root / "locked" / name).symlink_to(root / name)
    for manifest in sorted((root / "manifests").iterdir()):
        pack = read_pack(root / "locked", manifest.stem)
        locked[pack.name] = take_inventory(pack, toolchain()).pack
    write_lock(root / "locked", Lock(packs=locked))


def grown(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return as many keys as a kernel has here: these, and then more token counts of the first."""
    found = {json.dumps(key): key for key in keys[:CASES]}
    count = 3
    while len(found) < CASES:
        key = {**keys[0], "num_tokens": count}
        found.setdefault(json.dumps(key), key)
        count += 2
    return list(found.values())


def memory() -> int:
    """Return the resident memory of this process, in bytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def work(side: str, root: Path, size: int) -> dict[str, float]:
    """Register the pack of a size, in this process, and return what it took."""
    import helion
    import torch
    import triton

    assert helion and torch and triton
    sides = {"ours": prepare_ours, "locked": prepare_locked}
    sides |= {"floor": prepare_floor, "vllm": prepare_vllm}
    register = sides[side](root)
    before = memory()
    start, cpu = time.perf_counter(), time.process_time()
    kept = register(size)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "bytes": memory() - before,
        "registered": len(kept),
    }


def prepare_ours(root: Path, *, locked: bool = False) -> Any:
    """Return our side, with a machine that has the GPU of the config files."""
    from kernelpkg.configs import platforms
    from kernelpkg.runtime import load
    from kernelpkg.runtime.torch_ops import Machine

    platform = platforms.resolve(GPU)
    assert platform.name == PLATFORM
    here = Machine(device="cuda", gpu=GPU, platform=platform, interpret=False)
    load.detect = lambda *_, **__: here

    def register(size: int) -> list[Any]:
        report = load.load(f"pack_{size}", root=root, locked=locked)
        assert report.ok, report.problems[:3]
        assert all(k.mode == "tuned" and k.cases == CASES for k in report.kernels)
        return [kernel for kernel in report.kernels if kernel.status == "registered"]

    return register


def prepare_locked(root: Path) -> Any:
    """Return our side where every pack has to be as its lock says."""
    return prepare_ours(root / "locked", locked=True)


def prepare_floor(root: Path, *, like_vllm: bool = False) -> Any:
    """Return the side that registers ops and parses configs, and checks nothing."""
    import importlib.util

    import helion
    import torch

    library = torch.library.Library("bench", "FRAGMENT")

    def one(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, root / "kernels" / name / "kernel.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = called = getattr(module, name)
        entries = json.loads((root / "vllm" / f"{name}.json").read_text(encoding="utf-8"))
        configs = [(entry["key"], entry["config"]) for entry in entries]
        if like_vllm:
            configs = [(key, helion.Config(**config)) for key, config in configs]
            called = helion.kernel(
                static_shapes=False, key=lambda *_: 0, autotuner_fn=lambda *_: None
            )(function)
        written = json.loads((root / "vllm" / f"{name}.written").read_text())
        library.define(name + torch.library.infer_schema(function, mutates_args=written))
        library.impl(name, called, "CUDA")
        torch.library.register_fake(f"bench::{name}", lambda *_: None, lib=library)
        return called, configs

    def register(size: int) -> list[Any]:
        manifest = (root / "manifests" / f"pack_{size}.toml").read_text()
        names = re.findall(r"'(\w+)'", manifest)
        return [one(name) for name in names]

    return register


def prepare_vllm(root: Path) -> Any:
    """Return the side that makes Helion's kernels and configs, as vLLM does."""
    return prepare_floor(root, like_vllm=True)


def measure(
    side: str, root: Path, size: int, notes: list[dict[str, float]], against: Path | None
) -> float:
    """Let a new process do the work; returns microseconds, and notes all that it said."""
    script = Path(__file__)
    if side == BEFORE and against is not None:
        side, script = "locked", against / "benchmarks" / script.name
    command = [sys.executable, str(script), "--worker", side, str(root), str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["registered"] == size, found
    notes.append(found)
    return float(found["seconds"]) * 1e6


def row(side: str, size: int, took: Time, notes: list[dict[str, float]]) -> dict[str, Any]:
    """Return the figures of one side and size."""
    return {
        "side": side,
        "kernels": size,
        "seconds": took.least / 1e6,
        "seconds_median": took.median / 1e6,
        "cpu_seconds": min(note["cpu_seconds"] for note in notes),
        "ms_per_kernel": took.least / 1e3 / size,
        "kb_per_kernel": min(note["bytes"] for note in notes) / 1024 / size,
    }


def measure_all(
    root: Path, size: int, rounds: int, against: Path | None = None
) -> list[dict[str, Any]]:
    """Measure all sides of one size in turns."""
    sides = SIDES if against is None else (*SIDES, BEFORE)
    notes: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    times = interleave(
        {side: lambda side=side: measure(side, root, size, notes[side], against) for side in sides},
        rounds=rounds,
        warm=0,
    )
    return [row(side, size, times[side], notes[side]) for side in sides]


def main() -> int:
    """Make the packs, and measure all sides over all sizes."""
    if sys.argv[1:2] == ["--worker"]:
        side, root, size = sys.argv[2:]
        print(json.dumps(work(side, Path(root), int(size))))
        return 0
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="DIR", help="a checkout to compare with")
    chosen = parser.parse_args()
    sizes, rounds = (QUICK, 1) if chosen.quick else (SIZES, chosen.rounds)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_root(root, sizes, chosen.against)
        for size in sizes:
            rows += measure_all(root, size, rounds, chosen.against)
    ours = [found for found in rows if found["side"] == "ours"]
    last, first = ours[-1], ours[0]
    growth = last["ms_per_kernel"] / first["ms_per_kernel"]
    (locked,) = (r for r in rows if r["side"] == "locked" and r["kernels"] == last["kernels"])
    targets = [
        target(f"load of {last['kernels']} kernels", last["seconds"], MOST, "s"),
        target(f"locked, {last['kernels']} kernels", locked["seconds"], MOST_LOCKED, "s"),
        target(f"memory, {last['kernels']} kernels", last["kb_per_kernel"], MOST_MEMORY, "KB"),
        target(f"ms a kernel, {last['kernels']} to {first['kernels']}", growth, 1.2, "x"),
    ]
    finish(f"load, {CASES} cases a kernel", rows, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
