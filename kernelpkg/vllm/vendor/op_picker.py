"""The picker of a vendored op: its rules as data, its axes as a function, and what runs them.

What runs them is the same for all ops of a tree, in a file of its own that is copied from here.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import evolve, fields

import kernelpkg
from kernelpkg.manifest.opschema import NO_DEFAULT
from kernelpkg.manifest.spec import KernelSpec, Rule, Scalar
from kernelpkg.vllm.config_format import MARK
from kernelpkg.vllm.vendor.op_code import (
    STEP,
    AxisCode,
    Doc,
    Unsayable,
    assign,
    call,
    collection,
    heading,
    lay,
    literal,
    unhidden,
)
from kernelpkg.vllm.vendor.op_sources import Definition, Import, import_lines, read_file

SHARED: Final = ("AccuracyCheck", "Rule", "own_picker", "rule_picker")
"""What the file that all ops of a tree share has for them."""

ANSWERS: Final = "_pick_cache"
"""What vLLM calls the answers that a picker remembers; its tests clear them."""

_COPIED: Final = (
    "manifest/spec.py", "configs/match.py", "configs/picker.py", "vllm/vendor/op_shared.py"
)  # fmt: skip
"""Where that comes from, in kernelpkg; none reads what comes after it."""

_TAKEN: Final = frozenset({"args", "len", "str", "torch"})
"""Names that the function of the axes uses itself."""


def local_names(spec: KernelSpec) -> dict[str, str]:
    """Return what arguments are called where axes are read: by their names, or with a `_`."""
    return unhidden(spec.schema.arg_names, _TAKEN)


def default_key(ones: Sequence[str]) -> dict[str, Scalar]:
    """Return the key of the default entry for calls whose sizes in `ones`, and no others, are 1."""
    return {MARK: True, **dict.fromkeys(ones, 1)} if ones else {}


def write_picker(
    spec: KernelSpec,
    codes: Mapping[str, AxisCode],
    ones: Sequence[str],
    theirs: Mapping[str, str] = {},
) -> list[str]:
    """Write the picker of a kernel; `codes` are its axes, `ones` those that may be 1 or larger.

    `theirs` has vLLM's names of axes by ours, where they differ. What it uses of the file that all
    ops share is named in `SHARED`. Raises Unsayable for an axis that has the name of something
    else.
    """
    by_rules = spec.picker is None
    wanted = dict.fromkeys((*(spec.key_axes if by_rules else ()), *ones))
    if MARK in (theirs.get(axis, axis) for axis in (*spec.key_axes, *ones)):
        raise Unsayable(f"axis '{MARK}' has the name that marks default entries; rename it")
    lines = []
    given: list[Doc] = ["RULES" if spec.picker is None else spec.picker.name]
    if by_rules:
        rules = collection("()", (_rule(rule, theirs) for rule in spec.rules))
        lines += ["# What picks a config: each rule narrows the tuned keys by an axis."]
        lines += [*assign("RULES", rules, 0), "", ""]
    if wanted or by_rules:
        lines += [*_axes(spec, {axis: codes[axis].code for axis in wanted}), "", ""]
        given.append("axes")
    if by_rules:
        lines += [f"{ANSWERS}: dict[Any, Any] = {{}}"]
        given.append(ANSWERS)
    if ones:
        given.append(collection("()", [f'"{theirs.get(axis, axis)}"' for axis in ones], "ones="))
    picker = "rule_picker" if by_rules else "own_picker"
    return [*lines, *assign("pick_config", call(picker, *given), 0)]


def _rule(rule: Rule, theirs: Mapping[str, str]) -> Doc:
    """Return a rule as its call, without what goes without saying."""
    rule = evolve(rule, axis=theirs.get(rule.axis, rule.axis))
    given = {item.name: getattr(rule, item.name) for item in fields(Rule)}
    default = {item.name: item.default for item in fields(Rule)}
    return call("Rule", *(f"{n}={literal(v)}" for n, v in given.items() if v != default[n]))


def _axes(spec: KernelSpec, codes: Mapping[str, str]) -> Iterator[str]:
    """Yield the function that reads the axes; arguments with a default may be left out."""
    names = local_names(spec)
    head = call("def axes", "args: tuple[Any, ...]")
    yield from lay(head, after=" -> tuple[Any, ...]:")
    yield '    """Return what the config of a call depends on."""'
    read = {name for axis in spec.axes if axis.name in codes for name in axis.expr.names()}
    for place, arg in enumerate(spec.schema.args):
        if arg.name in read:
            value = f"args[{place}]"
            if arg.default is not NO_DEFAULT:
                value += f" if len(args) > {place} else {literal(arg.default)}"
            yield from assign(names[arg.name], value)
    given = [axis for axis, code in codes.items() if not code.isidentifier()]
    found = unhidden(given, _TAKEN | {*names.values()})  # an axis may hide an argument
    for axis, name in found.items():
        yield from assign(name, codes[axis])
    items = (found.get(axis, code) for axis, code in codes.items())
    yield from lay(collection("()", items), STEP, before="return ")


def write_shared(origin: str) -> str:
    """Write the file that the ops of a tree share; `origin` says in words where it is from.

    What kernelpkg runs itself is copied as it stands, without what no op comes to: definitions and
    methods whose names nothing mentions that is copied.
    """
    root = Path(kernelpkg.__file__).parent
    sources = [read_file(root / name, name) for name in _COPIED]
    parts = [(part, file) for file in sources for part in file.definitions]
    kept, mentioned = _needed(part for part, _ in parts)
    imports = {item for file in sources for name, item in file.imports.items() if name in mentioned}
    imports = {item for item in imports if item.module.split(".")[0] not in ("kernelpkg", "attrs")}
    imports.add(Import(module="dataclasses", member="dataclass", name="dataclass"))
    summary = "How vendored ops pick their configs, and how near results are to the baseline's."
    lines = [*heading(_LICENSE, origin, summary), "", "from __future__ import annotations", ""]
    lines += import_lines(imports)
    was_constant = True
    for part, file in parts:
        if part.node in kept:
            lines += [""] * (1 if part.is_constant and was_constant else 2)
            lines += _copied(part, file.lines, kept)
            was_constant = part.is_constant
    return "\n".join(lines).replace(*_FROZEN) + "\n"


_LICENSE: Final = "Apache-2.0"
"""That of kernelpkg, which the file is copied from."""

_FROZEN: Final = ("@frozen(kw_only=True)", "@dataclass(frozen=True, kw_only=True)")
"""vLLM has no attrs; of it, nothing else is used in what is copied."""


def _methods(node: ast.stmt) -> list[ast.FunctionDef]:
    """Return the methods of a class that Python does not call of itself."""
    body = node.body if isinstance(node, ast.ClassDef) else []
    found = [item for item in body if isinstance(item, ast.FunctionDef)]
    return [item for item in found if not item.name.startswith("__")]


def _needed(parts: Iterable[Definition]) -> tuple[set[ast.AST], set[str]]:
    """Return the definitions and methods that an op may come to, and all names in them."""
    units: list[tuple[set[str], ast.AST, list[ast.AST], ast.AST | None]] = []
    for part in parts:
        methods = _methods(part.node)
        own = [node for node in ast.iter_child_nodes(part.node) if node not in methods]
        units.append(({*part.names}, part.node, own, None))
        units += [({method.name}, method, [method], part.node) for method in methods]
    kept: set[ast.AST] = set()
    mentioned, count = {*SHARED}, -1
    while count < len(kept):
        count = len(kept)
        for names, node, own, around in units:
            if names & mentioned and (around is None or around in kept):
                kept.add(node)
                inner = [part for item in own for part in ast.walk(item)]
                mentioned |= {part.id for part in inner if isinstance(part, ast.Name)}
                mentioned |= {part.attr for part in inner if isinstance(part, ast.Attribute)}
    return kept, mentioned


def _copied(part: Definition, lines: Sequence[str], kept: Collection[ast.AST]) -> Iterator[str]:
    """Yield the lines of a definition, with what is said of it below, and without some methods."""
    end = part.node.end_lineno or 0
    start = end - len(part.text.split("\n"))
    left_out: set[int] = set()
    for node in _methods(part.node):
        if node not in kept:
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)]) - 1
            while not lines[first - 1]:
                first -= 1
            left_out |= {*range(first, node.end_lineno or 0)}
    yield from (lines[place] for place in range(start, end) if place not in left_out)
    said = "\n".join(lines[end:])
    if said.startswith('"""'):
        yield from said[: said.index('"""', 3) + 3].split("\n")
