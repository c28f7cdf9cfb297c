"""The command `bench`: ops timed beside what would be called instead, and beside earlier runs."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import asdict

from kernelpkg.cli.console import (
    FINE,
    FOUND,
    INTERRUPTED,
    ProgressBar,
    complain,
    ended_like_ctrl_c,
    importing,
    tell,
)
from kernelpkg.cli.load import load_pack
from kernelpkg.cli.options import (
    AXES,
    BUILDS,
    DEVICE,
    ONE_PLATFORM,
    OPS,
    Shared,
    command,
    count,
    names,
    only,
    percent,
)
from kernelpkg.configs.directories import tuned_platforms, with_overlays
from kernelpkg.configs.platforms import chosen_platforms, platform_of
from kernelpkg.errors import UsageError
from kernelpkg.files import digest_value
from kernelpkg.jobs.pool import driver
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.manifest.wanted import read_wanted, wanted_cases, with_cases
from kernelpkg.packs import find
from kernelpkg.packs.drift import take_inventory
from kernelpkg.packs.lock import toolchain
from kernelpkg.packs.read import read_kernel, read_pack

if TYPE_CHECKING:
    from kernelpkg.bench.history import BenchComparison, BenchHistory
    from kernelpkg.bench.rows import BenchResults
    from kernelpkg.bench.run import BenchOp
    from kernelpkg.runtime.reports import LoadReport
    from kernelpkg.runtime.torch_ops import Device

_INTERPRETED: Final = "ops ran in Helion's interpreter: these are times of the host, not of a GPU"


@command(configs=True)
@OPS
@AXES
@ONE_PLATFORM
@DEVICE
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    callback=names,
    metavar="NAME",
    help="native, compile, eager or copy; all available ones if not given; may be repeated, or "
    "list several with commas",
)
@click.option(
    "--library",
    "libraries",
    type=Path,
    multiple=True,
    metavar="FILE",
    help="a shared library that defines native ops; may be repeated",
)
@BUILDS
@click.option("--rounds", type=count, metavar="N", help="how often the GPU is timed (1000)")
@click.option("--quick", is_flag=True, help="few rounds, to see that it runs")
@click.option("--history", type=Path, metavar="FILE", help="where runs are kept")
@click.option("--no-history", is_flag=True, help="do not keep this run")
@click.option("--against", metavar="RUN", help="an earlier run, 'last', or a file with runs")
@click.option(
    "--threshold",
    type=percent,
    default="5",
    metavar="PERCENT",
    help="by how much a case may be slower than in that run (5)",
)
def run(
    shared: Shared,
    ops: Sequence[str],
    axes: Sequence[str],
    platforms: Sequence[str],
    device: Device,
    baselines: Sequence[str],
    libraries: Sequence[Path],
    builds: Sequence[Path],
    rounds: int | None,
    history: Path | None,
    against: str | None,
    threshold: float,
    *,
    quick: bool,
    no_history: bool,
) -> int:
    """Time; 0 where all agree and nothing is slower, 1 where something is not so."""
    if no_history and history is not None:
        raise UsageError("--history keeps this run, and --no-history does not; give one of them")
    wanted = read_wanted(axes)
    asked = only(platforms)
    place, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    pack = with_overlays(read_pack(place.path, name), shared.configs, os.environ)
    named = find.chosen_kernels(pack, ops)
    chosen_platforms(pack, platforms, tuned_platforms(pack))
    with importing():
        from kernelpkg.bench.history import compare_runs, earlier_run, read_history
        from kernelpkg.bench.rows import chosen_baselines
        from kernelpkg.bench.run import bench, bench_cases, make_timers
        from kernelpkg.runtime.torch_ops import asked_to_interpret
    report = load_pack(shared, device, ops=ops, builds=builds)
    complain((*report.notes, *report.failures()))
    if asked is not None and platform_of(pack, asked).name != report.platform:
        raise UsageError(
            f"this is {report.platform}; time cases of {asked} on a GPU of that platform"
        )
    interpret = report.device == "cpu" or asked_to_interpret()
    timers = make_timers(report.device, interpret=interpret, rounds=rounds, quick=quick)
    sides = chosen_baselines(baselines, interpret=interpret)
    cases = partial(bench_cases, interpret=interpret, some=bool(wanted))
    there = {kernel.name for kernel in report.kernels if kernel.status == "registered"}
    specs = [read_kernel(place.path, op) for op in named if op in there]
    specs, notes = with_cases(specs, wanted, cases, "timing", named=bool(ops))
    complain(notes)
    chosen = {spec: wanted_cases(spec, cases(spec), wanted, "timing") for spec in specs}
    kept_at = (Path() if place.of_package else place.path) / ".bench" / f"{name}.jsonl"
    runs = read_history(history or kept_at)
    complain(runs.remarks)
    facts = _facts(report, interpret)
    then = None
    if against is not None:
        todo = [(spec.name, case.values) for spec in specs for case in chosen[spec]]
        then, remarks = earlier_run(against, runs, facts["machine"], todo)
        complain(remarks)
    to_time = _ops(libraries, pack, chosen)
    with (
        ended_like_ctrl_c() as ended,
        ProgressBar("timing") as progress,
        contextlib.redirect_stdout(sys.stderr),
    ):
        results = bench(to_time, sides, timers, progress.step)
    document = _document(pack, facts, results)
    found = None if then is None else compare_runs(document, then, threshold)
    fine = _report(shared, document, results, found, None if no_history else runs)
    if results.interrupted:
        return ended[-1] if ended else INTERRUPTED
    return FINE if fine and report.ok else FOUND


def _document(pack: PackSpec, facts: Mapping[str, Any], results: BenchResults) -> dict[str, Any]:
    """Return a run as it is kept."""
    from kernelpkg.bench.history import with_id

    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = digest_value(asdict(take_inventory(pack, {}).pack))
    about = {"date": date, "pack": pack.name, "digest": digest, **facts}
    return with_id({**about, **results.to_json()})


def _report(
    shared: Shared,
    document: Mapping[str, Any],
    results: BenchResults,
    against: BenchComparison | None,
    history: BenchHistory | None,
) -> bool:
    """Keep and print what was measured; returns whether all is as it should be."""
    from kernelpkg.bench.table import comparison_lines, table_lines

    if results.broken:
        complain([f"the GPU cannot be used any more, and nothing else was timed: {results.broken}"])
    keep = history if results.rows else None
    kept = keep is not None and _kept(keep, document)
    lines = [*table_lines(results.rows), *([_INTERPRETED] if document["interpreted"] else [])]
    lines += [f"run {document['run']}, kept in {keep.path}"] if keep and kept else []
    lines += [] if against is None else comparison_lines(against)
    tell(shared, {**document, "against": against and against.to_json()}, lines)
    return results.ok and kept == (keep is not None) and (against is None or against.ok)


def _ops(
    libraries: Sequence[Path],
    pack: PackSpec,
    chosen: Mapping[KernelSpec, Sequence[Case]],
) -> list[BenchOp]:
    """Return ops that were loaded, with their cases and the native ops of their routes."""
    from kernelpkg.bench.run import BenchOp
    from kernelpkg.runtime.register import get_kernel_by_name
    from kernelpkg.vllm.native_ops import load_library, native_of

    for library in libraries:
        load_library(library)
    found = []
    for spec, cases in chosen.items():
        kernel = get_kernel_by_name(f"{pack.namespace}::{spec.name}")
        assert kernel is not None, "it was loaded"
        native = native_of(pack, spec)
        found.append(BenchOp(spec=spec, cases=cases, call=kernel.op, native=native))
    return found


def _facts(report: LoadReport, interpret: bool) -> dict[str, Any]:
    """Return what times hold for: the GPU, and the versions of the tools and of its driver."""
    from kernelpkg.bench.gpu import current_gpu

    gpu = report.device == "cuda"
    machine = f"{current_gpu().called}{', interpreted' * interpret}" if gpu else "cpu"
    return {
        "device": report.device,
        "platform": report.platform,
        "machine": machine,
        "interpreted": interpret,
        "versions": {**toolchain(), **({"driver": driver(os.environ)} if gpu else {})},
    }


def _kept(history: BenchHistory, document: Mapping[str, Any]) -> bool:
    """Keep a run; where the system refuses, what was measured is printed all the same."""
    try:
        history.append(document)
    except OSError as error:
        complain([f"{error.filename}: {error.strerror}; this run is not kept, see --history"])
        return False
    return True
