"""The command `load`: a pack is loaded and its ops registered; a row for each kernel."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import evolve

from kernelpkg.cli.console import (
    FINE,
    FOUND,
    ProgressBar,
    complain,
    folder,
    importing,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from kernelpkg.runtime.reports import LoadReport


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    option = command("load", run, configs=True).add_argument
    option("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where checks run")
    option(
        "--smoke", action="store_true", help="run each op's smallest cases against its reference"
    )
    option("--strict", action="store_true", help="exit 1 too where an op is not tuned or prebuilt")
    option(
        "--locked", action="store_true", help="load only kernels that are as kernelpkg.lock says"
    )
    option(
        "--builds", type=folder, action="append", default=[], metavar="DIR",
        help="a directory of builds that goes before the pack's; may be repeated",
    )  # fmt: skip
    option("--prebuilt-only", action="store_true", help="let nothing be compiled, on a GPU")


def run(options: argparse.Namespace) -> int:
    """Load; 0 where every kernel is registered, or, with --strict, tuned or prebuilt too."""
    report = load_pack(
        options,
        smoke=options.smoke,
        locked=options.locked,
        builds=options.builds,
        prebuilt=options.prebuilt_only,
    )
    complain((*report.notes, *report.failures()))
    if options.json:
        print_json(report.to_json())
    elif report.kernels:
        print_table(report.rows())
        say(report.summary())
    return FINE if report.ok and (report.best or not options.strict) else FOUND


def load_pack(options: argparse.Namespace, **how: Any) -> LoadReport:
    """Load the pack with a bar; raises KernelpkgError where torch is missing or broken.

    The seconds that are printed are those that people wait, with the import of PyTorch.
    """
    start = time.perf_counter()
    with importing():
        from kernelpkg.runtime.load import load
    with ProgressBar() as progress, contextlib.redirect_stdout(sys.stderr):
        report = load(
            options.pack,
            root=options.root,
            device=options.device,
            configs=options.configs,
            progress=progress.step,
            strict=False,
            **how,
        )
    return evolve(report, seconds=time.perf_counter() - start)
