"""Level 3 of a check: every tuned case, and calls around them, run against the reference.

The first half plans the runs, spreads them over processes and says what is wrong; the second half,
from `facts` on, is what each of these processes does.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any, Final

import torch
from attrs import evolve, field, frozen

from kernelpkg.bench.gpu import current_gpu
from kernelpkg.bench.gradients import NotDifferentiable, gradient_disagreement, require_gradients
from kernelpkg.bench.inputs import USUAL, Unusual, make_inputs
from kernelpkg.bench.reference import WRONG, disagreement, not_interpreted
from kernelpkg.check.causes import Occurrence, once_each
from kernelpkg.check.run_plan import Run, RunKind, plan_runs
from kernelpkg.configs.directories import place_of
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import (
    Checked,
    KernelpkgError,
    NotInterpreted,
    Problem,
    Progress,
    counted,
    error_line,
    led_to,
    no_place,
)
from kernelpkg.jobs.pool import Job, JobOutcome, cores, schedule
from kernelpkg.jobs.worker import WorkerProcess, wait
from kernelpkg.manifest.cases import Case, CaseProblem, is_empty, shown_bytes, weight
from kernelpkg.manifest.document import json_lines
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.read import problem_at, read_kernel
from kernelpkg.packs.sources import load_function, raised_in
from kernelpkg.runtime.load import load
from kernelpkg.runtime.register import HelionKernelWrapper, get_kernel_by_name
from kernelpkg.runtime.reports import LoadReport
from kernelpkg.runtime.torch_ops import Device, detect

RUN_SECONDS: Final = 120.0
"""How long one run may take; the slowest compilations of Helion's are a quarter of it."""

_TOGETHER: Final = 16
"""How many runs in a row one process gets, so that it can use again what it compiled."""

_LOST: Final = 3
"""After so many runs that hung or killed their process, the others of an op are not made."""

_SHARE: Final = 0.8
"""How much of the free memory of a device the runs on it may be thought to take."""

_CODES: Final[Mapping[RunKind, str]] = {
    "tuned": "KP260",
    "call": "KP261",
    "empty": "KP261",
    "strided": "KP261",
    "zeros": "KP261",
    "orders": "KP262",
    "opcheck": "KP263",
    "gradients": "KP270",
}
_UNUSUAL: Final[Mapping[str, Unusual]] = {
    "strided": Unusual(gap=16),
    "zeros": Unusual(zeros=True),
}
"""Inputs that calls have and grids do not say. A gap of 16 elements keeps what kernels may ask of
alignment: 16 bytes for TMA, 16 elements for a load."""

_LEFT_OUT: Final = ("memory", "left", "gap", "broken", "undone", "refused")
"""What becomes of a run that is not made."""

_PERFORM: Final = "kernelpkg.check.level3:perform"

_CHECKS: Final = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
_LONG: Final = 400
"""How much of what opcheck says is told; it goes on for pages."""

_NO_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory")
"""What PyTorch, Triton and CUDA say where memory does not suffice."""

_CACHED: Final = 1 << 28
"""Bytes that a process keeps of the GPU's memory between cases; others run beside it."""


@frozen(kw_only=True)
class Place:
    """What runs are made on: "cpu" or "cuda", its platform, and the GPUs, as CUDA names them."""

    device: str
    here: Platform
    interpret: bool
    gpus: tuple[str, ...]


