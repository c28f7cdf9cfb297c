"""The command `report`: one page of HTML of a pack, which needs no other file and no network."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from kernelpkg.bench.history import place_of, read_history
from kernelpkg.cli.check import check_pack
from kernelpkg.cli.console import FINE, FOUND, complain, tell
from kernelpkg.cli.options import OPS, Shared, command
from kernelpkg.errors import PackError, UsageError, collecting, counted
from kernelpkg.files import replace_text
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs import drift, find
from kernelpkg.packs.lock import has_lock, toolchain
from kernelpkg.packs.read import read_kernel
from kernelpkg.report.pack_coverage import cover_pack
from kernelpkg.report.page import MARK, PageFacts, make_page


@command(configs=True)
@OPS
@click.option(
    "--history",
    "histories",
    type=Path,
    multiple=True,
    metavar="FILE",
    help="runs of bench; may be repeated; .bench/PACK.jsonl of the pack without any",
)
@click.option(
    "--out",
    type=Path,
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="where the page is written",
)
def run(shared: Shared, ops: Sequence[str], histories: Sequence[Path], out: Path) -> int:
    """Write the page; status 1 where the check of level 0 finds an error."""
    _check_place(out)
    place, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
    pack, checked = check_pack(shared, ops, level=0)
    kernels = find.chosen_kernels(pack, ops)
    coverage = cover_pack(pack, ops=ops)
    remarks: list[str] = []
    runs = []
    for path in histories or (Path(pack.root, ".bench", f"{name}.jsonl"),):
        if histories and not path.is_file():
            raise UsageError(f"{path} is not there; 'kernelpkg bench --history {path}' writes it")
        history = read_history(path)
        remarks += history.remarks
        runs += [run for run in history.runs if run["pack"] == name]
    tools = toolchain()
    specs = []
    for kernel in kernels:
        with collecting([]):  # what is wrong with it is among the findings
            specs.append(read_kernel(Path(pack.root), kernel))
    facts = PageFacts(
        pack=pack,
        kernels=tuple(specs),
        coverage=coverage,
        runs=tuple(sorted(runs, key=lambda one: str(one["date"]))),
        findings=checked.findings,
        lock=_lock(pack, place, tools),
        tools=tools,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    text = make_page(facts)
    complain(remarks)
    try:
        replace_text(out, text)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    rows = {place_of(row["op"], row["axes"]) for one in runs for row in one["rows"]}
    size, cases = len(text.encode()), len(rows)
    document = {"page": str(out), "bytes": size, "runs": len(runs), "ops": len(kernels)}
    counts = [counted(len(kernels), "op"), counted(len(runs), "run"), counted(cases, "case")]
    told = f"wrote {out} ({size / 1e6:.1f} MB): {', '.join(counts)}"
    tell(shared, document, [told])
    return FINE if checked.ok else FOUND


def _check_place(out: Path) -> None:
    """Refuse to write over what is not a page of ours."""
    try:
        with out.open("rb") as file:
            ours = MARK.encode() in file.read(4096)
    except FileNotFoundError:
        if not out.absolute().parent.is_dir():
            raise UsageError(f"{out.absolute().parent} is not there; make it first") from None
        return
    except OSError as error:
        raise UsageError(f"{out} cannot be read: {error.strerror}") from None
    if not ours:
        raise UsageError(f"{out} is there, and is not a report; choose another name, or remove it")


def _lock(pack: PackSpec, place: find.Root, tools: Mapping[str, str]) -> str:
    """Say whether the pack is as it was locked."""
    if not has_lock(Path(pack.root)):
        return "not locked"
    try:
        found = drift.check_lock(pack, place.packs(), tools, "a report binds nothing")
    except PackError as error:
        return str(error.problems[0])
    return "locked" if found.ok else f"{counted(len(found.drift), 'change')} since it was locked"
