"""The command `explain`: which config a call gets, and why."""

from __future__ import annotations

import os
from pathlib import Path

from kernelpkg.cli.console import FINE, FOUND, tell
from kernelpkg.cli.options import OP, PLATFORM, Shared, argument, command, only
from kernelpkg.configs import explain
from kernelpkg.errors import UsageError
from kernelpkg.packs.find import chosen_kernels, open_pack
from kernelpkg.packs.read import read_kernel


@command(configs=True)
@OP
@argument("axes", "AXIS=VALUE", "a fact of the call", nargs=-1)
@PLATFORM
def run(shared: Shared, op: str, axes: tuple[str, ...], platforms: tuple[str, ...]) -> int:
    """Explain a call; 1 where it gets no config."""
    given: dict[str, str] = {}
    for text in axes:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"'{text}' is not of the form AXIS=VALUE")
        if name in given:
            raise UsageError(f"axis '{name}' is given twice")
        given[name] = value
    platform = only(platforms)
    if platform is None:
        raise UsageError("which config a call gets depends on the GPU; name one with --platform")
    pack = open_pack(shared.pack, shared.root, shared.configs, os.environ)
    (kernel,) = chosen_kernels(pack, [op])
    spec = read_kernel(Path(pack.root), kernel)
    found = explain.explain(pack, spec, platform, given)
    tell(shared, found.to_json(), explain.lines(found))
    return FINE if found.chosen is not None else FOUND
