"""Files of Helion's AOT autotuner, `_helion_aot_*.py`: decision trees, read and never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from kernelpkg.errors import Problem, pack_error
from kernelpkg.files import read_plain

_KEY: Final = "key_"
_FEATURE: Final = re.compile(
    r"_(?:arg(\d+)_(ndim|numel|dim\d+|dtype_size|dtype_cat|scalar)|key_\d+)"
)
_TENSOR: Final = "len(args) > {arg} and isinstance(args[{arg}], torch.Tensor)"
_READS: Final = {
    "ndim": "args[{arg}].ndim if " + _TENSOR + " else 0",
    "numel": "int(args[{arg}].numel()) if " + _TENSOR + " else 0",
    "dim": "int(args[{arg}].shape[{dim}]) if " + _TENSOR + " and args[{arg}].ndim > {dim} else 0",
    "dtype_size": "args[{arg}].element_size() if " + _TENSOR + " else 0",
    "dtype_cat": "_get_dtype_cat(args[{arg}].dtype) if " + _TENSOR + " else 0",
    "scalar": "args[{arg}] if len(args) > {arg} and isinstance(args[{arg}], (int, float)) else 0",
}
"""What Helion's generator writes for each fact, in helion/autotuner/heuristic_generator.py of 1.4.0
and 1.5.1; a file with other words may mean something else."""


@frozen(kw_only=True)
class Feature:
    """What a tree looks at: a fact of the argument at a place, as `dim1` or `dtype_size`."""

    arg: int
    fact: str


@frozen(kw_only=True)
class Split:
    """A number that a fact is compared with: `low` up to it, `high` above."""

    feature: Feature
    threshold: float
    low: Split | int
    high: Split | int
    line: int


@frozen(kw_only=True)
class Heuristic:
    """The decision tree of one kernel, whose leaves are places of its configs."""

    kernel: str
    line: int
    tree: Split | int
    configs: tuple[dict[str, Any], ...]
    config_lines: tuple[int, ...]


class _Other(Exception):
    """A part of a file that Helion's generator does not write."""

    def __init__(self, node: ast.AST, what: str) -> None:
        self.line = getattr(node, "lineno", 0)
        super().__init__(what)


def read_heuristics(path: Path, problems: list[Problem]) -> list[Heuristic]:
    """Return the trees of a file; what is not one is a problem.

    Raises PackError where the file cannot be read or parsed.
    """
    shown = str(path)
    try:
        tree = ast.parse(read_plain(path).decode())
    except OSError as error:
        raise pack_error(shown, "KP830", f"cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or "it is nested too deeply"
        line = getattr(error, "lineno", None) or 0
        raise pack_error(shown, "KP830", f"does not parse: {reason}; restore it", line) from None
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = []
    for name, node in functions.items():
        if not name.startswith(_KEY):
            continue
        try:
            found.append(_heuristic(name.removeprefix(_KEY), node, functions))
        except _Other as error:
            remedy = "only trees as Helion's autotuner writes them can be said by rules"
            message = f"kernel '{name.removeprefix(_KEY)}': {error}; {remedy}"
            problems.append(Problem(path=shown, line=error.line, code="KP831", message=message))
    if not found and not problems:
        raise pack_error(shown, "KP830", "has no function key_<kernel>; give an AOT heuristic")
    return found


def _heuristic(
    kernel: str, node: ast.FunctionDef, functions: dict[str, ast.FunctionDef]
) -> Heuristic:
    """Return the tree and the configs of one kernel; raises _Other."""
    nodes = _configs(kernel, node, functions)
    body = [*_without_docstring(node)]
    features: dict[str, Feature] = {}
    for statement in body[:-1]:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                features[name] = _feature(name, value)
            case ast.FunctionDef(name="_get_dtype_cat"):
                pass
            case _:
                raise _Other(statement, f"'{_line_of(statement)}' is not the read of a fact")
    return Heuristic(
        kernel=kernel,
        line=node.lineno,
        tree=_tree(body[-1:], features, len(nodes), node),
        configs=tuple(map(_config, nodes)),
        config_lines=tuple(config.lineno for config in nodes),
    )


def _without_docstring(node: ast.FunctionDef) -> Iterator[ast.stmt]:
    for statement in node.body:
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            yield statement


def _line_of(node: ast.AST) -> str:
    text = ast.unparse(node).split("\n")[0]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _feature(name: str, value: ast.expr) -> Feature:
    """Return what a name of a tree stands for, if its value is what Helion writes for it."""
    match = _FEATURE.fullmatch(name)
    if match is None:
        raise _Other(value, f"'{name}' is not a fact of an argument")
    if match[1] is None:
        what = f"'{name}' comes from a key function of the kernel's own"
        raise _Other(value, f"{what}, which no file of Helion's has")
    fact = match[2]
    dim = fact.removeprefix("dim")
    text = _READS["dim" if dim.isdigit() else fact].format(arg=match[1], dim=dim)
    if ast.dump(ast.parse(text, mode="eval").body) != ast.dump(value):
        raise _Other(value, f"'{name}' is not read as Helion reads it")
    return Feature(arg=int(match[1]), fact=fact)


def _tree(
    body: Sequence[ast.stmt], features: dict[str, Feature], configs: int, around: ast.AST
) -> Split | int:
    match list(body):
        case [ast.Return(value=ast.Constant(value=int(place)))] if 0 <= place < configs:
            return place
        case [
            ast.If(
                test=ast.Compare(
                    left=ast.Name(id=name),
                    ops=[ast.LtE()],
                    comparators=[ast.Constant(value=int() | float() as threshold)],
                ),
                body=low,
                orelse=high,
            ) as node
        ] if name in features:
            return Split(
                feature=features[name],
                threshold=threshold,
                low=_tree(low, features, configs, node),
                high=_tree(high, features, configs, node),
                line=node.lineno,
            )
    odd = body[0] if body else around
    raise _Other(odd, f"'{_line_of(odd)}' is neither a comparison with a number nor a config")


def _configs(
    kernel: str, node: ast.FunctionDef, functions: dict[str, ast.FunctionDef]
) -> list[ast.expr]:
    """Return the nodes of the configs in `autotune_<kernel>`."""
    other = functions.get(f"autotune_{kernel}")
    if other is None:
        raise _Other(node, f"there is no function 'autotune_{kernel}' with its configs")
    wanted = ast.dump(ast.parse(f"_C[key_{kernel}(*args)]", mode="eval").body)
    match [*_without_docstring(other)]:
        case [
            ast.Assign(targets=[ast.Name(id="_C")], value=ast.List(elts=nodes)),
            ast.Return(value=ast.expr() as value),
        ] if ast.dump(value) == wanted:
            return nodes
    raise _Other(other, f"'autotune_{kernel}' is not a list of configs and a look-up in it")


def _config(node: ast.expr) -> dict[str, Any]:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        value = None
    if not isinstance(value, dict):
        raise _Other(node, f"'{_line_of(node)}' is not a config")
    return value
