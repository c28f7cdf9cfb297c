"""The command `check`: every rule that can be checked here, all findings at once."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from kernelpkg.check import config_files, level0
from kernelpkg.cli.console import (
    FINE,
    FOUND,
    ProgressBar,
    importing,
    json_text,
    print_findings,
    print_json,
    print_table,
    say,
)
from kernelpkg.cli.options import DEVICE, JOBS, OPS, PLATFORM, Shared, command
from kernelpkg.configs import directories
from kernelpkg.configs.platforms import chosen_platforms
from kernelpkg.errors import Checked, UsageError
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs import find

if TYPE_CHECKING:
    from kernelpkg.runtime.torch_ops import Device


@command(configs=True, quiet=True)
@OPS
@click.option(
    "--level",
    type=click.Choice([*map(str, level0.LEVELS)]),
    default="0",
    help="0 reads files, 1 binds with Helion, 2 compiles, 3 runs; each contains the former",
)
@PLATFORM
@JOBS
@DEVICE
@click.option(
    "--output-format",
    "form",
    type=click.Choice(("text", "json", "github", "sarif", "junit")),
    default="text",
    help="lines (text), a document (json, as --json), annotations of GitHub, SARIF, or JUnit XML",
)
def run(
    shared: Shared,
    ops: Sequence[str],
    level: str,
    platforms: Sequence[str],
    jobs: int | None,
    device: Device,
    form: str,
) -> int:
    """Check the pack; 0 where nothing is wrong, 1 where something is."""
    if shared.as_json and form not in ("text", "json"):
        raise UsageError(f"--json is --output-format json, and not {form}; give one of them")
    if form in ("github", "sarif"):  # their paths are not those from the current directory
        shared = evolve(shared, configs=tuple(path.absolute() for path in shared.configs))
    pack, found = check_pack(shared, ops, platforms, level=int(level), jobs=jobs, device=device)
    if shared.as_json or form == "json":
        print_json(found.to_json())
    elif form == "text":
        print_findings(found.findings)
        if not shared.quiet:
            say("\n".join(found.summary()))
            _print_resources(found.checked.counts.get("resources", ()))
    else:
        _print_as(form, pack, find.chosen_kernels(pack, ops), found, shared.here)
    return FINE if found.ok else FOUND


def _print_as(
    form: str, pack: PackSpec, kernels: Sequence[str], found: level0.Checkup, here: Path | None
) -> None:
    """Print what was found in the form of others."""
    from kernelpkg.cli import findings  # it needs an XML writer, which takes 8 ms

    root = Path(pack.root)
    top = findings.seen_from(root, here)
    if form == "github":
        say("\n".join((*findings.github(found.findings, root, top), *found.summary())))
    elif form == "sarif":
        print(json_text(findings.sarif(found.findings, root, top)))
    else:
        print(findings.junit(found.findings, pack.name, kernels))


def check_pack(
    shared: Shared,
    ops: Sequence[str],
    asked: Sequence[str] = (),
    *,
    level: int,
    jobs: int | None = None,
    device: Device = "auto",
) -> tuple[PackSpec, level0.Checkup]:
    """Check the ops of the pack up to a level, for platforms that are asked for, with a bar."""
    root, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    pack, broken = level0.open_for_check(root.path, name)
    pack = directories.with_overlays(pack, shared.configs, os.environ)
    kernels = find.chosen_kernels(pack, ops)
    there = sorted({file.platform for file in config_files.survey(pack).files})
    platforms = chosen_platforms(pack, asked, there)
    above = _levels(level, jobs, device)
    with (
        ProgressBar("checking", quick=level == 0) as progress,
        contextlib.redirect_stdout(sys.stderr),
    ):
        checked, specs = level0.check_static(
            pack, kernels, platforms, datetime.datetime.now(datetime.UTC).date(), progress.step
        )
        checked = checked.merge(Checked(findings=broken))
        steps = {level: partial(step, progress=progress.step) for level, step in above.items()}
        return pack, level0.check(pack, (checked, specs), steps, platforms)


def _print_resources(resources: Sequence[Mapping[str, Any]]) -> None:
    """Print the most registers, shared memory and spills that compiled code of each op has."""
    if resources:
        from kernelpkg.check.level2 import resource_rows

        say()
        print_table(resource_rows(resources), fold=("platform",))


def _levels(level: int, jobs: int | None, device: Device) -> dict[int, Callable[..., Checked]]:
    """Return what makes each level that is asked for.

    Raises KernelpkgError, before anything is checked, where what a level needs is not installed.
    """
    found: dict[int, Callable[..., Checked]] = {}
    if level < 1:
        return found
    with importing(f"level {level}"):
        from kernelpkg.check.level1 import check_bindings

        found[1] = partial(check_bindings, jobs=jobs)
        if level >= 2:
            from kernelpkg.check.level2 import check_compiling

            found[2] = partial(check_compiling, jobs=jobs)
        if level >= 3:
            from kernelpkg.check.level3 import check_runs
            from kernelpkg.runtime.torch_ops import detect

            detect(device)
            found[3] = partial(check_runs, jobs=jobs, device=device)
    return found
