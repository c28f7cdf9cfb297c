"""Triton code -> a binary for a GPU, here or not there: what it is, and what it needs of that GPU.

What is compiled is what a launch would compile: the types, constants and alignments of its
arguments are taken with the functions by which Triton takes them itself, in 3.6 as in 3.9.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import helion.runtime  # what compiled modules import, read before the first of them is timed
import torch
import triton
from attrs import frozen
from torch._inductor.codecache import PyCodeCache
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime import jit

from kernelpkg.compile.helion import PINNED
from kernelpkg.errors import no_place, unforeseen
from kernelpkg.files import digest_bytes, replace_bytes
from kernelpkg.launch.host import NotRecorded

LAUNCHER: Final = helion.runtime.default_launcher

_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_REGISTERS: Final = 0x2F
_FRAME: Final = 0x11
"""Attributes of `.nv.info`, EIATTR_REGCOUNT and EIATTR_FRAME_SIZE, whose values are pairs of a
symbol and a number; cuobjdump of CUDA 12 names them."""
_PARAMETER: Final = 0x17
"""Attribute EIATTR_KPARAM_INFO of `.nv.info.<entry>`, one for each parameter; three words: the last
one has the size in its upper 14 bits, the second one the place in its lower 16."""

_INTERPRETED: Final = "TRITON_INTERPRET is set, so Triton compiles nothing; unset it"

_SILENT: Final = {"TRITON_DISABLE_LINE_INFO": "1"}
"""Line numbers would bring paths of this machine into binaries, which are the same anywhere."""


@frozen
class Address:
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
    architecture as in "sm_90". Where `keep` names a directory, the binary is put there under its
    digest, and what is needed to launch it is returned too as `code`, which `described` makes; or
    as `absent`, why our launcher cannot. `refused` says why nothing can be compiled here.
    """
    target = target_of(payload["arch"])
    os.environ.update(_SILENT)
    if triton.knobs.runtime.interpret:
        return {"refused": _INTERPRETED}
    try:
        compiled = compile_launch(payload, target)
    except OSError as error:
        return {"refused": no_place(error)}
    except Exception as error:  # whatever a compiler says of code is what is wanted
        return {"error": _said(error)}
    found = needs(compiled)
    if "keep" in payload:
        try:
            found["code"] = described(compiled)
        except NotRecorded as error:
            return {**found, "absent": str(error)}
        place = Path(payload["keep"], found["code"]["cubin"])
        try:
            if not place.exists():
                replace_bytes(place, compiled.asm["cubin"])
        except OSError as error:
            why = f"{error.strerror}; TMPDIR names a directory with room to write"
            return {"refused": f"binaries cannot be kept in {place.parent}: {why}"}
    return found


def compile_launch(payload: Mapping[str, Any], target: GPUTarget) -> Any:
    """Return what Triton compiles for a launch as `perform` takes it; raises what Triton raises."""
    backend = make_backend(target)
    kernel = getattr(PyCodeCache.load(payload["text"]), payload["name"])
    args = [_argument(arg) for arg in payload["args"]]
    given = {**PINNED, **payload["options"]}
    options = {name: value for name, value in given.items() if name not in _HOST}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Triton's, on defaults of releases to come
        bind = jit.create_function_from_signature(kernel.signature, kernel.params, backend)
        bound, special, _ = bind(*args, **options)
        parsed, *parts = kernel._pack_args(backend, options, bound, special, options)
        source = ASTSource(kernel, *parts)
        return triton.compile(source, target=target, options=parsed.__dict__)


def described(compiled: Any) -> dict[str, Any]:
    """Return what is needed to launch a binary, as JSON: `launch.code.Code` is made of it.

    Raises NotRecorded for a binary that wants more of its launch than our launcher does.
    """
    metadata = compiled.metadata
    for name in ("global_scratch_size", "profile_scratch_size", "launch_cooperative_grid",
                 "launch_pdl"):  # fmt: skip
        if getattr(metadata, name, 0):
            raise NotRecorded(f"its code asks for {name}={getattr(metadata, name)}")
    if getattr(metadata, "num_ctas", 1) != 1:
        raise NotRecorded(f"its code asks for num_ctas={metadata.num_ctas}")
    source, cubin = compiled.src, compiled.asm["cubin"]
    constants = {path[0]: value for path, value in source.constants.items() if len(path) == 1}
    return {
        "types": list(source.signature.values()),
        "constants": {str(place): _constant(constants[place]) for place in sorted(constants)},
        "divisible": sorted(
            path[0] for path, attrs in source.attrs.items() if ["tt.divisibility", 16] in attrs
        ),
        "cubin": digest_bytes(cubin),
        "entry": metadata.name,
        "parameters": parameters(cubin),
        "shared": metadata.shared,
        "threads": 32 * metadata.num_warps,
    }


def _constant(value: Any) -> Any:
    if not isinstance(value, int | float | str | None):
        raise NotRecorded(f"its code has a constant that is a {type(value).__name__}")
    return value


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


def parameters(cubin: bytes) -> list[int]:
    """Return the bytes of each parameter of the one kernel in a binary, in their order."""
    found = {}
    for section, data in _sections(cubin):
        if section.startswith(".nv.info."):
            for attribute, value in _blocks(data):
                if attribute == _PARAMETER:
                    _, place, size = struct.unpack("<III", value)
                    found[place & 0xFFFF] = size >> 18
    return [found[place] for place in sorted(found)]


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
    for attribute, value in _blocks(data):
        if len(value) == 8:
            yield attribute, struct.unpack("<II", value)[1]


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes that have a length, with what is in them."""
    at = 0
    while at + 4 <= len(data):
        form, attribute, length = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == 4:
            yield attribute, data[at : at + length]
            at += length


def _argument(arg: Any) -> Any:
    if not isinstance(arg, list):
        return arg
    return Address(getattr(torch, arg[0]), arg[1])


def _said(error: Exception) -> str:
    """Return the class and the last line of an error: before it stands the source."""
    unforeseen(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^`\t")]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"
