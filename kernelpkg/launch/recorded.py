"""A recorded launch in Python: what one signature launches, with pointers of the call at hand.

`_native.c` has the same class in C, with equal results; `native` says which of them is used.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from kernelpkg.launch import driver

Param = tuple[int, int] | tuple[str, int] | bytes
"""A parameter of a kernel: (source, delta) is the pointer of argument `source`, or of allocation
-source - 1 where it is negative, and `delta` bytes; ("fp32", place) or ("fp64", place) is the float
of an argument; bytes are a scalar, little-endian."""

Allocation = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]
"""Sizes, strides, dtype and device of a tensor that every call makes."""

MOST_PARAMS: Final = 1024
MOST_ALLOCATIONS: Final = 64
MOST_DEVICES: Final = 64
MOST_THREADS: Final = 1024

current_stream: Callable[[int], int] | None = None
"""Returns the current stream of a device; None: PyTorch's, which a build without CUDA lacks."""


class Recorded:
    """One launch: of a kernel, with a grid, for calls of one signature.

    Calling it with the arguments of the op makes the allocations, takes the pointers, launches on
    PyTorch's current stream of the device, in the context of that device, and returns the results.

    Args:
        kernel: What `driver.load_kernel` returned.
        grid: The blocks in each dimension; one that is 0 launches nothing.
        threads: The threads of a block.
        shared: Bytes of dynamic shared memory.
        params: The parameters of the kernel, in order.
        allocations: The tensors that every call makes.
        results: Which of them are returned: None, one, or a tuple of several.
        device: The index of the GPU; -1 where the tensors are on a CPU, with a stub of a driver.
        attributes: Numbers and values of launch attributes, as cuda.h has them.
        any: Places of arguments that are floats, and may have any value: it is launched with that
            of the call at hand, and nothing else of it depends on that.

    Raises:
        ValueError: What was given cannot be launched.
    """

    def __init__(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        params: tuple[Param, ...],
        allocations: tuple[Allocation, ...],
        results: int | tuple[int, ...] | None,
        device: int,
        attributes: tuple[tuple[int, int], ...] = (),
        any: tuple[int, ...] = (),
    ) -> None:
        _check(grid, threads, shared, params, len(allocations), results, device)
        self._kernel = kernel
        self._shape = (grid, threads, shared)
        self._params = tuple(
            int.from_bytes(param, "little") if isinstance(param, bytes) else param
            for param in params
        )
        self._allocations = allocations
        self._results = results
        self._device = device
        self.any = any
        self._attributes = driver.make_attributes(attributes)
        self._launch: tuple[driver.Driver, Callable[[Sequence[int], int], None]] | None = None

    def __call__(self, *args: Any) -> Any:
        """Launch, and return the results.

        Raises LaunchError where the driver refuses, and TypeError for an argument whose pointer is
        needed and that is no tensor, or whose number is and that is none.
        """
        made = [
            torch.empty_strided(sizes, strides, dtype=dtype, device=device)
            for sizes, strides, dtype, device in self._allocations
        ]
        if 0 not in self._shape[0]:
            self._run(args, made)
        results = self._results
        if results is None:
            return None
        return made[results] if isinstance(results, int) else tuple(made[i] for i in results)

    def _run(self, args: Sequence[Any], made: list[torch.Tensor]) -> None:
        values: list[int] = []
        for param in self._params:
            if isinstance(param, int):
                values.append(param)
                continue
            source, delta = param
            if isinstance(source, str):
                values.append(_BITS[source](_number(args, delta)))
                continue
            tensor = made[-source - 1] if source < 0 else _argument(args, source)
            pointer = tensor.data_ptr()
            values.append(pointer + delta if pointer else 0)
        stream = 0
        if self._device >= 0:
            get = current_stream or torch._C._cuda_getCurrentRawStream
            stream = get(self._device)
        used = driver.driver()
        if self._launch is None or self._launch[0] is not used:
            shape = (*self._shape, self._attributes, self._device)
            self._launch = (used, used.make_launch(self._kernel, *shape))
        self._launch[1](values, stream)


def _given(args: Sequence[Any], place: int) -> Any:
    if place >= len(args):
        raise TypeError(f"a launch takes argument {place}, and {len(args)} were given")
    return args[place]


def _number(args: Sequence[Any], place: int) -> float:
    value = _given(args, place)
    if not isinstance(value, float | int):
        raise TypeError(f"argument {place} is not a number but {type(value).__name__}")
    return float(value)


def _single_bits(value: float) -> int:
    """Return the bits of a number in single precision; one that is too large becomes infinite."""
    return int.from_bytes(bytes(ctypes.c_float(value)), "little")


def _double_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


_BITS: Final[Mapping[str, Callable[[float], int]]] = {"fp32": _single_bits, "fp64": _double_bits}


def _argument(args: Sequence[Any], source: int) -> torch.Tensor:
    tensor = _given(args, source)
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"argument {source} is not a tensor but {type(tensor).__name__}")
    return tensor


def _check(
    grid: tuple[int, int, int],
    threads: int,
    shared: int,
    params: tuple[Param, ...],
    allocations: int,
    results: int | tuple[int, ...] | None,
    device: int,
) -> None:
    """Raise ValueError for what cannot be launched, in the words of `_native.c`."""
    if len(grid) != 3 or any(not 0 <= blocks < 2**31 for blocks in grid):
        raise ValueError("grid must be three numbers of 0 to 2147483647")
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be 1 to {MOST_THREADS}")
    if not 0 <= shared < 2**31:
        raise ValueError("shared must be 0 to 2147483647")
    if not -1 <= device < MOST_DEVICES:
        raise ValueError(f"device must be -1 to {MOST_DEVICES - 1}")
    if allocations > MOST_ALLOCATIONS:
        raise ValueError(f"allocations must be {MOST_ALLOCATIONS} at most")
    if len(params) > MOST_PARAMS:
        raise ValueError(f"params must be {MOST_PARAMS} at most")
    for param in params:
        if isinstance(param, bytes) and not 1 <= len(param) <= 8:
            raise ValueError("a scalar must have 1 to 8 bytes")
        if not isinstance(param, bytes) and isinstance(param[0], str):
            if param[0] not in _BITS:
                raise ValueError("a number must be fp32 or fp64")
            if not 0 <= param[1] < 2**31:
                raise ValueError("a parameter names an argument that is not there")
        elif not isinstance(param, bytes) and param[0] < -allocations:
            raise ValueError("a parameter names an allocation that is not there")
    for place in () if results is None else (results,) if isinstance(results, int) else results:
        if not 0 <= place < allocations:
            raise ValueError("a result names an allocation that is not there")
