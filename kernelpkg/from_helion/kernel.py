"""A Helion function of a Python file as the files of a kernel; the file is read, and never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.compile.host_code import why_not_inferred
from kernelpkg.errors import UsageError, counted
from kernelpkg.from_helion import arguments
from kernelpkg.from_helion.arguments import Parameter
from kernelpkg.from_helion.manifest import Draft, summary_of, write_manifest
from kernelpkg.from_helion.reading import read_function
from kernelpkg.from_helion.source import (
    Remarks,
    SourceModule,
    kernel_text,
    read_decorators,
    read_module,
)
from kernelpkg.from_helion.values import Reading
from kernelpkg.manifest.opschema import INSTEAD

_HOST: Final = '''"""The reference of {name}."""

import torch


{header}
    """Return what {name} does, in eager PyTorch, computed in float32."""
    raise NotImplementedError("write the reference of {name}")
'''

_FAKE: Final = '''

{header}
    """Return empty tensors like the results of {name}."""
    raise NotImplementedError("write the fake implementation of {name}")
'''

_USUAL: Final = {"torch": "torch", "Tensor": "torch.Tensor", "Optional": "typing.Optional"}
"""The names in annotations that a schema can be held against, and what they stand for."""


@frozen(kw_only=True)
class TakenKernel:
    """The files of a kernel, by name, and what does not fit or is left to the author."""

    name: str
    files: dict[str, str]
    remarks: tuple[str, ...]


def take_kernel(given: str, name: str | None = None) -> TakenKernel:
    """Read `file.py:function` and return it as a kernel, with the function's name unless given.

    Raises UsageError where there is no such function, and with a line for each of its arguments and
    results that no op has.
    """
    module, function = read_module(given)
    name, remarks = name or function.name, Remarks(module.path)
    every = arguments.read_parameters(module, function)
    kept = [parameter for parameter in every if parameter.type]
    reading = read_function(
        module,
        function,
        tensors=[parameter.name for parameter in kept if parameter.is_tensor],
        numbers=[parameter.name for parameter in kept if parameter.type == "int"],
    )
    results = _results(module, function, every, reading)
    shifts = any(parameter.optional or parameter.constant for parameter in kept)
    decoration = read_decorators(module, function, remarks, shifts=shifts)
    _remark(remarks, every, reading)
    helion = {bound for bound, of in module.imports.items() if of.split(".")[0] == "helion"}
    refusal = why_not_inferred(function, helion) if results else None
    draft = Draft(
        function=function,
        parameters=kept,
        reading=reading,
        remarks=remarks,
        results=results,
        fake="host.py:fake" if refusal else "infer" if results else "none",
    )
    same = len(kept) == len(every) and _is_plain(module, function, kept)
    files = {
        "kernel.toml": write_manifest(draft, name, function.name, summary_of(function), decoration),
        "kernel.py": kernel_text(
            module,
            function,
            f"The Helion function of {name}.",
            remarks,
            header=None if same else arguments.header(function.name, kept, results, helion=True),
            constants=[*_constants(module, every)],
        ),
        "host.py": _HOST.format(name=name, header=arguments.header("reference", kept, results)),
    }
    if refusal:
        files["host.py"] += _FAKE.format(name=name, header=arguments.header("fake", kept, results))
    left = _left(name, draft, refusal)
    return TakenKernel(name=name, files=files, remarks=(*remarks.lines, *left))


def _left(name: str, draft: Draft, refusal: str | None) -> Iterator[str]:
    """Yield what is left to the author."""
    host = f"kernels/{name}/host.py"
    yield f"{host}: the reference is left to you"
    if refusal:
        yield f"{host}: the fake implementation is left to you: {refusal.partition(', so')[0]}"
    if draft.guessed():
        what = "; ".join(draft.guessed())
        yield f"kernels/{name}/kernel.toml: guessed, as the source does not say: {what}"


def _results(
    module: SourceModule,
    function: ast.FunctionDef,
    parameters: Sequence[Parameter],
    reading: Reading,
) -> int:
    """Return how many tensors are returned, by the annotation, or by what is returned.

    Raises UsageError with a line for each argument and result that no op has.
    """
    results = (reading.results or 0) if function.returns is None else None
    if function.returns is not None:
        results = arguments.read_results(module, function.returns)
    problems = [*_problems(function, parameters)]
    if results is None and function.returns is not None:
        what = f"the function returns '{ast.unparse(function.returns)}'"
        absent = any(_may_be_none(part) for part in ast.walk(function.returns))
        remedy = INSTEAD if absent else "an op returns None, torch.Tensor or a tuple of them"
        problems.append((function.returns.lineno, f"{what}; {remedy}"))
    if problems or results is None:
        lines = [f"{module.path}:{line}: {text}" for line, text in sorted(problems)]
        raise UsageError("\n".join([f"{counted(len(lines), 'thing')} to change first", *lines]))
    return results


def _may_be_none(node: ast.AST) -> bool:
    """Whether a part of an annotation is `… | None` or `Optional[…]`."""
    match node:
        case ast.BinOp(op=ast.BitOr()):
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name == "Optional"
    return False


def _problems(
    function: ast.FunctionDef, parameters: Sequence[Parameter]
) -> Iterator[tuple[int, str]]:
    """Yield what of its arguments keeps a function from being an op's, with lines."""
    for star in (function.args.vararg, function.args.kwarg):
        if star is not None:
            yield star.lineno, f"'{star.arg}' takes any arguments; an op has each by name"
    for parameter in parameters:
        if parameter.type or parameter.default_node is not None:
            continue
        line, annotation = parameter.node.lineno, parameter.node.annotation
        if annotation is None:
            what = f"argument '{parameter.name}' has no annotation"
            types = "torch.Tensor, int, float, bool or str"
            yield line, f"{what}; write {types}, or '| None' behind one"
        else:
            what = f"argument '{parameter.name}' is '{ast.unparse(annotation)}', as none of an op"
            yield line, f"{what}; give it a default, which then takes its place"


