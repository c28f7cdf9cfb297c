"""What a process that checks runs does: load a pack once, then hold calls against references."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch

from kernelpkg.bench.reference import disagreement, make_inputs
from kernelpkg.errors import KernelpkgError
from kernelpkg.manifest.cases import Case, CaseProblem
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.read import read_kernel
from kernelpkg.runtime.load import load
from kernelpkg.runtime.prepare import LoadReport
from kernelpkg.runtime.register import HelionKernelWrapper, get_kernel_by_name
from kernelpkg.runtime.torch_ops import Device

_CHECKS: Final = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
_LONG: Final = 400
"""How much of what opcheck says is told; it goes on for pages."""

_NO_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory")
"""What PyTorch, Triton and CUDA say where memory does not suffice."""

_CACHED: Final = 1 << 28
"""Bytes that a process keeps of the GPU's memory between cases; others run beside it."""


def facts() -> dict[str, str]:
    """What this process runs on, and the bytes of memory that are free there."""
    if torch.cuda.is_available():
        return {"gpu": torch.cuda.get_device_name(), "free": str(torch.cuda.mem_get_info()[0])}
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return {"free": str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))}
    return {"free": str(1024 * free)}


def perform(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do one run; `job` is the payload that `runcheck` writes.

    Returns its `status`: "ok", "error" with the `problem`, "memory" where the device had too
    little, "unfit" where no inputs can be made, and "broken" with the `problems` of a kernel that
    does not load. Whatever a kernel raises is left to the process around this.
    """
    pack, device = job["pack"], job["device"]
    report = _load(pack["name"], pack["root"], tuple(pack["overlays"]), device)
    op = f"{pack['namespace']}::{job['kernel']}"
    kernel = get_kernel_by_name(op)
    row = next((row for row in report.kernels if row.op == op), None)
    if kernel is None or row is None or row.status != "registered":
        problems = report.problems if row is None else row.problems
        return {"status": "broken", "problems": list(map(_members, problems))}
    spec = _spec(pack["root"], job["kernel"])
    cases = [Case(values=values, use=("test",), grid=0) for values in job["cases"]]
    try:
        if job["kind"] == "opcheck":
            problem = _opcheck(spec, kernel, cases[0], device)
        else:
            problem = _compared(spec, kernel, cases, device, fresh=job["kind"] == "orders")
    except CaseProblem as error:
        return {"status": "unfit", "problem": str(error)}
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(told in str(error) for told in _NO_MEMORY):
            return {"status": "memory"}
        raise
    finally:
        if device == "cuda" and torch.cuda.memory_reserved() > _CACHED:
            torch.cuda.empty_cache()
    return {"status": "ok"} if problem is None else {"status": "error", "problem": problem}


@lru_cache(maxsize=1)
def _load(name: str, root: str, overlays: tuple[str, ...], device: Device) -> LoadReport:
    if device == "cpu":
        torch.set_num_threads(1)  # there is a process for each core
    return load(name, root=root, configs=overlays, device=device, environment={})


@lru_cache(maxsize=1)
def _spec(root: str, name: str) -> KernelSpec:
    return read_kernel(Path(root), name)


def _members(problem: Any) -> dict[str, Any]:
    names = ("path", "line", "code", "message")
    return {name: getattr(problem, name) for name in names}


def _compared(
    spec: KernelSpec, kernel: HelionKernelWrapper, cases: list[Case], device: str, *, fresh: bool
) -> str | None:
    """Make calls one after the other; `fresh` lets no earlier call have compiled anything.

    What is raised before the op is called says that there are no inputs, as CaseProblem.
    """
    called = False

    def call(*args: Any) -> Any:
        nonlocal called
        called = True
        return kernel(*args)

    if fresh:
        kernel.start_anew()
    for number, case in enumerate(cases):
        called = False
        try:
            wrong = disagreement(spec, call, case, device=device)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            if called or isinstance(error, CaseProblem | KernelpkgError):
                raise
            text = " ".join(str(error).split())
            raise CaseProblem("KP268", f"{type(error).__name__}: {text}") from None
        if wrong is not None:
            return f"the {('first', 'second')[number]} call: {wrong}" if fresh else wrong
    return None


def _opcheck(spec: KernelSpec, kernel: HelionKernelWrapper, case: Case, device: str) -> str | None:
    """Let PyTorch hold the op against its schema and its fake implementation."""
    args = make_inputs(spec, case, device=device)
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    checks = list(_CHECKS)
    if not any("float8" in str(tensor.dtype) for tensor in tensors):
        checks.append("test_schema")  # it multiplies arguments, as FP8 tensors cannot be
    found = torch.library.opcheck(kernel.op, args, test_utils=checks, raise_exception=False)
    if device == "cuda":
        torch.cuda.synchronize()  # what broke the context is told of here, and not by the next run
    wrong = [f"opcheck {name}: {_short(said)}" for name, said in found.items() if said != "SUCCESS"]
    return "; ".join(wrong) or None


def _short(said: object) -> str:
    text = " ".join(str(said).split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
