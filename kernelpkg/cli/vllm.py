"""The commands that go to vLLM and back, and in from Helion: `vendor`, `import` and `export`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from kernelpkg.cli.console import FINE, FOUND, complain, folder, say, tell
from kernelpkg.configs.transfer import Transfer
from kernelpkg.errors import UsageError
from kernelpkg.from_helion.imports import plan_import
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.find import find_pack, open_pack
from kernelpkg.packs.read import read_pack
from kernelpkg.vllm import exchange
from kernelpkg.vllm.vendor import vendor


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the commands and their arguments."""
    taken = command("import", _import).add_argument
    taken("format", choices=("vllm", "helion"), metavar="vllm|helion", help="whose files they are")
    taken(
        "paths", type=folder, nargs="+", metavar="DIR|FILE",
        help="a vLLM tree or its folder of configs; files of Helion's autotuner",
    )  # fmt: skip
    taken("--op", metavar="OP", help="of helion: the kernel, where a file does not say it")
    taken("--platform", metavar="P", help="of helion: the GPU, where a file does not say it")
    given = command("export", _export).add_argument
    given("format", choices=("vllm",), metavar="vllm", help="whose files they are")
    given("directory", type=folder, metavar="DIR", help="a vLLM tree, or its folder of configs")
    for moved in (taken, given):
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


def _import(options: argparse.Namespace) -> int:
    if options.format == "helion":
        plan = plan_import(
            _pack(options),
            options.paths,
            op=options.op,
            platform=options.platform,
            replace=options.replace,
        )
        return _transfer(options, plan)
    if options.op or options.platform:
        raise UsageError("--op and --platform go with 'import helion'")
    if options.paths[1:]:
        options.parser.error(f"'{options.paths[1]}' is not an argument of 'import'")
    plan = exchange.plan_import(_pack(options), options.paths[0], replace=options.replace)
    return _transfer(options, plan)


def _export(options: argparse.Namespace) -> int:
    plan = exchange.plan_export(_pack(options), options.directory, replace=options.replace)
    return _transfer(options, plan)


def _pack(options: argparse.Namespace) -> PackSpec:
    root, name = find_pack(options.pack, options.root, os.environ)
    return read_pack(root.path, name)


def _transfer(options: argparse.Namespace, found: Transfer) -> int:
    """Carry out what was planned, unless it is a dry run, and say what it is."""
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
