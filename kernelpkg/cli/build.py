"""The command `build`: a pack is compiled ahead for platforms, with or without their GPUs."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kernelpkg.cli.console import (
    FINE,
    FOUND,
    ProgressBar,
    complain,
    ended_like_ctrl_c,
    importing,
    print_json,
    say,
)
from kernelpkg.cli.options import JOBS, OPS, PLATFORM, Shared, command
from kernelpkg.configs import directories
from kernelpkg.configs.platforms import Platform, chosen_platforms, platform_of
from kernelpkg.errors import PackError, Problem, UsageError, counted
from kernelpkg.manifest.cases import shown_bytes
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs import builds, find
from kernelpkg.packs.read import read_kernel, read_pack


@command(quiet=True)
@OPS
@PLATFORM
@click.option("--out", type=Path, metavar="DIR", help="where the build of each platform is put")
@click.option("--tests", is_flag=True, help="build for the grids of tests too")
@JOBS
@click.option("--check", is_flag=True, help="build nothing, say whether builds are current")
def run(
    shared: Shared,
    ops: Sequence[str],
    platforms: Sequence[str],
    out: Path | None,
    jobs: int | None,
    *,
    tests: bool,
    check: bool,
) -> int:
    """Build; 0 where everything compiled."""
    place, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    pack = read_pack(place.path, name)
    kernels = find.chosen_kernels(pack, ops)
    there = {platform for kernel in kernels for platform in directories.platforms_of(pack, kernel)}
    chosen = chosen_platforms(pack, platforms, sorted(there)) or sorted(there)
    if not chosen:
        raise UsageError("no platform has configs; name one with --platform")
    specs, broken = _read(pack, kernels)
    found = []
    start = shared.started
    for platform in chosen:
        here = platform_of(pack, platform)
        if not (here.arch or "").startswith("sm_"):
            raise UsageError(f"{platform} is not an NVIDIA GPU, and builds are for those alone")
        directory = (out or Path(pack.root, builds.FOLDER, pack.name)) / here.name
        if check:
            found.append(
                _current(
                    pack, specs, here, directory, say_fine=not (shared.as_json or shared.quiet)
                )
            )
        else:
            uses = ("tune", "bench", "test") if tests else ("tune", "bench")
            found.append(_build(shared, pack, specs, here, directory, uses, jobs, start))
        start = time.perf_counter()
    if shared.as_json:
        print_json({"builds": [document for document, _ in found]})
    return FINE if all(ok for _, ok in found) and not broken else FOUND


def _read(pack: PackSpec, kernels: Sequence[str]) -> tuple[list[KernelSpec], bool]:
    """Read kernels; return those that are sound, and whether others are not, which is told."""
    specs: list[KernelSpec] = []
    problems: list[Problem] = []
    for kernel in kernels:
        try:
            specs.append(read_kernel(Path(pack.root), kernel))
        except PackError as error:
            problems += error.problems
    if not specs:
        raise PackError(problems=tuple(problems))
    complain(problems)
    return specs, bool(problems)


_Outcome = tuple[dict[str, Any], bool]
"""What is told of one build, as JSON, and whether nothing is wrong."""


def _current(
    pack: PackSpec,
    specs: list[KernelSpec],
    here: Platform,
    directory: Path,
    *,
    say_fine: bool,
) -> _Outcome:
    """Say whether a build is there and of the kernels as they are now."""
    wrong: list[object] = []
    try:
        build = builds.read_build(directory)
        if build.pack != pack.name:
            wrong.append(f"{directory} is a build of pack '{build.pack}'; name another directory")
        elif build.platform != here.name:
            wrong.append(f"{directory} is a build for {build.platform}; run 'kernelpkg build'")
        for spec in specs if not wrong else ():
            problem = builds.stale(build, pack, spec, here.arch)
            if problem is not None:
                wrong.append(f"{directory} {problem}; run 'kernelpkg build'")
        build.check_binaries()
    except PackError as error:
        wrong += error.problems
    complain(wrong)
    if not wrong and say_fine:
        say(f"{directory} is current")
    return {"platform": here.name, "directory": str(directory), "current": not wrong}, not wrong


def _build(
    shared: Shared,
    pack: PackSpec,
    specs: list[KernelSpec],
    here: Platform,
    directory: Path,
    uses: Sequence[str],
    jobs: int | None,
    start: float,
) -> _Outcome:
    with importing():
        from kernelpkg.compile.build import make_build
    with (
        ended_like_ctrl_c(),
        ProgressBar("building") as progress,
        contextlib.redirect_stdout(sys.stderr),
    ):
        made = make_build(
            pack, specs, here, directory, uses=uses, jobs=jobs, progress=progress.step
        )
    complain(made.problems)
    files = len(made.build.binaries())
    seconds = time.perf_counter() - start
    if not made.written:
        what = "a part" if made.compiled else "nothing"
        complain([f"{what} of pack {pack.name} can be built for {here.name}; none was written"])
    elif not (shared.as_json or shared.quiet):
        say(
            f"build of pack {pack.name} for {here.name} ({made.build.arch}) in {directory}: "
            f"{counted(made.compiled, 'source')} compiled, {counted(files, 'binary', 'binaries')}, "
            f"{shown_bytes(made.bytes)} ({seconds:.1f} s)"
        )
    return {
        "platform": here.name,
        "directory": str(directory),
        "arch": made.build.arch,
        "compiled": made.compiled,
        "binaries": files,
        "bytes": made.bytes,
        "seconds": round(seconds, 3),
        "problems": [problem.to_json() for problem in made.problems],
    }, made.sound and made.written and made.compiled > 0
