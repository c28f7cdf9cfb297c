"""The results of a tuning run: what it prints in the end, and what it puts into config files."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args

from attrs import asdict, evolve, frozen
from attrs.filters import exclude

from kernelpkg.autotune.saved_results import TuningOutcome, TuningRecord
from kernelpkg.configs.match import order
from kernelpkg.configs.store import ConfigFile, TunedCase, config_id, identity_of, shown_key
from kernelpkg.errors import Problem, counted
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec

_OUTCOMES: Final[tuple[TuningOutcome, ...]] = get_args(TuningOutcome)


@frozen(kw_only=True)
class OpResults:
    """One op: how many cases were asked for, and the results that there are of them by now.

    `before` of them were there when the run began. `path` is the config file.
    """

    op: str
    path: str
    cases: int
    records: tuple[TuningRecord, ...]
    before: int

    def count(self, outcome: TuningOutcome) -> int:
        """How many cases ended like this."""
        return Counter(record.outcome for record in self.records)[outcome]

    @property
    def left(self) -> int:
        """How many cases have no result."""
        return self.cases - len(self.records)

    @property
    def seconds(self) -> float:
        """The time that all results took, on their devices."""
        return math.fsum(record.seconds for record in self.records)

    def speedup(self, name: str) -> float | None:
        """The geometric mean over cases of "old_ms" or "default_ms", over the time now."""
        ratios = [
            before / record.ms
            for record in self.records
            if record.ms and (before := getattr(record, name))
        ]
        return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else None

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `autotune --json`."""
        return {
            "op": self.op,
            "path": self.path,
            "cases": self.cases,
            **{outcome: self.count(outcome) for outcome in _OUTCOMES},
            "before": self.before,
            "left": self.left,
            "speedup_over_old": self.speedup("old_ms"),
            "speedup_over_default": self.speedup("default_ms"),
            "seconds": round(self.seconds, 3),
            "results": [
                {**asdict(record, filter=exclude("facts")), "seconds": round(record.seconds, 3)}
                for record in self.records
            ],
        }


@frozen(kw_only=True)
class TuningResults:
    """A tuning run as a whole; `problems` ended it, and `remarks` are lines for people."""

    platform: str
    ops: tuple[OpResults, ...]
    interrupted: bool
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every case has a config now."""
        return not (self.interrupted or self.problems) and not any(
            op.left or op.count("wrong") or op.count("failed") or op.count("timeout")
            for op in self.ops
        )

    def failures(self) -> list[str]:
        """Return a line for each case that has no config, and for each problem."""
        lines = [
            f"{op.op}: case {shown_key(record.key)}: {record.outcome}: {record.reason}"
            for op in self.ops
            for record in op.records
            if record.config is None
        ]
        return [*lines, *map(str, self.problems)]

    def rows(self) -> list[Sequence[str]]:
        """Return the table: a heading, and a row for each op."""
        head = ("op", "cases", *_OUTCOMES, "left", "before", "over old", "over default", "time")
        return [head, *(self._row(op) for op in self.ops)]

    def _row(self, op: OpResults) -> Sequence[str]:
        counts = (op.cases, *map(op.count, _OUTCOMES), op.left, op.before)
        speedups = (op.speedup("old_ms"), op.speedup("default_ms"))
        return (op.op, *map(str, counts), *map(_times, speedups), duration(op.seconds))

    def summary(self) -> str:
        """Return the last line."""
        done = sum(len(op.records) for op in self.ops)
        left = sum(op.left for op in self.ops)
        end = "interrupted" if self.interrupted else "stopped" if self.problems else "done"
        more = f"; {left} left, repeat the command to go on" if left else ""
        return (
            f"{end}: {counted(done, 'case')} on {self.platform} in {duration(self.seconds)}{more}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document of `autotune --json`."""
        return {
            "platform": self.platform,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "ops": [op.to_json() for op in self.ops],
            "problems": list(map(str, self.problems)),
            "remarks": list(self.remarks),
        }


def line_of(op: str, record: TuningRecord) -> str:
    """Return a line for a case that was saved."""
    text = f"{op}: case {shown_key(record.key)}: {record.outcome}"
    if record.ms is None:
        return f"{text}: {record.reason}"
    known = [(record.old_ms, "the old config"), (record.default_ms, "the default")]
    than = ", ".join(f"{what} {ms * 1000:.2f}" for ms, what in known if ms is not None)
    return f"{text}: {record.ms * 1000:.2f} µs" + (f" ({than})" if than else "")


def duration(seconds: float) -> str:
    """Return a time for people, as in "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"


_Row = tuple[TunedCase, Config, Mapping[str, str]]


def merged(file: ConfigFile, spec: KernelSpec, records: Iterable[TuningRecord]) -> ConfigFile:
    """Return a file in which the cases of records have their configs, times and runs.

    What comes out depends on the cases alone, not on the order in which they were tuned: they
    stand in the order of the grid, those that are not of it behind them, and `{}` at the end.
    """
    rows: dict[tuple[object, ...], _Row] = {
        identity_of(spec, case.key): (case, file.configs[case.config], file.made_with(case))
        for case in file.cases
    }
    for record in records:
        if record.config is None:
            continue
        case = TunedCase(
            key=dict(record.key),
            config=0,
            ms=record.ms,
            old_ms=record.old_ms,
            default_ms=record.default_ms,
        )
        rows[identity_of(spec, record.key)] = (case, record.config, record.facts)
    ordered = [rows[key] for key in _in_order(spec, rows)]
    configs = {config_id(config): config for _, config, _ in ordered}
    places = {text: place for place, text in enumerate(configs)}
    first, runs = _runs(file, [facts for _, _, facts in ordered])
    return evolve(
        file,
        tuned_with=first,
        runs=runs,
        configs=tuple(configs.values()),
        cases=tuple(
            evolve(
                case,
                config=places[config_id(config)],
                run=None if facts == first else runs.index(facts),
            )
            for case, config, facts in ordered
        ),
    )


def edited(
    file: ConfigFile, spec: KernelSpec, records: Iterable[TuningRecord]
) -> tuple[TuningRecord, ...]:
    """Return the records whose case has another config in a file than the one they say."""
    there = {
        identity_of(spec, case.key): config_id(file.configs[case.config]) for case in file.cases
    }
    return tuple(
        record
        for record in records
        if record.config is not None
        and there.get(identity_of(spec, record.key), config_id(record.config))
        != config_id(record.config)
    )


def _in_order(
    spec: KernelSpec, rows: Mapping[tuple[object, ...], _Row]
) -> Iterable[tuple[object, ...]]:
    cases = enumerate(cases_of(spec, "tune"))
    grid = {identity_of(spec, case.values): place for place, case in cases}
    return sorted(
        rows,
        key=lambda key: (
            not key,
            grid.get(key, len(grid)),
            [] if key in grid else [order(rows[key][0].key.get(axis)) for axis in spec.key_axes],
        ),
    )


def _runs(
    file: ConfigFile, made: Iterable[Mapping[str, str]]
) -> tuple[Mapping[str, str], tuple[Mapping[str, str], ...]]:
    """Return what the file as a whole was tuned with, and the other runs that cases are of."""
    found = {tuple(sorted(facts.items())): facts for facts in made}
    dated = sorted((facts.get("date", ""), key) for key, facts in found.items())
    ordered = [found[key] for _, key in dated]
    known = file.tuned_with in ordered or not ordered
    first = file.tuned_with if known else ordered[0]
    return first, tuple(itertools.filterfalse(lambda facts: facts == first, ordered))
