"""The coverage of a pack for people: a summary, and for single ops every line."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from kernelpkg.configs.match import identity
from kernelpkg.errors import counted
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.spec import Scalar
from kernelpkg.report.coverage import (
    OUTCOMES,
    Answer,
    Coverage,
    ModelShape,
    Move,
    Row,
    Stretch,
    farthest,
    tally,
)
from kernelpkg.report.pack_coverage import Atlas, Entry

WIDTH: Final = 100
"""Lines are no longer than this many characters, where names allow it."""

_ARROW: Final = "\N{NO-BREAK SPACE}->\N{NO-BREAK SPACE}"
"""Stands between a stretch and its tuned value, which belong on one line."""

_ORIGINS: Final = {
    "variant": "a tuned variant stands in, without its positional lists",
    "empty": "the case {}",
    "manifest": "[helion] default",
    "helion": "Helion's own default",
}


def tables(atlas: Atlas) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield tables with what stands above them: of each platform the grid, then the models.

    In tables of the grid, outcomes that are nowhere are left out.
    """
    for platform in atlas.platforms:
        entries = [entry for entry in atlas.entries if entry.platform == platform]
        if entries:
            yield f"calls of the grid on {platform}", _grid(entries)
        for number, names in enumerate(_columns(entries)):
            more = " (continued)" if number else ""
            yield f"calls of models on {platform}{more}", _models(entries, names)


