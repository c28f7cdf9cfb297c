"""What --verbose says of what a command works on: which pack, from where, with which files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kernelpkg.configs import directories
from kernelpkg.errors import KernelpkgError
from kernelpkg.files import listed_paths
from kernelpkg.packs import builds, find
from kernelpkg.packs.lock import toolchain
from kernelpkg.packs.read import read_pack

if TYPE_CHECKING:
    from kernelpkg.cli.options import Shared

_WHY: Final = {
    "--root": "named by --root",
    find.PATH_VARIABLE: f"named by {find.PATH_VARIABLE}",
    find.HERE: "the current directory is in it",
    "kernelpkg": "kernelpkg's own, for nothing else is named",
}
"""Why a root is taken, by its origin."""


def lines(shared: Shared, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the versions, which pack is taken and why, and where its configs and builds are."""
    yield ", ".join(f"{name} {version}" for name, version in toolchain().items())
    if "pack" not in params:
        return
    with contextlib.suppress(KernelpkgError):  # the command says what is wrong
        place, name = find.find_pack(shared.pack, shared.root, os.environ, shared.here)
        why = _WHY.get(place.origin, f"installed, {place.origin}")
        yield f"pack {name} in {place.path}: {why}"
        pack = read_pack(place.path, name)
        yield f"manifest {pack.path}: version {pack.version}, ops {', '.join(pack.kernels)}"
        if "configs" in params:
            pack = directories.with_overlays(pack, shared.configs, os.environ)
        origin = "--configs" if shared.configs else directories.CONFIGS_VARIABLE
        for directory in directories.search_path(pack):
            whose = origin if directory.overlay else "of the pack"
            names = sorted({path.stem for path in directory.path.glob("*/*.json")})
            yield f"configs in {directory.path} ({whose}): {', '.join(names) or 'none'}"
        if "builds" in params:
            origin = "--builds" if params["builds"] else builds.VARIABLE
            named = params["builds"] or listed_paths(os.environ, builds.VARIABLE)
            yield from (f"builds in {path} ({origin})" for path in named)
            own = ", ".join(builds.own_directories(pack)) or "none"
            yield f"builds in {Path(pack.root, builds.FOLDER, name)} (of the pack): {own}"
    if params.get("platforms"):
        yield f"platform {', '.join(params['platforms'])}: named by --platform"
