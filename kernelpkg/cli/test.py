"""The command `test`: a smoke check of every op, and levels 0 and 1 of `check`, in one run."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click
from attrs import evolve

from kernelpkg.cli import watch as watching
from kernelpkg.cli.check import check_pack
from kernelpkg.cli.console import FINE, FOUND, complain, print_held, print_json, say
from kernelpkg.cli.load import load_pack, print_report, tell_broken
from kernelpkg.cli.options import DEVICE, JOBS, OPS, Shared, command
from kernelpkg.errors import PackError, UsageError, counted
from kernelpkg.packs import find
from kernelpkg.packs.read import read_pack

if TYPE_CHECKING:
    from kernelpkg.runtime.torch_ops import Device


@command(configs=True, quiet=True)
@OPS
@DEVICE
@JOBS
@click.option("--watch", is_flag=True, help="test what changes, again and again, until Ctrl-C")
def run(
    shared: Shared, ops: tuple[str, ...], device: Device, jobs: int | None, *, watch: bool
) -> int:
    """Test; 0 where nothing is wrong."""
    if not watch:
        return _test(shared, ops, device, jobs)
    if shared.as_json:
        raise UsageError("--watch prints no document; leave out --json")
    return _watch(shared, ops, device, jobs)


def _test(
    shared: Shared, ops: tuple[str, ...], device: Device, jobs: int | None, level: int = 1
) -> int:
    early = tell_broken(shared, ops)
    _, checked = check_pack(shared, ops, level=level, jobs=jobs)
    loaded = load_pack(shared, device, smoke=True, ops=ops)
    status = FINE if loaded.ok and checked.ok else FOUND
    if shared.as_json:
        print_json({"load": loaded.to_json(), "check": checked.to_json()})
    else:
        told = (*checked.findings, *loaded.notes, *loaded.failures())
        complain({str(one): one for one in told if one not in early}.values())
        if shared.quiet:
            return status
        if loaded.kernels:
            print_report(loaded)
        errors = sum(finding.severity == "error" for finding in checked.findings)
        found = f"{counted(errors, 'error')}, {len(checked.findings) - errors} unverified"
        levels = "levels 0 and 1" if level else "level 0"
        say(f"{levels}: {found}; {checked.looked_at()}")
    return status


def _watch(shared: Shared, ops: tuple[str, ...], device: Device, jobs: int | None) -> int:
    """Test, and then at level 0 the kernels whose files change, while PyTorch stays imported.

    To bind a kernel again takes seconds, and people wait for the result of an edit.
    """
    place, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    for number, changed in enumerate(watching.changes(place.path, watching.pause)):
        try:
            if number == 0:
                _test(shared, ops, device, jobs)
            else:
                chosen = find.chosen_kernels(read_pack(place.path, name), ops)
                kernels = watching.touched(sorted(changed), chosen)
                say(f"\n{', '.join(kernels)}:")
                _test(evolve(shared, started=time.perf_counter()), kernels, device, jobs, level=0)
        except PackError as error:  # the next edit may mend it
            complain(error.problems)
        print_held()
        say("waiting for changes; Ctrl-C ends it", error=True)
    return FINE
