"""Commands that import PyTorch, on terminals of 80 and 120 columns."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

WIDTHS = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "cli/test_widths.py")))

COMMANDS = (
    "load --smoke -v",
    "test twice",
    "check --level 1",
    "bench twice --quick --no-history",
    "show twice --structure",
    "lock",
    "warm",
    "doctor",
    "load --smoke",
)


@pytest.mark.parametrize(("columns", "color"), [(80, "always"), (120, "never")])
def test_nothing_is_wider_than_the_terminal(columns, color, demo):
    """While they wait, too; errors are the last that the terminal shows."""
    demo.kernel("a_kernel_with_a_name_that_is_as_long_as_those_of_vllm")
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    demo.edit("kernels/twice/host.py", "* 2", "* 3")
    given = [[*words.split(), "--root", str(demo.root), "--color", color] for words in COMMANDS]
    text = WIDTHS.TERMINAL.on_terminal(columns, code=WIDTHS.RUN.format(commands=given))
    assert WIDTHS.too_wide(text, columns) == []
    plain = WIDTHS.TERMINAL.CODES.sub("", text)
    for step in ("importing PyTorch and Helion", "binding twice", "reading twice"):
        assert step in plain
    assert re.search(r" 100% 0:00:\d\d \S+ done", plain)
    last = plain[plain.rindex("$ load") :].replace("\r\n  ", " ").strip()
    assert last.splitlines()[-1].startswith("kernels/")
    assert ": error[KP" in last.splitlines()[-1]
    assert re.search(r"# time: \S+ s = starting ", plain)
