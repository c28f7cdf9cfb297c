"""A kernel's Python files, read without running them: what a vendored op takes over of them."""

from __future__ import annotations

import ast
import builtins
import io
import re
import symtable
import tokenize
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from kernelpkg.errors import PackError, Problem, suggestion
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, Reference
from kernelpkg.vllm.vendor.op_code import WIDTH, Group, lay

BASELINE: Final = "baseline"
"""What vLLM calls the reference of a kernel."""

_BOUND: Final = frozenset(
    {"CaseKey", "RULES", "TOLERANCES", "axes", "fake_impl", "generate_inputs", "has_helion"}
    | {"make_case_inputs", "pick_config", "register_kernel"}
    | {"AccuracyCheck", "Rule", "_pick_cache", "own_picker", "rule_picker"}
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


@frozen(kw_only=True)
class Import:
    """One imported name: `import module as name`, or `from module import member as name`.

    A plain `import a.b` binds `a`.
    """

    module: str
    member: str | None
    name: str

    def text(self) -> str:
        """Return the part of the statement that names it."""
        path = self.member or self.module
        return path if self.name in (path, path.split(".")[0]) else f"{path} as {self.name}"


@frozen(kw_only=True)
class Definition:
    """A statement at the top level of a file that binds names, as text, and what it reads."""

    names: tuple[str, ...]
    text: str
    line: int
    reads: frozenset[str]
    node: ast.stmt = field(eq=False, repr=False)

    @property
    def is_constant(self) -> bool:
        return isinstance(self.node, ast.Assign | ast.AnnAssign)


@frozen(kw_only=True)
class PyFile:
    """One file of a kernel: what it imports, and what it defines, in its order."""

    shown: str
    lines: tuple[str, ...]
    imports: Mapping[str, Import]
    definitions: tuple[Definition, ...]
    problems: tuple[Problem, ...]

    def definition(self, name: str) -> Definition | None:
        """Return what binds a name, the last of several."""
        return next((item for item in reversed(self.definitions) if name in item.names), None)

    def function(self, name: str) -> ast.FunctionDef:
        """Return a function that is known to be there."""
        found = self.definition(name)
        assert found is not None and isinstance(found.node, ast.FunctionDef)
        return found.node


def read_file(path: Path, shown: str, files: Files | None = None) -> PyFile:
    """Read a file that parses; its problems are what cannot be taken over, and long lines."""
    data = (files or Files()).read(path)
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    text = io.StringIO(data.decode(encoding), newline=None).getvalue()
    lines = tuple(text.split("\n"))
    imports: dict[str, Import] = {}
    definitions: list[Definition] = []
    problems = [
        Problem(path=shown, line=number, code="KP811", message=_LONG.format(len(line)))
        for number, line in enumerate(lines, 1)
        if len(line) > WIDTH
    ]
    last = 0
    for place, node in enumerate(ast.parse(text).body):
        wrong = _refused(node) if place or not isinstance(node, ast.Expr) else None
        if node.lineno == last:
            wrong = "two statements share the line; give each a line, for lines are taken over"
        last = node.end_lineno or last
        if wrong is not None:
            problems.append(Problem(path=shown, line=node.lineno, code="KP812", message=wrong))
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= {found.name: found for found in _imports(node)}
        elif wrong is None and isinstance(node, _DEFINING):
            definitions.append(_definition(node, lines))
    return PyFile(
        shown=shown,
        lines=lines,
        imports=imports,
        definitions=tuple(definitions),
        problems=tuple(problems),
    )


_DEFINING: Final = (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)


def _refused(node: ast.stmt) -> str | None:
    """Say why a statement of a file cannot be taken over, or return None."""
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        return f"'{ast.unparse(node)}' does not tell what it imports; name it"
    sets = any(
        isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store)
        for target in getattr(node, "targets", [getattr(node, "target", node)])
        for part in ast.walk(target)
    )
    if isinstance(node, ast.Assign | ast.AnnAssign) and sets:
        return "an assignment to a part of something else cannot be taken over; remove it"
    if isinstance(node, (*_DEFINING, ast.Import, ast.ImportFrom)):
        return None
    return (
        f"a statement of kind '{type(node).__name__}' at the top level cannot be taken over; "
        "imports, constants, functions and classes can"
    )


