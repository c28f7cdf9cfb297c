"""The pages that a user follows do what they show: every command, every file, every output."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The pages show a laptop."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_the_readme_goes_as_it_is_written(run_page):
    assert run_page(DOCS.parent / "README.md") == 3


def test_packs_go_as_they_are_written(run_page):
    assert run_page(DOCS / "guide" / "packs.md") == 4


def test_the_command_line_prints_what_its_page_shows(run_page):
    assert run_page(DOCS / "reference" / "cli.md") == 46


def test_the_page_has_an_example_of_every_command(capsys):
    """With its JSON, where no other page has that."""
    from kernelpkg import cli

    cli.main(["xyz"])
    commands = capsys.readouterr().err.partition("known are ")[2].partition(";")[0].split(", ")
    assert len(commands) == 19
    lines = (DOCS / "reference" / "cli.md").read_text().splitlines()
    for command in commands:
        assert f"## {command}" in lines
        shown = [line for line in lines if line.startswith(f"$ python -m kernelpkg {command} ")]
        assert shown, command
        assert any(line.endswith("--json") for line in shown) or command in (
            "schema",
            "coverage",
            "vendor",
            "warm",  # which needs a GPU
        )


def test_builds_go_as_they_are_written(run_page):
    assert run_page(DOCS / "guide" / "builds.md") == 6


def test_schemas_of_documents_are_as_they_are_written(run_page):
    assert run_page(DOCS / "reference" / "json.md") == 1


def test_locks_go_as_they_are_written(run_page):
    assert run_page(DOCS / "reference" / "lock.md") == 7


def test_the_tutorial_goes_as_it_is_written(run_page):
    assert run_page(DOCS / "tutorial" / "adding.md") == 7


def test_operating_goes_as_it_is_written(run_page):
    assert run_page(DOCS / "guide" / "operate.md") == 7


def test_by_hand_and_here_answer_alike(run_page, tmp_path, monkeypatch):
    """Both are run in the interpreter; the page has as many lines as it says."""
    monkeypatch.setenv("HELION_INTERPRET", "1")
    monkeypatch.syspath_prepend(str(tmp_path / "my_kernels/kernels/rms_norm"))
    monkeypatch.syspath_prepend(str(tmp_path))
    page = DOCS / "explanation" / "before_after.md"
    assert run_page(page) == 1
    for name in ("by_hand", "host", "kernel"):
        del sys.modules[name]

    def lines(path):
        text = (tmp_path / path).read_text()
        return len(re.findall(r"^ *[^ #\n]", text, re.MULTILINE))

    manifest = lines("my_kernels/kernels/rms_norm/kernel.toml")
    pack = lines("my_kernels/manifests/my_kernels.toml")
    rows = re.findall(r"^\| (?:by hand|here), of .* \| (\d+) \|$", page.read_text(), re.MULTILINE)
    assert list(map(int, rows)) == [lines("by_hand.py"), manifest + pack, manifest]


def test_a_route_goes_as_it_is_written(run_page, capsys):
    assert run_page(DOCS / "guide" / "routes.md") == 3
    assert "_C::scale_rows" in capsys.readouterr().out


def test_debugging_goes_as_it_is_written(run_page):
    assert run_page(DOCS / "guide" / "debug.md") == 4


def test_shipping_goes_as_it_is_written(run_page, tmp_path):
    """The commands of its workflow too; tests/test_wheel.py builds and installs the wheel."""
    from kernelpkg import cli

    assert run_page(DOCS / "guide" / "ship.md") == 2
    workflow = (tmp_path / ".github/workflows/pack.yml").read_text()
    commands = re.findall(r"run: python -m kernelpkg (.+)", workflow)
    assert [cli.main(command.split()) for command in commands] == [0, 0, 0]


def test_tuning_goes_as_it_is_written(run_page):
    assert run_page(DOCS / "guide" / "tuning.md") == 2
