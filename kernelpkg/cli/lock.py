"""The command `lock`: writes kernelpkg.lock, or says what has drifted from it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from kernelpkg.cli.console import FINE, FOUND, IMPORTING, ProgressBar, complain, tell
from kernelpkg.cli.options import Shared, command
from kernelpkg.errors import KernelpkgError
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs import drift
from kernelpkg.packs.drift import Take
from kernelpkg.packs.find import find_pack
from kernelpkg.packs.lock import toolchain
from kernelpkg.packs.read import read_pack


@command()
@click.option("--check", is_flag=True, help="write nothing, say what differs from the lock")
@click.option(
    "--no-fingerprints",
    is_flag=True,
    help="do not bind kernels with Helion, which takes seconds; keep the old fingerprints",
)
def run(shared: Shared, *, check: bool, no_fingerprints: bool) -> int:
    """Write or check the lock of a pack."""
    place, name = find_pack(shared.pack, shared.root, os.environ, shared.here)
    pack, tools = read_pack(place.path, name), toolchain()
    with ProgressBar("locking") as progress, contextlib.redirect_stdout(sys.stderr):
        unasked = "--no-fingerprints was given"
        take = unasked if no_fingerprints else _take(pack, tools, progress)
        work = drift.check_lock if check else drift.plan_lock
        found = work(pack, place.packs(), tools, take)
    if isinstance(found, drift.LockPlan):
        found.carry_out()
    if isinstance(found, drift.LockCheck):
        complain(found.problems)
    complain(() if shared.as_json else found.remarks)
    tell(shared, found.to_json(), found.lines())
    return FINE if isinstance(found, drift.LockPlan) or found.ok else FOUND


def _take(pack: PackSpec, tools: Mapping[str, str], progress: ProgressBar) -> Take | str:
    """Return what takes fingerprints, or why nothing does."""
    missing = [name for name in ("torch", "helion") if name not in tools]
    if missing:
        return f"{' and '.join(missing)} is not installed"

    def take(spec: KernelSpec) -> Any:
        done, steps = pack.kernels.index(spec.name), len(pack.kernels)
        progress.step(f"{IMPORTING}, to bind {spec.name}", done, steps)
        try:
            from kernelpkg.compile.variants import fingerprints
        except (ImportError, OSError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise KernelpkgError(f"Helion cannot be imported ({text})") from None
        progress.step(f"binding {spec.name}", done, steps)
        return fingerprints(spec)

    return take
