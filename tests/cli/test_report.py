"""`report` as a command: the page that it writes, and what it refuses."""

from __future__ import annotations

import json
import sys

import pytest

from kernelpkg import cli
from kernelpkg.report import charts

from ..report.test_measured import row
from ..report.test_measured import run as bench_run


def report(*arguments: object) -> int:
    return cli.main(["report", *map(str, arguments)])


@pytest.fixture
def history(demo):
    """A run of the pack "demo", one of another pack, and a line that is none."""
    path = demo.root / "runs.jsonl"
    rows = [row({"num_tokens": tokens}, op="twice", native=0.5) for tokens in (1, 4)]
    runs = [{**bench_run(rows), "pack": name} for name in ("demo", "other")]
    path.write_text("".join(json.dumps(one) + "\n" for one in runs) + "{\n")
    return path


def test_a_page_is_written_and_written_again(demo, history, tmp_path, capsys):
    page = tmp_path / "demo.html"
    for _ in range(2):
        assert report("--root", demo.root, "--history", history, "--out", page) == 0
        out, err = capsys.readouterr()
        assert out == f"wrote {page} (0.9 MB): 1 op, 1 run, 2 cases\n"
        assert err == f"{history}:3: is cut off, or is not a run; it is skipped\n"
    text = page.read_text()
    assert "2.00×" in text
    assert "Measured on NVIDIA H200" in text
    assert "not locked" in text


def test_runs_that_the_pack_keeps_are_taken(demo, history, tmp_path, capsys):
    page = tmp_path / "demo.html"
    (demo.root / ".bench").mkdir()
    history.rename(demo.root / ".bench" / "demo.jsonl")
    assert report("twice", "--root", demo.root, "--out", page, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "format": 1,
        "page": str(page),
        "bytes": page.stat().st_size,
        "runs": 1,
        "ops": 1,
    }


def test_what_the_check_finds_is_on_the_page(demo, tmp_path, capsys):
    """An error makes the status 1, and the page is there all the same."""
    demo.edit("kernels/twice/kernel.toml", 'match = "ceil"', 'match = "ceil"\nover = "miss"')
    demo.configs("twice", '{"edition": 1}')
    page = tmp_path / "demo.html"
    assert report("--root", demo.root, "--out", page) == 1
    assert "KP50" in page.read_text()


def test_a_broken_kernel_is_on_the_page_of_the_others(demo, tmp_path, capsys):
    """As a finding: its manifest says nothing else that can be shown."""
    demo.kernel("bad")
    demo.edit("kernels/bad/kernel.toml", "edition = 1", "edition = 99")
    page = tmp_path / "demo.html"
    assert report("--root", demo.root, "--out", page) == 1
    text = page.read_text()
    assert "kernels/bad/kernel.toml" in text
    assert "<code>demo::twice</code>" in text
    assert "<code>demo::bad</code>" not in text


@pytest.mark.parametrize(
    ("make", "arguments", "line"),
    [
        (lambda place: (place / "a.html").write_text("mine"), ["--out", "a.html"],
         "a.html is there, and is not a report; choose another name, or remove it"),
        (lambda place: (place / "d").mkdir(), ["--out", "d"], "d cannot be read: Is a directory"),
        (lambda place: None, ["--out", "no/a.html"], "no is not there; make it first"),
        (lambda place: None, ["--history", "runs.jsonl"],
         "runs.jsonl is not there; 'kernelpkg bench --history runs.jsonl' writes it"),
    ],
    ids=["foreign", "directory", "nowhere", "no runs"],
)  # fmt: skip
def test_what_it_refuses_is_one_line(demo, tmp_path, monkeypatch, capsys, make, arguments, line):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert report("--root", demo.root, *arguments) == 2
    err = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert err == f"kernelpkg: {line}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_package_that_is_not_installed_is_one_line(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    charts.drawing_code.cache_clear()
    assert report("--root", demo.root, "--out", tmp_path / "a.html") == 1
    assert capsys.readouterr().err.startswith("kernelpkg: a report needs 'vl_convert', which")
    assert not (tmp_path / "a.html").exists()
