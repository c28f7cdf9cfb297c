"""The command `load`: a pack is loaded and its ops registered; a row for each kernel."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable

from kernelpkg.cli.console import (
    FINE,
    FOUND,
    ProgressBar,
    complain,
    folder,
    print_json,
    print_table,
    say,
)
from kernelpkg.errors import KernelpkgError


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
    try:
        from kernelpkg.runtime.load import load  # imports torch, which may be missing or broken
    except ImportError as error:
        raise KernelpkgError(
            f"kernelpkg: '{error.name}' cannot be imported ({error}); 'kernelpkg doctor' says more"
        ) from None
    with ProgressBar() as progress, contextlib.redirect_stdout(sys.stderr):
        report = load(
            options.pack,
            root=options.root,
            device=options.device,
            smoke=options.smoke,
            configs=options.configs,
            locked=options.locked,
            builds=options.builds,
            prebuilt=options.prebuilt_only,
            progress=progress.step,
        )
    complain((*report.notes, *report.failures()))
    if options.json:
        print_json(report.to_json())
    elif report.kernels:
        print_table(report.rows())
        say(report.summary())
    return FINE if report.ok and (report.best or not options.strict) else FOUND
