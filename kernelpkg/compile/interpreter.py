"""Helion's interpreter: what PyTorch lacks for it on a CPU, and what it cannot run itself.

The former, and tiles of what is empty, are there while a kernel is interpreted, in its thread
alone. The latter says nothing of a kernel, and is told from the kernel's own mistakes.
"""

from __future__ import annotations

import importlib.metadata
import linecache
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from types import CodeType, TracebackType
from typing import Any, Final

import helion.language as hl
import torch
from torch.overrides import BaseTorchFunctionMode

from kernelpkg.compile.absent_gpu import counting_sms
from kernelpkg.errors import NotInterpreted, error_line, innermost, quoted

_SMS: Final = 2
"""How many multiprocessors a CPU has for a kernel: one would hide that their work is divided."""


def interpret(kernel: Callable[..., Any], code: CodeType, args: Sequence[Any]) -> Any:
    """Call a kernel that Helion interprets; `code` is that of its Helion function.

    Raises NotInterpreted for what the interpreter cannot run, and whatever the kernel raises.
    """
    _RUNNING.kernels += 1
    try:
        with _Products(), counting_sms(_SMS):
            return kernel(*args)
    except Exception as error:
        gap = _gap(error, code.co_filename)
        if gap is None:
            raise
        raise gap from error
    finally:
        _RUNNING.kernels -= 1


class _Running(threading.local):
    """How many kernels this thread interprets, one within another."""

    kernels = 0


_RUNNING: Final = _Running()
_TILE: Final[Any] = hl.tile  # of its attributes types say nothing
_tiles_of_all: Final[Any] = getattr(_TILE, "_ref_fn", None)


def _tiles(begin_or_end: Any, end: Any = None, block_size: Any = None) -> Iterable[Any]:
    """Return the tiles of a loop; none where a dimension has none, as on a GPU.

    Helion's interpreter goes on without such a dimension, with too few tiles or wrong results.
    """
    last = begin_or_end if end is None else end
    if _RUNNING.kernels and isinstance(last, list | tuple):
        first = (0,) * len(last) if end is None else begin_or_end
        if any(int(one) == int(other) for one, other in zip(first, last, strict=True)):
            return ()
    found: Iterable[Any] = _tiles_of_all(begin_or_end, end, block_size)
    return found


if _tiles_of_all is not None:
    # For good, as in `absent_gpu`: threads that come and go would put back each other's.
    _TILE._ref_fn = _tiles


class _Products(BaseTorchFunctionMode):
    """Makes the products of matrices that PyTorch refuses on a CPU, and has for GPUs.

    A mode is of one thread, and PyTorch is asked first: other code goes without, and what a later
    release brings is not hidden.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        make = _PRODUCTS.get(func)
        if make is None:
            return func(*args, **kwargs)
        # That of PyTorch takes 16.7 s of 512 x 1024 x 1024 on a CPU, and ours 0.03 s (torch 2.13).
        made = _scaled(*args, **kwargs) if func is torch._scaled_mm else None
        if made is not None:
            return made
        try:
            return func(*args, **kwargs)
        except RuntimeError:  # NotImplementedError is one
            made = make(*args, **kwargs) if args[0].device.type == "cpu" else None
            if made is None:
                raise
            return made


def _with_dtype(
    left: torch.Tensor, right: torch.Tensor, out_dtype: torch.dtype | None = None, **_: Any
) -> torch.Tensor | None:
    """Return a product in a dtype that is asked for; its sums are in float32 or wider."""
    if out_dtype is None or left.dtype != right.dtype:
        return None
    wide = torch.promote_types(_wide(left.dtype), _wide(out_dtype))
    product = torch.bmm if left.ndim == 3 else torch.mm
    return product(left.to(wide), right.to(wide)).to(out_dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    narrow = dtype.is_floating_point and dtype.itemsize < torch.float32.itemsize
    return torch.float32 if narrow else dtype


def _added(
    bias: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor | None:
    """Return a product that is added to a tensor of a wider dtype."""
    product = _with_dtype(left, right, bias.dtype)
    return None if product is None else beta * bias + alpha * product


def _scaled(
    left: torch.Tensor,
    right: torch.Tensor,
    scale_left: torch.Tensor,
    scale_right: torch.Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
    **others: Any,
) -> torch.Tensor | None:
    """Return the products of FP8 matrices, and of batches, on a CPU, without what may be added."""
    if left.device.type != "cpu" or out_dtype is None or others:
        return None
    left, right = left.float() * scale_left, right.float() * scale_right
    return _with_dtype(left, right, out_dtype)


_PRODUCTS: Final[Mapping[Callable[..., Any], Callable[..., torch.Tensor | None]]] = {
    torch.mm: _with_dtype,
    torch.bmm: _with_dtype,
    torch.Tensor.addmm: _added,
    torch.Tensor.baddbmm: _added,
    torch._scaled_mm: _scaled,
}
"""The products that Helion's interpreter calls, of `hl.dot`, `torch.addmm` and their like."""


def _gap(error: Exception, file: str) -> NotInterpreted | None:
    """Return what the interpreter lacks, or None for an error of a kernel, whose code is in `file`.

    NotImplementedError is PyTorch's or Helion's where the kernel does not raise it itself; an
    assertion that fails within Helion, and what its tiles do not have, are its interpreter's.
    """
    inner = innermost(error)
    assert inner is not None, "it was raised"
    code, module = inner.tb_frame.f_code, str(inner.tb_frame.f_globals.get("__name__"))
    lacks = isinstance(error, NotImplementedError) and code.co_filename != file
    fails = isinstance(error, AssertionError) and module.partition(".")[0] == "helion"
    tile = isinstance(error, AttributeError | TypeError) and "RefTile" in str(error)
    if not (lacks or fails or tile):
        return None
    version = importlib.metadata.version("helion")
    place = innermost(error, file)
    construct = "it" if place is None else quoted(_text_at(place))
    message = f"the interpreter of Helion {version} cannot run {construct}: {error_line(error)}"
    return NotInterpreted(message, line=0 if place is None else place.tb_lineno)


def _text_at(place: TracebackType) -> str:
    """Return what the source has where an error was raised, up to the end of its first line."""
    code = place.tb_frame.f_code
    where = next(islice(code.co_positions(), place.tb_lasti // 2, None))
    first, last, begin, end = (0 if part is None else part for part in where)
    line = linecache.getline(code.co_filename, first).encode()
    return line[begin : end if first == last else None].decode().strip()
