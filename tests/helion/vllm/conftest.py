"""A table of routes whose surroundings a test sets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from kernelpkg.vllm.override import NativeOverride
from kernelpkg.vllm.route_counts import RouteReport
from kernelpkg.vllm.routes import RouteTable, load_pack

PLACE = "KERNELPKG_VLLM_ROUTES"


class Notes(logging.Handler):
    """Keeps messages: warnings in one list, others in another."""

    def __init__(self, warned: list[str], told: list[str]) -> None:
        super().__init__()
        self.warned, self.told = warned, told

    def emit(self, record: logging.LogRecord) -> None:
        kept = self.warned if record.levelno == logging.WARNING else self.told
        kept.append(record.getMessage())


@define
class Bench:
    """A table of routes, what it said, and how often it loaded a pack."""

    capturing: bool = False
    loads: int = 0
    load: Callable[..., Any] = load_pack
    warned: list[str] = field(factory=list)
    told: list[str] = field(factory=list)
    table: RouteTable = field(init=False)

    def __attrs_post_init__(self) -> None:
        logger = logging.Logger("bench")
        logger.addHandler(Notes(self.warned, self.told))
        self.table = RouteTable(release=None, logger=logger, load=self._load, keys=("CPU",))

    def _load(self, *args: Any) -> Any:
        self.loads += 1
        return self.load(*args)

    def install(self, *words: str, root: Path, **changes: Any) -> list[tuple[str, str]]:
        """Install routes, all without words; returns the status of each, and why."""
        given = {"pack": None, "keys": ("CPU",), "environment": {}, **changes}
        reports = self.table.install(words or ["all"], root=root, **given)
        return [(report.status, report.reason) for report in reports]

    def register(self, words: str, root: Path, **environment: str) -> None:
        self.table.register(words.split(","), PLACE, {"KERNELPKG_PATH": str(root), **environment})

    def statuses(self) -> list[tuple[str, str, str]]:
        return [(found.target, found.status, found.reason) for found in self.table.reports()]

    @property
    def report(self) -> RouteReport:
        """The report of the only route."""
        (found,) = self.table.reports()
        return found

    @property
    def counts(self) -> tuple[int, dict[str, int]]:
        return self.report.ours, dict(self.report.native)

    @property
    def override(self) -> NativeOverride:
        """What stands in place of the only native op."""
        (found,) = self.table._overrides()
        return found


@pytest.fixture
def new_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Bench]]:
    """Makes tables, whose routes are revoked at the end."""
    made: list[Bench] = []

    def make() -> Bench:
        made.append(Bench())
        return made[-1]

    monkeypatch.setattr(
        "kernelpkg.vllm.override.capturing_on",
        lambda key: lambda: any(bench.capturing for bench in made),
    )
    yield make
    for bench in made:
        bench.table.revoke([])


@pytest.fixture
def bench(new_bench: Callable[[], Bench]) -> Bench:
    return new_bench()
