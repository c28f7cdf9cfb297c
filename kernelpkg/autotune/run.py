"""Tuning as a whole: plan, jobs, outcomes, store, config files, report."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path

from kernelpkg.autotune.plan import PlannedCase
from kernelpkg.autotune.results import TuningReport, duration, line_of, shown_key
from kernelpkg.autotune.session import SEARCHED, TIMED, OpRun, TuningRequest
from kernelpkg.autotune.tuningstart import edited, open_op, outdated
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.search_path import ConfigDirectory
from kernelpkg.configs.store import TUNED_WITH
from kernelpkg.digest import digest_value
from kernelpkg.errors import PackError, Problem
from kernelpkg.files import Files
from kernelpkg.jobs.pool import Job, Outcome
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Reference
from kernelpkg.packs.sources import source_digest

Wanted = Mapping[str, Sequence[str]]
"""The axis values that cases must have to be tuned, as texts."""

RunJobs = Callable[[Iterable[Job]], Generator[Outcome, None, None]]
"""Does jobs, and yields their outcomes as they come; `workers.run_jobs` with all but the jobs."""

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how many steps are done, and of how many."""


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
) -> TuningReport:
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
        return TuningReport(
            platform=here.name,
            ops=tuple(run.report() for run in runs),
            interrupted=interrupted,
            problems=problems,
            remarks=tuple(remarks),
            seconds=time.monotonic() - start,
        )


def facts_of(
    spec: KernelSpec, request: TuningRequest, machine: Mapping[str, str], date: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the results of a kernel hold for, and the facts that its config file gives."""
    effort = (
        request.effort
        if request.portfolio is None
        else (f"{request.effort}, portfolio of {request.portfolio}")
    )
    made = {name: text for name, text in machine.items() if name in TUNED_WITH and text}
    made |= {"source": _digest(spec, spec.source), "effort": effort}
    conditions = {name: text for name, text in made.items() if name != "driver"}
    conditions |= {
        "schema": spec.schema.text,
        "settings": digest_value([repr(spec.settings), repr(spec.default)]),
        "inputs": digest_value(
            [repr(spec.axes), repr(spec.args), repr(spec.defaults), list(spec.key_axes)]
        ),
        "checks": digest_value([_digest(spec, spec.reference), repr(spec.accuracy)]),
    }
    return conditions, made | {"date": date}


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
            for planned in (run.searches() if kind == SEARCHED else _timings(run))
        ]
        if todo:
            lost += _do(kind, todo, run_jobs, progress, saved)
    for run in runs:
        if not run.searches():
            for record in run.close_portfolio():
                saved(line_of(run.spec.name, record))
    return [f"{count} case{'s' * (count > 1)} not tuned: {why}" for why, count in lost.items()]


def _timings(run: OpRun) -> list[PlannedCase]:
    return [] if run.searches() else run.timings()


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
    start = time.monotonic()

    def jobs() -> Iterable[Job]:
        for run, planned in todo:
            job = run.job(kind, planned)  # now, for its seeds are what is tuned by now
            given[job.id] = run, planned
            yield job

    progress(_doing(todo[0], None), 0, len(todo))
    with contextlib.closing(run_jobs(jobs())) as outcomes:
        for done, outcome in enumerate(outcomes, start=1):
            run, planned = given[outcome.job.id]
            record = run.take(kind, planned, outcome)
            if outcome.status == "lost":
                lost[outcome.reason] += 1
            if record is not None:
                saved(line_of(run.spec.name, record))
            left = len(todo) - done
            seconds = (time.monotonic() - start) / done * left
            progress(_doing((run, planned), seconds if left else None), done, len(todo))
    return lost


def _doing(what: tuple[OpRun, PlannedCase], seconds: float | None) -> str:
    run, planned = what
    about = "" if seconds is None else f", about {duration(seconds)} left"
    return f"{run.spec.name} {shown_key(planned.key)}{about}"
