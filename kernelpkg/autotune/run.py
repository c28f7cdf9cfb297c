"""Tuning as a whole: plan, jobs, outcomes, saved results, config files, report."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import evolve

from kernelpkg.autotune.plan import PlannedCase, TuningPlan, plan_tuning
from kernelpkg.autotune.results import TuningResults, line_of
from kernelpkg.autotune.saved_results import Conditions, open_results
from kernelpkg.autotune.tune_op import (
    SEARCHED,
    TIMED,
    OpRun,
    TuningRequest,
    looked_into,
    unwritable,
)
from kernelpkg.configs.directories import ConfigDirectory
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.selection import read_selection
from kernelpkg.configs.store import TUNED_WITH, config_id, shown_key
from kernelpkg.errors import PackError, Problem, Progress, counted, parameter
from kernelpkg.files import Files, digest_value
from kernelpkg.jobs.pool import Job, JobOutcome
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Reference
from kernelpkg.packs.sources import source_digest

Wanted = Mapping[str, Sequence[str]]
"""The axis values that cases must have to be tuned, as texts."""

RunJobs = Callable[[Iterable[Job]], Generator[JobOutcome, None, None]]
"""Does jobs, and yields their outcomes as they come; `pool.run_jobs` with all but the jobs."""


def autotune(
    pack: PackSpec,
    kernels: Sequence[KernelSpec],
    wanted: Wanted,
    request: TuningRequest,
    *,
    target: ConfigDirectory,
    here: Platform,
    machine: Mapping[str, str],
    date: str,
    run_jobs: RunJobs,
    progress: Progress = lambda *_: None,
    saved: Callable[[str], None] = lambda _: None,
) -> TuningResults:
    """Tune cases of kernels into a directory of configs, and go on where an earlier run stopped.

    `machine` are the facts of the GPU and its tools: gpu, driver, torch, triton and helion; `here`
    is its platform. `saved` gets a line for each result, once nothing can undo it. Ctrl-C ends the
    run, and so does a file that cannot be written: what was saved is reported.

    Raises PackError and UsageError for what is wrong before the first search.
    """
    start = time.monotonic()
    with contextlib.ExitStack() as held:
        runs = []
        for spec in kernels:
            conditions, facts = facts_of(spec, request, machine, date)
            opened = open_op(
                pack,
                spec,
                wanted,
                request,
                target=target,
                here=here,
                conditions=conditions,
                facts=facts,
            )
            runs.append(held.enter_context(opened))
        told = [about(run) for run in runs for about in (outdated, edited)]
        remarks = [remark for remark in told if remark is not None]
        interrupted = False
        problems: tuple[Problem, ...] = ()
        try:
            remarks += _tune(runs, run_jobs, progress, saved)
        except KeyboardInterrupt:
            interrupted = True
        except PackError as error:
            problems = error.problems
        return TuningResults(
            platform=here.name,
            ops=tuple(run.results() for run in runs),
            interrupted=interrupted,
            problems=problems,
            remarks=tuple(remarks),
            seconds=time.monotonic() - start,
        )


def facts_of(
    spec: KernelSpec, request: TuningRequest, machine: Mapping[str, str], date: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the results of a kernel hold for, and the facts that its config file gives."""
    portfolio = "" if request.portfolio is None else f", portfolio of {request.portfolio}"
    made = {name: text for name, text in machine.items() if name in TUNED_WITH and text}
    made |= {"source": _digest(spec, spec.source), "effort": request.effort + portfolio}
    conditions = {name: text for name, text in made.items() if name != "driver"}
    conditions |= {
        "schema": spec.schema.text,
        "settings": digest_value([repr(spec.settings), repr(spec.default)]),
        "inputs": digest_value(
            [repr(spec.axes), repr(spec.args), repr(spec.defaults), list(spec.key_axes)]
        ),
        "checks": digest_value([*_checked_by(spec), repr(spec.accuracy)]),
    }
    return conditions, made | {"date": date}


def _checked_by(spec: KernelSpec) -> Iterator[str]:
    """Yield what results are held against, beside the accuracy."""
    if spec.reference is not None:
        yield _digest(spec, spec.reference)
    for name, wanted in spec.properties.items():
        yield f"{name} {wanted!r}" + ("" if wanted.holds is None else _digest(spec, wanted.holds))


def _digest(spec: KernelSpec, reference: Reference) -> str:
    path = Path(spec.directory, reference.file)
    return source_digest(Files().tree(path, str(path)))


def _tune(
    runs: Sequence[OpRun], run_jobs: RunJobs, progress: Progress, saved: Callable[[str], None]
) -> list[str]:
    """Search, and time portfolios once their searches are done; returns what was lost, and why."""
    lost: Counter[str] = Counter()
    for kind in (SEARCHED, TIMED):
        todo = [
            (run, planned)
            for run in runs
            for planned in (run.searches() if kind == SEARCHED else run.timings())
        ]
        if todo:
            lost += _do(kind, todo, run_jobs, progress, saved)
    for run in runs:
        for record in run.close_portfolio():
            saved(line_of(run.spec.name, record))
    return [f"{counted(count, 'case')} not tuned: {why}" for why, count in lost.items()]


