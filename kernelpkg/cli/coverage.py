"""`coverage`: which calls of an op are exact, bucketed, extrapolated, default, missing, refused."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from kernelpkg.cli.console import FINE, FOUND, complain, listed, print_json, print_table, say
from kernelpkg.errors import UsageError
from kernelpkg.files import replace_text
from kernelpkg.packs.find import open_pack
from kernelpkg.report import coverage_chart, coverage_text, pack_coverage


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    option = command("coverage", run, configs=True).add_argument
    option("ops", nargs="*", metavar="OP", help="an op, told in full; without, all")
    option(
        "--platform",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="platforms or GPUs, as nvidia_h200; without, all that have configs",
    )
    option(
        "--models",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="a model of the pack's [models]; without, all",
    )
    option("--svg", type=Path, metavar="FILE", help="draw the map into a file")


def run(options: argparse.Namespace) -> int:
    """Print the map; status 1 where the files of an op are wrong."""
    if options.svg is not None:
        _check_svg(options.svg)
    pack = open_pack(options.pack, options.root, options.configs, os.environ)
    given = [name for text in options.platform for name in listed(text)]
    found = pack_coverage.cover_pack(pack, ops=options.ops, given=given, models=options.models)
    complain(found.problems)
    drawn = options.svg is not None and not found.problems
    if options.svg is not None and found.problems:
        complain([f"{options.svg} is not drawn, for the map is not whole"])
    if drawn:
        try:
            replace_text(options.svg, coverage_chart.draw(found))
        except OSError as error:
            raise UsageError(f"{options.svg} cannot be written: {error.strerror}") from None
    if options.json:
        print_json(found.to_json())
        return FOUND if found.problems else FINE
    for number, (head, table) in enumerate(coverage_text.tables(found)):
        say(f"{chr(10) * bool(number)}{head}")
        print_table(table)
    blocks = [list(coverage_text.remarks(found))]
    if options.ops or len({of.spec.name for of in found.maps}) == 1:
        blocks += [list(coverage_text.details(of)) for of in found.maps]
    blocks += [[f"wrote {options.svg}"]] if drawn else []
    for number, block in enumerate(filter(None, blocks)):
        say(("\n" * bool(number or found.maps)) + "\n".join(block))
    return FOUND if found.problems else FINE


def _check_svg(path: Path) -> None:
    """Refuse to draw into what is not a drawing."""
    if path.suffix != ".svg":
        raise UsageError(f"'{path}' is drawn as SVG; give it a name that ends with .svg")
    try:
        with path.open("rb") as file:
            ours = b"<svg" in file.read(4096)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if not ours:
        raise UsageError(f"{path} is there, and is not an SVG; choose another name, or remove it")
