"""A new kernel that loads and passes its smoke check as it is: `kernelpkg new NAME`."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kernelpkg.errors import UsageError
from kernelpkg.keys import NAME

_MANIFEST: Final = """#:schema ../kernel.schema.json
edition = 1

[kernel]
name = "{name}"
version = 1
summary = "Each row of input times a factor."

[op]
schema = "(Tensor input, float factor) -> Tensor"
fake_impl = "infer"

[axes]
num_tokens = "input.shape[0]"
hidden_size = "input.shape[1]"
dtype = "input.dtype"

[guard]
when = ["dtype in [bfloat16, float16, float32]"]

[[key]]
axis = "dtype"
match = "exact"
[[key]]
axis = "hidden_size"
match = "nearest"
[[key]]
axis = "num_tokens"
match = "ceil"

[inputs]
default = {{ dtype = "bfloat16" }}
[[inputs.grid]]
hidden_size = [2048, 4096]
num_tokens = [1, 16, 256, 4096]
[[inputs.grid]]
use = ["test"]
hidden_size = [256]
num_tokens = [1, 3]

[args]
input = {{ shape = ["num_tokens", "hidden_size"], dtype = "dtype" }}
factor = 2.0

[accuracy]
return = {{ rtol = 1e-2, atol = 1e-2 }}
"""

_KERNEL: Final = '''"""The Helion function of {name}."""

import helion.language as hl
import torch


def {name}(input: torch.Tensor, factor: float) -> torch.Tensor:
    """Return input [num_tokens, hidden_size] times factor, in the dtype of input."""
    out = torch.empty_like(input)
    for tile_t, tile_h in hl.tile([input.size(0), input.size(1)]):
        x = input[tile_t, tile_h].to(torch.float32)
        out[tile_t, tile_h] = (x * factor).to(out.dtype)
    return out
'''

_HOST: Final = '''"""The reference of {name}."""

import torch


def reference(input: torch.Tensor, factor: float) -> torch.Tensor:
    """Return input times factor, computed in float32."""
    return (input.float() * factor).to(input.dtype)
'''

_PACK: Final = """#:schema ./pack.schema.json
edition = 1

[pack]
name = "{name}"
version = "0.1.0"
namespace = "{name}"
license = "Apache-2.0"
kernels = "*"
"""


def new_kernel(root: Path, name: str, *, make_pack: bool) -> tuple[str, ...]:
    """Write a kernel below a root, and a pack manifest where there is none and one may be made.

    Returns the files written, relative to the root. Raises UsageError for a name that is no
    identifier or is taken, and where nothing can be written; then nothing was.
    """
    if not re.fullmatch(NAME, name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"'{name}' is no name for a kernel; use letters, digits and underscores")
    target = root / "kernels" / name
    if target.exists():
        raise UsageError(f"{target} is there already; choose another name, or remove it")
    packs = sorted(root.glob("manifests/*.toml"))
    if not packs and not make_pack:
        raise UsageError(
            f"{root} holds no pack (manifests/<pack>.toml); give --root DIR to make one"
        )
    files = {"kernel.toml": _MANIFEST, "kernel.py": _KERNEL, "host.py": _HOST}
    try:
        root.mkdir(parents=True, exist_ok=True)
        written = [] if packs else [_write_pack(root)]
        _write_directory(target, {file: text.format(name=name) for file, text in files.items()})
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
    return (*written, *(f"kernels/{name}/{file}" for file in files))


def _write_pack(root: Path) -> str:
    word = re.sub(r"\W+", "_", root.resolve().name).strip("_").lower() or "pack"
    name = word if re.fullmatch(NAME, word) and not keyword.iskeyword(word) else f"pack_{word}"
    (root / "manifests").mkdir(exist_ok=True)
    path = root / "manifests" / f"{name}.toml"
    path.write_text(_PACK.format(name=name), encoding="utf-8")
    return f"manifests/{name}.toml"


def _write_directory(target: Path, files: Mapping[str, str]) -> None:
    """Make a directory with its files appear at once."""
    target.parent.mkdir(exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for file, text in files.items():
            (beside / file).write_text(text, encoding="utf-8")
        beside.chmod(0o777 & ~_umask())
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
