"""The plugin of vLLM: what it adds to a process, and to a call that is turned away.

`process`: the seconds that importing and calling the entry point takes where PyTorch is loaded and
vLLM's native ops are there; without routes asked for, and with all of the first pack. `call`: the
microseconds of one eager call on CPU tensors of a native op that does nothing, alone and routed:
turned away by a condition, as a signature that was refused, or as not worth it in eager mode; and
answered by an op of ours that does nothing. A native op in Python costs more than one in C++, the
same on all sides.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from native_ops import NativeOps, nothing
from report import finish, options, target
from routed_calls import arguments, measure, rows, stand_in, worst
from timing import Time, interleave

from kernelpkg.packs import find
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 0.3
NOT_MEASURABLE = 0.005
MOST_MICROSECONDS = 6.0
"""The targets, of an H200's host for the last."""

PROCESS = """\
import sys, time
import torch
sys.path.insert(0, sys.argv[1])
from native_ops import NativeOps, nothing
ops = NativeOps(lambda name: nothing, key="CUDA")
start = time.perf_counter()
from kernelpkg.plugin import register
register()
took = time.perf_counter() - start
if sys.argv[2] == "all":
    from kernelpkg import plugin
    assert {report.status for report in plugin.report()} == {"routed"}, plugin.report_text()
assert "helion" not in sys.modules
print(took)
"""


def process(routes: str, cache: str) -> float:
    """Run one process with routes asked for; returns the microseconds of the plugin in it."""
    kept = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {
        **kept,
        "PYTHONPATH": paths,
        "PYTHONPYCACHEPREFIX": cache,  # what pip installs is compiled
        "KERNELPKG_VLLM_ROUTES": routes,
        "KERNELPKG_PATH": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(ROOT / "benchmarks"), routes],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return float(done.stdout) * 1e6


def processes(rounds: int, warm: int) -> list[dict[str, Any]]:
    """Return a row per way to ask for routes."""
    with tempfile.TemporaryDirectory() as cache:
        times = interleave(
            {routes: lambda routes=routes: process(routes, cache) for routes in ("none", "all")},
            rounds=rounds,
            warm=warm,
        )
    in_seconds = {
        f"routes: {routes}": Time(least=time.least / 1e6, median=time.median / 1e6)
        for routes, time in times.items()
    }
    return rows("process", in_seconds, "s")


def calls(rounds: int, number: int) -> list[dict[str, Any]]:
    """Return a row per routed op of the first pack."""
    root = find.own_root()
    pack = read_pack(root, "kernelpkg")
    ops = NativeOps(lambda _: nothing)
    found = []
    for route in pack.routes:
        spec = read_kernel(root, route.op)
        times = measure(
            pack,
            route,
            spec,
            arguments(spec, "cpu"),
            key="CPU",
            kernel=stand_in(spec, nothing),
            rounds=rounds,
            calls=number,
            settle=nothing,
        )
        found += rows(route.op, times, "us")
    ops.close()
    return found


def main() -> int:
    """Measure processes, then calls."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    started = processes(1 if chosen.quick else chosen.rounds, 0 if chosen.quick else 1)
    called = calls(*((2, 50) if chosen.quick else (2 * chosen.rounds + 1, 2000)))
    none, every = (found["median"] for found in started)
    targets = [
        target("process, all routes, median", every, MOST_SECONDS, "s"),
        target("process, no routes, median", none, NOT_MEASURABLE, "s"),
        target("call turned away, over the original", worst(called), MOST_MICROSECONDS, "us"),
    ]
    finish("plugin, a process and an eager call", [*started, *called], targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
