"""The commands that go to vLLM and back, and in from Helion: `vendor`, `import` and `export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from kernelpkg.cli.console import FINE, FOUND, complain, say, tell
from kernelpkg.cli.options import ONE_PLATFORM, Folder, Shared, argument, command, only
from kernelpkg.configs.directories import tuned_platforms
from kernelpkg.configs.platforms import chosen_platforms
from kernelpkg.configs.transfer import Transfer
from kernelpkg.errors import UsageError
from kernelpkg.from_helion.imports import plan_import
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.find import find_pack, open_pack
from kernelpkg.packs.read import read_pack
from kernelpkg.vllm import exchange
from kernelpkg.vllm.vendor import vendor

_REPLACE = click.option("--replace", is_flag=True, help="overwrite files that differ")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="write nothing, say what would be written")


@command()
@argument("format", "vllm|helion", "the format of the files", type=click.Choice(("vllm", "helion")))
@argument(
    "paths",
    "DIR|FILE",
    "a vLLM tree or its folder of configs; files of Helion's autotuner",
    type=Folder(),
    nargs=-1,
    required=True,
)
@click.option("--op", metavar="OP", help="for helion: the kernel, if a file does not name it")
@ONE_PLATFORM
@_REPLACE
@_DRY_RUN
def import_configs(
    shared: Shared,
    format: str,
    paths: Sequence[Path],
    op: str | None,
    platforms: Sequence[str],
    *,
    replace: bool,
    dry_run: bool,
) -> int:
    """Take configs into the pack; --op and --platform say what a file of Helion's does not."""
    platform, pack = only(platforms), _pack(shared)
    chosen_platforms(pack, platforms, tuned_platforms(pack))
    if format == "helion":
        plan = plan_import(pack, paths, op=op, platform=platform, replace=replace)
        return _transfer(shared, plan, dry_run=dry_run)
    if op or platform:
        raise UsageError("--op and --platform go with 'import helion'")
    if paths[1:]:
        raise UsageError(f"'import vllm' takes one DIR; leave out '{paths[1]}'")
    plan = exchange.plan_import(pack, paths[0], replace=replace)
    return _transfer(shared, plan, dry_run=dry_run)


@command()
@argument("format", "vllm", "the format of the files", type=click.Choice(("vllm",)))
@argument("directory", "DIR", "a vLLM tree, or its folder of configs", type=Folder())
@_REPLACE
@_DRY_RUN
def export_configs(
    shared: Shared, format: str, directory: Path, *, replace: bool, dry_run: bool
) -> int:
    """Write the pack's config files as vLLM's."""
    plan = exchange.plan_export(_pack(shared), directory, replace=replace)
    return _transfer(shared, plan, dry_run=dry_run)


def _pack(shared: Shared) -> PackSpec:
    root, name = find_pack(shared.pack, shared.root, os.environ, shared.here)
    return read_pack(root.path, name)


def _transfer(shared: Shared, found: Transfer, *, dry_run: bool) -> int:
    """Carry out what was planned, unless it is a dry run, and say what it is."""
    if not dry_run:
        found.carry_out()
    tell(shared, found.to_json(), found.lines(dry_run=dry_run))
    return FINE


@command(configs=True)
@click.option(
    "--into",
    type=Folder(),
    required=True,
    metavar="DIR",
    help="a source tree of vLLM, or an unpacked wheel",
)
@click.option("--check", is_flag=True, help="write nothing, say what differs")
@click.option("--dry-run", is_flag=True, help="write nothing, print a diff")
@click.option(
    "--replace", is_flag=True, help="overwrite files that were edited or are not the pack's"
)
def vendor_pack(shared: Shared, into: Path, *, check: bool, dry_run: bool, replace: bool) -> int:
    """Write the pack into a tree, or say what is there of it."""
    if check and (dry_run or replace):
        raise UsageError("--check writes nothing; leave out --dry-run and --replace")
    found = vendor.plan_vendoring(
        open_pack(shared.pack, shared.root, shared.configs, os.environ, shared.here), into
    )
    if found.tree.version is None:
        complain([f"{into}: the version of this vLLM is not known; continuing"])
    if check:
        tell(shared, found.to_json(check=True), found.drift_lines())
        return FOUND if found.drift() else FINE
    in_the_way = () if replace else found.conflicts()
    if dry_run:
        complain(in_the_way)
    else:
        found.carry_out(replace=replace)
    if dry_run and not shared.as_json:
        for line in found.diff(problem.path for problem in in_the_way):
            print(line) if not sys.stdout.isatty() else say(line.expandtabs())  # for `patch`
    else:
        tell(shared, found.to_json(), found.lines())
    return FOUND if in_the_way else FINE
