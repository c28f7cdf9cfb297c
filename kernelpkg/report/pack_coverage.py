"""The coverage of a pack: a map for each op and platform, and the document that tells them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from kernelpkg.configs import platforms, search_path
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.search_path import ConfigPlace
from kernelpkg.configs.selection import read_plan
from kernelpkg.errors import PackError, Problem, UsageError, suggestion
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelName, PackSpec, Scalar
from kernelpkg.packs.find import chosen_kernels
from kernelpkg.packs.read import read_kernel
from kernelpkg.report.coverage import (
    Answer,
    Cell,
    Coverage,
    Move,
    Row,
    Stretch,
    cover,
    farthest,
    tally,
)


@frozen(kw_only=True)
class Entry:
    """The coverage of one op on one platform; `place` is the platform's own file of configs."""

    op: str
    platform: str
    place: ConfigPlace | None
    coverage: Coverage

    @property
    def counts(self) -> tuple[int, int]:
        """How many cases are tuned for the platform, and how many distinct configs they have."""
        own = self.coverage.plan.own()
        return (0, 0) if own is None else own.file.counts()

    @property
    def borrows(self) -> tuple[str, ...]:
        """The platforms whose configs stand in, the nearest first."""
        if self.coverage.spec.miss == "error":
            return ()
        tables = self.coverage.plan.tables
        return tuple(table.platform for table in tables if table.platform != self.platform)


