"""Ops made ready before the first call that counts: code loaded or compiled, launches recorded."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from attrs import define, evolve, field, frozen

from kernelpkg.bench.stand_ins import make_stand_ins
from kernelpkg.configs.samples import spread
from kernelpkg.configs.selection import ConfigSelection
from kernelpkg.errors import KernelpkgError, Progress, UsageError, suggestion
from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator, cases_of, guard_problem
from kernelpkg.manifest.spec import KernelSpec, Scalar
from kernelpkg.runtime.dispatch import Dispatcher, Plan
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
            Such as "7 ops: 357 calls ready, 0 of them compiled (0.2 s)".
        """
        ready, made = (sum(getattr(op, name) for op in self.ops) for name in ("ready", "compiled"))
        return (
            f"{len(self.ops)} ops: {ready} calls ready, {made} of them compiled "
            f"({self.seconds:.1f} s)"
        )


def warm(
    *ops: str,
    sizes: Mapping[str, Scalar | Sequence[Scalar]] | None = None,
    device: str | torch.device = "cuda",
    progress: Progress = lambda *_: None,
) -> WarmReport:
    """Make registered ops ready, so that calls of some sizes neither compile nor look anything up.

    Code of a build is loaded; what no build has is compiled. Nothing is launched.

    Args:
        ops: Ops, with or without namespace; all that were loaded from manifests, without any.
        sizes: Values of axes, as {"num_tokens": [1, 2, 4], "hidden_size": 4096}; an axis that is
            not named has the values of the tuning grid. An op without an axis ignores it.
        device: The GPU.
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
    found = []
    for number, kernel in enumerate(kernels):
        progress(f"warming {kernel.op_name}", number, len(kernels))
        found.append(_warm(kernel, sizes or {}, place))
    progress("done", len(kernels), len(kernels))
    return WarmReport(ops=tuple(found), seconds=time.perf_counter() - start)


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


def _warm(
    kernel: HelionKernelWrapper,
    sizes: Mapping[str, Scalar | Sequence[Scalar]],
    device: torch.device,
) -> OpWarmth:
    spec = kernel.spec
    assert spec is not None
    found = OpWarmth(op=kernel.qualified)
    evaluate = Evaluator()
    for case in sized_cases(spec, sizes):
        try:
            args = make_stand_ins(spec, case, device=device, evaluate=evaluate)
            before = kernel.backend.compiled_count()
            kernel.dispatcher.prepare(args)
        except (KernelpkgError, CaseProblem, torch.OutOfMemoryError) as error:
            found.problems.append(f"case {case}: {' '.join(str(error).split())}")
            continue
        found.ready += 1
        found.compiled += kernel.backend.compiled_count() > before
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
            if near.size() != 0 and guard_problem(spec, near) is None:
                yield near


def warm_classes(kernel: WarmKernel, cases: Iterable[Case], device: torch.device) -> OpWarmth:
    """Make the code ready for all calls that differ from some cases in their free sizes alone.

    Code that is there, or in a build, is found without storage; what has to be compiled is
    compiled with tensors on the device.
    """
    spec, selection = kernel.spec, kernel.plan
    found = OpWarmth(op=kernel.qualified)
    if spec is None or not isinstance(selection, ConfigSelection):
        return found
    evaluate = Evaluator()
    for case in spread(selection, cases):
        axes = [case.values.get(axis.name) for axis in spec.axes]
        try:
            args = make_stand_ins(spec, case, device="meta", evaluate=evaluate)
            chosen = next(selection.options(axes, args), None)
            if chosen is None:
                continue
            real = partial(make_stand_ins, spec, case, device=device, evaluate=evaluate)
            found.compiled += kernel.dispatcher.make_ready(args, real, chosen, device)
        except (KernelpkgError, CaseProblem, torch.OutOfMemoryError) as error:
            found.problems.append(f"case {case}: {' '.join(str(error).split())}")
            continue
        found.ready += 1
    return found
