"""The command `test`: a smoke check of every op, and levels 0 and 1 of `check`, in one run."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kernelpkg.cli.check import check_pack
from kernelpkg.cli.console import FINE, FOUND, complain, count, print_json, print_table, say
from kernelpkg.cli.load import load_pack
from kernelpkg.errors import counted


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    option = command("test", run, configs=True).add_argument
    option("ops", nargs="*", metavar="OP", help="ops to test; all without any")
    option("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where ops run")
    option("--jobs", type=count, metavar="N", help="processes at once that bind kernels")


def run(options: argparse.Namespace) -> int:
    """Test; 0 where nothing is wrong."""
    checked = check_pack(options, level=1)
    loaded = load_pack(options, smoke=True, ops=options.ops)
    if options.json:
        print_json({"load": loaded.to_json(), "check": checked.to_json()})
    else:
        told = map(str, (*checked.findings, *loaded.notes, *loaded.failures()))
        complain(dict.fromkeys(told))
        if loaded.kernels:
            print_table(loaded.rows())
            say(loaded.summary())
        errors = sum(finding.severity == "error" for finding in checked.findings)
        found = f"{counted(errors, 'error')}, {len(checked.findings) - errors} unverified"
        say(f"levels 0 and 1: {found}; {checked.looked_at()}")
    return FINE if loaded.ok and checked.ok else FOUND
