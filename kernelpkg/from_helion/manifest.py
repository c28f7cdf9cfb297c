"""A first manifest of a kernel, of what could be read of its function."""

from __future__ import annotations

import ast
import json
import keyword
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import define, field

from kernelpkg.expr.language import DTYPES
from kernelpkg.from_helion.arguments import Parameter, length_of, texts_of
from kernelpkg.from_helion.source import Decoration, Remarks
from kernelpkg.from_helion.values import Reading
from kernelpkg.manifest.opschema import NO_DEFAULT

_TAKEN: Final = ("use", "rows", "dtype")
"""What no axis of a size may be called: two keys of a grid, and the axis of dtypes."""

_GUESSES: Final = {"int": 16, "float": 1.0, "bool": False, "str": ""}
"""The values of scalars that have no default."""

_FIRST: Final = [1, 16, 256, 4096]
_OTHERS: Final = [[1024, 4096], [1024], [128]]
"""What is tuned at first: of the axis that is tiled first, and of one, two and more others."""


@define
class Draft:
    """What a manifest is made of, as it is found."""

    function: ast.FunctionDef
    parameters: Sequence[Parameter]
    reading: Reading
    remarks: Remarks
    results: int
    fake: str
    axes: dict[str, str] = field(factory=dict)
    """Names of axes of sizes, by their roots."""
    guesses: list[str] = field(factory=list)
    alike: list[str] = field(factory=list)
    """Tensors that are taken to have the dtype of the first."""

    @property
    def tensors(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.is_tensor]

    def guessed(self) -> list[str]:
        """Return what was guessed, as the source does not say."""
        found = [*self.guesses]
        if self.alike:
            found.insert(
                0, f"the dtype of {_names(self.alike)} (that of '{self.floats()[0].name}')"
            )
        rows = [p.name for p in self.tensors if self.reading.ranks.get(p.name, 0) > 1]
        if rows:
            verb = "is" if len(rows) == 1 else "are"
            found.append(f"that {_names(rows)} {verb} contiguous ('strides' in [args] allows more)")
        return found

    # Sizes

    def shape(self, parameter: Parameter) -> list[str | int]:
        """Return the sizes of a tensor as [args] has them; what they need becomes an axis."""
        name = parameter.name
        rank, ends = self.reading.ranks.get(name), self.reading.ends.get(name, 0)
        if name in self.reading.guessed:
            self.guesses.append(f"the dimensions of '{name}' ({rank})")
        if rank is not None:
            return [self.size(f"{name}.{place}", parameter) for place in range(rank)]
        if ends:
            lead = self.size(f"{name}.lead{ends}", parameter)
            last = [self.size(f"{name}.{place}", parameter) for place in range(-ends, 0)]
            return [f"*{lead}", *last]
        return [f"*{self.size(f'{name}.numel', parameter)}"]

    def size(self, symbol: str, parameter: Parameter) -> str | int:
        """Return a size as an expression over axes."""
        sizes = self.reading.sizes
        root = sizes.root(symbol)
        if root in sizes.numbers:
            return sizes.numbers[root]
        if root in self.axes:
            return self.axes[root]
        if root in sizes.made:
            operator, left, right = sizes.made[root]
            if root not in (sizes.root(left), sizes.root(right)):
                parts = [self.operand(part, parameter) for part in (left, right)]
                return f"{parts[0]} {operator} {parts[1]}"
        return self.axis(root, symbol)

    def operand(self, symbol: str, parameter: Parameter) -> str:
        text = str(self.size(symbol, parameter))
        return f"({text})" if " " in text else text

    def axis(self, root: str, symbol: str) -> str:
        """Make a size an axis, with a name of the source where it has one that can be."""
        taken = {*_TAKEN, *DTYPES, *self.axes.values(), *(p.name for p in self.parameters)}
        taken |= {f"has_{p.name}" for p in self.parameters}
        argument, _, place = symbol.partition(".")
        end = {"numel": "numel"}.get(place, "leading" if "lead" in place else f"size_{place}")
        wanted = [
            *self.reading.sizes.names.get(root, ()),
            f"{argument}_{end.replace('-', 'last_')}",
        ]
        free = (n for n in wanted if n not in taken and not keyword.iskeyword(n))
        self.axes[root] = argument if not place else next(free, f"{wanted[-1]}_")
        return self.axes[root]

    def expression(self, root: str) -> str:
        """Return how a call says a size: by the first argument that is always given."""
        members = self.reading.sizes.members(root)
        for parameter in sorted(self.parameters, key=lambda p: p.optional):
            for symbol in sorted(members, key=_from_front):
                argument, _, place = symbol.partition(".")
                if argument == parameter.name and symbol not in self.reading.sizes.made:
                    return _fact(argument, place)
        return root

    def known(self, symbol: str) -> str | None:
        """Return a size as an expression over the axes that there are, or None."""
        sizes = self.reading.sizes
        root = sizes.root(symbol)
        if root in sizes.numbers:
            return str(sizes.numbers[root])
        if root in self.axes:
            return self.axes[root]
        if root not in sizes.made:
            return None
        operator, left, right = sizes.made[root]
        parts = (self.known(left), self.known(right))
        return None if None in parts else f"({parts[0]} {operator} {parts[1]})"

    # Tensors

    def dtype(self, parameter: Parameter) -> str:
        """Return the dtype of a tensor; that of the first of floating point is an axis."""
        name, reading = parameter.name, self.reading
        if name in reading.dtypes:
            return reading.dtypes[name]
        if name in reading.indices or name in reading.bounds:
            return "int64"
        if name in reading.flags:
            return "bool"
        if name in reading.bits:
            self.guesses.append(f"the dtype of '{name}' (int8, as bits are taken)")
            return "int8"
        first = self.floats()[0]
        if parameter is not first:
            self.alike.append(name)
        return "dtype"

    def floats(self) -> list[Parameter]:
        """Return the tensors that nothing says another dtype of; those always given first."""
        reading = self.reading
        told = {*reading.dtypes, *reading.indices, *reading.bounds, *reading.flags, *reading.bits}
        found = [parameter for parameter in self.tensors if parameter.name not in told]
        return sorted(found, key=lambda parameter: parameter.optional)

    def tensor(self, parameter: Parameter) -> str:
        """Return the entry of a tensor in [args]."""
        shape, name, reading = self.shape(parameter), parameter.name, self.reading
        entry: dict[str, Any] = {"when": f"has_{name}"} if parameter.optional else {}
        entry |= {"shape": shape, "dtype": self.dtype(parameter)}
        if name in reading.bounds:
            entry["init"] = "zeros"
            what = f"'{name}' says where tiles begin and end, and is zeros in tests"
            self.remarks.add(parameter.node, f"{what}; write a function that makes it, as init")
        elif name in reading.indices:
            below = reading.indices[name]
            known = None if below is None else self.known(below)
            if known is None:
                entry["init"] = "zeros"
                what = f"'{name}' holds indices into what cannot be told, and is zeros in tests"
                self.remarks.add(parameter.node, f'{what}; write init = "randint" with its high')
            else:
                entry |= {"init": "randint", "high": _bare(known)}
        elif name in reading.bits or name in reading.flags:
            entry |= {"init": "randint", "high": 128 if name in reading.bits else 2}
        elif name in reading.written and name in reading.read:
            entry["init"] = "randn"
        return f"{name} = {toml(entry)}"

    def scalars(self) -> list[str]:
        """Return the entries of scalars in [args]: of those without a default that are no axis."""
        lines = []
        for parameter in self.parameters:
            axes = {*self.axes.values(), *self.constants()}
            needed = parameter.default is NO_DEFAULT and parameter.name not in axes
            if parameter.type in _GUESSES and needed:
                value = _GUESSES[parameter.type]
                self.guesses.append(f"the value of '{parameter.name}' ({toml(value)})")
                lines.append(f"{parameter.name} = {toml(value)}")
            elif parameter.type == "int[]" and needed:
                value = [_GUESSES["int"]] * length_of(self.function, parameter.name)
                self.guesses.append(f"the elements of '{parameter.name}' ({toml(value)})")
                lines.append(f"{parameter.name} = {toml(value)}")
        return lines

    def guards(self) -> list[str]:
        """Return what the function asserts of sizes, and the dtypes."""
        found = ["dtype in [bfloat16, float16, float32]"] if self.floats() else []
        for _, sign, left, right in self.reading.guards:
            one, other = self.known(left), self.known(right)
            if one is not None and other is not None:
                found.append(f"{_bare(one)} {sign} {_bare(other)}")
        for parameter in self.parameters:
            if parameter.type == "int[]" and parameter.default is NO_DEFAULT:
                length = length_of(self.function, parameter.name)
                found.append(f"len({parameter.name}) == {length}")
            if parameter.type == "str" and texts_of(self.function, parameter.name):
                one_of = f"{parameter.name} in {self.constants()[parameter.name]}"
                absent = f"{parameter.name} is None or " * parameter.optional
                found.append(f"{absent}{one_of}")
        return [*dict.fromkeys(found)]

    # Axes

    def constants(self) -> dict[str, list[Any]]:
        """Return the values of arguments that are constants of the code: the default first.

        Of texts these are those that the function compares them with; all others are guessed.
        """
        found: dict[str, list[Any]] = {}
        for parameter in self.parameters:
            if not (parameter.constant or parameter.type == "str"):
                continue
            values: list[Any] = [*texts_of(self.function, parameter.name)]
            if parameter.type == "bool":
                values = [False, True]
            if parameter.default not in (NO_DEFAULT, None):
                values = [parameter.default, *(v for v in values if v != parameter.default)]
            found[parameter.name] = values or [_GUESSES[parameter.type]]
        return found

    def guess_constants(self) -> None:
        """Say which values of constants were guessed."""
        for parameter in self.parameters:
            values = self.constants().get(parameter.name, ())
            told = parameter.default not in (NO_DEFAULT, None) or parameter.type == "bool"
            if len(values) == 1 and not told and not texts_of(self.function, parameter.name):
                self.guesses.append(f"the value of '{parameter.name}' ({toml(values[0])})")

    def first(self) -> str | None:
        """Return the axis that is tiled first."""
        roots = [self.reading.sizes.root(symbol) for symbol in self.reading.tiles]
        return next((self.axes[root] for root in roots if root in self.axes), None)

    def specialized(self) -> list[str]:
        """Return the axes that are made constants of the code."""
        roots = [self.reading.sizes.root(symbol) for symbol in self.reading.specialized]
        return [*dict.fromkeys(self.axes[root] for root in roots if root in self.axes)]


