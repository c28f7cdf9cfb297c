"""The memory of a call: what its results and the arguments that it writes may share.

Looked at where a signature is new. What strides say of an argument holds for all its calls; what
addresses say, for that call alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kernelpkg.errors import CallError
from kernelpkg.manifest.opschema import INSTEAD, OpSchema


def check_written(op: str, schema: OpSchema, args: Sequence[Any]) -> None:
    """Raise CallError for an argument that is written where it or another one lies twice.

    The rule is PyTorch's own for operations in place: no element of it may stand for several, and
    no dense tensor may lie on a part of it. The same tensor, given twice, is not its business.
    """
    given = [*_tensors(schema, args)]
    for name, tensor in given:
        if not schema.arg(name).mutated or not tensor.numel():
            continue
        if any(n > 1 and not step for n, step in zip(tensor.shape, tensor.stride(), strict=True)):
            raise CallError(
                f"{op}: argument '{name}' is written, and several of its elements share memory "
                f"(strides {tuple(tensor.stride())}); give one whose elements do not overlap"
            )
        for other, found in given:
            if other != name and _overlap(tensor, found):
                raise CallError(
                    f"{op}: argument '{name}' is written, and overlaps '{other}'; give "
                    "tensors that do not overlap"
                )


def check_results(op: str, schema: OpSchema, args: Sequence[Any], result: Any) -> None:
    """Raise CallError for a result that shares memory with an argument, or with another result.

    PyTorch takes each result for memory of its own: a compiled graph would write elsewhere. A None
    in place of one it lets through, and what is compiled takes it for a tensor.
    """
    whose = {_memory(tensor): f"argument '{name}'" for name, tensor in _tensors(schema, args)}
    results = result if isinstance(result, tuple | list) else (result,)
    for name, found in zip(schema.results, results, strict=False):
        if found is None:
            raise CallError(f"{op}: the kernel returns None for {name}; {INSTEAD}")
        if not isinstance(found, torch.Tensor):
            continue
        shared = whose.setdefault(_memory(found), "")
        if shared:
            raise CallError(
                f"{op}: the kernel returns {shared}, or a view of it; let it allocate each result"
            )
        whose[_memory(found)] = "a tensor twice"


def _tensors(schema: OpSchema, args: Sequence[Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for arg, value in zip(schema.args, args, strict=False):
        if isinstance(value, torch.Tensor):
            yield arg.name, value


def _memory(tensor: torch.Tensor) -> int:
    """Return what tells the memory of a tensor apart, also of one without values."""
    place: int = tensor.untyped_storage()._cdata
    return place


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two dense tensors share some memory, and not all of it."""
    if _memory(one) != _memory(other) or not (_is_dense(one) and _is_dense(other)):
        return False
    (start, end), (first, last) = _extent(one), _extent(other)
    return start < last and first < end and (start, end) != (first, last)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements of a tensor fill a stretch of memory, each of them once."""
    wanted = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != wanted:
            return False
        wanted *= size
    return bool(wanted)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    start = int(tensor.storage_offset()) * tensor.itemsize
    return start, start + tensor.numel() * tensor.itemsize
