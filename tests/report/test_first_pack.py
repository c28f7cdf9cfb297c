"""The page of the first pack in docs/ shows the runs that are kept, and the pack of now."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kernelpkg.bench.history import read_history
from kernelpkg.cli import main

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "benchmarks/runs/nvidia_h200.jsonl"
PAGE = ROOT / "docs/first_pack.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page that is kept, and one that is made now as `make report` makes it."""
    path = tmp_path_factory.mktemp("report") / "page.html"
    assert main(["report", "--root", str(ROOT), "--history", str(RUNS), "--out", str(path)]) == 0
    return [found.read_text(encoding="utf-8") for found in (PAGE, path)]


def shown(page):
    """Return what it says of the pack, and the charts: not the day, nor the tools it is made by."""
    start, end = (page.index(f'<section id="{name}') for name in ("machine-0", "findings"))
    (charts,) = re.findall("^const specs = (.+);$", page, re.M)
    return page[start:end], json.loads(charts)


def test_it_shows_the_runs_and_the_pack_of_now(pages):
    """`make report` makes it again, after new runs and after changes of the pack."""
    kept, made = map(shown, pages)
    assert kept[0] == made[0]
    assert kept[1] == made[1]
    assert "since it was locked" not in pages[0]


def test_the_runs_are_whole_and_in_order():
    """Of this pack, on one GPU, the oldest first."""
    history = read_history(RUNS)
    assert history.remarks == ()
    assert {(run["pack"], run["machine"]) for run in history.runs} == {("kernelpkg", "NVIDIA H200")}
    dates = [run["date"] for run in history.runs]
    assert dates == sorted(dates)
    ops = {row["op"] for run in history.runs for row in run["rows"]}
    assert ops == {path.parent.name for path in (ROOT / "kernels").glob("*/kernel.toml")}


def test_it_is_one_file_of_a_size_to_send(pages):
    """It asks for nothing from a network, and is below 1.5 MB."""
    assert len(pages[0].encode()) < 1_500_000
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", pages[0].partition("<script>")[0])
    assert [address for address in addresses if not address.startswith("#")] == []
