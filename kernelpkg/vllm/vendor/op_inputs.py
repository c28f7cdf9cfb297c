"""Grids to `generate_inputs`: what vLLM tunes a vendored op with, as loops over the cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from kernelpkg.manifest.cases import Case, expand
from kernelpkg.manifest.spec import Grid, KernelSpec, Scalar
from kernelpkg.vllm.vendor.exprcode import AxisCode
from kernelpkg.vllm.vendor.op_code import STEP, WIDTH, Doc, assign, call, collection, lay
from kernelpkg.vllm.vendor.op_sources import Import
from kernelpkg.vllm.vendor.optensors import CaseInputsWriter, literal, tupled

_PRODUCT: Final = Import(module="itertools", member="product", name="product")

_RUN: Final = 4
"""How many values of one step a range takes the place of, in a list that is too long for a line."""


@frozen(kw_only=True)
class InputsCode:
    """The lines of both functions, and what they import."""

    lines: tuple[str, ...]
    imports: frozenset[Import]


def write_inputs(
    spec: KernelSpec, codes: Mapping[str, AxisCode], taken: frozenset[str]
) -> InputsCode:
    """Write the functions that make the arguments of one case, and of every case for tuning.

    `codes` are the axes, `taken` the names of the file that the functions go into.
    """
    writer = CaseInputsWriter(spec, codes, taken)
    lines = [*writer.lines(), "", ""]
    lines += [
        "def generate_inputs() -> dict[CaseKey, tuple[Any, ...]]:",
        '    """Return the arguments of every case that is tuned, by its key."""',
        '    device = "cuda" if torch.cuda.is_available() else "cpu"',
        "    inputs: dict[CaseKey, tuple[Any, ...]] = {}",
    ]
    seen: set[tuple[str, ...]] = set()
    for place, grid in enumerate(spec.grids):
        if "tune" in grid.use:
            marks = _marks(spec, place, writer.axes)
            again = len({*marks}) < len(marks) or not seen.isdisjoint(marks)
            lines += _Loop(writer, grid).lines(again=again)
            seen |= {*marks}
    lines.append("    return inputs")
    imports = {_PRODUCT} if any("in product(" in line for line in lines) else set()
    return InputsCode(lines=tuple(lines), imports=frozenset(imports))


def _marks(spec: KernelSpec, place: int, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the keys of a grid's cases, once for cases of the same inputs."""
    found: dict[tuple[str, ...], Case] = {}
    for case in expand(spec, place):
        found.setdefault(tuple(repr(case.values[axis]) for axis in axes), case)
    return [tuple(map(repr, case.key(spec))) for case in found.values()]


class _Loop:
    """The loop over one grid: what varies in it, alone or in rows, and what is fixed."""

    def __init__(self, writer: CaseInputsWriter, grid: Grid) -> None:
        axes = writer.axes
        self.writer = writer
        self.defaults = {a: v for a, v in writer.spec.defaults.items() if a in axes}
        products = {a: values for a, values in grid.axes.items() if a in axes}
        self.rows = [{**self.defaults, **row} for row in grid.rows]
        self.together = [
            axis
            for axis in axes
            if axis not in products and len({repr(row[axis]) for row in self.rows}) > 1
        ]
        self.alone = {axis: values for axis, values in products.items() if len(values) > 1}
        self.fixed: dict[str, Scalar] = {a: v for a, v in self.rows[0].items() if a in axes}
        self.fixed |= {axis: values[0] for axis, values in products.items()}

    def lines(self, *, again: bool) -> Iterator[str]:
        """Yield the loop; `again` says that some keys come more than once."""
        indent = STEP
        targets, sources = self._sources()
        if targets:
            indent += STEP
            lists = call("product", *sources) if len(sources) > 1 else sources[0]
            names = ", ".join(targets).strip("()") if len(targets) == 1 else ", ".join(targets)
            yield from lay(lists, STEP, before=f"for {names} in ", after=":")
        spec = self.writer.spec
        key = collection("{}", [f'"{axis}": {self._value(axis)}' for axis in spec.key_axes])
        yield from assign("key", call("CaseKey", key), indent)
        if again:
            yield f"{' ' * indent}if key not in inputs:"
            indent += STEP
        given = [
            f"{self.writer.names[axis]}={self._value(axis)}"
            for axis in self.writer.axes
            if not self._is_default(axis)
        ]
        yield from assign("inputs[key]", call("make_case_inputs", "device", *given), indent)

    def _sources(self) -> tuple[list[str], list[Doc]]:
        """Return the variables of the loop, and the lists of their values; rows come first."""
        names = self.writer.names
        targets, sources = [], []
        if self.together:
            values = [[literal(row[axis]) for axis in self.together] for row in self.rows]
            one = len(self.together) == 1
            targets.append(", ".join(names[axis] for axis in self.together))
            targets[0] = targets[0] if one else f"({targets[0]})"
            distinct = dict.fromkeys(row[0] if one else tupled(row) for row in values)
            sources.append(collection("[]", distinct))
        for axis, found in self.alone.items():
            targets.append(names[axis])
            sources.append(collection("[]", _items(found)))
        return targets, list(sources)

    def _value(self, axis: str) -> str:
        varies = axis in self.together or axis in self.alone
        return self.writer.names[axis] if varies else literal(self.fixed[axis])

    def _is_default(self, axis: str) -> bool:
        varies = axis in self.together or axis in self.alone
        return not varies and repr(self.defaults.get(axis, ...)) == repr(self.fixed[axis])


def _items(values: Sequence[Any]) -> list[str]:
    """Return the items of a list; where one line does not hold them, steps become ranges."""
    items = [literal(value) for value in values]
    if len(", ".join(items)) + 2 * STEP + len("[],") <= WIDTH:
        return items
    found: list[str] = []
    place = 0
    while place < len(values):
        end = _end_of_run(values, place)
        if end - place >= _RUN:
            step = values[place + 1] - values[place]
            found.append(f"*range({values[place]}, {values[end - 1] + step}, {step})")
            place = end
        else:
            found.append(items[place])
            place += 1
    return found


def _end_of_run(values: Sequence[Any], place: int) -> int:
    """Return where a run of whole numbers with one rising step ends."""
    end = place + 1
    while (
        end < len(values)
        and type(values[place]) is type(values[end]) is int
        and values[end] - values[end - 1] == values[place + 1] - values[place] > 0
    ):
        end += 1
    return end
