"""The command `load`: a pack is loaded and its ops registered; a row for each kernel."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from kernelpkg.cli import terminal, verbose
from kernelpkg.cli.console import (
    FINE,
    FOUND,
    ProgressBar,
    complain,
    importing,
    print_json,
    say,
)
from kernelpkg.cli.options import BUILDS, DEVICE, Shared, command
from kernelpkg.errors import PackError, Problem, collecting
from kernelpkg.packs import find
from kernelpkg.packs.read import read_kernel, read_pack

if TYPE_CHECKING:
    from kernelpkg.runtime.reports import LoadReport
    from kernelpkg.runtime.torch_ops import Device


@command(configs=True, quiet=True)
@DEVICE
@click.option("--smoke", is_flag=True, help="run each op's smallest cases against its reference")
@click.option(
    "--strict", is_flag=True, help="exit with 1 too if an op is neither tuned nor prebuilt"
)
@click.option("--locked", is_flag=True, help="load only kernels that match kernelpkg.lock")
@BUILDS
@click.option("--prebuilt-only", is_flag=True, help="compile nothing on a GPU")
def run(
    shared: Shared,
    device: Device,
    builds: Sequence[Path],
    *,
    smoke: bool,
    strict: bool,
    locked: bool,
    prebuilt_only: bool,
) -> int:
    """Load; 0 where every kernel is registered, or, with --strict, tuned or prebuilt too."""
    told = tell_broken(shared)
    report = load_pack(
        shared, device, smoke=smoke, locked=locked, builds=builds, prebuilt=prebuilt_only
    )
    complain(one for one in (*report.notes, *report.failures()) if one not in told)
    if shared.as_json:
        print_json(report.to_json())
    elif report.kernels and not shared.quiet:
        print_report(report)
    return FINE if report.ok and (report.best or not strict) else FOUND


def print_report(report: LoadReport) -> None:
    """Print what became of a pack, as wide as it may be."""
    say("\n".join(report.lines(terminal.width(sys.stdout))))


def tell_broken(shared: Shared, ops: Sequence[str] = ()) -> tuple[Problem, ...]:
    """Print what is wrong with manifests now, for PyTorch takes seconds to import.

    Raises PackError where no kernel can be read, so that nothing is left to load.
    """
    place, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    kernels = find.chosen_kernels(read_pack(place.path, name), ops)
    problems: list[Problem] = []
    sound = 0
    for kernel in kernels:
        with collecting(problems):
            read_kernel(place.path, kernel)
            sound += 1
    if problems and not sound:
        raise PackError(problems=problems)
    complain(problems, early=True)
    return tuple(problems)


def load_pack(shared: Shared, device: Device, **how: Any) -> LoadReport:
    """Load the pack with a bar; raises KernelpkgError where torch is missing or broken.

    The seconds that are printed are those that people wait, from the start of the process.
    """
    place, _ = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    with importing():
        from kernelpkg.runtime.load import load
    with ProgressBar("loading") as progress, contextlib.redirect_stdout(sys.stderr):
        report = load(
            shared.pack,
            root=place.path if place.origin == find.HERE else shared.root,
            device=device,
            configs=shared.configs,
            progress=progress.step,
            strict=False,
            **how,
        )
    sees = "a GPU" if report.device == "cuda" else "no GPU"
    why = f"PyTorch sees {sees}" if device == "auto" else f"--device {device}"
    verbose.note(f"device {report.device}, platform {report.platform}: {why}")
    for kernel in report.kernels:
        parts = (kernel.mode or kernel.status, f"configs in {kernel.file or 'no file'}")
        verbose.note(f"{kernel.op}: {', '.join(parts)}; {kernel.reason}".rstrip("; "))
    return evolve(report, seconds=shared.seconds)
