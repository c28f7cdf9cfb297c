"""The command `show --structure`: what Helion binds."""

from __future__ import annotations

import json
from functools import partial

import pytest


@pytest.fixture
def show(on_demo):
    """Runs the command on `demo`; returns status, stdout and stderr."""
    return partial(on_demo, "show")


def test_the_structure_is_what_helion_binds(show):
    status, out, _ = show("twice", "--structure", "--json")
    assert status == 0
    (one,) = json.loads(out)["structure"]
    assert (one["loads"], one["stores"], one["atomics"]) == (1, 1, 0)
    assert one["lists"]["block_sizes"] == one["blocks"]
    assert one["tunables"] == []


def test_a_kernel_that_does_not_bind_is_one_line(demo, show):
    demo.edit("kernels/twice/kernel.py", "hl.tile", "hl.tyle")
    status, out, err = show("twice", "--structure")
    assert (status, out) == (1, "")
    assert "does not bind" in err
    assert len([line for line in err.splitlines() if line]) == 1
