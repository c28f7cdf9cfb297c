"""A kernel's Python files: read as a tree without running them, or loaded by path as modules."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import io
import linecache
import os
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from attrs import frozen

from kernelpkg.errors import PackError, Problem, error_line, innermost, pack_error, suggestion
from kernelpkg.files import Files, digest_bytes
from kernelpkg.manifest.decode import MISSING, TomlPath
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.opschema import NO_DEFAULT, OpArg, OpSchema
from kernelpkg.manifest.spec import Reference

_ALLOWED: Final = frozenset(sys.stdlib_module_names) | {"torch", "helion"}
_SOURCE: Final = ("kernel", "source")
_CALLS: Final = {
    "picker": ("args", "keys"),
    "generator": ("axes", "generator", "device"),
    "init": ("axes", "args", "generator"),
}
"""What functions of a kernel are called with, by their keys; the others get the op's arguments."""

_MODULES: Final = "_kernelpkg_kernels"


@frozen(kw_only=True)
class SourceFile:
    """One file: whether it parses, its functions by name, and what is wrong with it."""

    shown: str
    parsed: bool = True
    functions: Mapping[str, ast.FunctionDef]
    problems: tuple[Problem, ...]


def check_references(
    references: Iterable[tuple[TomlPath, Reference]],
    directory: Path,
    schema: OpSchema | Any,
    document: Document,
    files: Files,
) -> None:
    """Report Python functions that are not where a manifest says, or take other arguments.

    `schema` is MISSING where it could not be read; then nothing is held against it.
    """
    known: dict[str, SourceFile | None] = {}
    listed = sorted(references, key=lambda entry: entry[0] != _SOURCE)
    source = next((reference.file for at, reference in listed if at == _SOURCE), None)
    for at, reference in listed:
        if reference.file not in known:
            helion = reference.file == source
            known[reference.file] = _read_file(
                directory, reference, at, document, files, helion=helion
            )
        file = known[reference.file]
        if file is None or not file.parsed:
            continue
        function = find_function(file, reference.name)
        if isinstance(function, str):
            document.report(at, "KP112", f"'{reference}': {function}")
        elif at == _SOURCE:
            place = f"{file.shown}:{function.lineno}"
            for wrong in () if schema is MISSING else signature_problems(function, schema):
                document.report(("op", "schema"), "KP103", f"{wrong} ({place})")
            for line, name in _returned_arguments(function):
                message = (
                    f"returns its argument '{name}'; PyTorch takes each result for memory of its "
                    "own, so allocate it"
                )
                problem = Problem(path=file.shown, line=line, code="KP115", message=message)
                document.report_elsewhere(problem)
        else:
            given = None if schema is MISSING else schema.arg_names
            given = ("output", *given) if given is not None and at[-1] == "holds" else given
            what = call_problem(function, _CALLS.get(str(at[-1]), given))
            if what is not None:
                message = f"'{reference}' {what} ({file.shown}:{function.lineno})"
                document.report(at, "KP103", message)


def _read_file(
    directory: Path,
    reference: Reference,
    at: TomlPath,
    document: Document,
    files: Files,
    *,
    helion: bool,
) -> SourceFile | None:
    path = directory / reference.file
    shown_path = f"kernels/{directory.name}/{reference.file}"
    # By its words alone: caches and installers lay a link for every file (2026-11-30).
    if os.path.normpath(reference.file).startswith(("/", "../")):
        message = f"'{reference}' leaves the directory of its kernel; move the file into it"
        document.report(at, "KP110", message)
        return None
    try:
        file = read_source(path, shown_path, helion=helion, files=files)
    except OSError as error:
        remedy = f"write it, or correct '{at[-1]}'"
        message = f"'{reference}': {shown_path} cannot be read: {error.strerror}; {remedy}"
        document.report(at, "KP111", message)
        return None
    for problem in file.problems:
        document.report_elsewhere(problem)
    return file


def read_source(path: Path, shown: str, *, helion: bool, files: Files | None = None) -> SourceFile:
    """Parse a file and check its imports: torch, the standard library, and helion where allowed.

    Raises OSError where the file cannot be read.
    """
    try:
        tree = (files or Files()).tree(path, shown)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or str(error) or "it is nested too deeply"
        problem = Problem(path=shown, line=line, code="KP114", message=f"does not parse: {reason}")
        return SourceFile(shown=shown, parsed=False, functions={}, problems=(problem,))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return SourceFile(
        shown=shown,
        functions=functions,
        problems=tuple(_import_problems(tree, shown, helion=helion)),
    )


