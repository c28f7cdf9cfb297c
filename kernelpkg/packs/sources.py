"""A kernel's Python files: read as a tree without running them, or loaded by path as modules."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import io
import linecache
import os
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from attrs import frozen

from kernelpkg.errors import PackError, Problem, error_line, innermost, pack_error, suggestion
from kernelpkg.files import Files, digest_bytes
from kernelpkg.manifest.decode import MISSING, TomlPath
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.manifest.spec import Reference
from kernelpkg.packs.signature import (
    call_problem,
    constant_arguments,
    signature_problems,
)
from kernelpkg.packs.tensor_use import misuses, statements, unplaced

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
) -> tuple[str, ...]:
    """Report Python functions that are not where a manifest says, or take other arguments.

    `schema` is MISSING where it could not be read; then nothing is held against it. Returns the
    arguments that the source takes as hl.constexpr.
    """
    constants: tuple[str, ...] = ()
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
            constants = constant_arguments(function)
            place = f"{file.shown}:{function.lineno}"
            for wrong in () if schema is MISSING else signature_problems(function, schema):
                document.report(("op", "schema"), "KP103", f"{wrong} ({place})")
            for line, code, message in () if schema is MISSING else misuses(function, schema):
                problem = Problem(path=file.shown, line=line, code=code, message=message)
                document.report_elsewhere(problem)
        else:
            given = None if schema is MISSING else schema.arg_names
            given = ("output", *given) if given is not None and at[-1] == "holds" else given
            what = call_problem(function, _CALLS.get(str(at[-1]), given))
            if what is not None:
                message = f"'{reference}' {what} ({file.shown}:{function.lineno})"
                document.report(at, "KP103", message)
            for line, code, message in unplaced(function) if at[-1] == "fake_impl" else ():
                problem = Problem(path=file.shown, line=line, code=code, message=message)
                document.report_elsewhere(problem)
    return constants


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
    for node in statements(tree.body):
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
