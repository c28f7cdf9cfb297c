"""What `make quick` and `make test` leave out is there: an entry that moved would name nothing."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LISTS = runpy.run_path(str(TESTS / "conftest.py"))


@pytest.mark.parametrize("entry", [*LISTS["SLOW"], *LISTS["LONG"]])
def test_an_entry_names_tests(entry):
    """A folder, a file, or a function of a file."""
    place, _, name = entry.partition("[")[0].partition("::")
    assert (TESTS / place).exists()
    assert not name or f"\ndef {name}(" in (TESTS / place).read_text(encoding="utf-8")