def _remark(remarks: Remarks, parameters: Sequence[Parameter], reading: Reading) -> None:
    """Say what of arguments and results does not fit, or cannot be told."""
    for parameter in parameters:
        if not parameter.type:
            what = f"argument '{parameter.name}' is none that an op has"
            remarks.add(parameter.node, f"{what}; its default takes its place, in kernel.py")
    for name, node in reading.asked.items():
        if name not in reading.written:
            what = f"whether '{name}' is written here cannot be told"
            remarks.add(node, f"{what}; if it is, write 'Tensor(a!) {name}' in [op] schema")
    for name, node in reading.returned.items():
        what = f"argument '{name}' is returned, or a view of it, which an op must not"
        remarks.add(node, f"{what}; return a tensor of its own, or nothing where it is written")


def _is_plain(
    module: SourceModule, function: ast.FunctionDef, parameters: Sequence[Parameter]
) -> bool:
    """Whether the function can stand as it is: by place, with usual annotations and literals."""
    args = function.args
    literals = all(isinstance(node, ast.Constant | ast.UnaryOp) for node in args.defaults)
    if args.kwonlyargs or args.posonlyargs or not literals or function.returns is None:
        return False
    nodes = [found.node for found in parameters if not found.constant]
    names = {name for node in nodes for name in _names(node.annotation)}
    names |= {*_names(function.returns)}
    return all(module.imports.get(name, name) == _USUAL.get(name, name) for name in names)


def _names(node: ast.expr | None) -> Iterator[str]:
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Name):
            yield part.id


def _constants(module: SourceModule, parameters: Sequence[Parameter]) -> Iterator[str]:
    """Yield the lines in which defaults stand for parameters that an op cannot have."""
    for parameter in parameters:
        if not parameter.type and parameter.default_node is not None:
            text = module.segment(parameter.default_node)
            text = ast.unparse(parameter.default_node) if "\n" in text else text
            yield f"{parameter.name} = {text}"
