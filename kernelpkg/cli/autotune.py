"""The command `autotune`: the cases of a pack tuned on the GPUs of this host, or of a cluster."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import click
from attrs import evolve

from kernelpkg.autotune.plan import PlannedCase, TuningPlan
from kernelpkg.autotune.results import TuningResults
from kernelpkg.autotune.results import duration as shown_duration
from kernelpkg.autotune.run import RunJobs, autotune, plan_op
from kernelpkg.autotune.tune_op import Effort, TuningRequest
from kernelpkg.cli.console import (
    FINE,
    FOUND,
    INTERRUPTED,
    ProgressBar,
    complain,
    ended_like_ctrl_c,
    print_json,
    print_table,
    say,
)
from kernelpkg.cli.options import (
    AXES,
    ONE_PLATFORM,
    OPS,
    Folder,
    Shared,
    command,
    count,
    duration,
    only,
    percent,
)
from kernelpkg.configs import directories
from kernelpkg.configs.directories import ConfigDirectory
from kernelpkg.configs.platforms import Platform, chosen_platforms, platform_of
from kernelpkg.configs.store import shown_key
from kernelpkg.errors import KernelpkgError, PackError, UsageError, counted
from kernelpkg.files import digest_bytes, read_plain
from kernelpkg.jobs import pool, ray_pool
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.manifest.wanted import read_wanted, with_cases
from kernelpkg.packs import find, lock
from kernelpkg.packs.read import read_kernel, read_pack

_SECONDS = {"none": 300.0, "quick": 900.0, "full": 3600.0}
"""How long one case may take, by effort, where --case-timeout says nothing."""

_COUNTS: Final = ("wrong", "failed", "timeout", "left", "before")
"""Columns that most often have the same number for all ops, which is 0."""


@command()
@OPS
@AXES
@ONE_PLATFORM
@click.option(
    "--effort",
    type=click.Choice(tuple(_SECONDS)),
    default="quick",
    help="how hard Helion searches (quick)",
)
@click.option(
    "--budget",
    type=duration,
    metavar="TIME",
    help="how long to search a case at most, such as 30s, 10m or 1h",
)
@click.option("--case-timeout", type=duration, metavar="TIME", help="when to give up on a case")
@click.option(
    "--margin",
    type=percent,
    default="2",
    metavar="PERCENT",
    help="by how much a config must be faster to replace another, over the noise (2)",
)
@click.option(
    "--portfolio",
    type=count,
    metavar="N",
    help="search N cases only, and give each case the best of what they found",
)
@click.option(
    "--within",
    type=percent,
    metavar="PERCENT",
    help="how far from a case's best a config of the portfolio may be (2)",
)
@click.option("--into", type=Folder(), metavar="DIR", help="your own directory for the configs")
@click.option("--again", is_flag=True, help="drop earlier results of these cases")
@click.option("--devices", metavar="0,1", help="GPUs as CUDA_VISIBLE_DEVICES names them")
@click.option("--ray", metavar="ADDRESS", help="all GPUs of a Ray cluster; or 'auto'")
@click.option("--dry-run", is_flag=True, help="tune nothing, say what would be tuned")
def run(
    shared: Shared,
    ops: Sequence[str],
    axes: Sequence[str],
    platforms: Sequence[str],
    effort: Effort,
    budget: int | None,
    case_timeout: int | None,
    margin: float,
    portfolio: int | None,
    within: float | None,
    into: Path | None,
    devices: str | None,
    ray: str | None,
    *,
    again: bool,
    dry_run: bool,
) -> int:
    """Tune; 0 where every case has a config, 1 where one failed, 130 after Ctrl-C."""
    if within is not None and portfolio is None:
        raise UsageError("--within needs a portfolio; give --portfolio N too")
    if devices is not None and ray is not None:
        raise UsageError("--devices names GPUs of this host, --ray a cluster; give one of them")
    wanted = read_wanted(axes)
    place, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    pack = read_pack(place.path, name)  # its own configs are tuned, or those of --into over them
    chosen = find.chosen_kernels(pack, ops)
    kernels = [read_kernel(place.path, kernel) for kernel in chosen]
    tuned = partial(cases_of, use="tune")
    kernels, notes = with_cases(kernels, wanted, tuned, "tuning", named=bool(ops))
    complain(notes)
    if into is None and not dry_run and place.of_package:
        raise UsageError(
            f"pack '{name}' is an installed package, whose files must not change; choose "
            "a directory of your own with --into"
        )
    request = TuningRequest(
        effort=effort,
        budget=budget,
        case_timeout=case_timeout or _SECONDS[effort] + 2 * (budget or 0),
        margin=margin,
        portfolio=portfolio,
        within=0.02 if within is None else within,
        again=again,
    )
    target = ConfigDirectory(
        path=Path(pack.root, "configs") if into is None else into,
        shown="configs" if into is None else str(into),
        overlay=into is not None,
    )

    def plans(here: Platform) -> list[TuningPlan]:
        return [plan_op(pack, spec, wanted, target=target, here=here) for spec in kernels]

    platform = only(platforms)
    asked = None if platform is None else platform_of(pack, platform)
    if dry_run and asked is not None:
        chosen_platforms(pack, platforms, directories.tuned_platforms(pack))
        return _dry_run(shared, asked, plans(asked), request)
    facts, run_jobs, sharing = _on_gpus(pack, devices, ray)
    here = platform_of(pack, facts["gpu"])
    if asked is not None and asked.name != here.name:
        raise UsageError(
            f"the GPU is {facts['gpu']}, of platform {here.name}; configs of {asked.name} are "
            "tuned on one of its own"
        )
    if dry_run:
        return _dry_run(shared, here, plans(here), request)
    # After `_on_gpus`: `ray.init` takes SIGTERM, and has given it back by now.
    with ended_like_ctrl_c() as ended, ProgressBar("tuning") as progress:
        results = autotune(
            pack,
            kernels,
            wanted,
            evolve(request, sharing=sharing),
            target=target,
            here=here,
            machine=facts,
            date=time.strftime("%Y-%m-%d"),
            run_jobs=run_jobs,
            progress=progress.step,
            saved=_say,
        )
    results = evolve(results, seconds=shared.seconds)
    complain((*results.remarks, *results.failures()))
    if target.path.resolve() == (place.path / "configs").resolve():
        complain(_lock_remarks(place.path, name, results))
    if shared.as_json:
        print_json(results.to_json())
    else:
        print_table(results.rows(), fold=_COUNTS)
        say(results.summary())
    if results.interrupted:
        return ended[-1] if ended else INTERRUPTED
    return FINE if results.ok else FOUND


def _lock_remarks(root: Path, name: str, results: TuningResults) -> list[str]:
    """Say that the lock of a pack is to be written again, where it has other configs."""
    try:
        found = lock.read_lock(root)
    except PackError as error:
        return list(map(str, error.problems))
    if found is None or name not in found.packs:
        return []
    for op in results.ops:
        kernel = found.packs[name].kernels.get(op.op)
        locked = {} if kernel is None else kernel.digests(op.op)
        path = lock.config_path(op.op, results.platform)
        with contextlib.suppress(OSError):  # without a config file nothing was changed
            if locked.get(path) != digest_bytes(read_plain(Path(root, path))):
                return [
                    f"{lock.FILE} does not have the configs as they are now; run 'kernelpkg lock'"
                ]
    return []


def _say(line: str) -> None:
    if sys.stderr is not None:  # it may be closed
        with contextlib.suppress(OSError):  # hours of tuning do not end with a terminal
            say(line, error=True)


def _on_gpus(
    pack: PackSpec, asked: str | None, ray: str | None
) -> tuple[Mapping[str, str], RunJobs, int]:
    """Return what a GPU is, what does jobs on all that are like it, and how many share a host."""
    run_jobs: Callable[..., Iterator[pool.JobOutcome]]
    if ray is not None:
        run_jobs = partial(ray_pool.run_jobs, address=ray, root=pack.root)
        devices: tuple[str, ...] = (ray_pool.GPU,)
        first = devices
    else:
        seen = pool.visible_devices(os.environ)
        if not seen:
            raise UsageError(
                "no GPU is visible, and tuning needs one; --dry-run --platform P needs none"
            )
        devices = seen if asked is None else _chosen(asked, seen)
        first = devices[:1]
        run_jobs = pool.run_jobs
    # In a process of its own: a GPU that hangs takes that one with it, and a CUDA context here
    # would take memory from the cases.
    job = pool.Job(id="machine", payload={}, timeout=_STARTING)
    (outcome,) = run_jobs([job], "kernelpkg.bench.timing:perform", first, notice=_say)
    if outcome.status != "done":
        raise KernelpkgError(f"kernelpkg: GPU {first[0]} cannot be used: {outcome.reason}")
    like = {name: text for name, text in outcome.value.items() if name != "driver"}

    def work(jobs: Iterable[pool.Job]) -> Iterator[pool.JobOutcome]:
        perform = "kernelpkg.autotune.worker:perform"
        return run_jobs(jobs, perform, devices, facts=like, notice=_say)

    return outcome.value, work, len(devices)  # type: ignore[return-value]  # both return generators


_STARTING = 120.0
"""How long a GPU may take to say what it is."""


def _chosen(text: str, seen: Sequence[str]) -> tuple[str, ...]:
    found = tuple(name.strip() for name in text.split(","))
    for name in found:
        if name not in seen:
            raise UsageError(f"there is no GPU '{name}'; visible are {', '.join(seen)}")
    return found


def _dry_run(
    shared: Shared, here: Platform, plans: Sequence[TuningPlan], request: TuningRequest
) -> int:
    """Say how many cases would be tuned and what they have now; --verbose, which, in their order.

    Of a search, the time that it may take is known where there is a budget.
    """
    rows = [
        {
            "op": plan.spec.name,
            "key": dict(planned.key),
            "old": None if planned.old is None else dict(planned.old),
            "tuned": planned.exact,
        }
        for plan in plans
        for planned in plan.cases
    ]
    if shared.as_json:
        print_json({"platform": here.name, "cases": rows})
        return FINE
    table: list[Sequence[str]] = [("op", "cases", "variants", "searches", *_HAVE)]
    searches = 0
    for plan in plans:
        cases = len(plan.cases)
        searched = 0 if request.effort == "none" else min(request.portfolio or cases, cases)
        searches += searched
        has = Counter(map(_has, plan.cases))
        numbers = (cases, plan.variants, searched, *(has[what] for what in _HAVE))
        table.append((plan.spec.name, *map(str, numbers)))
        if shared.verbose:
            for planned in plan.cases:
                say(f"{plan.spec.name}: case {shown_key(planned.key)}: {_has(planned)}")
    print_table(table, fold=("variants", *_HAVE))
    told = f"{counted(len(rows), 'case')} would be tuned on {here.name}"
    if request.budget is not None and searches:
        most = shown_duration(searches * request.budget)
        told += f"; {counted(searches, 'search', 'searches')}, {most} at most on one GPU"
    say(told)
    return FINE


_HAVE: Final = ("tuned", "of another case", "default")
"""What cases may have now: a config of their own, one of a case near them, or none."""


def _has(planned: PlannedCase) -> str:
    tuned, other, default = _HAVE
    return tuned if planned.exact else other if planned.old else default
