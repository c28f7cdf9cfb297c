"""The pages that a user follows do what they show: every command, every file, every output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The pages show a laptop."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_adding_a_kernel_goes_as_it_is_written(run_page):
    assert run_page(DOCS.parent / "README.md") == 4


def test_packs_go_as_they_are_written(run_page):
    assert run_page(DOCS / "packs.md") == 2


def test_the_command_line_prints_what_its_page_shows(run_page):
    assert run_page(DOCS / "cli.md") == 21


def test_the_page_has_an_example_of_every_command(capsys):
    from kernelpkg import cli

    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "    " in line]
    text = (DOCS / "cli.md").read_text()
    for command in ("load", "list", "new", "schema", "explain", "import", "export", "doctor"):
        assert command in commands
        assert f"\n## {command}\n" in text
        assert f"\n$ python -m kernelpkg {command} " in text
        assert any(
            line.startswith(f"$ python -m kernelpkg {command} ")
            and (line.endswith("--json") or command == "schema")
            for line in text.splitlines()
        )