def _grid(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Return a row for each op, which counts the distinct calls of its grid by their outcome."""
    counts = [tally(entry.coverage.rows) for entry in entries]
    seen = [o for o in OUTCOMES if o == "exact" or any(count[o] for count in counts)]
    table = [("op", "cases", "calls", *seen, "farthest")]
    for entry, count in zip(entries, counts, strict=True):
        found = entry.coverage
        cells = [str(entry.counts[0]), str(sum(count.values())), *(str(count[o]) for o in seen)]
        last = _short(farthest(found.rows))
        if found.unverified:
            cells, last = [cells[0], *("?" for _ in cells[1:])], f"unverified: {found.unverified}"
        table.append((found.spec.name, *cells, last))
    return table


def _columns(entries: Sequence[Entry]) -> Iterator[list[str]]:
    """Yield the models that some op is for, as many at once as a line has room for."""
    side = max((len(entry.coverage.spec.name) for entry in entries), default=0)
    known = list(dict.fromkeys(m.name for e in entries for m in e.coverage.models if m.rows))
    names: list[str] = []
    taken = side
    for name in known:
        wide = 2 + max(len(line[1]) for line in _models(entries, [name]))
        if names and taken + wide > WIDTH:
            yield names
            names, taken = [], side
        names.append(name)
        taken += wide
    if names:
        yield names


def _models(entries: Sequence[Entry], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a row for each op, which says of each model what its calls get."""
    table = [("op", *names)]
    for entry in entries:
        shapes = {model.name: model for model in entry.coverage.models}
        cells = [_model(shapes[name]) if name in shapes else "?" for name in names]
        table.append((entry.coverage.spec.name, *cells))
    return table


def _model(shape: ModelShape) -> str:
    if not shape.rows:
        return "not mapped" if shape.given else "-"
    count = tally(shape.rows)
    seen = [outcome for outcome in OUTCOMES if count[outcome]]
    if len(seen) > 1:
        return ", ".join(f"{count[outcome]} {outcome}" for outcome in seen)
    move = farthest(shape.rows)
    return seen[0] if move is None or math.isinf(move.ratio) else f"{seen[0]} {move.ratio:.4g}x"


_Said = TypeVar("_Said")


def remarks(atlas: Atlas) -> Iterator[str]:
    """Yield what the tables leave out: platforms without a file, models that are not mapped."""
    without: dict[str, list[str]] = {}
    wrong: dict[tuple[str, str], list[str]] = {}
    strangers: dict[str, list[str]] = {}
    for entry in atlas.entries:
        name = entry.coverage.spec.name
        if entry.place is None:
            borrows = ", ".join(entry.borrows)
            what = f"borrowed from {borrows}" if borrows else "nothing to borrow either"
            _add(without, f"no configs for {entry.platform}, {what}", name)
        for model in entry.coverage.models:
            if not model.given:
                _add(strangers, f"model {model.name} gives no axis of", name)
            problems = [f"no value for axis '{axis}'" for axis in model.lacking]
            for problem in (*problems, *model.impossible):
                _add(wrong, (model.name, problem), name)
    for note in atlas.notes:
        yield from _wrapped(note, "  ")
    for what, names in without.items():
        yield from _wrapped(f"{what}: {', '.join(names)}", "  ")
    for (shape, problem), names in wrong.items():
        yield f"model {shape} is not mapped for {', '.join(names)}: {problem}; correct [models]"
    for what, names in strangers.items():
        yield from _wrapped(f"{what}: {', '.join(names)}", "  ")


def _add(told: dict[_Said, list[str]], what: _Said, name: str) -> None:
    """Add the name of an op to those of which something is said, once."""
    names = told.setdefault(what, [])
    if name not in names:
        names.append(name)


def _short(move: Move | None) -> str:
    return "-" if move is None else f"{move.axis} {ratio(move)}"


def far(move: Move | None) -> str:
    """Return how far a call is moved: the axis, its value, the tuned one, the ratio of numbers."""
    if move is None:
        return "-"
    return f"{_plain(move)} ({ratio(move)})" if move.sized else _plain(move)


def ratio(move: Move) -> str:
    if math.isinf(move.ratio):
        return "no ratio"
    above = not isinstance(move.value, str | None) and not isinstance(move.to, str | None)
    above = above and move.value > move.to  # type: ignore[operator]  # both are numbers here
    return f"{move.ratio:.4g}x {'above' if above else 'below'}"


def details(entry: Entry) -> Iterator[str]:
    """Yield every line of one op on one platform."""
    found = entry.coverage
    cases, configs = entry.counts
    file = entry.place.shown if entry.place is not None else "no file of its own"
    told = f"{counted(cases, 'case')}, {counted(configs, 'config')}"
    yield f"{found.spec.name} on {entry.platform}: {told}, {file}"
    if entry.borrows:
        yield f"may borrow from {', '.join(entry.borrows)}"
    if found.unverified:
        yield f"unverified: {found.unverified}"
        return
    if not found.rows:
        yield "[inputs] has no cases to tune or to measure"
    fixed, varying = labels(found)
    if fixed:
        yield from _wrapped(f"all calls: {_named(fixed)}", "  ")
    along = f"by {found.axis} ({_match(found, found.axis)})" if found.axis else "by case"
    yield f"grid, {along}"
    yield from _rows(found, found.rows, varying)
    for sizes in found.sizes:
        given = "" if _all_given(found, sizes.given) else f", where {_either(sizes.given)}"
        yield from _wrapped(f"{sizes.axis} ({sizes.match}){given}", "  ")
        groups: dict[str, list[str]] = {}
        for stretch in sizes.line:
            item = _item(stretch.first, stretch.last, stretch.to)
            groups.setdefault(stretch.outcome, []).append(item)
        yield from _groups(groups)
    guards = [guard.text for guard in found.spec.guards]
    if found.sizes and guards:
        yield from _wrapped(f"guards refuse calls unless {'; '.join(guards)}", "  ")
    for model in found.models:
        other = [row for row in model.rows if row.axes not in [r.axes for r in found.rows]]
        if model.rows:
            like = "" if other else ", in the grid"
            cells = [cell for row in model.rows for cell in row.cells]
            told = ", ".join(dict.fromkeys(label(cell.answer) for cell in cells))
            like += f": {told}" if found.axis in model.given else ""
            yield from _wrapped(f"model {model.name}: {_named(model.given)}{like}", "  ")
            yield from _rows(found, other, varying)


def labels(found: Coverage) -> tuple[Mapping[str, Scalar], tuple[str, ...]]:
    """Return the axes that have one value in all rows, and the names of the others."""
    rows = [*found.rows, *(row for model in found.models for row in model.rows)]
    if not rows:
        return {}, ()
    first = rows[0].axes
    varying = tuple(name for name in first if len({identity(row.axes[name]) for row in rows}) > 1)
    return {name: value for name, value in first.items() if name not in varying}, varying


def _match(found: Coverage, axis: str | None) -> str:
    return next(rule.match for rule in found.spec.rules if rule.axis == axis)


def _named(axes: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in axes.items())


def _either(given: Sequence[Mapping[str, Scalar]]) -> str:
    """Return sets of axis values in words, with the axes apart that go with all of the others."""
    factors: list[str] = []
    left = list(given)
    for name in given[0]:
        values = {identity(axes[name]): axes[name] for axes in left}
        rest: dict[tuple[object, ...], Mapping[str, Scalar]] = {}
        for axes in left:
            others = {axis: value for axis, value in axes.items() if axis != name}
            rest.setdefault(tuple(map(identity, others.values())), others)
        if len(values) * len(rest) == len(left):
            factors.append(f"{name}={', '.join(map(show, values.values()))}")
            left = list(rest.values())
    if left[0]:
        factors.append(" | ".join(map(_named, left)))
    return "; ".join(factors)


def _all_given(found: Coverage, given: Sequence[Mapping[str, Scalar]]) -> bool:
    """Whether calls of all rows are meant, so that nothing has to be said of them."""
    names = given[0].keys()
    seen = {tuple(identity(row.axes[name]) for name in names) for row in found.rows}
    return len(seen) == len(given)


def _rows(found: Coverage, rows: Iterable[Row], varying: Sequence[str]) -> Iterator[str]:
    """Yield rows, of which those that say the same are told together."""
    alike: dict[tuple[tuple[str, tuple[str, ...]], ...], list[Row]] = {}
    for row in rows:
        groups: dict[str, list[str]] = {}
        for stretch in row.line:
            item = _item(stretch.first, stretch.last, _to(found, stretch.answer))
            whole = item.endswith("..") and len(row.line) == 1
            groups.setdefault(outcome(stretch), []).append("all" if whole else item)
        for cell in () if row.line else row.cells:
            groups.setdefault(label(cell.answer), [])
        told = [(name, tuple(items)) for name, items in groups.items()]
        moved = _moved(found, row)
        told[:0] = [(f"takes {moved}", ())] if moved else []
        alike.setdefault(tuple(told), []).append(row)
    for mark, same in alike.items():
        given = [{name: row.axes[name] for name in varying} for row in same]
        if varying:
            yield from _wrapped(f"  {_either(given)}", "    ")
        yield from _groups({name: list(items) for name, items in mark})


def _moved(found: Coverage, row: Row) -> str:
    """Return the axes, other than the one of the line, whose tuned value is another."""
    moves = [m for s in row.line for m in s.answer.moves if m.axis != found.axis]
    return ", ".join(far(m) if m.extrapolated else _plain(m) for m in dict.fromkeys(moves))


def _plain(move: Move) -> str:
    return f"{move.axis} {show(move.value)} -> {show(move.to)}"


def _to(found: Coverage, answer: Answer) -> Scalar:
    chosen = answer.chosen
    if chosen is None or not chosen.key or found.axis is None:
        return None
    return chosen.key.get(found.axis, found.spec.defaults.get(found.axis))


def _item(first: int, last: int | None, to: Scalar) -> str:
    """Return a stretch: `4`, `3 -> 4`, `5-7 -> 8`, `8193.. -> 8192`."""
    if first == last:
        return str(first) if to in (first, None) else f"{first}{_ARROW}{show(to)}"
    span = f"{first}.." if last is None else f"{first}-{last}"
    return span if to is None else f"{span}{_ARROW}{show(to)}"


def outcome(stretch: Stretch) -> str:
    """Return the outcome of a stretch, with the guards that refuse some of its calls."""
    open_ones = " and ".join(f"'{guard}'" for guard in stretch.unless)
    return f"{label(stretch.answer)}{f' where {open_ones}, else refused' if open_ones else ''}"


def label(answer: Answer) -> str:
    """Return an outcome, with what a person has to know of it beside its name."""
    if answer.guard is not None:
        return f"refused by {answer.guard.removesuffix(' refuses it')}"
    if answer.outcome == "missing":
        return "missing ([miss] action is 'error')"
    if answer.outcome != "default":
        return answer.outcome
    assert answer.chosen is not None
    if answer.origin == "borrowed":
        return f"default (borrowed from {answer.chosen.platform})"
    return f"default ({_ORIGINS[answer.origin]})"


def _groups(groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    width = max((len(name) for name, items in groups.items() if items), default=0)
    width = min(width, 12)
    for name, items in groups.items():
        text = f"    {name.ljust(width)}  {', '.join(items)}".rstrip()
        yield from _wrapped(text, " " * (width + 6))


def _wrapped(text: str, indent: str) -> list[str]:
    lines = textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
