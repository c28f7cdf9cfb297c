"""Processes of jobs, which note their numbers in files: whether they are there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path


def is_there(process: int) -> bool:
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def until(condition: Callable[[], bool]) -> None:
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError


def noted(place: Path) -> list[int]:
    return [process for path in place.glob("*.json") for process in json.loads(path.read_text())]
