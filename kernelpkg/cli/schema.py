"""The command `schema`: the JSON Schemas of manifests, for editors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from kernelpkg import files
from kernelpkg.cli.console import FINE, tell
from kernelpkg.errors import UsageError
from kernelpkg.manifest import keys


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    option = command("schema", run, pack=False).add_argument
    option("kind", nargs="?", choices=("kernel", "pack"), default="kernel")
    option("--write", action="store_true", help="write both beside the manifests")


def run(options: argparse.Namespace) -> int:
    """Print a schema, or write both."""
    if not options.write:
        print(keys.schema_text(options.kind), end="")
        return FINE
    root = options.root or Path()
    paths = {root / file: kind for kind, (file, _) in keys.FILES.items()}
    for path in paths:
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is not a directory; go to a pack, or give --root DIR")
    for path, kind in paths.items():
        try:
            files.replace_text(path, keys.schema_text(kind))
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    names = [str(path) for path in paths]
    tell(options, {"files": names}, (f"wrote {name}" for name in names))
    return FINE
