"""The command `schema`: the JSON Schemas of manifests, for editors, and of what `--json` prints."""

from __future__ import annotations

import click

from kernelpkg import files
from kernelpkg.cli.console import FINE, tell
from kernelpkg.cli.options import Shared, argument, command
from kernelpkg.cli.program import COMMANDS
from kernelpkg.errors import UsageError
from kernelpkg.manifest import keys


@command(pack=False)
@argument(
    "kind",
    "kernel|pack|COMMAND",
    "of kernel manifests (without it), of pack manifests, or of what COMMAND --json prints",
    type=click.Choice((*keys.FILES, *COMMANDS)),
    default="kernel",
)
@click.option("--write", is_flag=True, help="write those of manifests beside them")
def run(shared: Shared, kind: str, *, write: bool) -> int:
    """Print a schema, or write those of manifests."""
    if kind in COMMANDS:
        if write:
            raise UsageError(f"--write writes the schemas of manifests; leave out '{kind}'")
        # It imports what commands print, which takes longer than to print a schema of manifests.
        from kernelpkg.cli.document_schemas import schema_text

        print(schema_text(kind), end="")
        return FINE
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
