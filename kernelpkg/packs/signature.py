"""The signature of a Python function, read as a tree, held against the schema of its op."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kernelpkg.manifest.opschema import INSTEAD, NO_DEFAULT, OpArg, OpSchema
from kernelpkg.manifest.spec import KernelSpec

CONSTANTS: Final = ("bool", "int", "str")
"""The types of a schema that an argument may have which a function takes as `hl.constexpr`."""


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
    return f"takes ({got}), but is called with ({', '.join(given)})"


def constant_arguments(function: ast.FunctionDef) -> tuple[str, ...]:
    """Return the arguments that a Helion function takes as `hl.constexpr`."""
    args = function.args
    return tuple(node.arg for node in (*args.posonlyargs, *args.args) if is_constant(node))


def constant_axes(spec: KernelSpec, function: ast.FunctionDef) -> frozenset[str]:
    """Return the axes of a kernel that are arguments which its function takes as constants."""
    constants = constant_arguments(function)
    return frozenset(axis.name for axis in spec.axes if axis.expr.name in constants)


def is_constant(node: ast.arg) -> bool:
    """Whether a parameter is annotated as `hl.constexpr`, whatever Helion is imported as."""
    if node.annotation is None:
        return False
    return _written(node.annotation).strip("'\"").rpartition(".")[2] == "constexpr"


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
            yield f"the function has no return annotation; write '-> {wanted}'"
        return
    returned = re.sub(r"\b(?<!torch\.)Tensor\b", "torch.Tensor", _annotated(function.returns))
    returned = returned.replace("Tuple[", "tuple[")
    if returned != wanted:
        absent = re.search(r"Optional\[|\| None|None \|", returned)
        remedy = f"; {INSTEAD}" if absent else ""
        what = f"by the schema the function returns '{wanted}', but is annotated '{returned}'"
        yield what + remedy


def _argument_problems(
    nodes: Sequence[ast.arg], given: Sequence[ast.expr], schema: OpSchema
) -> Iterator[str]:
    """Yield where the annotations and defaults of a function are not those of the schema."""
    defaults = [NO_DEFAULT] * (len(nodes) - len(given)) + [_literal(node) for node in given]
    for node, default, arg in zip(nodes, defaults, schema.args, strict=True):
        if node.annotation is None:
            yield f"argument '{arg.name}' of the function has no annotation; write {hint(arg)}"
        elif is_constant(node):
            if arg.type not in CONSTANTS:
                what = f"argument '{arg.name}' is hl.constexpr, and '{arg.type}' by the schema"
                yield f"{what}; constants are bool, int or str"
        elif _annotated(node.annotation, default) != hint(arg):
            got = ast.unparse(node.annotation)
            yield f"argument '{arg.name}' is '{hint(arg)}' by the schema, '{got}' in the function"
        if default is not NO_DEFAULT and default != arg.default:
            wanted = "none" if arg.default is NO_DEFAULT else arg.default
            yield f"argument '{arg.name}' has default {default} in the function, {wanted} by schema"


def _returned(count: int) -> str:
    """The annotation of a function that returns so many tensors."""
    if count < 2:
        return "torch.Tensor" if count else "None"
    return f"tuple[{', '.join(['torch.Tensor'] * count)}]"


def hint(arg: OpArg) -> str:
    """Return the annotation of a parameter that is an argument of an op."""
    base = {"Tensor": "torch.Tensor", "int[]": "list[int]"}.get(arg.type, arg.type)
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


def _annotated(node: ast.expr, default: object = NO_DEFAULT) -> str:
    """Return an annotation as `hint` writes it, with a default of None, as in `x: int = None`."""
    text = _written(node).strip("'\"").replace("typing.", "").replace("List[int]", "list[int]")
    if text.startswith("Optional[") and text.endswith("]"):
        text = f"{text[9:-1]} | None"
    if text.startswith("None | "):
        text = f"{text[7:]} | None"
    if default is None and not text.endswith("| None"):
        text = f"{text} | None"
    return f"torch.{text}" if text.split(" ")[0] == "Tensor" else text


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
