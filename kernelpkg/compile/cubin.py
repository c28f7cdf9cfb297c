"""Triton code -> a binary for a GPU that is not there, and what it needs of that GPU.

What is compiled is what a launch would compile: the types, constants and alignments of its
arguments are taken with the functions by which Triton takes them itself, in 3.6 as in 3.9.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import helion.runtime  # what compiled modules import, read before the first of them is timed
import torch
import triton
from attrs import frozen
from torch._inductor.codecache import PyCodeCache
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime import jit

LAUNCHER: Final = helion.runtime.default_launcher

_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_REGISTERS: Final = 0x2F
_FRAME: Final = 0x11
"""Attributes of `.nv.info`, EIATTR_REGCOUNT and EIATTR_FRAME_SIZE, whose values are pairs of a
symbol and a number; cuobjdump of CUDA 12 names them."""


@frozen(kw_only=True)
class _Pointer:
    """A tensor to Triton: it looks at nothing but the dtype and the address."""

    dtype: torch.dtype
    offset: int

    def data_ptr(self) -> int:
        """The address; PyTorch aligns storage to 512 bytes, so the offset tells all."""
        return self.offset

    @staticmethod
    def ptr_range() -> int:
        """Bytes of the storage; 0 is unknown, of which AMD's backend makes nothing."""
        return 0


def perform(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Compile one launch; takes and returns JSON: what it needs, or why it does not compile.

    `text` is the generated module and `name` its kernel; `args` are those of the kernel, tensors
    as [dtype, bytes from an aligned start]; `options` are num_warps and the like, `arch` the
    architecture as in "sm_90".
    """
    target = target_of(payload["arch"])
    backend = make_backend(target)
    kernel = getattr(PyCodeCache.load(payload["text"]), payload["name"])
    args = [_argument(arg) for arg in payload["args"]]
    options = {name: value for name, value in payload["options"].items() if name not in _HOST}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Triton's, on defaults of releases to come
            bind = jit.create_function_from_signature(kernel.signature, kernel.params, backend)
            bound, special, _ = bind(*args, **options)
            parsed, *parts = kernel._pack_args(backend, options, bound, special, options)
            source = ASTSource(kernel, *parts)
            compiled = triton.compile(source, target=target, options=parsed.__dict__)
    except Exception as error:  # whatever a compiler says of code is what is wanted
        return {"error": _said(error)}
    return needs(compiled)


# What Helion's launcher takes for itself; the rest it hands to Triton.
_HOST: Final = ("launch_cooperative_grid",)


def target_of(arch: str) -> GPUTarget:
    """Return what Triton calls an architecture; raises ValueError for one of another kind."""
    if arch.startswith("sm_"):
        return GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    if arch.startswith("gfx9"):
        return GPUTarget("hip", arch, 64)
    raise ValueError(f"architecture '{arch}' is neither sm_* nor gfx9*")


def needs(compiled: Any) -> dict[str, Any]:
    """Return registers and bytes of spills of a thread, and shared memory and warps of a block."""
    found = {"shared": compiled.metadata.shared, "warps": compiled.metadata.num_warps}
    if "cubin" in compiled.asm:
        return {**found, **registers(compiled.asm["cubin"])}
    text = compiled.asm["amdgcn"]
    names = {"registers": "vgpr_count", "spills": "private_segment_fixed_size"}
    for name, key in names.items():
        match = re.search(rf"^\s*\.{key}:\s*(\d+)", text, re.MULTILINE)
        found[name] = None if match is None else int(match[1])
    return found


def registers(cubin: bytes) -> dict[str, int]:
    """Return registers of a thread and bytes of its frame, which holds what does not fit into them.

    Read from the ELF sections: a driver, which else tells them, needs the GPU.
    """
    found = {"registers": 0, "spills": 0}
    names = {_REGISTERS: "registers", _FRAME: "spills"}
    for section, data in _sections(cubin):
        for attribute, value in _attributes(data) if section == ".nv.info" else ():
            if name := names.get(attribute):
                found[name] = max(found[name], value)
    return found


def _sections(elf: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the sections of a 64-bit ELF file, by name."""
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    heads = [_SECTION.unpack_from(elf, start + place * size) for place in range(count)]
    texts = heads[names][4]
    for name, _, _, _, offset, length, *_ in heads:
        end = elf.index(b"\0", texts + name)
        yield elf[texts + name : end].decode(), elf[offset : offset + length]


def _attributes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the attributes that are pairs of a symbol and a number, with the number."""
    at = 0
    while at + 4 <= len(data):
        form, attribute, length = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == 4:
            if length == 8:
                yield attribute, struct.unpack_from("<II", data, at)[1]
            at += length


def _argument(arg: Any) -> Any:
    if not isinstance(arg, list):
        return arg
    return _Pointer(dtype=getattr(torch, arg[0]), offset=arg[1])


def _said(error: Exception) -> str:
    """Return the class and the last line of an error: before it stands the source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^`\t")]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"