def _from_front(symbol: str) -> tuple[bool, str]:
    """Order symbols of sizes: those that count from the front first."""
    return ("-" in symbol or "lead" in symbol or "numel" in symbol, symbol)


def _fact(argument: str, place: str) -> str:
    """Return the expression of a size of an argument; of one that is a number, its name."""
    if place.startswith("lead"):
        ends = [f"{argument}.shape[{end}]" for end in range(-int(place[4:]), 0)]
        below = ends[0] if len(ends) == 1 else f"({' * '.join(ends)})"
        return f"{argument}.numel() // {below}"
    if place == "numel":
        return f"{argument}.numel()"
    return f"{argument}.shape[{place}]" if place else argument


def _bare(text: str) -> str:
    return text[1:-1] if text.startswith("(") else text


def toml(value: Any) -> str:
    """Return a value as TOML has it on one line."""
    match value:
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            inner = ", ".join(f"{_key(name)} = {toml(item)}" for name, item in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else json.dumps(name)


def write_manifest(
    draft: Draft, name: str, source: str, summary: str, decoration: Decoration
) -> str:
    """Return the text of kernel.toml; `draft` gets the axes and guesses that it is made with."""
    args = [draft.tensor(p) if p.is_tensor else "" for p in draft.parameters]
    draft.guess_constants()
    entries = [*filter(None, args), *draft.scalars()]
    parts = [
        _kernel(name, source, summary),
        _op(draft),
        _helion(draft, decoration),
        _axes(draft),
        _guard(draft),
        _rules(draft),
        _inputs(draft),
        "\n".join(["[args]", *entries]),
        _accuracy(draft),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _kernel(name: str, source: str, summary: str) -> str:
    lines = ["#:schema ../kernel.schema.json", "edition = 1", "", "[kernel]"]
    lines += [f"name = {toml(name)}", "version = 1", f"summary = {toml(summary)}"]
    return "\n".join(lines + ([f'source = "kernel.py:{source}"'] if source != name else []))


def _op(draft: Draft) -> str:
    written = [p.name for p in draft.tensors if p.name in draft.reading.written]
    alias = {name: chr(ord("a") + place % 26) for place, name in enumerate(written)}
    args = ", ".join(p.schema(alias.get(p.name, "")) for p in draft.parameters)
    several = f"({', '.join(['Tensor'] * draft.results)})"
    returns = {0: "()", 1: "Tensor"}.get(draft.results, several)
    return f'[op]\nschema = {toml(f"({args}) -> {returns}")}\nfake_impl = "{draft.fake}"'


def _helion(draft: Draft, decoration: Decoration) -> str:
    lines = []
    if decoration.settings:
        lines.append(f"settings = {toml(dict(decoration.settings))}")
    if decoration.default:
        lines.append(f"default = {toml(dict(decoration.default))}")
    if draft.specialized():
        lines.append(f"specialize = {toml(draft.specialized())}")
    return "\n".join(["[helion]", *lines]) if lines else ""


def _optional(draft: Draft) -> list[str]:
    return [parameter.name for parameter in draft.tensors if parameter.optional]


def _unsized(draft: Draft) -> list[str]:
    """Return the constants that are not the axis of a size too."""
    return [name for name in draft.constants() if name not in draft.axes.values()]


def _axes(draft: Draft) -> str:
    lines = [f"{axis} = {toml(draft.expression(root))}" for root, axis in draft.axes.items()]
    lines += [f'dtype = "{draft.floats()[0].name}.dtype"'] if draft.floats() else []
    lines += [f'has_{name} = "{name} is not None"' for name in _optional(draft)]
    lines += [f'{name} = "{name}"' for name in _unsized(draft)]
    return "\n".join(["[axes]", *lines])


def _guard(draft: Draft) -> str:
    guards = draft.guards()
    return f"[guard]\nwhen = {toml(guards)}" if guards else ""


def _rules(draft: Draft) -> str:
    first = draft.first()
    exact = [*(["dtype"] if draft.floats() else []), *(f"has_{n}" for n in _optional(draft))]
    exact += dict.fromkeys([*draft.specialized(), *draft.constants()])
    near = [axis for axis in draft.axes.values() if axis not in (first, *exact)]
    tables = [(exact, "exact"), (near, "nearest")]
    tables += [([first], "ceil")] if first is not None and first not in exact else []
    return "\n".join(
        f"[[key]]\naxis = {toml(axes[0] if len(axes) == 1 else axes)}\nmatch = {toml(match)}"
        for axes, match in tables
        if axes
    )


def _inputs(draft: Draft) -> str:
    first, given = draft.first(), draft.constants()
    constants = [*draft.specialized(), *given]
    default: dict[str, Any] = {"dtype": "bfloat16"} if draft.floats() else {}
    default |= {f"has_{name}": True for name in _optional(draft)}
    default |= {name: given[name][0] for name in _unsized(draft)}
    others = [axis for axis in draft.axes.values() if axis != first]
    tuned = _OTHERS[min(len(others), len(_OTHERS)) - 1]
    fixed = {axis: given.get(axis, [64])[:1] for axis in constants}
    grid = {axis: fixed.get(axis, tuned) for axis in others}
    tests: dict[str, list[Any]] = {
        axis: fixed.get(axis, [32 + 16 * place]) for place, axis in enumerate(others)
    }
    if first is not None:
        grid[first], tests[first] = fixed.get(first, _FIRST), fixed.get(first, [1, 17])
    tests |= {f"has_{name}": [True, False] for name in _optional(draft)}
    tests |= {name: given[name] for name in _unsized(draft) if len(given[name]) > 1}
    lines = [f"default = {toml(default)}"] if default else []
    lines += ["[[inputs.grid]]", 'use = ["tune", "bench"]', *_lines(grid)]
    return "\n".join(["[inputs]", *lines, "[[inputs.grid]]", 'use = ["test"]', *_lines(tests)])


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {toml(value)}" for key, value in table.items()]


def _accuracy(draft: Draft) -> str:
    names = [p.name for p in draft.tensors if p.name in draft.reading.written]
    names += ["return"] if draft.results else []
    return "\n".join(
        ["[accuracy]", *(f"{name} = {{ rtol = 1e-2, atol = 1e-2 }}" for name in names)]
    )


def summary_of(function: ast.FunctionDef) -> str:
    """Return the first sentence of a docstring, on one line."""
    lines = (ast.get_docstring(function) or "").split("\n\n")[0].split("\n")
    text = " ".join(line.strip() for line in lines).partition(". ")[0].rstrip(".")
    text = "".join(c for c in text if c.isprintable())
    return f"{text or f'What {function.name} computes'}."


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
