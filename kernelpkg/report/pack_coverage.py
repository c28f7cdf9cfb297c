"""The coverage of a pack: a map for each op and platform, and the document that tells them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from kernelpkg.configs import directories, platforms
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.selection import Answer, Move, read_selection
from kernelpkg.errors import PackError, Problem, UsageError, collecting, parameter, suggestion
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelName, PackSpec, Scalar
from kernelpkg.packs.find import chosen_kernels
from kernelpkg.packs.read import read_kernel
from kernelpkg.report.coverage import Coverage, ModelShape, Row, count_outcomes, cover, farthest


@frozen(kw_only=True)
class PackCoverage:
    """All that was asked about a pack; `problems` are those of ops that cannot be mapped."""

    pack: str
    namespace: str
    platforms: tuple[str, ...]
    maps: tuple[Coverage, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def by_platform(self) -> Iterator[tuple[str, list[Coverage]]]:
        """Yield the platforms for which an op is mapped, with the maps of those."""
        for platform in self.platforms:
            maps = [found for found in self.maps if found.platform == platform]
            if maps:
                yield platform, maps

    def to_json(self) -> dict[str, Any]:
        """Return the document of `coverage --json`."""
        return {
            "pack": self.pack,
            "platforms": list(self.platforms),
            "notes": list(self.notes),
            "ops": [_op_json(f"{self.namespace}::{found.spec.name}", found) for found in self.maps],
        }


def cover_pack(
    pack: PackSpec,
    *,
    ops: Sequence[str] = (),
    given: Sequence[str] = (),
    models: Sequence[str] = (),
) -> PackCoverage:
    """Map ops of a pack on platforms; without any given, all ops, and all that have configs.

    Raises UsageError for an op, a platform or a model that cannot be. An op whose files are wrong
    is left out, nothing is borrowed from wrong files of others, and their problems are told.
    """
    kernels = chosen_kernels(pack, ops)
    heres, notes, problems = _platforms(pack, kernels, given)
    shapes = _models(pack, models)
    maps: list[Coverage] = []
    for kernel in kernels:
        files = Files()  # what was read of a kernel is held no longer than its maps are made
        with collecting(problems):
            spec = read_kernel(Path(pack.root), kernel, files)
            for here in heres:
                with collecting(problems):
                    selection = read_selection(pack, spec, here, files=files, dropped=problems)
                    place = directories.locate(pack, kernel, here.name)
                    maps.append(cover(selection, shapes, place))
    return PackCoverage(
        pack=pack.name,
        namespace=pack.namespace,
        platforms=tuple(here.name for here in heres),
        maps=tuple(maps),
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
            tuned |= set(directories.platforms_of(pack, kernel))
        except PackError as error:
            problems += error.problems if kernel in kernels else ()
    found: dict[str, Platform] = {}
    notes = []
    for name in given or sorted(tuned):
        if given:
            platforms.chosen_platforms(pack, [name], tuned)
        here = platforms.platform_of(pack, name)
        if found.setdefault(here.name, here) is here and not given and here.name not in tuned:
            notes.append(f"{here.name}: configs of its variant {name} are borrowed")
    if not found:
        notes.append(
            f"pack '{pack.name}' has no configs for any platform; name one with "
            f"{parameter('platform')}"
        )
    return list(found.values()), notes, problems


_Configs = dict[str, tuple[int, Mapping[str, Any]]]
"""The configs of a document, which tells each once: by id its place, and itself."""


def _op_json(op: str, found: Coverage) -> dict[str, Any]:
    cases, count = found.counts
    configs: _Configs = {}
    return {
        "kernel": found.spec.name,
        "op": op,
        "platform": found.platform,
        "unverified": found.unverified,
        "file": None if found.place is None else found.place.shown,
        "cases": cases,
        "tuned_configs": count,
        "borrows": list(found.borrows),
        "axis": found.axis,
        **_calls_json(found, configs),
        "sizes": [asdict(sizes) for sizes in found.sizes],
        "models": [
            {
                "model": model.name,
                "given": dict(model.given),
                "lacking": list(model.lacking),
                "impossible": list(model.impossible),
                **_calls_json(model, configs),
            }
            for model in found.models
        ],
        "configs": [dict(config) for _, config in configs.values()],
    }


def _calls_json(found: Coverage | ModelShape, configs: _Configs) -> dict[str, Any]:
    """Return what is told of the calls of a grid, or of a model."""
    return {
        "outcomes": count_outcomes(found.rows),
        "farthest": _move_json(farthest(found.rows)),
        "rows": [_row_json(row, configs) for row in found.rows],
    }


def _row_json(row: Row, configs: _Configs) -> dict[str, Any]:
    return {
        "axes": dict(row.axes),
        "calls": [
            {"value": cell.value, **_answer_json(cell.answer, configs)} for cell in row.cells
        ],
        "line": [
            {
                "first": stretch.first,
                "last": stretch.last,
                **_answer_json(stretch.answer, configs),
                "unless": list(stretch.unless),
            }
            for stretch in row.line
        ],
    }


def _answer_json(answer: Answer, configs: _Configs) -> dict[str, Any]:
    chosen = answer.chosen
    config = None
    if chosen is not None and chosen.config is not None:
        config = configs.setdefault(chosen.config_id, (len(configs), chosen.config))[0]
    return {
        "outcome": answer.outcome,
        "origin": answer.origin,
        "tuned_on": None if chosen is None else chosen.platform,
        "key": None if chosen is None or chosen.key is None else dict(chosen.key),
        "config": config,
        "moves": [_move_json(move) for move in answer.moves],
        "reason": answer.reason,
    }


def _move_json(move: Move | None) -> dict[str, Any] | None:
    """Return a move, whose ratio is null where it is infinite: JSON has no word for that."""
    if move is None:
        return None
    known = move.sized and math.isfinite(move.ratio)
    return {**asdict(move), "ratio": move.ratio if known else None}
