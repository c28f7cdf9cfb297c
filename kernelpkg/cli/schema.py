"""The command `schema`: the JSON Schemas of manifests, for editors."""

from __future__ import annotations

import click

from kernelpkg import files
from kernelpkg.cli.console import FINE, tell
from kernelpkg.cli.options import Shared, argument, command
from kernelpkg.errors import UsageError
from kernelpkg.manifest import keys


@command(pack=False)
@argument(
    "kind",
    "kernel|pack",
    "of which manifests; kernel without it",
    type=click.Choice(("kernel", "pack")),
    default="kernel",
)
@click.option("--write", is_flag=True, help="write both beside the manifests")
def run(shared: Shared, kind: str, *, write: bool) -> int:
    """Print a schema, or write both."""
    if not write:
        print(keys.schema_text(kind), end="")
        return FINE
    from kernelpkg.packs import find  # it reads packs, which takes longer than to print a schema

    root = find.root_to_write(shared.root, shared.here)
    paths = {root / file: name for name, (file, _) in keys.FILES.items()}
    for path in paths:
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is not a directory; go to a pack, or give --root DIR")
    for path, name in paths.items():
        try:
            files.replace_text(path, keys.schema_text(name))
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    names = [str(path) for path in paths]
    tell(shared, {"files": names}, (f"wrote {name}" for name in names))
    return FINE