_LONG: Final = f"the line has {{}} columns; vLLM's files have {WIDTH}, so shorten it"


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Import]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            name = alias.asname or alias.name.split(".")[0]
            yield Import(module=alias.name, member=None, name=name)
        elif node.module != "__future__":  # annotations are read by vLLM, as they stand
            name = alias.asname or alias.name
            yield Import(module=node.module or "", member=alias.name, name=name)


def _definition(node: ast.stmt, lines: Sequence[str]) -> Definition:
    """Take the lines of a statement, with its decorators and the comment right above it."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(part.lineno for part in decorators)]) - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    text = "\n".join(lines[first : node.end_lineno])
    return Definition(
        names=tuple(_bound(node)), text=text, line=node.lineno, reads=reads(text), node=node
    )


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id


def reads(text: str) -> frozenset[str]:
    """Return the names that code reads of what is around it, without Python's `__names__`."""
    found: set[str] = set()

    def visit(table: symtable.SymbolTable, *, top: bool) -> None:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                found.add(symbol.get_name())
        for child in table.get_children():
            visit(child, top=False)

    visit(symtable.symtable(text, "<source>", "exec"), top=True)
    return frozenset(name for name in found if not re.fullmatch(r"__\w+__|\..*", name))


@frozen(kw_only=True)
class Needed:
    """What some functions of a file need of it, in its order, and names that it does not have."""

    definitions: tuple[Definition, ...]
    imports: frozenset[Import]
    problems: tuple[Problem, ...]


def resolve(file: PyFile, roots: Iterable[str]) -> Needed:
    """Return all definitions and imports that some functions of a file need, themselves first."""
    wanted = list(roots)
    imports: set[Import] = set()
    taken: dict[int, Definition] = {}
    problems = []
    for name in wanted:  # which grows meanwhile
        definitions = [item for item in file.definitions if name in item.names]
        for definition in definitions:
            taken[definition.line] = definition
            wanted += sorted((definition.reads | {*definition.names}).difference(wanted))
        if definitions:
            continue
        if name in file.imports:
            imports.add(file.imports[name])
        elif not hasattr(builtins, name):
            known = [*file.imports, *(n for item in file.definitions for n in item.names)]
            remedy = suggestion(name, known) or "; define it there"
            message = f"name '{name}' is not defined in the file{remedy}"
            problems.append(Problem(path=file.shown, code="KP812", message=message))
    return Needed(
        definitions=tuple(taken[line] for line in sorted(taken)),
        imports=frozenset(imports),
        problems=tuple(problems),
    )


_SECTIONS: Final = {"torch": 1, "helion": 1, "vllm": 2}
"""The section of an import by its first word, as isort has them; 0 is the standard library."""


def import_lines(imports: Iterable[Import]) -> list[str]:
    """Return import statements in the order of isort, with an empty line between sections."""
    lines: list[str] = []
    for _, section in groupby(sorted({*imports}, key=_order), key=lambda item: _order(item)[0]):
        lines += [""] if lines else []
        for module, names in groupby(section, key=lambda item: item.member and item.module):
            texts = tuple(item.text() for item in names)
            if module is None:
                lines += [f"import {text}" for text in texts]
                continue
            line = f"from {module} import {', '.join(texts)}"
            spread = Group(f"from {module} import (", texts, ")", each=True)
            lines += lay(line if len(line) <= WIDTH else spread)
    return lines


def _order(item: Import) -> tuple[Any, ...]:
    """`import x` comes first in a section; of names, constants, then classes, then all else."""
    section, name = _SECTIONS.get(item.module.split(".")[0], 0), item.member
    if name is None:
        return section, 0, item.text().lower()
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return section, 1, item.module.lower(), item.module, kind, name


