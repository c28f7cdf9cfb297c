"""A Helion function in a Python file: its decorator, and what it needs of the file."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from kernelpkg.errors import UsageError, suggestion
from kernelpkg.files import read_plain
from kernelpkg.manifest.keys import REFUSED_SETTINGS
from kernelpkg.packs.sources import importable

_DECORATORS: Final = ("kernel", "jit", "aot_kernel")
"""What makes a kernel of a function, wherever in Helion it is imported from."""


@define
class Remarks:
    """What does not fit, or is left to the author: a line each, in the order of their places."""

    path: str
    lines: dict[str, None] = field(factory=dict)

    def add(self, node: ast.AST | None, text: str) -> None:
        """Add what is to be said of a node of the file, or of the file."""
        line = getattr(node, "lineno", 0)
        self.lines[f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}"] = None


@frozen(kw_only=True, slots=False)
class SourceModule:
    """A Python file that was read and not run."""

    path: str
    text: str
    tree: ast.Module

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        """The functions at its top level; of two of one name the last."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}

    @cached_property
    def imports(self) -> dict[str, str]:
        """The names that imports bind, and what they stand for in full."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{module}.{alias.name}"
        return found

    @cached_property
    def constants(self) -> dict[str, Any]:
        """The values of names that are assigned once, a literal."""
        found: dict[str, Any] = {}
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    found[name] = literal(value, found)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    found[name] = literal(value, found)
        return {name: value for name, value in found.items() if value is not UNKNOWN}

    def dotted(self, node: ast.AST) -> str:
        """Return what a name, or an attribute of one, stands for in full; "" for all else."""
        match node:
            case ast.Name(id=name):
                return self.imports.get(name, name)
            case ast.Attribute(value=value, attr=attr):
                before = self.dotted(value)
                return f"{before}.{attr}" if before else ""
        return ""

    def segment(self, node: ast.AST) -> str:
        """Return the source of a node."""
        return ast.get_source_segment(self.text, node) or ""

    def lines(self, first: int, last: int | None) -> str:
        """Return lines of the file, which count from 1."""
        return "\n".join(self.text.split("\n")[first - 1 : last])

    def kernels(self) -> Iterator[str]:
        """Yield the functions that a decorator of Helion's makes kernels."""
        for name, node in self.functions.items():
            if any(self.is_kernel(decorator) for decorator in node.decorator_list):
                yield name

    def is_kernel(self, decorator: ast.expr) -> bool:
        """Whether a decorator is Helion's."""
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        parts = self.dotted(called).split(".")
        return parts[0] == "helion" and parts[-1] in _DECORATORS


UNKNOWN: Final = object()
"""Stands for what is not a literal."""


def literal(node: ast.expr, names: Mapping[str, Any] | None = None) -> Any:
    """Return the value of a literal or of a name of one, or UNKNOWN."""
    if isinstance(node, ast.Name):
        return (names or {}).get(node.id, UNKNOWN)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return UNKNOWN


def read_module(given: str) -> tuple[SourceModule, ast.FunctionDef]:
    """Read `file.py:function`; raises UsageError where there is no such function."""
    path, _, name = given.rpartition(":")
    if given.endswith(".py") or not path:
        path, name = given, ""
    try:
        text = read_plain(Path(path)).decode()
        tree = ast.parse(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno}: does not parse: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} does not parse: {error or 'it is nested too deeply'}") from None
    module = SourceModule(path=path, text=text, tree=tree)
    if name in module.functions:
        return module, module.functions[name]
    kernels = ", ".join(f"'{path}:{kernel}'" for kernel in module.kernels())
    if not name:
        raise UsageError(f"{path}: give the function too: {kernels or 'it has no Helion kernel'}")
    hint = suggestion(name, module.functions) or f"; its kernels are {kernels or 'none'}"
    raise UsageError(f"{path} has no function '{name}' at its top level{hint}")