def importable(module: str, *, helion: bool) -> bool:
    """Whether a file of a kernel may import a module; Helion where the file has its function."""
    top = module.split(".", maxsplit=1)[0]
    return top in _ALLOWED and (helion or top != "helion")


def _import_problems(tree: ast.Module, shown: str, *, helion: bool) -> Iterator[Problem]:
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in names:
            if not importable(name, helion=helion):
                message = f"imports '{name}'; this file may import torch{', helion' * helion} and "
                message += "the standard library, so that the kernel stays one directory"
                yield Problem(path=shown, line=node.lineno, code="KP113", message=message)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements and those inside them; expressions, which hold none, are not walked."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, inner, ()))
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(part.body)


def source_digest(tree: ast.Module) -> str:
    """Return the digest of what a file does: its tree, without comments, layout and docstrings."""
    copy = ast.parse(ast.unparse(tree))
    for node in ast.walk(copy):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            documented = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[documented:] or [ast.Pass()]
    return digest_bytes(ast.unparse(copy).encode())


def find_function(file: SourceFile, name: str) -> ast.FunctionDef | str:
    """Return the function, or what is wrong where there is none."""
    found = file.functions.get(name)
    if found is None:
        hint = suggestion(name, file.functions)
        return f"{file.shown} has no function '{name}' at its top level{hint}"
    return found


def parameters(function: ast.FunctionDef) -> tuple[str, ...]:
    """The names of a function's parameters, in order; `*args` and the like keep their stars."""
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    names += [f"*{args.vararg.arg}"] if args.vararg else []
    names += [arg.arg for arg in args.kwonlyargs]
    names += [f"**{args.kwarg.arg}"] if args.kwarg else []
    return tuple(names)


def call_problem(function: ast.FunctionDef, given: Sequence[str] | None) -> str | None:
    """Say that a function cannot be called with so many arguments by place, or return None."""
    args = function.args
    most = len(args.posonlyargs) + len(args.args)
    least = most - len(args.defaults)
    kept = (node for node in args.kw_defaults if node is None)
    if given is None or (
        least <= len(given) <= (len(given) if args.vararg else most) and not list(kept)
    ):
        return None
    got = ", ".join(parameters(function))
    return f"takes ({got}), and is called with ({', '.join(given)})"


def signature_problems(function: ast.FunctionDef, schema: OpSchema) -> Iterator[str]:
    """Yield where a Helion function's signature and the op's schema disagree."""
    for decorator in function.decorator_list:
        name = ast.unparse(decorator)
        yield f"the function is decorated with '{name}'; kernelpkg makes it a kernel, remove it"
    names, args = parameters(function), function.args
    positional = (*args.posonlyargs, *args.args)
    if names != schema.arg_names:
        wanted, got = ", ".join(schema.arg_names), ", ".join(names)
        yield f"the schema's arguments are ({wanted}), the function's ({got})"
    elif len(positional) != len(names):
        yield "the function has arguments that are not positional"
    else:
        yield from _argument_problems(positional, args.defaults, schema)
    wanted = _returned(schema.returns)
    if function.returns is None:
        if schema.returns:
            yield f"the function says nothing of what it returns; write '-> {wanted}'"
        return
    returned = re.sub(r"\b(?<!torch\.)Tensor\b", "torch.Tensor", _annotated(function.returns))
    returned = returned.replace("Tuple[", "tuple[")
    if returned != wanted:
        yield f"by the schema the function returns '{wanted}', and is annotated '{returned}'"


def _argument_problems(
    nodes: Sequence[ast.arg], given: Sequence[ast.expr], schema: OpSchema
) -> Iterator[str]:
    """Yield where the annotations and defaults of a function are not those of the schema."""
    defaults = [NO_DEFAULT] * (len(nodes) - len(given)) + [_literal(node) for node in given]
    for node, default, arg in zip(nodes, defaults, schema.args, strict=True):
        if node.annotation is None:
            yield f"argument '{arg.name}' of the function has no annotation; write {_hint(arg)}"
        elif _annotated(node.annotation) != _hint(arg):
            got = ast.unparse(node.annotation)
            yield f"argument '{arg.name}' is '{_hint(arg)}' by the schema, '{got}' in the function"
        if default is not NO_DEFAULT and default != arg.default:
            wanted = "none" if arg.default is NO_DEFAULT else arg.default
            yield f"argument '{arg.name}' has default {default} in the function, {wanted} by schema"