def _do(
    kind: str,
    todo: Sequence[tuple[OpRun, PlannedCase]],
    run_jobs: RunJobs,
    progress: Progress,
    saved: Callable[[str], None],
) -> Counter[str]:
    """Do all jobs of one kind, and save what comes of each at once; counts why some were lost."""
    given: dict[str, tuple[OpRun, PlannedCase]] = {}
    lost: Counter[str] = Counter()

    def jobs() -> Iterable[Job]:
        for run, planned in todo:
            job = run.job(kind, planned)  # now, for its seeds are what is tuned by now
            given[job.id] = run, planned
            yield job

    progress(_doing(*todo[0]), 0, len(todo))
    # Closed at Ctrl-C too, which ends the workers now: the traceback keeps the generator alive, and
    # a kernel that nobody waits for would keep its GPU.
    with contextlib.closing(run_jobs(jobs())) as outcomes:
        for done, outcome in enumerate(outcomes, start=1):
            run, planned = given[outcome.job.id]
            record = run.take(kind, planned, outcome)
            if outcome.status == "lost":
                lost[outcome.reason] += 1
            if record is not None:
                saved(line_of(run.spec.name, record))
            progress(_doing(run, planned), done, len(todo))
    return lost


def _doing(run: OpRun, planned: PlannedCase) -> str:
    return f"{run.spec.name} {shown_key(planned.key)}"


_PICKED: Final = "picked"
"""The notes of what the rules picked when the tuning of a case was first asked for."""

_FEW: Final = 5
"""How many cases a remark names."""

_SHORT: Final = 40
"""How long a fact may be to be shown; digests are longer."""


@contextlib.contextmanager
def open_op(
    pack: PackSpec,
    spec: KernelSpec,
    wanted: Wanted,
    request: TuningRequest,
    *,
    target: ConfigDirectory,
    here: Platform,
    conditions: Conditions,
    facts: Mapping[str, str],
) -> Iterator[OpRun]:
    """Plan the tuning of an op and open its saved results; no other process tunes it meanwhile.

    Results that an earlier run could not put into the config file any more are put there. Raises
    PackError for a file that is broken or cannot be written, before a GPU is used, and UsageError.
    """
    plan = plan_op(pack, spec, wanted, target=target, here=here)
    with open_results(target.path, target.shown, spec.name, here.name) as results:
        run = OpRun(
            pack=pack,
            target=target,
            platform=here.name,
            plan=plan,
            saved_results=results,
            request=request,
            conditions=conditions,
            facts=facts,
            before=0,
        )
        _check_writable(run)
        if request.again:
            for under in (conditions, run.shared):
                results.forget(under, [planned.key for planned in plan.cases])
        run.write()
        # What the results of earlier runs changed is what the rules pick now.
        plan = _as_begun(plan_op(pack, spec, wanted, target=target, here=here), run)
        yield evolve(run, plan=plan, before=len(run.records()))


def _as_begun(plan: TuningPlan, run: OpRun) -> TuningPlan:
    """Return a plan whose old configs are those from before the first run that asked for them.

    Else the cases that were tuned before an interruption would lend the others their configs, and
    a run that was interrupted would not end like one that was not. A config that the file has for
    a case itself is not lent.
    """
    noted = run.saved_results.notes(run.conditions, _PICKED)
    lent = [case for case in plan.cases if not case.exact]
    new = [case for case in lent if config_id(case.key) not in noted]
    run.saved_results.note(run.conditions, _PICKED, [(case.key, case.old) for case in new])
    return evolve(
        plan,
        cases=tuple(
            case if case.exact else evolve(case, old=noted.get(config_id(case.key), case.old))
            for case in plan.cases
        ),
    )


def plan_op(
    pack: PackSpec, spec: KernelSpec, wanted: Wanted, *, target: ConfigDirectory, here: Platform
) -> TuningPlan:
    """Return the cases of an op to tune, with what calls get now that the target is looked into."""
    return plan_tuning(spec, read_selection(looked_into(pack, target), spec, here), wanted)


def outdated(run: OpRun) -> str | None:
    """Say which results of earlier runs do not count, and what changed since, or return None."""
    others = run.saved_results.outdated(run.conditions)
    if run.before or not others:
        return None
    latest = others[0]
    changes = [
        f"{name} was {latest.get(name, 'unknown')}, is {value}" if len(value) < _SHORT else name
        for name, value in run.conditions.items()
        if latest.get(name) != value
    ]
    what = "results of earlier runs are not used, because these changed"
    return f"{run.spec.name}: {what}: {'; '.join(changes)}"


def edited(run: OpRun) -> str | None:
    """Say which cases were edited since they were tuned, or return None."""
    found = [shown_key(record.key) for record in run.edited()]
    if not found:
        return None
    more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
    return (
        f"{run.shown}: edited since tuning, and left as it is: {'; '.join(found[:_FEW])}{more}; "
        f"{parameter('again', 'True')} tunes these cases again"
    )


def _check_writable(run: OpRun) -> None:
    """Raise PackError where the config file could not be written in the end."""
    above = run.path.parent
    while not above.exists():
        above = above.parent
    probe = above / f".{run.platform}.probe"
    try:
        probe.touch()
        probe.unlink(missing_ok=True)  # another op's tuner may have looked at the same moment
        if run.path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
    except OSError as error:
        raise unwritable(run.shown, error) from None
