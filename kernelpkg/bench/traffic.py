"""How many bytes a call has to move: what its reference reads of the arguments, and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernelpkg.bench.rows import Traffic
from kernelpkg.manifest.opschema import OpSchema

_PICKS: Final = frozenset({"index", "index_select", "gather", "embedding", "take"})
"""Ops that read of their first tensor as much as they return: rows of a table by their numbers."""

_PUTS: Final = frozenset({"index_put_", "_index_put_impl_", "index_copy_", "scatter_"})
"""Ops that write of their first tensor as much as their last one has."""

_OVERWRITES: Final = _PUTS | {"copy_", "fill_", "zero_", "normal_", "uniform_"}
"""Ops that do not read what they write."""


def traffic_of(
    schema: OpSchema,
    args: Sequence[Any],
    result: Any,
    reference: Callable[[], Any] | None = None,
) -> Traffic:
    """Return the bytes of a call that returned `result`; `reference` makes the same call.

    Of a tensor that the reference indexes, as a table of rotations, what it picks counts; of one
    that it reads more than once, no more than the whole. Without one, all that is not written
    counts as read. Arguments that lie in the same memory count once.
    """
    tensors = {
        arg.name: value
        for arg, value in zip(schema.args, args, strict=False)
        if isinstance(value, torch.Tensor)
    }
    whole: Counter[int] = Counter()
    for value in tensors.values():
        size = whole[_storage(value)] + _bytes(value)
        whole[_storage(value)] = min(size, value.untyped_storage().nbytes())
    read, written = Counter[int](), Counter[int]()
    if reference is None:
        for arg in schema.args:
            if arg.mutated and arg.name in tensors:
                written[_storage(tensors[arg.name])] = whole[_storage(tensors[arg.name])]
        read.update({place: size for place, size in whole.items() if place not in written})
    else:
        with torch.no_grad(), _Watch(whole, read, written):
            reference()
    results = result if isinstance(result, tuple | list) else (result,)
    made = {_storage(value): _bytes(value) for value in results if isinstance(value, torch.Tensor)}
    fresh = sum(size for place, size in made.items() if place not in whole)
    return Traffic(read=_bounded(read, whole), written=_bounded(written, whole) + fresh)


def _bounded(moved: Mapping[int, int], whole: Mapping[int, int]) -> int:
    return sum(min(size, whole[place]) for place, size in moved.items())


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Adds up what ops read of some memory, and write to it; making a view does neither."""

    def __init__(self, whole: Mapping[int, int], read: Counter[int], written: Counter[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self._whole = whole
        self._read = read
        self._written = written

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        schema = func._schema
        views = (found.alias_info for found in schema.returns)
        if any(alias is not None and not alias.is_write for alias in views):
            return result
        name = schema.name.partition("::")[2]
        given = list(_given(schema, args, kwargs or {}))
        for place, (arg, tensor) in enumerate(given):
            of = tensor
            if place == 0 and name in _PICKS and isinstance(result, torch.Tensor):
                of = result
            elif place == 0 and name in _PUTS and given[-1][1].numel() > 1:  # one fills a mask
                of = given[-1][1]
            size = of.numel() * tensor.element_size()
            writes = arg.alias_info is not None and arg.alias_info.is_write
            if _storage(tensor) in self._whole:
                self._written[_storage(tensor)] += size if writes else 0
                reads = not writes or not (arg.is_out or name in _OVERWRITES)
                self._read[_storage(tensor)] += size if reads else 0
        return result


def _given(
    schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield the tensors that an op of PyTorch got, in order, with the arguments that they are."""
    for place, arg in enumerate(schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(arg.name)
        for tensor in value if isinstance(value, tuple | list) else (value,):
            if isinstance(tensor, torch.Tensor):
                yield arg, tensor
