"""The pack that a command is about: found, read, and with the operator's configs over it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernelpkg.configs.search_path import with_overlays
from kernelpkg.errors import UsageError, suggestion
from kernelpkg.manifest.spec import KernelName, PackSpec
from kernelpkg.packs.find import find_pack
from kernelpkg.packs.read import read_pack


def open_pack(
    name: str | None,
    root: Path | None,
    overlays: Sequence[str | os.PathLike[str]],
    environment: Mapping[str, str],
) -> PackSpec:
    """Find a pack and read its manifest; `overlays` go before its own configs.

    Raises UsageError for a pack that is not there, and PackError for what is wrong with it.
    """
    place, found = find_pack(name, root, environment)
    return with_overlays(read_pack(place.path, found), overlays, environment)


def chosen_kernels(pack: PackSpec, ops: Sequence[str]) -> tuple[KernelName, ...]:
    """Return the kernels of ops, given with or without namespace; without any, all.

    Raises UsageError for an op that the pack does not have.
    """
    for op in ops:
        namespace, _, kernel = op.rpartition("::")
        if kernel not in pack.kernels or namespace not in ("", pack.namespace):
            names = [f"{pack.namespace}::{k}" for k in pack.kernels] if namespace else pack.kernels
            hint = suggestion(op, names) or f"; it has {', '.join(names)}"
            raise UsageError(f"pack '{pack.name}' has no op '{op}'{hint}")
    named = {op.rpartition("::")[2] for op in ops}
    return tuple(kernel for kernel in pack.kernels if not named or kernel in named)
