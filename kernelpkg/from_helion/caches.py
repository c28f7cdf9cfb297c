"""What Helion's autotuner keeps: entries of its cache, and the configs of its AOT runs."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from kernelpkg.errors import PackError, counted, pack_error
from kernelpkg.expr.language import evaluate
from kernelpkg.files import read_plain
from kernelpkg.manifest.cases import TensorFacts
from kernelpkg.manifest.document import parse_json, unreadable_json
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import CaseKey, KernelSpec

_CLASS: Final = re.compile(r"<class '([\w.]+)'>")

_Scalar = type("_Scalar", (), {})
"""Stands for a scalar whose value is not kept."""


@frozen(kw_only=True)
class KeptConfig:
    """One config that was kept: of which call, on which GPU, and how long it took.

    `kernel` is the name of its function, "" where that is not kept. `arguments` is what Helion
    kept of them, its specialization key: of tensors dtype, sizes and strides, of scalars the type.
    """

    path: str
    kernel: str
    hardware: str
    arguments: Sequence[Any]
    config: Config
    ms: float | None


def read_best_config(path: Path) -> KeptConfig:
    """Return the entry of Helion's local cache, a file `.best_config`; raises PackError."""
    document = _document(path)
    try:
        fields, config = document["key"]["fields"], json.loads(document["config"])
        found = KeptConfig(
            path=str(path),
            kernel="",
            hardware=str(fields["hardware"]),
            arguments=_of_text(fields["specialization_key"]),
            config=config,
            ms=None,
        )
    except (LookupError, TypeError, ValueError, SyntaxError):
        raise _not_one(path, "an entry of Helion's autotune cache") from None
    return found


def read_tuned_configs(path: Path) -> list[KeptConfig]:
    """Return what a file `tuned_configs_<hardware>.json` of an AOT run has; raises PackError."""
    document = _document(path)
    try:
        return [
            KeptConfig(
                path=str(path),
                kernel=name,
                hardware="",
                arguments=[_of_json(item) for item in entry["shape_key"]["specialization_key"]],
                config=entry["config"],
                ms=entry.get("timing_ms"),
            )
            for name, entries in document.items()
            for entry in entries
        ]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise _not_one(path, "the tuned configs of an AOT run of Helion's") from None


def _document(path: Path) -> Any:
    text = ""
    try:
        text = read_plain(path).decode()
        return parse_json(text)[0]
    except (OSError, ValueError, RecursionError) as error:
        line, what = unreadable_json(error, text)
        raise pack_error(str(path), "KP830", f"{what}; restore it", line) from None


def _not_one(path: Path, what: str) -> PackError:
    return pack_error(str(path), "KP830", f"is not {what}; give one, or leave it out")


def _of_text(text: str) -> Sequence[Any]:
    """Return a specialization key that was written as Python shows it."""
    node = ast.parse(_CLASS.sub(r"'\1'", text), mode="eval").body
    found = _of_node(node)
    if not isinstance(found, tuple):
        raise TypeError
    return found


def _of_node(node: ast.expr) -> Any:
    match node:
        case ast.Tuple(elts=elts) | ast.List(elts=elts):
            return tuple(map(_of_node, elts))
        case ast.Call(func=ast.Attribute(attr="Size"), args=[inner]):
            return _of_node(inner)
        case ast.Call(func=ast.Name(id="frozenset"), args=args):
            return frozenset(str(ast.unparse(arg)) for arg in args)
        case ast.Attribute(value=ast.Name(id="torch"), attr=name):
            return f"torch.{name}"
    return ast.literal_eval(node)


def _of_json(value: Any) -> Any:
    """Return a part of a specialization key that was written as JSON with marks for types."""
    match value:
        case {"__tuple__": items}:
            return tuple(map(_of_json, items))
        case {"__dtype__": str(name)}:
            return name
        case {"__type__": str(name)}:
            return name.removeprefix("builtins.")
        case {"__frozenset__": items}:
            return frozenset(map(str, items))
    return value


def key_of(spec: KernelSpec, kept: KeptConfig) -> CaseKey:
    """Return the case key that the call of a kept config has.

    Raises PackError where it was of another kernel, or where what a key needs was not kept.
    """
    args = spec.schema.args
    if len(kept.arguments) < len(args):
        kept_facts = counted(len(kept.arguments), "fact")
        has = f"has {kept_facts} of its call, and the op has {counted(len(args), 'argument')}"
        raise _unsayable(kept, spec, has)
    values: dict[str, Any] = {}
    for arg, given in zip(args, kept.arguments, strict=False):
        if arg.is_tensor:
            values[arg.name] = _tensor(kept, spec, arg.name, given)
        else:
            # The value of a constant is a part of Helion's key; of others the type, by its name.
            kept_value = arg.type == "str" or isinstance(given, bool | int)
            values[arg.name] = given if given is None or kept_value else _Scalar
    key = {}
    for axis in (axis for axis in spec.axes if axis.name in spec.key_axes):
        scalars = [name for name in axis.expr.names() if values[name] is _Scalar]
        if scalars and axis.expr.tested is None:
            what = f"keeps only the type of '{scalars[0]}', and axis '{axis.name}' is its value"
            raise _unsayable(kept, spec, what)
        try:
            key[axis.name] = evaluate(axis.expr, values)
        except (IndexError, TypeError, ArithmeticError):
            what = f"is of tensors of which axis '{axis.name}' cannot be read"
            raise _unsayable(kept, spec, what) from None
    return {axis: key[axis] for axis in spec.key_axes}


def _tensor(kept: KeptConfig, spec: KernelSpec, name: str, given: Any) -> TensorFacts | None:
    match given:
        case None:
            return None
        case (str(dtype), tuple(sizes), tuple(strides), *_) if dtype.startswith("torch."):
            return TensorFacts(shape=sizes, strides=strides, dtype=dtype)
        case (str(dtype), tuple(), bool(), *_) if dtype.startswith("torch."):
            what = f"has only classes of the sizes of '{name}', as tuned with static_shapes=False"
            raise _unsayable(kept, spec, what)
    raise _unsayable(kept, spec, f"has no tensor in the place of '{name}'")


def _unsayable(kept: KeptConfig, spec: KernelSpec, what: str) -> PackError:
    remedy = f"leave it out, or tune '{spec.name}' with 'kernelpkg autotune'"
    return pack_error(kept.path, "KP833", f"{what}; {remedy}")
