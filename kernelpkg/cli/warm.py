"""The command `warm`: a pack is loaded, and its ops are made ready on this machine's GPU."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import Any

from kernelpkg.cli.console import FINE, FOUND, ProgressBar, complain, count, folder, tell
from kernelpkg.configs.explain import read_value
from kernelpkg.errors import UsageError, counted


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    option = command("warm", run, configs=True).add_argument
    option("ops", nargs="*", metavar="OP", help="ops to warm; all without any")
    option(
        "--sizes",
        action="append",
        default=[],
        metavar="AXIS=VALUE,...",
        help="values of an axis, as num_tokens=1,2,4; may be repeated",
    )
    option(
        "--builds",
        type=folder,
        action="append",
        default=[],
        metavar="DIR",
        help="a directory of builds that goes before the pack's; may be repeated",
    )
    option("--jobs", type=count, metavar="N", help="threads that compile at once")


def run(options: argparse.Namespace) -> int:
    """Warm; 0 where everything is ready."""
    sizes = dict(map(_values, options.sizes))
    from kernelpkg.runtime.load import load
    from kernelpkg.runtime.register import get_kernel_by_name
    from kernelpkg.runtime.warm import warm

    with ProgressBar() as progress, contextlib.redirect_stdout(sys.stderr):
        report = load(
            options.pack,
            root=options.root,
            device="cuda",
            configs=options.configs,
            builds=options.builds,
            strict=False,
        )
        complain((*report.notes, *report.failures()))
        found = warm(*options.ops, sizes=sizes, jobs=options.jobs, progress=progress.step)
    complain(f"{op.op}: {problem}" for op in found.ops for problem in op.problems)
    kernels = filter(None, (get_kernel_by_name(op.op) for op in found.ops))
    ways = [(kernel.qualified, *way) for kernel in kernels for way in kernel.fallbacks().items()]
    lines = [f"{op}: {counted(n, 'signature')} by a longer way: {why}" for op, why, n in ways]
    fallbacks = [{"op": op, "reason": why, "signatures": n} for op, why, n in ways]
    tell(options, {**found.to_json(), "fallbacks": fallbacks}, [found.summary(), *lines])
    ready = report.ok and not any(op.problems for op in found.ops)
    return FINE if ready else FOUND


def _values(text: str) -> tuple[str, list[Any]]:
    """Take the values of an axis."""
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise UsageError(f"'{text}' is not AXIS=VALUE,... such as num_tokens=1,2,4")
    return name.strip(), [read_value(word.strip()) for word in values.split(",")]
