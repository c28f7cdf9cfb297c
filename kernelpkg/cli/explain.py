"""The command `explain`: which config a call gets, and why; or what a code means."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

from attrs import asdict

from kernelpkg.cli.codes import codes
from kernelpkg.cli.console import FINE, FOUND, tell
from kernelpkg.cli.options import ONE_PLATFORM, Shared, argument, command, complete_op, only
from kernelpkg.configs import explain
from kernelpkg.errors import UsageError, suggestion
from kernelpkg.packs.find import chosen_kernels, open_pack
from kernelpkg.packs.read import read_kernel


@command(configs=True)
@argument(
    "op",
    "OP|CODE",
    "an op, with or without namespace; or a code, as KP107",
    shell_complete=complete_op,
)
@argument("axes", "AXIS=VALUE", "a fact of the call", nargs=-1)
@ONE_PLATFORM
def run(shared: Shared, op: str, axes: tuple[str, ...], platforms: tuple[str, ...]) -> int:
    """Explain a call, or a code; 1 where a call gets no config."""
    if re.fullmatch("kp[0-9]+", op, re.IGNORECASE):
        return _explain_code(shared, op.upper())
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
    pack = open_pack(shared.pack, shared.root, shared.configs, os.environ, shared.here)
    (kernel,) = chosen_kernels(pack, [op])
    spec = read_kernel(Path(pack.root), kernel)
    found = explain.explain(pack, spec, platform, given)
    tell(shared, found.to_json(), explain.lines(found))
    return FINE if found.chosen is not None else FOUND


def _explain_code(shared: Shared, code: str) -> int:
    """Say what a code means, in one paragraph."""
    found = codes().get(code)
    if found is None:
        raise UsageError(f"'{code}' is not a code{suggestion(code, codes())}")
    tell(shared, asdict(found), textwrap.wrap(f"{code}: {found.text()}", 80))
    return FINE