def check_runs(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platforms: Sequence[str] | None = None,
    device: str = "auto",
    progress: Progress = lambda *_: None,
    jobs: int | None = None,
    *,
    seconds: float = RUN_SECONDS,
) -> Checked:
    """Run the ops of a pack on this machine and hold them against their references.

    `platforms` restricts it to the configs of some. `jobs` is the number of processes; None for
    three for every four cores on a GPU, and one for each in the interpreter. `seconds` is how long
    one run may take. Raises UsageError where there is no such device.
    """
    place = _place(pack, device)
    planned = [
        plan_runs(pack, spec, place.here, interpret=place.interpret, platforms=platforms)
        for spec in specs
    ]
    runs = [run for found in planned for run in found.runs]
    making = _Runs(pack=pack, place=place, runs=runs, seconds=seconds, progress=progress)
    count = cores()
    making.make(jobs or (count if place.interpret else max(1, count * 3 // 4)))
    findings = [finding for found in planned for finding in found.findings]
    findings += _findings(pack, making.results)
    made = [run for run, status, _ in making.results if status in ("ok", "error", "lost")]
    counts = {
        "runs": len(made),
        "tuned_runs": sum(run.kind == "tuned" for run in made),
        "runs_left_out": sum(found.left for found in planned)
        + sum(status in _LEFT_OUT for _, status, _ in making.results),
    }
    return Checked(findings=tuple(dict.fromkeys(findings)), counts=counts)


def _place(pack: PackSpec, device: str) -> Place:
    machine = detect(device, extra=pack.platforms, variants=pack.variants)  # type: ignore[arg-type]  # it refuses any other word
    gpus: list[str] = []
    if machine.device == "cuda":
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = given.split(",") if given else list(map(str, range(torch.cuda.device_count())))
        first = torch.cuda.get_device_name(0)
        alike = [torch.cuda.get_device_name(at) == first for at in range(torch.cuda.device_count())]
        gpus = [name for name, same in zip(names, alike, strict=False) if same]
    return Place(
        device=machine.device,
        here=machine.platform,
        interpret=machine.interpret,
        gpus=tuple(gpus),
    )


@frozen(kw_only=True)
class _Runs:
    """Runs in the processes of a pool, and their results one by one.

    A run that hangs or kills its process is lost alone: the others go on in a fresh one. Runs that
    together take more than a device's free memory wait for each other.
    """

    pack: PackSpec
    place: Place
    runs: Sequence[Run]
    seconds: float
    progress: Progress
    results: list[tuple[Run, str, Any]] = field(factory=list)
    lost: Counter[str] = field(factory=Counter)

    def make(self, jobs: int) -> None:
        """Make all runs, with so many processes at most."""
        self.progress("starting processes", 0, len(self.runs))
        series: list[Iterator[Job]] = []
        for _, group in groupby(enumerate(self.runs), key=lambda pair: pair[1].group):
            alike = list(group)
            parts = (alike[at : at + _TOGETHER] for at in range(0, len(alike), _TOGETHER))
            series += map(self._jobs, parts)
        devices = self.place.gpus or ("cpu",)
        count = min(jobs, len(series))
        workers = [WorkerProcess(devices[n % len(devices)], _PERFORM) for n in range(count)]
        # One try: a run that kills its process has failed, and to have a crash again tells no more.
        outcomes = schedule(series, workers, wait, tries=1, share=_SHARE)
        with contextlib.closing(outcomes):  # also where `progress` raises
            for outcome in outcomes:
                self._take(outcome)

    def _jobs(self, alike: Sequence[tuple[int, Run]]) -> Iterator[Job]:
        """Yield runs as jobs; those of an op that has lost too many by then are left."""
        pack = {
            "name": self.pack.name,
            "namespace": self.pack.namespace,
            "root": self.pack.root,
            "overlays": self.pack.overlays,
        }
        for number, run in alike:
            if self.lost[run.spec.name] >= _LOST:
                self._done(
                    run, "left", f"{_LOST} other calls of the op hung or killed their process"
                )
                continue
            self.progress(f"running {run.spec.name}", len(self.results), len(self.runs))
            payload = {
                "pack": pack,
                "device": self.place.device,
                "kernel": run.spec.name,
                "kind": run.kind,
                "cases": [dict(case.values) for case in run.cases],
            }
            yield Job(id=str(number), payload=payload, timeout=self.seconds, memory=run.bytes)

    def _take(self, outcome: JobOutcome) -> None:
        """Take in what became of a run."""
        run = self.runs[int(outcome.job.id)]
        self.lost[run.spec.name] += outcome.ended
        if outcome.status == "done":
            self._done(run, outcome.value["status"], outcome.value)
        elif outcome.status == "failed":
            self._done(run, "error", {"problem": outcome.reason})
        elif outcome.status == "large":
            self._done(run, "memory", None)
        elif outcome.status == "timeout":
            self._done(
                run, "lost", f"takes longer than {self.seconds:g} s; it hangs, and was stopped"
            )
        else:
            self._done(run, "lost" if outcome.device else "left", outcome.reason)

    def _done(self, run: Run, status: str, value: Any) -> None:
        self.results.append((run, status, value))
        self.progress(f"running {run.spec.name}", len(self.results), len(self.runs))


def _findings(pack: PackSpec, results: Sequence[tuple[Run, str, Any]]) -> Iterator[Problem]:
    """Yield the findings of all runs, one for each cause; what was left out is counted too."""
    left: Counter[Problem] = Counter()
    lines: dict[str, Mapping[Any, int]] = {}
    occurred: list[Occurrence] = []

    def add(run: Run, code: str, message: str, *, doubt: bool = False) -> None:
        message = f": {message}"
        if run.file is None:
            problem = problem_at(run.spec, code, message, *run.at)
        else:
            if run.file not in lines:
                lines[run.file] = _lines_of(pack, run.spec.name, PurePath(run.file).stem)
            line = lines[run.file].get(("cases", run.case), 0)
            problem = Problem(path=run.file, line=line, code=code, message=message)
        problem = evolve(problem, severity="unverified" if doubt else "error", level=3)
        size = weight(run.spec, run.cases[0])
        occurred.append(Occurrence(problem=problem, label=run.text, size=size))

    for run, status, value in results:
        if status == "error":
            add(run, _CODES[run.kind], f"{value['problem']}; {WRONG}")
        elif status == "lost":
            add(run, "KP264", f"{value}; correct the kernel")
        elif status == "memory":
            message = (
                f"it takes about {shown_bytes(run.bytes)} of memory to check, more than is free "
                "here; run it on a device that has more"
            )
            add(run, "KP265", message, doubt=True)
        elif status == "unfit" and run.needed:
            add(run, "KP268", f"its inputs cannot be made: {value['problem']}", doubt=True)
        elif status == "undone":
            add(run, "KP271", f"they are not compared: {value['problem']}", doubt=True)
        elif status == "broken":
            for members in value["problems"]:
                yield Problem(**{**members, "level": 3})
        elif status == "left":
            told = Problem(
                path=run.spec.path,
                code="KP268",
                severity="unverified",
                message=f"{value}; correct that and check again",
            )
            left[told] += 1
        elif status == "refused":
            problem = Problem(path=pack.path, code="KP268", message=value["problem"])
            left[evolve(problem, severity="unverified")] += 1
        elif status == "gap":
            left[not_interpreted(run.spec, value["problem"], value["line"])] += 1
    yield from once_each(occurred)
    for told, count in left.items():
        calls = counted(count, "call is", "calls are")
        yield evolve(told, message=f"{calls} not run: {told.message}", level=3)


def _lines_of(pack: PackSpec, kernel: str, platform: str) -> Mapping[Any, int]:
    """Return where the cases of a config file stand in it."""
    try:
        text = place_of(pack, kernel, platform).path.read_text(encoding="utf-8")
        return json_lines(text)[0]
    except (OSError, ValueError):  # it was there a moment ago
        return {}


def facts() -> dict[str, str]:
    """What this process runs on, and the bytes of memory that are free there."""
    if torch.cuda.is_available():
        return {"gpu": current_gpu().called, "free": str(torch.cuda.mem_get_info()[0])}
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return {"free": str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))}
    return {"free": str(1024 * free)}


def perform(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do one run; `job` is the payload that `_Runs` writes.

    Returns its `status`: "ok", "error" with the `problem`, "memory" where the device had too
    little, "unfit" where no inputs can be made, "undone" where gradients have nothing to be held
    against, "refused" with the file that the system refuses to those who compile, "gap" with what
    the interpreter lacks, and the `line`, and "broken" with the `problems` of a kernel that does
    not load. Whatever a kernel raises is left to the process around this, with a note of its line.
    """
    pack, device = job["pack"], job["device"]
    report = _load(pack["name"], pack["root"], tuple(pack["overlays"]), device)
    op = f"{pack['namespace']}::{job['kernel']}"
    kernel = get_kernel_by_name(op)
    row = next((row for row in report.kernels if row.op == op), None)
    if kernel is None or row is None or row.status != "registered":
        problems = report.problems if row is None else row.problems
        return {"status": "broken", "problems": [problem.to_json() for problem in problems]}
    spec = _spec(pack["root"], job["kernel"])
    cases = [Case(values=values, use=("test",), grid=0) for values in job["cases"]]
    empty = job["kind"] in ("empty", "opcheck") and is_empty(spec, cases[0])
    try:
        if empty and not _has_answer(spec, cases[0], device):
            problem = None
        elif job["kind"] == "opcheck":
            problem = _opcheck(spec, kernel, cases[0], device)
        elif job["kind"] == "gradients":
            assert spec.backward is not None
            answers = _spec(pack["root"], spec.backward.op)
            problem = gradient_disagreement(spec, answers, kernel, cases[0], device=device)
        else:
            fresh = job["kind"] == "orders"
            unusual = _UNUSUAL.get(job["kind"], USUAL)
            problem = _compared(spec, kernel, cases, device, unusual, fresh=fresh)
    except CaseProblem as error:
        return {"status": "unfit", "problem": str(error)}
    except NotDifferentiable as error:
        if error.__cause__ is not None and _lacks_memory(error.__cause__):
            return {"status": "memory"}
        return {"status": "undone", "problem": str(error)}
    except NotInterpreted as error:
        return {"status": "gap", "problem": str(error), "line": error.line}
    except Exception as error:
        if _lacks_memory(error):
            return {"status": "memory"}
        file, line = raised_in(error, Path(spec.directory))
        if isinstance(error, OSError) and not file:
            return {"status": "refused", "problem": no_place(error)}
        if file:
            error.add_note(f"({file}:{line})")
        raise
    finally:
        if device == "cuda" and torch.cuda.memory_reserved() > _CACHED:
            torch.cuda.empty_cache()
    return {"status": "ok"} if problem is None else {"status": "error", "problem": problem}


def _lacks_memory(error: BaseException) -> bool:
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
    return told or isinstance(error, MemoryError)


@lru_cache(maxsize=1)
def _load(name: str, root: str, overlays: tuple[str, ...], device: Device) -> LoadReport:
    if device == "cpu":
        torch.set_num_threads(1)  # there is a process for each core
    return load(name, root=root, configs=overlays, device=device, environment={}, strict=False)


@lru_cache(maxsize=2)
def _spec(root: str, name: str) -> KernelSpec:
    return read_kernel(Path(root), name)


def _compared(
    spec: KernelSpec,
    kernel: HelionKernelWrapper,
    cases: list[Case],
    device: str,
    unusual: Unusual,
    *,
    fresh: bool,
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
            wrong = disagreement(spec, call, case, device=device, unusual=unusual)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            if called or isinstance(error, KernelpkgError):
                raise
            raise CaseProblem("KP268", error_line(error)) from None
        if wrong is not None:
            return f"the {('first', 'second')[number]} call: {wrong}" if fresh else wrong
    return None


def _opcheck(spec: KernelSpec, kernel: HelionKernelWrapper, case: Case, device: str) -> str | None:
    """Let PyTorch hold the op against its schema and its fake implementation."""
    args = make_inputs(spec, case, device=device)
    if spec.backward is not None:
        require_gradients(spec, args)
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    checks = list(_CHECKS)
    if not any("float8" in str(tensor.dtype) for tensor in tensors):
        checks.append("test_schema")  # it multiplies arguments, as FP8 tensors cannot be
    found = torch.library.opcheck(kernel.op, args, test_utils=checks, raise_exception=False)
    if device == "cuda":
        torch.cuda.synchronize()  # what broke the context is told of here, and not by the next run
    wrong = {name: result for name, result in found.items() if result != "SUCCESS"}
    for result in wrong.values():
        gap = next((e for e in led_to(result) if isinstance(e, NotInterpreted)), None)
        if gap is not None:
            raise gap
    return "; ".join(f"opcheck {name}: {_short(result)}" for name, result in wrong.items()) or None


def _has_answer(spec: KernelSpec, case: Case, device: str) -> bool:
    """Whether the reference of a kernel, if it has one, takes a call, as no largest of no values.

    Where it refuses, empty calls are not made.
    """
    if spec.reference is None:
        return True
    reference = load_function(Path(spec.directory), spec.reference)
    try:
        reference(*make_inputs(spec, case, device=device))
    except (IndexError, RuntimeError, ValueError, ZeroDivisionError):
        return False
    return True


def _short(result: object) -> str:
    text = " ".join(str(result).split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
