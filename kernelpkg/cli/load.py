"""The command `load`: a pack is loaded and its ops registered; a row for each kernel."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from kernelpkg.cli.console import (
    FINE,
    FOUND,
    ProgressBar,
    complain,
    importing,
    print_json,
    print_table,
    say,
)
from kernelpkg.cli.options import BUILDS, DEVICE, Shared, command
from kernelpkg.packs import find

if TYPE_CHECKING:
    from kernelpkg.runtime.reports import LoadReport
    from kernelpkg.runtime.torch_ops import Device


@command(configs=True)
@DEVICE
@click.option("--smoke", is_flag=True, help="run each op's smallest cases against its reference")
@click.option("--strict", is_flag=True, help="exit 1 too where an op is not tuned or prebuilt")
@click.option("--locked", is_flag=True, help="load only kernels that are as kernelpkg.lock says")
@BUILDS
@click.option("--prebuilt-only", is_flag=True, help="let nothing be compiled, on a GPU")
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
    report = load_pack(
        shared, device, smoke=smoke, locked=locked, builds=builds, prebuilt=prebuilt_only
    )
    complain((*report.notes, *report.failures()))
    if shared.as_json:
        print_json(report.to_json())
    elif report.kernels:
        print_table(report.rows())
        say(report.summary())
    return FINE if report.ok and (report.best or not strict) else FOUND


def load_pack(shared: Shared, device: Device, **how: Any) -> LoadReport:
    """Load the pack with a bar; raises KernelpkgError where torch is missing or broken.

    The seconds that are printed are those that people wait, with the import of PyTorch.
    """
    start = time.perf_counter()
    place, _ = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    with importing():
        from kernelpkg.runtime.load import load
    with ProgressBar() as progress, contextlib.redirect_stdout(sys.stderr):
        report = load(
            shared.pack,
            root=place.path if place.origin == find.HERE else shared.root,
            device=device,
            configs=shared.configs,
            progress=progress.step,
            strict=False,
            **how,
        )
    return evolve(report, seconds=time.perf_counter() - start)
