"""One compiled kernel: what it was compiled for, and the launch of a call that it fits.

Triton compiles for facts of the arguments: their types, numbers of 1, which are constants of the
code, and numbers and addresses that are multiples of 16. Code fits a call that has these facts;
others do no harm.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from attrs import frozen

from kernelpkg.launch import driver, native
from kernelpkg.launch.host import HostCall, NotRecorded, Pointer
from kernelpkg.launch.recorded import Param

ALIGNMENT: Final = 16
"""Bytes, and the factor of numbers, that Triton makes a difference of."""

CONSTANT: Final = "constexpr"

_POINTERS: Final[Mapping[str, torch.dtype]] = {
    "*i1": torch.bool, "*u1": torch.bool, "*i8": torch.int8, "*i16": torch.int16,
    "*i32": torch.int32, "*i64": torch.int64, "*u8": torch.uint8, "*u16": torch.uint16,
    "*u32": torch.uint32, "*u64": torch.uint64, "*fp16": torch.float16, "*bf16": torch.bfloat16,
    "*fp32": torch.float32, "*fp64": torch.float64, "*fp8e4nv": torch.float8_e4m3fn,
    "*fp8e5": torch.float8_e5m2, "*fp8e4b8": torch.float8_e4m3fnuz,
    "*fp8e5b16": torch.float8_e5m2fnuz,
}  # fmt: skip

_NUMBERS: Final[Mapping[str, struct.Struct]] = {
    "i1": struct.Struct("<b"), "u1": struct.Struct("<B"), "i32": struct.Struct("<i"),
    "i64": struct.Struct("<q"), "u64": struct.Struct("<Q"), "fp32": struct.Struct("<f"),
    "fp64": struct.Struct("<d"),
}  # fmt: skip
"""How numbers are passed, by their types; the driver takes as many bytes as the code says."""

_COMPILED_IN: Final = ("num_warps", "num_stages", "maxnreg")
"""Options of a launch that code has in it, or comes with."""

_SCRATCH: Final = bytes(8)
"""What is given for the pointers to memory of Triton's own, which stand last: it asked for none."""


@frozen(kw_only=True)
class Code:
    """A compiled kernel.

    `types` are Triton's names of the types of its arguments; where one is "constexpr" there is
    nothing to pass, and `constants` has its value. `divisible` are the places of those that have
    to be multiples of 16. `cubin` is the digest of the binary, `entry` its function's name;
    `parameters` are the bytes that each of its parameters has; `shared` is in bytes, `threads` are
    those of a block.
    """

    types: tuple[str, ...]
    constants: Mapping[int, Any]
    divisible: frozenset[int]
    cubin: str
    entry: str
    parameters: tuple[int, ...]
    shared: int
    threads: int

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Code:
        """Return the code that a JSON value describes, as `compile.cubin.described` writes it."""
        return cls(
            types=tuple(found["types"]),
            constants={int(place): value for place, value in found["constants"].items()},
            divisible=frozenset(found["divisible"]),
            cubin=found["cubin"],
            entry=found["entry"],
            parameters=tuple(found["parameters"]),
            shared=found["shared"],
            threads=found["threads"],
        )

    def fits(self, call: HostCall, offsets: Sequence[int]) -> bool:
        """Whether it may be launched for a call; `offsets` as `pointer_offsets` returns them."""
        if len(call.args) != len(self.types):
            return False
        return all(
            self._takes(place, kind, value, offsets)
            for place, (kind, value) in enumerate(zip(self.types, call.args, strict=True))
        )

    def _takes(self, place: int, kind: str, value: Any, offsets: Sequence[int]) -> bool:
        if kind == CONSTANT:
            constant = self.constants.get(place)
            return type(value) is type(constant) and value == constant
        if isinstance(value, Pointer):
            start = 0 if value.source < 0 else offsets[value.source]
            aligned = (start + value.delta) % ALIGNMENT == 0
            return _POINTERS.get(kind) == value.dtype and (place not in self.divisible or aligned)
        if isinstance(value, bool):
            return kind in ("i1", "u1")
        if isinstance(value, int):
            aligned = value % ALIGNMENT == 0
            return kind == _integer(value) and (place not in self.divisible or aligned)
        return isinstance(value, float) and kind in ("fp32", "fp64")

    @property
    def special(self) -> int:
        """How much it was compiled for; of two that fit, the larger is the one Triton takes."""
        return len(self.constants) + len(self.divisible)


