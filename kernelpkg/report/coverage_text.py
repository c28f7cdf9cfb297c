"""The coverage of a pack for people: a summary, and for single ops every line."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from kernelpkg.configs.match import identity
from kernelpkg.configs.selection import OUTCOMES, Answer, Move
from kernelpkg.configs.store import shown_key
from kernelpkg.errors import counted
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.spec import Scalar
from kernelpkg.report.coverage import Coverage, ModelShape, Row, Stretch, count_outcomes, farthest
from kernelpkg.report.pack_coverage import PackCoverage

WIDTH: Final = 80
"""Lines are no longer than this many characters, where names allow it."""

_ARROW: Final = "\N{NO-BREAK SPACE}->\N{NO-BREAK SPACE}"
"""Stands between a stretch and its tuned value, which belong on one line."""

_ORIGINS: Final = {
    "variant": "a tuned variant stands in, without its positional lists",
    "empty": "the case {}",
    "manifest": "[helion] default",
    "helion": "Helion's own default",
}


def tables(pack: PackCoverage) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield tables with what stands above them: of each platform the grid, then the models.

    In tables of the grid, outcomes that are nowhere are left out.
    """
    for platform, maps in pack.by_platform():
        yield f"calls of the grid on {platform}", _grid(maps)
        for number, names in enumerate(_columns(maps)):
            more = " (continued)" if number else ""
            yield f"calls of models on {platform}{more}", _models(maps, names)


def _grid(maps: Sequence[Coverage]) -> list[tuple[str, ...]]:
    """Return a row for each op, which counts the distinct calls of its grid by their outcome."""
    counts = [count_outcomes(found.rows) for found in maps]
    seen = [o for o in OUTCOMES if o == "exact" or any(count[o] for count in counts)]
    table = [("op", "cases", "calls", *seen, "farthest")]
    for found, count in zip(maps, counts, strict=True):
        cells = [str(sum(count.values())), *(str(count[o]) for o in seen)]
        move = farthest(found.rows)
        last = "-" if move is None else f"{move.axis} {ratio(move)}"
        if found.unverified:
            cells, last = ["?"] * len(cells), f"unverified: {found.unverified}"
        table.append((found.spec.name, str(found.counts[0]), *cells, last))
    return table


def _columns(maps: Sequence[Coverage]) -> Iterator[list[str]]:
    """Yield the models that some op is for, as many at once as a line has room for."""
    side = max(len(found.spec.name) for found in maps)
    names: list[str] = []
    taken = side
    for name in dict.fromkeys(m.name for found in maps for m in found.models if m.rows):
        wide = 2 + max(len(line[1]) for line in _models(maps, [name]))
        if names and taken + wide > WIDTH:
            yield names
            names, taken = [], side
        names.append(name)
        taken += wide
    if names:
        yield names


