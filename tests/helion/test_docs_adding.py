"""The pages that a user follows do what they show: every command, every file, every output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The pages show a laptop."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_adding_a_kernel_goes_as_it_is_written(run_page):
    assert run_page(DOCS.parent / "README.md") == 9


def test_packs_go_as_they_are_written(run_page):
    assert run_page(DOCS / "guide" / "packs.md") == 4


def test_the_command_line_prints_what_its_page_shows(run_page):
    assert run_page(DOCS / "reference" / "cli.md") == 42


def test_the_page_has_an_example_of_every_command(capsys):
    """With its JSON, where no other page has that."""
    from kernelpkg import cli

    cli.main(["xyz"])
    commands = capsys.readouterr().err.partition("known are ")[2].partition(";")[0].split(", ")
    assert len(commands) == 18
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


def test_locks_go_as_they_are_written(run_page):
    assert run_page(DOCS / "reference" / "lock.md") == 7


def test_the_tutorial_goes_as_it_is_written(run_page):
    assert run_page(DOCS / "tutorial" / "adding.md") == 5


def test_operating_goes_as_it_is_written(run_page):
    assert run_page(DOCS / "guide" / "operate.md") == 7
