"""Ops made ready before the first call that counts: code loaded or compiled, launches recorded."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from attrs import define, evolve, field, frozen

from kernelpkg.bench.stand_ins import layouts_of, make_stand_ins
from kernelpkg.configs.samples import spread
from kernelpkg.configs.selection import Chosen, ConfigSelection
from kernelpkg.errors import Progress, UsageError, counted, error_line, suggestion
from kernelpkg.manifest.cases import Case, Evaluator, cases_of, guard_problem, is_empty
from kernelpkg.manifest.spec import KernelSpec, Scalar
from kernelpkg.runtime.dispatch import Dispatcher, NotReady, Plan
from kernelpkg.runtime.register import (
    HelionKernelWrapper,
    get_kernel_by_name,
    get_registered_kernels,
)


class WarmKernel(Protocol):
    """What is needed of a registered kernel; `register.HelionKernelWrapper` is one."""

    spec: KernelSpec | None
    plan: Plan
    dispatcher: Dispatcher

    @property
    def qualified(self) -> str:
        """The name of the op with its namespace."""


@define(kw_only=True)
class OpWarmth:
    """What was made ready of one op.

    Attributes:
        op: The op, with its namespace.
        ready: How many calls are ready: of the sizes that were asked for, and classes of others.
        compiled: How many of them something had to be compiled for.
        problems: What could not be made ready, and why.
    """

    op: str
    ready: int = 0
    compiled: int = 0
    problems: list[str] = field(factory=list)


@frozen(kw_only=True)
class WarmReport:
    """What `warm` made ready.

    Attributes:
        ops: One entry for each op.
        seconds: How long it took, by the clock.
    """

    ops: tuple[OpWarmth, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the document of `warm --json`.

        Returns:
            Its keys.
        """
        return {
            "seconds": round(self.seconds, 3),
            "ops": [
                {
                    "op": op.op,
                    "ready": op.ready,
                    "compiled": op.compiled,
                    "problems": op.problems,
                }
                for op in self.ops
            ],
        }

    def summary(self) -> str:
        """Return one line with all counts.

        Returns:
            Such as "7 ops: 357 calls ready, 0 compiled (0.2 s)".
        """
        ready, made = (sum(getattr(op, name) for op in self.ops) for name in ("ready", "compiled"))
        return (
            f"{counted(len(self.ops), 'op')}: {counted(ready, 'call')} ready, {made} compiled "
            f"({self.seconds:.1f} s)"
        )


def warm(
    *ops: str,
    sizes: Mapping[str, Scalar | Sequence[Scalar]] | None = None,
    device: str | torch.device = "cuda",
    jobs: int | None = None,
    progress: Progress = lambda *_: None,
) -> WarmReport:
    """Make registered ops ready, so that calls of some sizes neither compile nor look anything up.

    Code of a build is loaded; what no build has is compiled. Nothing is launched.

    Args:
        ops: Ops, with or without namespace; all that were loaded from manifests, without any.
        sizes: Values of axes, as {"num_tokens": [1, 2, 4], "hidden_size": 4096}; an axis that is
            not named has the values of the tuning grid. An op without an axis ignores it.
        device: The GPU.
        jobs: How many threads compile at once; one for each core unless given.
        progress: Called with what is about to be done, how many steps are done, and of how many.

    Returns:
        What became of each op.

    Raises:
        UsageError: There is no such op, or it has no manifest.
    """
    start = time.perf_counter()
    kernels = _kernels(ops)
    place = torch.device(device)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    found = [_Op(kernel=kernel, device=place) for kernel in kernels]
    steps = [
        _Sized(op=op, case=case, dense=dense)
        for op in found
        for case in sized_cases(op.spec, sizes or {})
        for dense in op.layouts(case)
    ]
    _take(steps, jobs, progress)
    seconds = time.perf_counter() - start
    return WarmReport(ops=tuple(op.found for op in found), seconds=seconds)


def _kernels(ops: Sequence[str]) -> list[HelionKernelWrapper]:
    known = {name: k for name, k in get_registered_kernels().items() if k.spec is not None}
    if not ops:
        return list(known.values())
    found = []
    for name in ops:
        kernel = get_kernel_by_name(name)
        if kernel is None or kernel.spec is None:
            hint = suggestion(name, [*known, *(qualified.split("::")[1] for qualified in known)])
            raise UsageError(f"'{name}' is not an op that was loaded from a manifest{hint}")
        found.append(kernel)
    return found


def sized_cases(spec: KernelSpec, sizes: Mapping[str, Scalar | Sequence[Scalar]]) -> Iterator[Case]:
    """Yield the cases of the tuning grid with other sizes, each once; a guard may refuse some."""
    named = {
        name: tuple(value) if isinstance(value, list | tuple | range) else (value,)
        for name, value in sizes.items()
        if any(axis.name == name for axis in spec.axes)
    }
    seen = set[tuple[str, ...]]()
    for case in cases_of(spec, "tune"):
        fixed = tuple(repr(value) for name, value in case.values.items() if name not in named)
        if named and fixed in seen:
            continue
        seen.add(fixed)
        for values in itertools.product(*named.values()):
            near = evolve(case, values={**case.values, **dict(zip(named, values, strict=True))})
            if not is_empty(spec, near) and guard_problem(spec, near) is None:
                yield near