def _models(maps: Sequence[Coverage], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a row for each op, which says of each model what its calls get."""
    table = [("op", *names)]
    for found in maps:
        shapes = {model.name: model_answer(model) for model in found.models}
        table.append((found.spec.name, *(shapes.get(name, "?") for name in names)))
    return table


def model_answer(shape: ModelShape) -> str:
    """Say in a word or two what the calls of a model get."""
    if not shape.rows:
        return "not mapped" if shape.given else "-"
    count = count_outcomes(shape.rows)
    seen = [outcome for outcome in OUTCOMES if count[outcome]]
    if len(seen) > 1:
        return ", ".join(f"{count[outcome]} {outcome}" for outcome in seen)
    move = farthest(shape.rows)
    return seen[0] if move is None or math.isinf(move.ratio) else f"{seen[0]} {move.ratio:.4g}x"


def remarks(pack: PackCoverage) -> Iterator[str]:
    """Yield what the tables leave out: platforms without a file, models that are not mapped."""
    without = defaultdict[str, dict[str, None]](dict)  # the ops of which something is told
    wrong = defaultdict[tuple[str, str], dict[str, None]](dict)
    others = defaultdict[str, dict[str, None]](dict)
    for found in pack.maps:
        name = found.spec.name
        if found.place is None:
            borrows = ", ".join(found.borrows)
            what = f"borrowed from {borrows}" if borrows else "nothing to borrow either"
            without[f"no configs for {found.platform}, {what}"][name] = None
        for model in found.models:
            if not model.given:
                others[f"model {model.name} gives no axis of"][name] = None
            problems = [f"no value for axis '{axis}'" for axis in model.lacking]
            for problem in (*problems, *model.impossible):
                wrong[model.name, problem][name] = None
    for note in pack.notes:
        yield from _wrapped(note, "  ")
    for what, names in without.items():
        yield from _wrapped(f"{what}: {', '.join(names)}", "  ")
    for (which, problem), names in wrong.items():
        yield f"model {which} is not mapped for {', '.join(names)}: {problem}; correct [models]"
    for what, names in others.items():
        yield from _wrapped(f"{what}: {', '.join(names)}", "  ")


def far(move: Move) -> str:
    """Return how far a call is moved: the axis, its value, the tuned one, the ratio of numbers."""
    return f"{_plain(move)} ({ratio(move)})" if move.sized else _plain(move)


def ratio(move: Move) -> str:
    value, to = move.value, move.to
    if math.isinf(move.ratio):
        return "no ratio"
    above = isinstance(value, int | float) and isinstance(to, int | float) and value > to
    return f"{move.ratio:.4g}x {'above' if above else 'below'}"


def details(found: Coverage) -> Iterator[str]:
    """Yield every line of one op on one platform."""
    cases, configs = found.counts
    file = found.place.shown if found.place is not None else "no file of its own"
    told = f"{counted(cases, 'case')}, {counted(configs, 'config')}"
    yield f"{found.spec.name} on {found.platform}: {told}, {file}"
    if found.borrows:
        yield f"may borrow from {', '.join(found.borrows)}"
    if found.unverified:
        yield f"unverified: {found.unverified}"
        return
    if not found.rows:
        yield "[inputs] has no cases to tune or to measure"
    fixed, varying = labels(found)
    if fixed:
        yield from _wrapped(f"all calls: {shown_key(fixed)}", "  ")
    yield f"grid, by {found.axis} ({found.match})" if found.axis else "grid, by case"
    yield from _rows(found, found.rows, varying)
    for sizes in found.sizes:
        names = sizes.given[0].keys()
        seen = {tuple(identity(row.axes[name]) for name in names) for row in found.rows}
        of_all = len(seen) == len(sizes.given)
        given = "" if of_all else f", where {_either(sizes.given)}"
        yield from _wrapped(f"{sizes.axis} ({sizes.match}){given}", "  ")
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for stretch in sizes.line:
            groups[stretch.outcome].append(_item(stretch.first, stretch.last, stretch.to))
        yield from _groups(groups)
    guards = [guard.text for guard in found.spec.guards]
    if found.sizes and guards:
        yield from _wrapped(f"guards refuse calls unless {'; '.join(guards)}", "  ")
    for model in filter(lambda model: model.rows, found.models):
        other = [row for row in model.rows if row.axes not in [r.axes for r in found.rows]]
        like = "" if other else ", in the grid"
        if found.axis in model.given:
            answers = [cell.answer for row in model.rows for cell in row.cells]
            like += f": {', '.join(dict.fromkeys(map(label, answers)))}"
        yield from _wrapped(f"model {model.name}: {shown_key(model.given)}{like}", "  ")
        yield from _rows(found, other, varying)


def labels(found: Coverage) -> tuple[Mapping[str, Scalar], tuple[str, ...]]:
    """Return the axes that have one value in all rows, and the names of the others."""
    rows = [*found.rows, *(row for model in found.models for row in model.rows)]
    if not rows:
        return {}, ()
    first = rows[0].axes
    varying = tuple(name for name in first if len({identity(row.axes[name]) for row in rows}) > 1)
    return {name: value for name, value in first.items() if name not in varying}, varying


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
        factors.append(" | ".join(map(shown_key, left)))
    return "; ".join(factors)


def _rows(found: Coverage, rows: Iterable[Row], varying: Sequence[str]) -> Iterator[str]:
    """Yield rows, of which those that say the same are told together."""
    alike: dict[tuple[tuple[str, tuple[str, ...]], ...], list[Row]] = {}
    for row in rows:
        moved = _moved(found, row)
        groups: dict[str, list[str]] = {f"takes {moved}": []} if moved else {}
        for stretch in row.line:
            item = _item(stretch.first, stretch.last, _to(found, stretch.answer))
            whole = item.endswith("..") and len(row.line) == 1
            groups.setdefault(outcome(stretch), []).append("all" if whole else item)
        for cell in () if row.line else row.cells:
            groups.setdefault(label(cell.answer), [])
        told = tuple((name, tuple(items)) for name, items in groups.items())
        alike.setdefault(told, []).append(row)
    for told, same in alike.items():
        given = [{name: row.axes[name] for name in varying} for row in same]
        if varying:
            yield from _wrapped(f"  {_either(given)}", "    ")
        yield from _groups(dict(told))


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
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