def _returned_arguments(function: ast.FunctionDef) -> Iterator[tuple[int, str]]:
    """Yield the arguments that a function returns as they are, with the lines where it does."""
    names = parameters(function)
    bound = {
        node.id
        for part in function.body
        for node in ast.walk(part)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for node in _statements(function.body):
        value = node.value if isinstance(node, ast.Return) else None
        for item in value.elts if isinstance(value, ast.Tuple) else [value]:
            if isinstance(item, ast.Name) and item.id in names and item.id not in bound:
                yield node.lineno, item.id


def _returned(count: int) -> str:
    """The annotation of a function that returns so many tensors."""
    if count < 2:
        return "torch.Tensor" if count else "None"
    return f"tuple[{', '.join(['torch.Tensor'] * count)}]"


def _hint(arg: OpArg) -> str:
    base = "torch.Tensor" if arg.is_tensor else arg.type
    return f"{base} | None" if arg.optional else base


def _written(node: ast.expr) -> str:
    """Write an annotation out; the usual ones at once, for `ast.unparse` takes 30 us of each."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=None):
            return "None"
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return f"{module}.{name}"
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return f"{_written(left)} | None"
        case _:
            return ast.unparse(node)


def _annotated(node: ast.expr) -> str:
    text = _written(node).strip("'\"").replace("typing.", "")
    if text.startswith("Optional[") and text.endswith("]"):
        text = f"{text[9:-1]} | None"
    if text.startswith("None | "):
        text = f"{text[7:]} | None"
    return f"torch.{text}" if text.split(" ")[0] == "Tensor" else text


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def load_module(directory: Path, file: str, files: Files | None = None) -> ModuleType:
    """Run a file under a private module name and return its module; a second call returns it too.

    The module is in `sys.modules` while it runs, for Helion resolves globals through it. The name
    holds a digest of path and content, so that kernels of several packs, and edited ones, stay
    apart. Raises PackError, with the line, where the file fails to import.
    """
    path, files = directory / file, files or Files()
    try:
        content = files.read(path)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise pack_error(f"kernels/{directory.name}/{file}", "KP111", message) from None
    mark = hashlib.sha256(str(files.resolve(path)).encode() + b"\0" + content).hexdigest()[:16]
    name = f"{_MODULES}_{mark}_{directory.name}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # What was read: an import would read the file once more, and might find another.
        exec(compile(files.parsed(path), str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise _import_failure(error, path, f"kernels/{directory.name}/{file}") from None
    return module


def _import_failure(error: BaseException, path: Path, shown: str) -> PackError:
    place = innermost(error, str(path))
    line = 1 if place is None else place.tb_lineno
    return pack_error(shown, "KP114", f"fails to import: {error_line(error)}", line)


def raised_in(error: BaseException, directory: Path) -> tuple[str, int]:
    """Return the file of a kernel's directory in which an error was raised, or "", and the line."""
    prefix = f"{directory}{os.sep}"
    place = innermost(error, prefix)
    if place is None:
        return "", 0
    return place.tb_frame.f_code.co_filename.removeprefix(prefix), place.tb_lineno


def load_function(directory: Path, reference: Reference, files: Files | None = None) -> Any:
    """Return the function that a reference of the kernel in `directory` names."""
    module = load_module(directory, reference.file, files)
    found = getattr(module, reference.name, None)
    if not callable(found):
        message = f"has no function '{reference.name}' once it has run"
        raise pack_error(f"kernels/{directory.name}/{reference.file}", "KP112", message)
    return found


@contextlib.contextmanager
def read_anew(directory: Path) -> Iterator[None]:
    """Let Helion read files of a kernel as they are now, though they are pinned for a loaded op."""
    files = [file for file in list(linecache.cache) if Path(file).is_relative_to(directory)]
    kept = {file: linecache.cache.pop(file) for file in files}
    try:
        yield
    finally:
        linecache.cache.update(kept)


class Pins:
    """Keeps the source of functions as it was when they were loaded.

    Helion compiles a function at its first call, from the lines that `linecache` has of its file
    by then. Without this, a file that is edited in between would be compiled in part as it is now.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}

    def pin(self, path: Path, content: bytes) -> None:
        """Keep a file's lines; an entry without a time of change is never looked at again."""
        file = str(path)
        if file not in self._before:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            lines = io.StringIO(content.decode(encoding), newline=None).readlines()
            self._before[file] = linecache.cache.get(file)
            linecache.cache[file] = (sum(map(len, lines)), None, lines, file)

    def undo(self) -> None:
        """Go back to the lines from before, of the functions that stay."""
        for file, entry in self._before.items():
            linecache.cache.pop(file, None)
            if entry is not None:
                linecache.cache[file] = entry