@frozen(kw_only=True)
class Decoration:
    """What the decorators of a function say that a manifest can say too."""

    settings: Mapping[str, Any]
    default: Mapping[str, Any]


def read_decorators(
    module: SourceModule, function: ast.FunctionDef, remarks: Remarks, *, shifts: bool
) -> Decoration:
    """Read what decorators say; of what a manifest cannot say, a remark is made.

    `shifts` says that calls of the function differ in what they load, and so in lists of a config.
    """
    settings: dict[str, Any] = {}
    default: dict[str, Any] = {}
    for decorator in function.decorator_list:
        if not module.is_kernel(decorator):
            what = f"decorator '@{module.segment(decorator)}' is left out"
            remarks.add(decorator, f"{what}; what it does is left to whoever calls the op")
            continue
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if keyword.arg == "config":
                default |= _read_config(module, keyword.value, remarks, shifts=shifts)
            else:
                settings |= _read_setting(module, keyword, remarks)
        for arg in decorator.args if isinstance(decorator, ast.Call) else ():
            remarks.add(arg, "what the decorator is given by place is left out; name it")
    return Decoration(settings=settings, default=default)


def _read_setting(module: SourceModule, keyword: ast.keyword, remarks: Remarks) -> dict[str, Any]:
    """Return a setting as a manifest has it, or nothing, with a remark."""
    name = keyword.arg or "**"
    if name == "ignore_warnings":
        value: Any = _warnings(module, keyword.value)
    else:
        value = literal(keyword.value, module.constants)
    if name in ("configs", "key", "batched", "collect_fn", "measure_fn"):
        remedy = "[[key]] and [[inputs.grid]] say what is tuned, and 'kernelpkg autotune' does it"
        remarks.add(keyword, f"'{name}' of the decorator is left out; {remedy}")
    elif name in REFUSED_SETTINGS:
        if value is not False:
            why = "kernelpkg sets it: one code serves all sizes but those of [helion] specialize"
            why = why if name == "static_shapes" else "kernelpkg sets it"
            remarks.add(keyword, f"setting '{name}' is left out; {why}")
    elif not sayable(value):
        remedy = "write it into [helion] settings if TOML can say it"
        remarks.add(keyword, f"setting '{name}' is left out, as it is not a literal; {remedy}")
    else:
        return {name: value}
    return {}


def _warnings(module: SourceModule, node: ast.expr) -> Any:
    """Return the names of the warnings of Helion that a list has, or UNKNOWN."""
    if not isinstance(node, ast.List | ast.Tuple):
        return UNKNOWN
    names = [module.dotted(item) for item in node.elts]
    fine = all(name.startswith("helion.") for name in names)
    return [name.rpartition(".")[2] for name in names] if fine else UNKNOWN


def _read_config(
    module: SourceModule, node: ast.expr, remarks: Remarks, *, shifts: bool
) -> dict[str, Any]:
    """Return what a config says; of lists that calls do not have in common a remark is made."""
    given: dict[str, Any] = {}
    nodes: dict[str, ast.AST] = {}
    match node:
        case ast.Call(args=[], keywords=keywords):
            for keyword in keywords:
                nodes[keyword.arg or "**"] = keyword
                given[keyword.arg or "**"] = literal(keyword.value, module.constants)
        case ast.Dict():
            whole = literal(node, module.constants)
            given = whole if isinstance(whole, dict) else {}
    if not given:
        remarks.add(node, "the config is left out, as it is not a literal; write [helion] default")
    found = {}
    for name, value in given.items():
        listed = isinstance(value, list | tuple) and name != "block_sizes"
        if (listed and shifts) or not sayable(value):
            why = "is a list, which optional and constant arguments shift"
            why = why if sayable(value) else "is not a literal"
            remedy = "tune the kernel, or write a config file"
            remarks.add(nodes.get(name, node), f"'{name}' of the config {why}; {remedy}")
        else:
            found[name] = value
    return found


