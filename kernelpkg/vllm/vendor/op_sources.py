"""What a vendored op takes over from its kernel's files, as it stands there."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from kernelpkg.errors import PackError, Problem
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, Reference
from kernelpkg.vllm.vendor.op_code import WIDTH
from kernelpkg.vllm.vendor.pyfile import Definition, Import, PyFile, read_file, resolve

BASELINE: Final = "baseline"
"""What vLLM calls the reference of a kernel."""

_BOUND: Final = frozenset(
    {"CaseKey", "RULES", "TOLERANCES", "axes", "fake_impl", "generate_inputs", "has_helion"}
    | {"make_case_inputs", "pick_config", "register_kernel"}
    | {"AccuracyCheck", "Rule", "own_picker", "refuse_split", "rule_picker"}
)
_READ: Final = frozenset(
    {"ImportError", "ValueError", "abs", "bool", "dict", "float", "getattr", "int", "isinstance"}
    | {"len", "list", "max", "min", "next", "range", "str", "tuple", "zip"}
)
"""What the written part of a file binds, and what it reads of Python's own."""

_IMPORTED: Final[Mapping[str, tuple[str, str | None]]] = {
    "Any": ("typing", "Any"),
    "helion": ("helion", None),
    "product": ("itertools", "product"),
    "torch": ("torch", None),
}
"""What the written part may import; a kernel's files may import it too, and bind nothing else."""


def references(spec: KernelSpec) -> list[Reference]:
    """Return every function of a kernel that is taken over, the Helion function last."""
    inits = [variant.init for arg in spec.args for variant in arg.variants]
    named: list[Any] = [spec.generator] if spec.generator is not None else inits
    named += [spec.picker, spec.fake_impl, spec.reference]
    found = dict.fromkeys(item for item in named if isinstance(item, Reference))
    return [*(item for item in found if item != spec.source), spec.source]


def in_helion(item: Import) -> bool:
    """Whether an import is of Helion, which vLLM may run without."""
    return item.module.split(".")[0] == "helion"


@frozen(kw_only=True)
class Taken:
    """The parts of a kernel's files: `helpers` are all functions and constants but two.

    These are the reference, by the name that it has from now on, and the Helion function.
    `names` are all that the parts bind, and what they import.
    """

    imports: frozenset[Import]
    names: frozenset[str]
    helpers: tuple[tuple[str, ...], ...]
    baseline_name: str
    baseline: tuple[str, ...]
    kernel: tuple[str, ...]
    file: PyFile


def take(spec: KernelSpec, files: Files | None = None) -> Taken:
    """Read the files of a kernel, the one with the Helion function last.

    `files` has what was read before. Raises PackError with all that cannot be taken over, or would
    have two meanings.
    """
    roots = references(spec)
    directory = Path(spec.directory)
    parsed = {
        name: read_file(directory / name, f"kernels/{spec.name}/{name}", files)
        for name in dict.fromkeys(root.file for root in roots)
    }
    meanings = _Meanings()
    imports: set[Import] = set()
    taken: list[tuple[str, Definition]] = []
    for name, file in parsed.items():
        meanings.problems.extend(file.problems)
        found = resolve(file, [root.name for root in roots if root.file == name])
        meanings.problems.extend(found.problems)
        imports |= found.imports
        for item in found.imports:
            meanings.imported(item, file.shown)
        taken += [(name, part) for part in found.definitions if meanings.defined(part, file.shown)]
    if meanings.problems:
        raise PackError(problems=tuple(meanings.problems))

    def part_of(root: Reference) -> Definition:
        return next(d for name, d in taken if name == root.file and root.name in d.names)

    kernel, reference = part_of(spec.source), part_of(spec.reference)
    others = [part for _, part in taken if part is not kernel]
    helpers = [part for part in others if part is not reference]
    name, baseline = _renamed(reference, others, meanings.names)
    return Taken(
        imports=frozenset(imports),
        names=frozenset(meanings.names),
        helpers=tuple(_grouped(helpers)),
        baseline_name=name,
        baseline=baseline,
        kernel=tuple(kernel.text.split("\n")),
        file=parsed[spec.source.file],
    )


@frozen(kw_only=True)
class _Meanings:
    """What each name stands for in the one file that several become, and where it comes from."""

    names: dict[str, tuple[str, str]] = field(factory=dict)
    problems: list[Problem] = field(factory=list)

    def imported(self, item: Import, shown: str) -> None:
        wanted = _IMPORTED.get(item.name)
        if wanted is not None and wanted != (item.module, item.member):
            self.refuse(item.name, shown, 0)
        self.enter(item.name, f"{item.module}:{item.member}", shown, 0)

    def defined(self, part: Definition, shown: str) -> bool:
        """Enter what a statement binds; whether it is new."""
        for name in part.names:
            if name in _IMPORTED:
                self.refuse(name, shown, part.line)
        meaning = ast.dump(part.node)
        new = [self.enter(name, meaning, shown, part.line) for name in part.names]
        return all(new)

    def enter(self, name: str, meaning: str, shown: str, line: int) -> bool:
        if name in _BOUND | _READ:
            self.refuse(name, shown, line)
        before = self.names.setdefault(name, (meaning, shown))
        if before[0] != meaning:
            message = f"name '{name}' means something else in {before[1]}; rename one of them"
            self.problems.append(Problem(path=shown, line=line, code="KP812", message=message))
        return before == (meaning, shown)

    def refuse(self, name: str, shown: str, line: int) -> None:
        message = f"name '{name}' has a use of its own in the file that vLLM gets; rename it"
        self.problems.append(Problem(path=shown, line=line, code="KP812", message=message))


def _grouped(helpers: Iterable[Definition]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of helpers, constants that follow each other as one."""
    constants: list[str] = []
    for part in helpers:
        lines = part.text.split("\n")
        if isinstance(part.node, ast.Assign | ast.AnnAssign):
            constants += [""] * (bool(constants) and lines[0].startswith("#")) + lines
            continue
        if constants:
            yield tuple(constants)
            constants = []
        yield tuple(lines)
    if constants:
        yield tuple(constants)


def _renamed(
    reference: Definition, parts: Sequence[Definition], names: Iterable[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the reference under vLLM's name for it, where no other name has to change."""
    node = reference.node
    assert isinstance(node, ast.FunctionDef)
    lines = reference.text.split("\n")
    place = lines.index(next(line for line in lines if line.startswith(f"def {node.name}(")))
    head = f"def {BASELINE}({lines[place].partition('(')[2]}"
    one_line = lines[place].endswith(":")
    used = any(node.name in part.reads for part in parts) or BASELINE in names
    if used or (one_line and len(head) > WIDTH) or not (one_line or _exploded(lines[place:])):
        return node.name, tuple(lines)
    return BASELINE, (*lines[:place], head, *lines[place + 1 :])


def _exploded(lines: Sequence[str]) -> bool:
    """Whether a signature has an argument a line, and stays so whatever the function's name."""
    last = next((i for i, line in enumerate(lines) if line.startswith(")")), 0)
    return lines[last - 1].endswith(",")


def taken_lines(parts: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield parts with two empty lines before each, as between functions."""
    for part in parts:
        yield from ("", "", *part)