def references(spec: KernelSpec) -> list[Reference]:
    """Return every function of a kernel that is taken over, the Helion function last."""
    found = dict.fromkeys([*_called_by_name(spec), spec.reference])
    return [*(item for item in found if item not in (None, spec.source)), spec.source]


def _called_by_name(spec: KernelSpec) -> list[Reference]:
    """Return the functions whose names stand in the written part of a vendored file."""
    inits = [variant.init for arg in spec.args for variant in arg.variants]
    named: list[Any] = [spec.generator] if spec.generator is not None else inits
    named += [spec.picker, spec.fake_impl]
    return [item for item in named if isinstance(item, Reference)]


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
    taken: list[Definition] = []
    for name, file in parsed.items():
        found = resolve(file, [root.name for root in roots if root.file == name])
        meanings.problems.extend((*file.problems, *found.problems))
        imports |= found.imports
        for item in found.imports:
            meanings.enter(item.name, item, file.shown)
        for part in found.definitions:
            new = [meanings.enter(bound, part, file.shown) for bound in part.names]
            taken += [part] if all(new) else []
    if meanings.problems:
        raise PackError(problems=tuple(meanings.problems))

    def part_of(root: Reference) -> Definition:
        # By its name alone: of one that two files have in the same words, one is taken.
        return next(part for part in taken if root.name in part.names)

    assert spec.reference is not None  # a kernel without one is refused
    kernel, reference = part_of(spec.source), part_of(spec.reference)
    others = [part for part in taken if part is not kernel]
    helpers = [part for part in others if part is not reference]
    read = {item.name for item in _called_by_name(spec)}.union(*(part.reads for part in others))
    name, baseline = _renamed(reference, read, meanings.names)
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

    def enter(self, name: str, item: Import | Definition, shown: str) -> bool:
        """Enter what a name stands for, or is imported from; whether it is new."""
        source = (item.module, item.member) if isinstance(item, Import) else None
        meaning = str(source) if isinstance(item, Import) else ast.dump(item.node)
        line = 0 if isinstance(item, Import) else item.line
        before = self.names.setdefault(name, (meaning, shown))
        wrong = []
        if name in _BOUND | _READ or _IMPORTED.get(name, source) != source:
            wrong.append("has a use of its own in the file that vLLM gets; rename it")
        if before[0] != meaning:
            wrong.append(f"means something else in {before[1]}; rename one of them")
        for what in wrong:
            message = f"name '{name}' {what}"
            self.problems.append(Problem(path=shown, line=line, code="KP812", message=message))
        return before == (meaning, shown)


def _grouped(helpers: Iterable[Definition]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of helpers, constants that follow each other as one."""
    for constant, parts in groupby(helpers, key=lambda part: part.is_constant):
        texts = [part.text.split("\n") for part in parts]
        if constant:
            first, *others = texts
            gaps = ([""] * lines[0].startswith("#") + lines for lines in others)
            texts = [[*first, *chain.from_iterable(gaps)]]
        yield from map(tuple, texts)


def _renamed(
    reference: Definition, read: Collection[str], names: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the reference under vLLM's name for it, where no other name has to change.

    `read` are the names that the file reads elsewhere, and `names` all that its parts bind.
    """
    node = reference.node
    assert isinstance(node, ast.FunctionDef)
    lines = reference.text.split("\n")
    place = lines.index(next(line for line in lines if line.startswith(f"def {node.name}(")))
    head = f"def {BASELINE}({lines[place].partition('(')[2]}"
    one_line = lines[place].endswith(":")
    used = node.name in read or BASELINE in names
    if used or (one_line and len(head) > WIDTH) or not (one_line or _exploded(lines[place:])):
        return node.name, tuple(lines)
    return BASELINE, (*lines[:place], head, *lines[place + 1 :])


def _exploded(lines: Sequence[str]) -> bool:
    """Whether a signature has an argument a line, and stays so whatever the function's name."""
    last = next((i for i, line in enumerate(lines) if line.startswith(")")), 0)
    return lines[last - 1].endswith(",")
