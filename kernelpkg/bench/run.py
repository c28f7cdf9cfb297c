"""Cases of ops timed beside what a user would call instead, all sides in turns in one run.

Baselines are a native op of the same schema, the reference under `torch.compile`, the reference
itself, and a copy of as many bytes as a call has to move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import torch
from attrs import evolve, frozen

from kernelpkg.bench import timing
from kernelpkg.bench.inputs import SENTINEL, make_inputs
from kernelpkg.bench.intervals import Interval, interval_of
from kernelpkg.bench.reference import differences, disagreement
from kernelpkg.bench.rows import OURS, BenchResults, BenchRow, Side, Traffic
from kernelpkg.bench.timing import rounds_of_a_capture
from kernelpkg.bench.traffic import traffic_of
from kernelpkg.errors import Progress, UsageError, error_line, parameter
from kernelpkg.manifest.cases import Case, cases_for_tests, cases_of, is_empty, smoke_cases
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.sources import load_function

_UNCAPTURED: Final = "cannot be captured in a CUDA graph"
_NO_REFERENCE: Final = "the kernel has no reference"
_QUICK: Final = 50
_QUICK_HOST: Final = 6

BenchCall = Callable[..., Any]
Rounds = Sequence[Sequence[float]]
TimeCalls = Callable[[Sequence[BenchCall]], Rounds]


@frozen(kw_only=True)
class Timers:
    """How this machine times calls; functions, so that a test needs neither a GPU nor a clock.

    `cold` returns the milliseconds that the GPU takes for each call, by round, and is None where
    ops are interpreted; `host` the microseconds of the host. `captures` says whether a call can be
    captured as a CUDA graph, `wait` waits for the GPU, and `compiled` is `torch.compile`.
    """

    device: str
    host: TimeCalls
    cold: TimeCalls | None = None
    captures: Callable[[BenchCall], bool] = lambda _: True
    wait: Callable[[], Any] = int
    compiled: Callable[[BenchCall], BenchCall]


def make_timers(device: str, *, interpret: bool, rounds: int | None, quick: bool) -> Timers:
    """Return what times calls on a device; `rounds` are those of the GPU, and fewer for `quick`.

    Raises UsageError for rounds that are too few.
    """
    count = rounds or (_QUICK if quick else timing.ROUNDS)
    if count < timing.LEAST:
        given = parameter("rounds", str(count))
        raise UsageError(f"{given} is too few to tell times from noise; give 20 or more")

    def cold(calls: Sequence[BenchCall]) -> Rounds:
        timing.warm_clock()
        return timing.time_cold(calls, count)

    gpu = device == "cuda"
    wait = torch.cuda.synchronize if gpu else int
    host = _QUICK_HOST if quick else timing.HOST_ROUNDS
    return Timers(
        device=device,
        host=lambda calls: timing.time_host(calls, host, wait),
        cold=cold if gpu and not interpret else None,
        captures=lambda call: timing.capture(call) is not None,
        wait=wait,
        compiled=_compiled,
    )


def _compiled(reference: BenchCall) -> BenchCall:
    """Compile a reference for the sizes of one case.

    After eight sizes of a function, PyTorch would call it as it is, unless it forgets the others.
    """
    torch.compiler.reset()
    found: BenchCall = torch.compile(reference, dynamic=False)
    return found


@frozen(kw_only=True, eq=False)
class BenchOp:
    """One op with the cases to time: what is called, and the native op, or why it is not there."""

    spec: KernelSpec
    cases: Sequence[Case]
    call: BenchCall
    native: BenchCall | str


def bench_cases(spec: KernelSpec, *, interpret: bool, some: bool = False) -> list[Case]:
    """Return the cases of a kernel to time: its grids for `bench`, without the empty ones.

    Most are too large for the interpreter, in which sizes say nothing of the host's time either: it
    gets the cases of a smoke check, or those for tests where only `some` are asked for.
    """
    if not interpret:
        found = cases_of(spec, "bench")
    else:
        found = cases_for_tests(spec, interpret=True) if some else smoke_cases(spec, interpret=True)
    return [case for case in found if not is_empty(spec, case)]


def bench(
    ops: Sequence[BenchOp],
    baselines: Sequence[str],
    timers: Timers,
    progress: Progress = lambda *_: None,
) -> BenchResults:
    """Time every case; one that fails keeps no other from being timed, while the GPU can be used.

    The memory of a case is given back before the next one.
    """
    rows: list[BenchRow] = []
    todo = [(op, case) for op in ops for case in op.cases]
    broken = ""
    try:
        for number, (op, case) in enumerate(todo):
            progress(f"{op.spec.name} {case}", number, len(todo))
            rows.append(_row(op, case, baselines, timers))
            broken = _unusable(timers) if rows[-1].failed else ""
            if broken:
                break
            if timers.device == "cuda":
                torch.cuda.empty_cache()
    except KeyboardInterrupt:
        return BenchResults(rows=tuple(rows), interrupted=True)
    return BenchResults(rows=tuple(rows), broken=broken)


def _row(op: BenchOp, case: Case, baselines: Sequence[str], timers: Timers) -> BenchRow:
    row = partial(BenchRow, op=op.spec.name, axes=case.values)
    try:
        traffic, sides = _CaseBench(op=op, case=case, timers=timers).measure(baselines)
    except (Exception, SystemExit) as error:  # one case must not stop the others
        return row(failed=error_line(error))
    return row(traffic=traffic, sides=sides)


def _unusable(timers: Timers) -> str:
    """Say why the GPU can do nothing any more in this process, as after an illegal access."""
    try:
        timers.wait()
    except RuntimeError as error:
        return error_line(error)
    return ""


@frozen(kw_only=True, eq=False)
class _CaseBench:
    """The measurement of one case."""

    op: BenchOp
    case: Case
    timers: Timers

    def measure(self, baselines: Sequence[str]) -> tuple[Traffic, dict[str, Side]]:
        """Return the bytes of a call, and all sides; raises what a call of ours raises."""
        ours = self._held(OURS, self.op.call)
        args = self._inputs()
        result = self.op.call(*args)
        again = None if self.reference is None else partial(self.reference, *args)
        traffic = traffic_of(self.op.spec.schema, args, result, again)
        del result
        sides: dict[str, Side] = {OURS: ours}
        calls: dict[str, BenchCall] = {OURS: partial(self.op.call, *args)}
        with torch.inference_mode():
            for name in baselines:
                try:
                    found = self._baseline(name, traffic)
                    if isinstance(found, str):
                        sides[name] = Side(reason=found)
                        continue
                    call = found if name == "copy" else partial(found, *args)
                    call()
                    sides[name] = self._held(name, found)
                    calls[name] = call
                except Exception as error:  # a baseline may be anything
                    sides[name] = Side(reason=error_line(error))
                    if _unusable(self.timers):
                        raise RuntimeError(f"{name}: {error_line(error)}") from None
            return traffic, self._timed(sides, calls)

    @cached_property
    def reference(self) -> BenchCall | None:
        """The reference of the kernel."""
        spec = self.op.spec
        if spec.reference is None:
            return None
        found: BenchCall = load_function(Path(spec.directory), spec.reference)
        return found

    def _inputs(self, sentinel: float = SENTINEL) -> tuple[Any, ...]:
        """Return the arguments of the case; `torch.compile` tells those of inference mode apart."""
        device = self.timers.device
        with torch.inference_mode(mode=False):
            return make_inputs(self.op.spec, self.case, device=device, sentinel=sentinel)

    def _baseline(self, name: str, traffic: Traffic) -> BenchCall | str:
        """Return what a baseline calls, a copy without arguments, or say why it is not there."""
        if name == "native":
            return self.op.native
        if name == "copy":
            return _copy(traffic, self.timers.device)
        if self.reference is None:
            return _NO_REFERENCE
        return self.reference if name == "eager" else self.timers.compiled(self.reference)

    def _held(self, name: str, call: BenchCall) -> Side:
        """Hold a side against the reference; eager is the reference, and a copy is no answer.

        What is compiled is called as it is timed: with memory that is filled, as `disagreement` has
        it, PyTorch would compile other code.
        """
        spec, device = self.op.spec, self.timers.device
        if name in ("eager", "copy") or not (self.reference or spec.properties):
            return Side()
        try:
            if name == "compile":
                assert self.reference is not None
                got, want = self._inputs(SENTINEL), self._inputs(-SENTINEL)
                found = differences(spec, (got, call(*got)), (want, self.reference(*want)))
                wrong = "; ".join(found)
            else:
                wrong = disagreement(spec, call, self.case, device=device) or ""
        except torch.OutOfMemoryError:
            return Side(reason="not compared with the reference: there is too little memory for it")
        return Side(agrees=not wrong, reason=wrong)

    def _timed(self, sides: Mapping[str, Side], calls: Mapping[str, BenchCall]) -> dict[str, Side]:
        """Return the sides with their times."""
        found = dict(sides)
        host = _medians(calls, self.timers.host(list(calls.values())), 1.0, 1)
        for name, (time, ratio) in host.items():
            found[name] = evolve(found[name], host=time, host_ratio=ratio)
        if self.timers.cold is None:
            return found
        launches = dict(calls)
        for name, call in calls.items():
            if self.timers.captures(call):
                continue
            found[name] = evolve(found[name], reason=found[name].reason or _UNCAPTURED)
            if name == OURS:
                break  # then no side is replayed from a graph
            del launches[name]  # or no other one would be
        rounds = self.timers.cold(list(launches.values()))
        gpu = _medians(launches, rounds, 1000.0, rounds_of_a_capture(len(rounds)))
        for name, (time, ratio) in gpu.items():
            found[name] = evolve(found[name], gpu=time, gpu_ratio=ratio)
        return found


def _medians(
    calls: Mapping[str, BenchCall], rounds: Rounds, scale: float, together: int
) -> dict[str, tuple[Interval, Interval | None]]:
    """Return the time of each side, and the ratio of ours to it, which is taken round by round."""
    columns = dict(zip(calls, zip(*rounds, strict=True), strict=True))
    found: dict[str, tuple[Interval, Interval | None]] = {}
    for name, column in columns.items():
        pairs = zip(columns[OURS], column, strict=True)
        ratios = [ours / max(other, 1e-9) for ours, other in pairs]
        time = interval_of([value * scale for value in column], together)
        found[name] = time, None if name == OURS else interval_of(ratios, together)
    return found


def _copy(traffic: Traffic, device: str) -> BenchCall:
    """Return a launch that moves as many bytes as a call, half of them each way.

    It adds 0, for a copy of PyTorch is the driver's, whose speed depends on the size: on an H200 it
    moves 147 MB at 4.0 TB/s, and 170 MB at 2.7.
    """
    source = torch.zeros(-(-max(1, traffic.moved) // 8), dtype=torch.int32, device=device)
    return partial(torch.add, source, 0, out=torch.empty_like(source))
