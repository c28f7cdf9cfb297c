"""What commands print with."""

from __future__ import annotations

import io
import sys

import pytest

from kernelpkg.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variable", "shown"),
    [
        pytest.param(Terminal, None, True, id="terminal"),
        pytest.param(Terminal, "1", False, id="switched-off"),
        pytest.param(io.StringIO, None, False, id="file"),
    ],
)
def test_a_bar_is_shown_on_terminals_only(monkeypatch, stream, variable, shown):
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.delenv("KERNELPKG_NO_PROGRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("KERNELPKG_NO_PROGRESS", variable)
    with console.ProgressBar("reading") as progress:
        progress.step("reading x", 1, 4)
    assert ("reading x" in written.getvalue()) is shown
