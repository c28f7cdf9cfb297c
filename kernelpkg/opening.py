"""The pack that a command is about: found, read, and with the operator's configs over it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernelpkg.discover import find_pack
from kernelpkg.manifest import read_pack
from kernelpkg.overlays import with_overlays
from kernelpkg.spec import PackSpec


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
