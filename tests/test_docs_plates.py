"""The `__init__` of each room says what is in it: `python tests/door_plates.py` writes it again."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

PLATES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "door_plates.py")))


@pytest.mark.parametrize("room", PLATES.rooms(), ids=lambda room: room.name)
def test_a_plate_says_what_is_there(room):
    """Its modules, those that other rooms import first; each with a line, all lines in bounds."""
    source = (room / "__init__.py").read_text(encoding="utf-8")
    assert source == PLATES.written(room)
    purpose, face, inside = PLATES.plate(room)
    assert "\n" not in purpose
    assert purpose.endswith(".")
    assert all({**face, **inside}.values())
    assert max(map(len, source.split("\n"))) <= 100