def sayable(value: Any) -> bool:
    """Whether TOML can say a value."""
    match value:
        case list() | tuple():
            return all(map(sayable, value))
        case dict():
            return all(isinstance(key, str) and sayable(item) for key, item in value.items())
    return isinstance(value, bool | int | float | str)


def kernel_text(
    module: SourceModule,
    function: ast.FunctionDef,
    title: str,
    remarks: Remarks,
    *,
    header: str | None,
    constants: Sequence[str],
) -> str:
    """Return a file with a function and all that it needs of its module, as it is written there.

    The `header` takes the place of its `def`, where that has to be another one; `constants` are
    lines to stand before it.
    """
    whole = module.lines(function.lineno, function.end_lineno)
    if header is not None:
        whole = f"{header}\n{module.lines(function.body[0].lineno, function.end_lineno)}"
    read = _read(ast.parse("\n".join([*constants, whole])))
    parts = [f'"""{title}"""']
    imports, definitions = [], []
    for node in _needed(module, read):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(_import_text(node, read))
            _check_import(node, remarks)
        else:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            definitions.append(module.lines(first, node.end_lineno))
            for inner in ast.walk(node):
                _check_import(inner, remarks)
    future = [module.segment(node) for node in module.tree.body if _is_future(node)]
    parts += ["\n".join(lines) for lines in (future, imports, constants) if lines]
    return "\n\n".join(parts) + "\n\n\n" + "\n\n\n".join([*definitions, whole]) + "\n"


def _is_future(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _read(tree: ast.AST) -> set[str]:
    """Return the names that code reads of its module; those of quoted annotations too."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        found |= _read(node)
    match tree:
        case ast.Name(id=name, ctx=ast.Load()):
            found.add(name)
        case ast.arg(annotation=ast.Constant(value=str(text))):
            found |= _read(ast.parse(text))
        case ast.FunctionDef(args=args):
            found -= {*bound_names(tree), *_parameters(args)}
            found |= _read(args)
    return found


def _parameters(args: ast.arguments) -> Iterator[str]:
    yield from (node.arg for node in ast.walk(args) if isinstance(node, ast.arg))


def bound_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds, or that the statements within it do."""
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) if inner is not node:
                yield name
            case ast.alias(name=name, asname=bound):
                yield bound or name.split(".")[0]
            case ast.Name(id=name, ctx=ast.Store()):
                yield name


def _needed(module: SourceModule, read: set[str]) -> list[ast.stmt]:
    """Return the statements of a module that bind what is read, and what these read.

    `read` gets what they read.
    """
    kept: set[int] = set()
    statements = [node for node in module.tree.body if not _is_future(node)]
    last = {name: node for node in statements for name in _top_names(node)}
    waiting = [*read]
    while waiting:
        name = waiting.pop()
        read.add(name)
        node = last.get(name)
        if node is not None and id(node) not in kept:
            kept.add(id(node))
            waiting += _read(node) - read
    return [node for node in statements if id(node) in kept]


def _top_names(node: ast.stmt) -> Iterable[str]:
    """Return the names that a statement binds in its module; those inside a function are not."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return (node.name,)
    return bound_names(node)


def _import_text(node: ast.Import | ast.ImportFrom, read: set[str]) -> str:
    """Return an import with those of its names that are read."""
    names = [a for a in node.names if (a.asname or a.name.split(".")[0]) in read]
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import(names=names))
    return ast.unparse(ast.ImportFrom(module=node.module, names=names, level=node.level))


def _check_import(node: ast.AST, remarks: Remarks) -> None:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = ["." * node.level + (node.module or "")]
    else:
        return
    for name in names:
        if not importable(name, helion=True):
            what = f"'{name}' is imported; a kernel may import torch, helion and the standard"
            remarks.add(node, f"{what} library, so copy what is needed of it into kernel.py")
