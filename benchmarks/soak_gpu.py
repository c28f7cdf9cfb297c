"""Calls of random shapes, options, layouts and streams, held against references, for some minutes.

Each thread has a stream of its own. When the time is over, all calls are made once more, in the
same order: then nothing may be compiled, and nothing may grow. Exit status 1 where a call was
wrong, or kernels or known signatures became more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import resource
import threading
import time
from pathlib import Path
from typing import Any

import torch
from attrs import define, evolve, field

import kernelpkg
from kernelpkg.bench.reference import disagreement
from kernelpkg.manifest.cases import Case, CaseProblem, cases_of, guard_problem
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel

MOST = 2**24
"""Elements of the largest tensor of a call, so that many calls are made."""


@define
class Soak:
    """What the threads have done so far."""

    specs: list[KernelSpec]
    device: str
    calls: int = 0
    skipped: int = 0
    wrong: list[str] = field(factory=list)
    made: dict[int, int] = field(factory=dict)
    lock: threading.Lock = field(factory=threading.Lock)

    def run(self, seed: int, until: float, most: int | None = None) -> None:
        """Make calls until a time, or so many."""
        made = 0
        rng = random.Random(seed)
        stream = torch.cuda.stream(torch.cuda.Stream()) if self.device == "cuda" else None
        with torch.inference_mode(rng.random() < 0.5), stream or contextlib.nullcontext():
            while time.monotonic() < until and made != most:
                made += 1
                spec = rng.choice(self.specs)
                case = random_case(spec, rng)
                text = None if case is None else self.check(spec, case, rng)
                with self.lock:
                    self.calls += case is not None
                    self.skipped += case is None
                    if text is not None:
                        self.wrong.append(f"{spec.name} {case}: {text}")
        self.made[seed] = made

    def together(self, threads: int, seed: int, minutes: float | None) -> None:
        """Make calls in threads for some minutes, or those that were made once more."""
        until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        seeds = [seed * 1000 + place for place in range(threads)]
        most = dict(self.made) if minutes is None else {}
        running = [
            threading.Thread(target=self.run, args=(one, until, most.get(one))) for one in seeds
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    def check(self, spec: KernelSpec, case: Case, rng: random.Random) -> str | None:
        """Return what is wrong with a call, or None."""
        kernel = kernelpkg.get_kernel_by_name(f"kernelpkg::{spec.name}")
        offset = rng.choice((1, 2, 3, 8)) if rng.random() < 0.3 else 0

        def call(*args: Any) -> Any:
            if not offset:
                return kernel(*args)
            given = moved(args, offset)
            result = kernel(*given)
            for arg, value in zip(args, given, strict=True):
                if isinstance(arg, torch.Tensor):
                    arg.copy_(value)
            return result

        try:
            return disagreement(
                spec, call, case, device=self.device, variation=rng.randrange(2**20)
            )
        except CaseProblem:
            return None
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def random_case(spec: KernelSpec, rng: random.Random) -> Case | None:
    """Return a case of the manifest with another number of tokens, or None where none fits."""
    case = rng.choice(cases_of(spec, "tune") + cases_of(spec, "test"))
    most = int(case.values.get("max_position") or 8192)
    tokens = min(most, int(math.exp(rng.uniform(0, math.log(most + 1)))))
    case = evolve(case, values={**case.values, "num_tokens": tokens})
    if case.size() == 0 or case.size() > MOST or guard_problem(spec, case) is not None:
        return None
    return case


def moved(args: tuple[Any, ...], offset: int) -> tuple[Any, ...]:
    """Return the same arguments, each tensor so many elements behind an aligned start."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        space = torch.empty(span + offset, dtype=tensor.dtype, device=tensor.device)
        return space.as_strided(tensor.shape, tensor.stride(), offset).copy_(tensor)

    return tuple(move(arg) if isinstance(arg, torch.Tensor) else arg for arg in args)


def held(device: str) -> dict[str, int]:
    """Return what this process holds."""
    kernels = kernelpkg.get_registered_kernels().values()
    return {
        "host MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "device MiB": torch.cuda.memory_allocated() >> 20 if device == "cuda" else 0,
        "kernels": sum(kernel.backend.compiled_count() for kernel in kernels),
        "signatures": sum(len(kernel.dispatcher.calls) for kernel in kernels),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    root = find.own_root()
    kernelpkg.load(root=root, device=options.device, strict=True)
    specs = [read_kernel(root, name) for name in kernel_names(root)]
    soak = Soak(specs, options.device)
    soak.together(options.threads, options.seed, options.minutes)
    first, calls = held(options.device), soak.calls
    soak.together(options.threads, options.seed, None)
    found = {
        "calls": calls,
        "again": soak.calls - calls,
        "not made": soak.skipped,
        "wrong": soak.wrong,
        "held": first,
        "held again": held(options.device),
    }
    print(json.dumps({**found, "wrong": soak.wrong[:20], "wrong calls": len(soak.wrong)}, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found) + "\n", encoding="utf-8")
    grew = any(found["held again"][name] > first[name] for name in ("kernels", "signatures"))
    return 1 if soak.wrong or grew else 0


if __name__ == "__main__":
    raise SystemExit(main())