def warm_classes(
    kernel: WarmKernel, cases: Iterable[Case], device: torch.device, jobs: int | None = None
) -> OpWarmth:
    """Make the code ready for all calls that differ from some cases in their free sizes alone.

    Code that is there, or in a build, is found without storage; what has to be compiled is
    compiled with tensors on the device, in so many threads.
    """
    op = _Op(kernel=kernel, device=device)
    steps: list[_Step] = []
    if kernel.spec is not None and isinstance(kernel.plan, ConfigSelection):
        for case in spread(kernel.plan, cases):
            axes = [case.values.get(axis.name) for axis in op.spec.axes]
            for dense in op.layouts(case):
                with op.noting(case):
                    args = op.args(case, dense, "meta")
                    chosen = next(kernel.plan.options(axes, args), None)
                    if chosen is not None:
                        step = _Class(op=op, case=case, dense=dense, chosen=chosen, args=args)
                        steps.append(step)
    _take(steps, jobs)
    return op.found


@define(kw_only=True)
class _Op:
    """An op in work, and what became of it so far."""

    kernel: WarmKernel
    device: torch.device
    found: OpWarmth = field(init=False)
    evaluate: Evaluator = field(factory=Evaluator)

    def __attrs_post_init__(self) -> None:
        self.found = OpWarmth(op=self.kernel.qualified)

    @property
    def spec(self) -> KernelSpec:
        """Its manifest, which what is warmed has."""
        assert self.kernel.spec is not None
        return self.kernel.spec

    @property
    def dispatcher(self) -> Dispatcher:
        """What answers its calls."""
        return self.kernel.dispatcher

    def layouts(self, case: Case) -> tuple[bool, ...]:
        """Return the layouts of a case, as `layouts_of` does; none where it has no arguments."""
        with self.noting(case):
            return layouts_of(self.spec, case, self.evaluate)
        return ()

    def args(self, case: Case, dense: bool, device: torch.device | str = "") -> tuple[Any, ...]:
        """Return the arguments of a call without values, and on "meta" without storage."""
        place = device or self.device
        return make_stand_ins(self.spec, case, device=place, evaluate=self.evaluate, dense=dense)

    @contextmanager
    def noting(self, case: Case) -> Iterator[None]:
        """Go on behind whatever goes wrong with a case: another one may be fine."""
        try:
            yield
        except Exception as error:
            self.found.problems.append(f"case {case}: {error_line(error)}")


class _Step(Protocol):
    """A case that is made ready."""

    @property
    def op(self) -> _Op:
        """Its op."""

    @property
    def case(self) -> Case:
        """The case."""

    @property
    def dense(self) -> bool:
        """Whether it is the second layout of the case."""

    def find(self) -> bool:
        """Make it ready and return True, if nothing has to be compiled for that."""

    def begin(self) -> None:
        """Begin to compile what it lacks; what goes wrong is what `compile` raises."""

    def compile(self) -> None:
        """Make it ready, with what has to be compiled for that."""


def _take(steps: Sequence[_Step], jobs: int | None, progress: Progress = lambda *_: None) -> None:
    """Make cases ready: first those that have code, so that the others are compiled at once.

    Helion works in this thread, and in so many others Triton compiles what Helion has made.
    """
    lacking = []
    for step in steps:
        with step.op.noting(step.case):
            if step.find():
                step.op.found.ready += not step.dense
            else:
                lacking.append(step)
    compiled = [step for step in lacking if not step.op.dispatcher.backend.prebuilt]
    if compiled:
        from kernelpkg.compile.code import compiling_in_threads
        from kernelpkg.jobs.pool import cores

        compiling_in_threads(_beginnings(compiled, progress), jobs or cores())
    for step in lacking:
        backend = step.op.dispatcher.backend
        before = backend.compiled_count()
        with step.op.noting(step.case):
            step.compile()
            step.op.found.ready += not step.dense
            step.op.found.compiled += backend.compiled_count() > before


def _beginnings(steps: Sequence[_Step], progress: Progress) -> Iterator[Callable[[], None]]:
    for number, step in enumerate(steps):
        progress(f"compiling {step.op.kernel.qualified}", number, len(steps))
        yield step.begin
    progress("compiling the rest", len(steps), len(steps))


@frozen(kw_only=True)
class _Sized:
    """A case of which the launch of one call is made."""

    op: _Op
    case: Case
    dense: bool

    def find(self) -> bool:
        try:
            self.op.dispatcher.prepare(self.op.args(self.case, self.dense), compiling=False)
        except NotReady:
            return False
        return True

    def begin(self) -> None:
        self.op.dispatcher.begin(self.op.args(self.case, self.dense))

    def compile(self) -> None:
        self.op.dispatcher.prepare(self.op.args(self.case, self.dense))


@frozen(kw_only=True)
class _Class:
    """A case of which all calls of its class get code; `args` have no storage."""

    op: _Op
    case: Case
    dense: bool
    chosen: Chosen
    args: tuple[Any, ...]

    def find(self) -> bool:
        return self.op.dispatcher.is_ready(self.args, self.chosen, self.op.device)

    def begin(self) -> None:
        self.op.dispatcher.begin(self.op.args(self.case, self.dense), self.chosen)

    def compile(self) -> None:
        self.op.dispatcher.compile(self.op.args(self.case, self.dense), self.chosen)
