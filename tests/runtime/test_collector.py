"""The garbage collector is off while much is made, and then as it was."""

from __future__ import annotations

import gc

import pytest

from kernelpkg.runtime.collector import collector_at_rest


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_comes_back_as_it_was(before):
    """Whoever had switched it off keeps it off, and an error changes nothing about it."""
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with collector_at_rest():
            assert not gc.isenabled()
        assert gc.isenabled() is before
        with pytest.raises(ZeroDivisionError), collector_at_rest():
            raise ZeroDivisionError
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
