"""The coverage of a pack as one drawing: an overview, and a panel for each op and platform."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.configs.selection import OUTCOMES, Answer, CallOutcome
from kernelpkg.errors import counted
from kernelpkg.manifest.cases import show
from kernelpkg.report import svg
from kernelpkg.report.coverage import Coverage, Row, count_outcomes, farthest
from kernelpkg.report.coverage_text import far, label, labels
from kernelpkg.report.pack_coverage import PackCoverage
from kernelpkg.report.svg import Colours, Palette, Shapes, group, rect, text, use, width

LETTERS: Final[Mapping[CallOutcome, str]] = {
    outcome: "X" if outcome == "extrapolated" else outcome[0].upper() for outcome in OUTCOMES
}
"""What stands for an outcome beside its colour; E is exact."""

MEANS: Final[Mapping[CallOutcome, str]] = {
    "exact": "tuned for this very call",
    "bucketed": "takes a case near it, between tuned ones",
    "extrapolated": "takes a case, from beyond all tuned ones",
    "default": "nothing tuned here fits: borrowed, or a default",
    "missing": "no config may be used: an error",
    "refused": "a guard does not take the call",
}

_THINGS: Final = {  # filling and text in the light, in the dark
    "exact": ("#1b5fb4", "#ffffff", "#6cb0ff", "#0d1117"),
    "bucketed": ("#b9d7f8", "#1f2328", "#1c4170", "#e6edf3"),
    "extrapolated": ("#f5b84a", "#1f2328", "#d99a22", "#0d1117"),
    "default": ("#d3d8de", "#1f2328", "#3a4149", "#e6edf3"),
    "missing": ("#b3261e", "#ffffff", "#ff7b72", "#0d1117"),
    "refused": ("#ffffff", "#1f2328", "#0d1117", "#e6edf3"),
}
LIGHT: Final = Palette(
    page="#ffffff",
    text="#1f2328",
    muted="#59636e",
    edge="#6e7781",
    hatch="#b8c0c8",
    things={name: Colours(fill=fill, text=text) for name, (fill, text, _, _) in _THINGS.items()},
)
DARK: Final = Palette(
    page="#0d1117",
    text="#e6edf3",
    muted="#9da7b1",
    edge="#7d8590",
    hatch="#4a525c",
    things={name: Colours(fill=fill, text=text) for name, (_, _, fill, text) in _THINGS.items()},
)

_EDGE: Final = 24
_ROW: Final = 18
_CELL: Final = 15
_GAP: Final = 2
_WIDE: Final = 34
_NARROW: Final = 16
_MOST: Final = 1300
"""How wide the columns of a panel may be together before they are drawn narrower."""


@frozen(kw_only=True)
class _Part:
    """Something drawn at the left upper corner of a place, and the room that it takes."""

    wide: int
    high: int
    elements: tuple[str, ...]


def draw(pack: PackCoverage, *, panels: bool = True) -> str:
    """Return the drawing of the coverage of a pack; the same bytes for the same coverage.

    Without `panels` it is the overview alone, a bar for all calls of an op.
    """
    shapes = Shapes()
    parts = [_heading(pack), _legend(shapes), *_overview(pack, shapes)]
    if panels:
        parts += [_panel(found, place, shapes) for place, found in enumerate(pack.maps)]
    parts += [_notes(pack.notes)] if pack.notes else []
    drawn = []
    y = _EDGE
    for part in parts:
        drawn.append(f'<g transform="translate({_EDGE},{y})">')
        drawn += [*part.elements, "</g>"]
        y += part.high + 22
    return svg.page(
        drawn,
        shapes=shapes,
        wide=2 * _EDGE + max(part.wide for part in parts),
        high=y + _EDGE - 22,
        title=f"Coverage of pack {pack.pack}",
        described=_described(pack),
        light=LIGHT,
        dark=DARK,
    )


def _described(pack: PackCoverage) -> str:
    told = []
    for found in pack.maps:
        what = f"unverified, {found.unverified}" if found.unverified else _counted(found.rows)
        told.append(f"{found.spec.name} on {found.platform}: {what}.")
    return " ".join(["Which config the calls of the tuning grid get.", *told])


def _counted(rows: Sequence[Row]) -> str:
    count = count_outcomes(rows)
    total = sum(count.values())
    told = ", ".join(f"{number} {outcome}" for outcome, number in count.items() if number)
    return f"{counted(total, 'call')}: {told}" if total else "no calls"


def _heading(pack: PackCoverage) -> _Part:
    where = ", ".join(pack.platforms) or "no platform"
    title = f"Coverage of pack {pack.pack}"
    below = f"What calls get on {where}: the tuning grid, what lies between, and named models"
    return _Part(
        wide=max(width(title, 20), width(below, 12)),
        high=40,
        elements=(
            text(0, 17, title, style="strong", size=20),
            text(0, 37, below, style="muted", size=12),
        ),
    )


def _legend(shapes: Shapes) -> _Part:
    elements = []
    for place, outcome in enumerate(OUTCOMES):
        x, y = 430 * (place // 3), 20 * (place % 3)
        elements.append(shapes.use(_cell(22, outcome, LETTERS[outcome]), x, y))
        elements.append(text(x + 30, y + 12, outcome, style="strong", size=12))
        elements.append(text(x + 136, y + 12, MEANS[outcome], style="muted"))
    return _Part(wide=860, high=56, elements=tuple(elements))


def _cell(wide: int, outcome: CallOutcome, *words: str) -> str:
    """Return a cell with the first of some words that it has room for, or with its letter."""
    drawn = rect(0, 0, wide, _CELL, f"{outcome} edge")
    if outcome == "refused":
        drawn += f'<rect width="{wide}" height="{_CELL}" fill="url(#hatching)"/>'
    fitting = (found for found in words if width(found, 10) + 8 <= wide)
    shown = next(fitting, LETTERS[outcome])
    if wide >= 10:
        style = f"inside on-{outcome}{' strong' if len(shown) == 1 else ''}"
        drawn += text(wide // 2, 11, shown, style=style)
    return drawn


def _overview(pack: PackCoverage, shapes: Shapes) -> Iterator[_Part]:
    """Yield a table for each platform: a bar for each op, of its grid and of each model."""
    for platform, maps in pack.by_platform():
        names = list(dict.fromkeys(m.name for found in maps for m in found.models if m.given))
        side = max(width(found.spec.name, 11) for found in maps) + 14
        wide = max([110, *(width(name, 11) + 6 for name in names)])
        step = wide + 12
        elements = [text(0, 13, f"Overview: {platform}", style="strong", size=14)]
        for place, head in enumerate(["grid", *names]):
            elements.append(text(side + place * step, 34, head, style="muted"))
        for number, found in enumerate(maps):
            y = 40 + number * (_ROW + 2)
            elements.append(text(0, y + 12, found.spec.name))
            if found.unverified:
                elements.append(text(side, y + 12, "? unverified", style="muted"))
                continue
            elements.append(_bar(side, y, wide, found.rows, shapes))
            models = {model.name: model for model in found.models}
            for place, name in enumerate(names, 1):
                x, model = side + place * step, models[name]
                if model.rows:
                    elements.append(_bar(x, y, wide, model.rows, shapes))
                else:
                    why = "cannot be mapped" if model.given else "not for it"
                    elements.append(text(x, y + 12, f"– {why}", style="muted"))
        yield _Part(
            wide=side + (len(names) + 1) * step,
            high=40 + len(maps) * (_ROW + 2),
            elements=tuple(elements),
        )


def _bar(x: int, y: int, wide: int, rows: Sequence[Row], shapes: Shapes) -> str:
    """Return the shares of the outcomes of calls, as parts of a bar that are as wide."""
    count = count_outcomes(rows)
    total = sum(count.values())
    if not total:
        return text(x, y + 12, "– no calls", style="muted")
    drawn = []
    seen = [outcome for outcome in OUTCOMES if count[outcome]]
    room = wide - 10 * len(seen)  # each has room for its letter
    left, passed = x, 0
    for place, outcome in enumerate(seen):
        passed += count[outcome]
        right = x + 10 * (place + 1) + room * passed // total
        words = f"{LETTERS[outcome]} {count[outcome]}"
        drawn.append(shapes.use(_cell(right - left, outcome, words), left, y))
        left = right
    move = farthest(rows)
    return group(drawn, _counted(rows) + (f"; farthest {far(move)}" if move else ""))


def _panel(found: Coverage, number: int, shapes: Shapes) -> _Part:
    """Return the panel of one op on one platform; its number tells it from others."""
    cases, configs = found.counts
    fixed, varying = labels(found)
    head = f"{found.spec.name} on {found.platform}"
    counts = f"{counted(cases, 'case')}, {counted(configs, 'config')}"
    told = [counts if found.place else "no configs of its own"]
    told += [f"may borrow from {', '.join(found.borrows)}"] if found.borrows else []
    told += [f"{name}={show(value)}" for name, value in fixed.items()]
    below = "; ".join(told)
    elements = [text(0, 13, head, style="strong", size=14), text(0, 30, below, style="muted")]
    wide = max(width(head, 14), width(below, 11))
    if found.unverified or not found.rows:
        why = f"? unverified: {found.unverified}" if found.unverified else "no cases to tune"
        return _Part(
            wide=max(wide, width(why, 11)), high=52, elements=(*elements, text(0, 50, why))
        )
    table = _Table(coverage=found, varying=varying, number=number, shapes=shapes)
    elements += table.elements(54)
    return _Part(wide=max(wide, table.wide), high=54 + table.high, elements=tuple(elements))


@frozen(kw_only=True)
class _Column:
    """The values from `first` to `last` of the axis; `named` ones stand above their column."""

    x: int
    wide: int
    first: int
    last: int | None
    named: bool


@frozen(kw_only=True)
class _Table:
    """The rows of a panel: their axes at the left, and along the top the axis that they run."""

    coverage: Coverage
    varying: tuple[str, ...]
    number: int
    shapes: Shapes

    @property
    def names(self) -> tuple[str, ...]:
        """What stands above the columns at the left."""
        return ("calls of", *self.varying)

    @property
    def rows(self) -> list[tuple[str, Row]]:
        """All rows, each with what it is of."""
        models = [(model.name, row) for model in self.coverage.models for row in model.rows]
        return [*(("grid", row) for row in self.coverage.rows), *models]

    @property
    def sides(self) -> list[int]:
        """Where the columns at the left begin, and where the last one ends."""
        ends = [0]
        for place, name in enumerate(self.names):
            cells = [self._label(row, place, of) for of, row in self.rows]
            ends.append(ends[-1] + max(width(cell, 11) for cell in (name, *cells)) + 10)
        return ends

    @property
    def columns(self) -> list[_Column]:
        start = self.sides[-1] + 4
        if self.coverage.axis is None:
            return [_Column(x=start, wide=220, first=0, last=None, named=False)]
        lines = [stretch for _, row in self.rows for stretch in row.line]
        values = {cell.value for _, row in self.rows for cell in row.cells}
        named = {value for value in values if type(value) is int}
        named |= {s.first for s in lines if s.first == s.last and s.answer.outcome == "exact"}
        low = min(stretch.first for stretch in lines)
        firsts = {low, *(stretch.first for stretch in lines)}
        firsts |= {v for v in named if v >= low} | {v + 1 for v in named if v >= low}
        starts = sorted(firsts)
        wides = [_WIDE if first in named else _NARROW for first in starts]
        wides[-1] = 2 * _WIDE
        scale = min(1.0, _MOST / sum(wides))
        found, x = [], start
        for place, first in enumerate(starts):
            last = starts[place + 1] - 1 if place + 1 < len(starts) else None
            wide = max(int(wides[place] * scale), 5)
            found.append(
                _Column(x=x, wide=wide, first=first, last=last, named=first in named or not last)
            )
            x += wide
        return found

    @property
    def wide(self) -> int:
        last = self.columns[-1]
        remarks = [width(self._remark(row), 10) + 8 for _, row in self.rows]
        return last.x + last.wide + max(remarks)

    @property
    def high(self) -> int:
        return 20 + len(self.rows) * _ROW + 6 * len({of for of, _ in self.rows})

    def _label(self, row: Row, place: int, of: str) -> str:
        return of if place == 0 else show(row.axes[self.names[place]])

    def _remark(self, row: Row) -> str:
        """Return what moves all calls of a row, other than the axis along the top."""
        moves = [m for s in row.line for m in s.answer.moves if m.axis != self.coverage.axis]
        return ", ".join(far(m) for m in dict.fromkeys(moves))

    def elements(self, top: int) -> Iterator[str]:
        columns, sides = self.columns, self.sides
        for place, name in enumerate(self.names):
            yield text(sides[place], top + 10, name, style="muted")
        yield from self._heads(columns, top)
        y = top + 16
        before = None
        drawn: dict[str, int] = {}
        for of, row in self.rows:
            if before not in (None, of):
                y += 6
            for place in range(len(self.names)):
                if place or of != before:
                    yield text(sides[place], y + 12, self._label(row, place, of))
            before = of
            cells = "".join(self._cells(row, columns))
            first = drawn.setdefault(cells, y)
            name = f"t{self.number}y{first}"
            if first == y:
                yield f'<g id="{name}" transform="translate(0,{y})">{cells}</g>'
            else:
                yield group([use(name, 0, y - first)], "as a row above")
            remark = self._remark(row)
            if remark:
                last = columns[-1]
                yield text(last.x + last.wide + 8, y + 11, remark, style="muted", size=10)
            y += _ROW

    def _heads(self, columns: Sequence[_Column], top: int) -> Iterator[str]:
        """Yield the values above the columns, of those that overlap the first."""
        axis = self.coverage.axis
        if axis is None:
            return
        taken = -4
        for column in columns:
            if not column.named:
                continue
            words = f"{column.first}" if column.last is not None else f"{column.first} up"
            left = column.x + (column.wide - width(words, 10)) // 2
            if left >= taken + 4:
                middle = column.x + (column.wide - _GAP) // 2
                yield text(middle, top + 10, words, style="muted", size=10, anchor="middle")
                taken = left + width(words, 10)
        yield text(columns[0].x, top - 6, f"{axis} ({self.coverage.match})", style="muted")

    def _cells(self, row: Row, columns: Sequence[_Column]) -> Iterator[str]:
        """Yield the cells of one row, as if it were at the top."""
        if not row.line:
            column, answer = columns[0], row.cells[0].answer
            yield self._drawn(column.x, column.wide, answer)
            return
        firsts = [column.first for column in columns]
        for stretch in row.line:
            start = columns[bisect_left(firsts, stretch.first)]
            end = columns[-1]
            if stretch.last is not None:
                end = columns[bisect_left(firsts, stretch.last + 1) - 1]
            span = f"{stretch.first}"
            if stretch.last != stretch.first:
                span += " up" if stretch.last is None else f" to {stretch.last}"
            calls = f"{self.coverage.axis} {span}: "
            wide = end.x + end.wide - start.x
            yield self._drawn(start.x, wide, stretch.answer, calls, stretch.unless)

    def _drawn(
        self, x: int, wide: int, answer: Answer, calls: str = "", unless: Sequence[str] = ()
    ) -> str:
        """Return one cell, which tells all there is to tell where one points at it."""
        letter, told = LETTERS[answer.outcome], label(answer)
        words, short, tip = f"{letter} {told}", f"{letter} {answer.outcome}", f"{calls}{told}"
        if answer.moves:  # to tuned values that are not the call's own
            tip += f", takes {', '.join(f'{m.axis}={show(m.to)}' for m in answer.moves)}"
        if answer.chosen is not None:
            to = (answer.chosen.key or {}).get(self.coverage.axis or "")
            words += f", as {show(to)}" if answer.moves and to is not None else ""
            tip += f"; {_config(answer.chosen.config)}" if answer.chosen.config else ""
        if unless:
            words, short = f"{words} or R", f"{short} or R"
            tip += f"; refused unless {' and '.join(unless)}"
        drawn = self.shapes.use(_cell(wide - _GAP, answer.outcome, words, short), x, 0)
        return group([drawn], tip)


def _config(config: Mapping[str, object]) -> str:
    """Return a config as short as a tip has to be: its blocks and its scalars."""
    told = [
        f"{name}={list(value) if isinstance(value, list | tuple) else value}"
        for name, value in config.items()
        if name == "block_sizes" or not isinstance(value, list | tuple)
    ]
    lists = len(config) - len(told)
    return ", ".join([*told, *([counted(lists, "more list")] if lists else [])])


def _notes(notes: Sequence[str]) -> _Part:
    return _Part(
        wide=max(width(note, 11) for note in notes),
        high=16 * len(notes),
        elements=tuple(text(0, 12 + 16 * n, note, style="muted") for n, note in enumerate(notes)),
    )
