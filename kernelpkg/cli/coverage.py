"""`coverage`: which calls of an op are exact, bucketed, extrapolated, default, missing, refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from kernelpkg.cli.console import FINE, FOUND, complain, print_json, print_table, say
from kernelpkg.cli.options import MODELS, OPS, PLATFORM, Shared, command
from kernelpkg.errors import UsageError
from kernelpkg.files import replace_text
from kernelpkg.packs.find import open_pack
from kernelpkg.report import coverage_chart, coverage_text, pack_coverage


@command(configs=True)
@OPS
@PLATFORM
@MODELS
@click.option("--svg", type=Path, metavar="FILE", help="draw the map into a file")
def run(
    shared: Shared,
    ops: Sequence[str],
    platforms: Sequence[str],
    models: Sequence[str],
    svg: Path | None,
) -> int:
    """Print the map; status 1 where the files of an op are wrong."""
    if svg is not None:
        _check_svg(svg)
    pack = open_pack(shared.pack, shared.root, shared.configs, os.environ, shared.here)
    found = pack_coverage.cover_pack(pack, ops=ops, given=platforms, models=models)
    complain(found.problems)
    in_full = bool(ops) or len({of.spec.name for of in found.maps}) == 1
    if svg is not None and found.problems:
        complain([f"{svg} is not drawn, because the map is incomplete"])
    elif svg is not None:
        try:
            replace_text(svg, coverage_chart.draw(found, panels=in_full))
        except OSError as error:
            raise UsageError(f"{svg} cannot be written: {error.strerror}") from None
    if shared.as_json:
        print_json(found.to_json())
        return FOUND if found.problems else FINE
    for number, (head, table) in enumerate(coverage_text.tables(found)):
        say(f"{chr(10) * bool(number)}{head}")
        print_table(table)
    blocks = [list(coverage_text.remarks(found))]
    if in_full:
        blocks += [list(coverage_text.details(of)) for of in found.maps]
    blocks += [[f"wrote {svg}"]] if svg is not None and not found.problems else []
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
