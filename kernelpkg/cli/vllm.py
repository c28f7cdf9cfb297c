"""The commands that go to vLLM and back: `vendor`, `import` and `export`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from kernelpkg.cli.console import FINE, FOUND, complain, folder, say, tell
from kernelpkg.errors import UsageError
from kernelpkg.packs.find import find_pack, open_pack
from kernelpkg.packs.read import read_pack
from kernelpkg.vllm import exchange
from kernelpkg.vllm.vendor import vendor


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the commands and their arguments."""
    for name, plan in (("import", exchange.plan_import), ("export", exchange.plan_export)):
        moved = command(name, partial(_transfer, plan=plan)).add_argument
        moved("format", choices=("vllm",), metavar="vllm", help="whose files they are")
        moved("directory", type=folder, metavar="DIR", help="a vLLM tree, or its folder of configs")
        moved("--replace", action="store_true", help="overwrite files that differ")
        moved("--dry-run", action="store_true", help="write nothing, say what would be")
    found = command("vendor", _vendor, configs=True)
    option = found.add_argument
    option(
        "--into",
        type=folder,
        required=True,
        metavar="DIR",
        help="a source tree of vLLM, or an unpacked wheel",
    )
    what = found.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing, say what has drifted")
    what.add_argument("--dry-run", action="store_true", help="write nothing, print a diff")
    option(
        "--replace", action="store_true", help="overwrite files that were edited or are not ours"
    )


def _transfer(options: argparse.Namespace, plan: Callable[..., Any]) -> int:
    root, name = find_pack(options.pack, options.root, os.environ)
    found = plan(read_pack(root.path, name), options.directory, replace=options.replace)
    if not options.dry_run:
        found.carry_out()
    tell(options, found.to_json(), found.lines(dry_run=options.dry_run))
    return FINE


def _vendor(options: argparse.Namespace) -> int:
    if options.check and options.replace:
        raise UsageError("--check writes nothing, so leave out --replace")
    found = vendor.plan_vendoring(
        open_pack(options.pack, options.root, options.configs, os.environ), options.into
    )
    if found.tree.version is None:
        complain([f"{options.into}: the version of this vLLM is not known; going on"])
    if options.check:
        tell(options, found.to_json(check=True), found.drift_lines())
        return FOUND if found.drift() else FINE
    in_the_way = () if options.replace else found.conflicts()
    if options.dry_run:
        complain(in_the_way)
    else:
        found.carry_out(replace=options.replace)
    if options.dry_run and not options.json:
        for line in found.diff(problem.path for problem in in_the_way):
            print(line) if not sys.stdout.isatty() else say(line.expandtabs())  # for `patch`
    else:
        tell(options, found.to_json(), found.lines())
    return FOUND if in_the_way else FINE
