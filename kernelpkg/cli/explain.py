"""The command `explain`: which config a call gets, and why."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from kernelpkg.cli.console import FINE, FOUND, tell
from kernelpkg.configs import explain
from kernelpkg.errors import UsageError
from kernelpkg.packs.find import chosen_kernels, open_pack
from kernelpkg.packs.read import read_kernel


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    option = command("explain", run, configs=True).add_argument
    option("op", metavar="OP", help="the name of an op, with or without namespace")
    option("axes", nargs="*", metavar="AXIS=VALUE", help="a fact of the call")
    option("--platform", required=True, metavar="NAME", help="a platform or GPU, as in nvidia_h200")


def run(options: argparse.Namespace) -> int:
    """Explain a call; 1 where it gets no config."""
    given: dict[str, str] = {}
    for text in options.axes:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"'{text}' is not of the form AXIS=VALUE")
        if name in given:
            raise UsageError(f"axis '{name}' is given twice")
        given[name] = value
    pack = open_pack(options.pack, options.root, options.configs, os.environ)
    (kernel,) = chosen_kernels(pack, [options.op])
    spec = read_kernel(Path(pack.root), kernel)
    found = explain.explain(pack, spec, options.platform, given)
    tell(options, found.to_json(), explain.lines(found))
    return FINE if found.chosen is not None else FOUND