def _integer(value: int) -> str | None:
    """The type that Triton gives a whole number, or None for one that it has none for."""
    if -(2**31) <= value < 2**31:
        return "i32"
    if -(2**63) <= value < 2**63:
        return "i64"
    return "u64" if 0 < value < 2**64 else None


def pointer_offsets(args: Sequence[Any]) -> tuple[int, ...]:
    """Return how far each tensor of a call starts from a multiple of 16 bytes; 0 for no tensor."""
    return tuple(arg.data_ptr() % ALIGNMENT if isinstance(arg, torch.Tensor) else 0 for arg in args)


def choose(codes: Sequence[Code], call: HostCall, offsets: Sequence[int]) -> Code | None:
    """Return the code that a call is launched with: of those that fit, the most special."""
    found = [code for code in codes if code.fits(call, offsets)]
    return max(found, key=lambda code: code.special, default=None)


REASON_LIMIT: Final = 50
"""How many reasons for calls that take the long way are told apart; they may name sizes."""


def count_reason(counts: dict[str, int], reason: str) -> None:
    """Count a call that was not launched as recorded, or not from a build, by the reason."""
    if reason not in counts and len(counts) >= REASON_LIMIT:
        reason = "other reasons"
    counts[reason] = counts.get(reason, 0) + 1


class Handles:
    """The handles of code: a binary is loaded when it is first asked for, and once.

    `read` returns a binary by its digest, or raises. One thread at a time.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._found: dict[str, int] = {}

    def load(self, code: Code) -> int:
        """Return the handle of a code; raises LaunchError, and what `read` does."""
        if code.cubin not in self._found:
            data = self._read(code.cubin)
            self._found[code.cubin] = driver.load_kernel(data, code.entry, code.shared)
        return self._found[code.cubin]


def recorded(
    code: Code, call: HostCall, device: int, load: Callable[[Code], int]
) -> Callable[..., Any]:
    """Return what launches the calls of one signature; `load` returns the handle of a code.

    Raises NotRecorded where the launch is one that only Triton can do.
    """
    for option, value in call.options.items():
        off = value is not True and value in (None, False, 0, 1, ())
        if option not in _COMPILED_IN and not off:
            raise NotRecorded(f"it is launched with {option}={value}")
    params: list[Param] = []
    fixed: set[int] = set()
    for at, (kind, value) in enumerate(zip(code.types, call.args, strict=True)):
        if kind == CONSTANT:
            fixed |= {call.passed[at]} if at in call.passed else set()
            continue
        if isinstance(value, Pointer):
            params.append((value.source, value.delta))
        elif at in call.passed:
            params.append((kind, call.passed[at]))
        else:
            try:
                params.append(_NUMBERS[kind].pack(value))
            except (OverflowError, struct.error):
                raise NotRecorded(f"{value} does not fit into the {kind} of its code") from None
    params += [_SCRATCH] * (len(code.parameters) - len(params))
    if [*map(_width, params)] != [*code.parameters]:
        raise NotRecorded("its code takes other parameters than Triton gives code of its kind")
    try:
        launch: Callable[..., Any] = native.choose().recorded(
            kernel=load(code),
            grid=call.grid,
            threads=code.threads,
            shared=code.shared,
            params=tuple(params),
            allocations=call.allocations,
            results=call.results,
            device=device,
            any=tuple(sorted(call.any - fixed)),
        )
    except ValueError as error:  # more than our launchers do
        raise NotRecorded(str(error)) from None
    return launch


def _width(param: Param) -> int:
    """Return how many bytes a parameter has."""
    if isinstance(param, bytes):
        return len(param)
    return _NUMBERS[param[0]].size if isinstance(param[0], str) else 8