@frozen(kw_only=True)
class Atlas:
    """All that was asked about a pack; `problems` are those of ops that cannot be mapped."""

    pack: str
    platforms: tuple[str, ...]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `coverage --json`."""
        return {
            "pack": self.pack,
            "platforms": list(self.platforms),
            "notes": list(self.notes),
            "ops": [_Writer(entry=entry).entry_json() for entry in self.entries],
        }


def survey(
    pack: PackSpec,
    *,
    ops: Sequence[str] = (),
    given: Sequence[str] = (),
    models: Sequence[str] = (),
) -> Atlas:
    """Map ops of a pack on platforms; without any given, all ops, and all that have configs.

    Raises UsageError for an op, a platform or a model that cannot be. An op whose files are wrong
    is left out, nothing is borrowed from wrong files of others, and their problems are told.
    """
    kernels = chosen_kernels(pack, ops)
    heres, notes, problems = _platforms(pack, kernels, given)
    shapes = _models(pack, models)
    entries: list[Entry] = []
    files = Files()
    for kernel in kernels:
        try:
            spec = read_kernel(Path(pack.root), kernel, files)
        except PackError as error:
            problems.extend(error.problems)
            continue
        for here in heres:
            try:
                plan = read_plan(pack, spec, here, files=files, dropped=problems)
                place = search_path.locate(pack, kernel, here.name)
            except PackError as error:
                problems.extend(error.problems)
                continue
            entries.append(
                Entry(
                    op=f"{pack.namespace}::{kernel}",
                    platform=here.name,
                    place=place,
                    coverage=cover(plan, shapes),
                )
            )
    return Atlas(
        pack=pack.name,
        platforms=tuple(here.name for here in heres),
        entries=tuple(entries),
        problems=tuple(sorted(set(problems))),
        notes=tuple(notes),
    )


def _models(pack: PackSpec, names: Sequence[str]) -> Mapping[str, Mapping[str, Scalar]]:
    for name in names:
        if name not in pack.models:
            hint = suggestion(name, pack.models) or f"; it has {', '.join(pack.models) or 'none'}"
            raise UsageError(f"pack '{pack.name}' has no model '{name}' in [models]{hint}")
    return {name: values for name, values in pack.models.items() if not names or name in names}


def _platforms(
    pack: PackSpec, kernels: Sequence[KernelName], given: Sequence[str]
) -> tuple[list[Platform], list[str], list[Problem]]:
    """Return the platforms to map, what is to know of them, and why some are not known."""
    problems: list[Problem] = []
    tuned: set[str] = set()
    for kernel in pack.kernels:
        try:
            tuned |= set(search_path.platforms_of(pack, kernel))
        except PackError as error:
            problems += error.problems if kernel in kernels else ()
    found: dict[str, Platform] = {}
    notes = []
    for name in given or sorted(tuned):
        if given and name.rpartition("::")[2] in pack.kernels:
            raise UsageError(f"'{name}' is an op; ops come before --platform")
        try:
            here = platforms.resolve(name, extra=pack.platforms, variants=pack.variants)
        except ValueError:
            raise UsageError(
                f"platform '{name}' is not a name such as nvidia_h200 or cpu"
            ) from None
        if found.setdefault(here.name, here) is here:
            if here.arch is None and here.name != platforms.CPU and here.name not in tuned:
                notes.append(platforms.stranger(here.name))
            elif not given and here.name not in tuned:
                notes.append(f"{here.name}: configs of its variant {name} are borrowed")
    if not found:
        notes.append(
            f"pack '{pack.name}' has no configs for any platform; name one with --platform"
        )
    return list(found.values()), notes, problems


def _bound(value: float) -> float | None:
    return None if math.isinf(value) else value


@frozen(kw_only=True)
class _Writer:
    """Writes the document of one entry, in which configs are told once."""

    entry: Entry
    configs: dict[str, Mapping[str, Any]] = field(factory=dict)

    def entry_json(self) -> dict[str, Any]:
        entry, found = self.entry, self.entry.coverage
        cases, configs = entry.counts
        rows = [self.row(row) for row in found.rows]
        models = [
            {
                "model": model.name,
                "given": dict(model.given),
                "lacking": list(model.lacking),
                "impossible": list(model.impossible),
                "outcomes": tally(model.rows),
                "farthest": _move(farthest(model.rows)),
                "rows": [self.row(row) for row in model.rows],
            }
            for model in found.models
        ]
        return {
            "kernel": found.spec.name,
            "op": entry.op,
            "platform": entry.platform,
            "unverified": found.unverified,
            "file": None if entry.place is None else entry.place.shown,
            "cases": cases,
            "tuned_configs": configs,
            "borrows": list(entry.borrows),
            "axis": found.axis,
            "outcomes": tally(found.rows),
            "farthest": _move(farthest(found.rows)),
            "rows": rows,
            "sizes": [
                {
                    "axis": sizes.axis,
                    "match": sizes.match,
                    "given": [dict(given) for given in sizes.given],
                    "line": [
                        {"first": s.first, "last": s.last, "to": s.to, "outcome": s.outcome}
                        for s in sizes.line
                    ],
                }
                for sizes in found.sizes
            ],
            "models": models,
            "configs": [dict(config) for config in self.configs.values()],
        }

    def row(self, row: Row) -> dict[str, Any]:
        return {
            "axes": dict(row.axes),
            "calls": [self.cell(cell) for cell in row.cells],
            "line": [self.stretch(stretch) for stretch in row.line],
        }

    def cell(self, cell: Cell) -> dict[str, Any]:
        return {"value": cell.value, **self.answer(cell.answer)}

    def stretch(self, stretch: Stretch) -> dict[str, Any]:
        return {
            "first": stretch.first,
            "last": stretch.last,
            **self.answer(stretch.answer),
            "unless": list(stretch.unless),
        }

    def answer(self, answer: Answer) -> dict[str, Any]:
        chosen = answer.chosen
        config = None
        if chosen is not None and chosen.config is not None:
            self.configs.setdefault(chosen.config_id, chosen.config)
            config = list(self.configs).index(chosen.config_id)
        return {
            "outcome": answer.outcome,
            "origin": answer.origin,
            "tuned_on": None if chosen is None else chosen.platform,
            "key": None if chosen is None or chosen.key is None else dict(chosen.key),
            "config": config,
            "moves": [_move(move) for move in answer.moves],
            "reason": reason(answer),
        }


def _move(move: Move | None) -> dict[str, Any] | None:
    if move is None:
        return None
    return {
        "axis": move.axis,
        "value": move.value,
        "to": move.to,
        "extrapolated": move.extrapolated,
        "ratio": _bound(move.ratio) if move.sized else None,
    }


def reason(answer: Answer) -> str:
    """Return an outcome in words, as `explain` has it."""
    if answer.guard is not None:
        return f"the kernel does not take the call: {answer.guard}"
    if answer.chosen is None:
        return "no config is tuned, and [miss] action is 'error'"
    return answer.chosen.reason
