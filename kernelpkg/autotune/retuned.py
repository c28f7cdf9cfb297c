"""Results of tuning, put into the config file of their kernel."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from attrs import evolve

from kernelpkg.autotune.plan import identity_of
from kernelpkg.autotune.store import TuningRecord
from kernelpkg.configs.match import order
from kernelpkg.configs.store import ConfigFile, TunedCase, config_id
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec

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
    configs: dict[str, int] = {}
    for _, config, _ in ordered:
        configs.setdefault(config_id(config), len(configs))
    first, runs = _runs(file, [facts for _, _, facts in ordered])
    known = {config_id(config): config for _, config, _ in ordered}
    return evolve(
        file,
        tuned_with=first,
        runs=runs,
        configs=tuple(known[text] for text in configs),
        cases=tuple(
            evolve(
                case,
                config=configs[config_id(config)],
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
    grid = {
        identity_of(spec, {axis: case.values[axis] for axis in spec.key_axes}): place
        for place, case in enumerate(cases_of(spec, "tune"))
    }
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
    ordered = [
        facts for _, facts in sorted(found.items(), key=lambda item: (_date(item[1]), item[0]))
    ]
    known = file.tuned_with in ordered or not ordered
    first = file.tuned_with if known else ordered[0]
    return first, tuple(itertools.filterfalse(lambda facts: facts == first, ordered))


def _date(facts: Mapping[str, str]) -> str:
    return facts.get("date", "")
