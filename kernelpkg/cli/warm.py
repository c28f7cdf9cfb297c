"""The command `warm`: a pack is loaded, and its ops are made ready on this machine's GPU."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from attrs import evolve

from kernelpkg.cli.console import FINE, FOUND, ProgressBar, complain, tell
from kernelpkg.cli.load import load_pack
from kernelpkg.cli.options import BUILDS, JOBS, OPS, Shared, command
from kernelpkg.configs.explain import read_value
from kernelpkg.errors import UsageError, counted


@command(configs=True)
@OPS
@click.option(
    "--sizes",
    multiple=True,
    metavar="AXIS=VALUE,...",
    help="values of an axis, such as num_tokens=1,2,4; may be repeated",
)
@BUILDS
@JOBS
def run(
    shared: Shared,
    ops: Sequence[str],
    sizes: Sequence[str],
    builds: Sequence[Path],
    jobs: int | None,
) -> int:
    """Warm; 0 where everything is ready."""
    values = dict(map(_values, sizes))
    report = load_pack(shared, "cuda", builds=builds)
    complain((*report.notes, *report.failures()))
    from kernelpkg.runtime.register import get_kernel_by_name
    from kernelpkg.runtime.warm import warm

    with ProgressBar("warming") as progress, contextlib.redirect_stdout(sys.stderr):
        found = warm(*ops, sizes=values, jobs=jobs, progress=progress.step)
    found = evolve(found, seconds=shared.seconds)
    complain(f"{op.op}: {problem}" for op in found.ops for problem in op.problems)
    kernels = filter(None, (get_kernel_by_name(op.op) for op in found.ops))
    ways = [(kernel.qualified, *way) for kernel in kernels for way in kernel.fallbacks().items()]
    lines = [f"{op}: {counted(n, 'signature')} on a slower path: {why}" for op, why, n in ways]
    fallbacks = [{"op": op, "reason": why, "signatures": n} for op, why, n in ways]
    tell(shared, {**found.to_json(), "fallbacks": fallbacks}, [found.summary(), *lines])
    ready = report.ok and not any(op.problems for op in found.ops)
    return FINE if ready else FOUND


def _values(text: str) -> tuple[str, list[Any]]:
    """Take the values of an axis."""
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise UsageError(f"'{text}' is not AXIS=VALUE,... such as num_tokens=1,2,4")
    return name.strip(), [read_value(word.strip()) for word in values.split(",")]
