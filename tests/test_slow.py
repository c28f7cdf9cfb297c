"""What `make quick` leaves out is there: an entry of a test that moved would leave out nothing."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SLOW = runpy.run_path(str(TESTS / "conftest.py"))["SLOW"]


@pytest.mark.parametrize("entry", SLOW)
def test_an_entry_names_tests(entry):
    """A folder, a file, or a function of a file."""
    place, _, name = entry.partition("::")
    assert (TESTS / place).exists()
    assert not name or f"\ndef {name}(" in (TESTS / place).read_text(encoding="utf-8")
