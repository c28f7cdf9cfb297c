"""The command `new`: a new kernel that loads and passes its smoke check as it is."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from attrs import frozen

from kernelpkg.cli.console import FINE, tell
from kernelpkg.cli.options import Shared, argument, command
from kernelpkg.errors import PackError, UsageError
from kernelpkg.files import clear_left_overs, place_beside, replace_text
from kernelpkg.from_helion.kernel import TakenKernel, take_kernel
from kernelpkg.manifest import keys
from kernelpkg.manifest.keys import NAME
from kernelpkg.packs import find
from kernelpkg.packs.read import read_kernel

_TAKEN: Final = {
    **dict.fromkeys(("torch", "helion", "hl"), "kernel.py imports a module of that name"),
    "name": "torch.ops.<namespace>.name is the name of the namespace",
}
"""Identifiers that name no kernel, and why."""

_NAMESPACES: Final = frozenset({"aten", "prim", "prims", "c10", "inductor", "kernelpkg"})
"""Namespaces of PyTorch and of our own pack, which a new pack is not given."""

_TEMPLATES: Final = Path(__file__).parent / "templates"
"""What a kernel and a pack begin with; NAME stands for their names."""


@command(pack=False)
@argument("name", "NAME", "the name of the kernel and of its op", required=False)
@click.option(
    "--from",
    "source",
    metavar="FILE.py:FUNCTION",
    help="the Helion kernel to start from; NAME is the function's name unless given",
)
def run(shared: Shared, name: str | None, source: str | None) -> int:
    """Write a kernel, and say what was written."""
    root = find.root_to_write(shared.root, shared.here)
    taken = None if source is None else take_kernel(source, name)
    name = name if taken is None else taken.name
    if name is None:
        raise UsageError("a kernel needs a name; give NAME, or --from FILE.py:FUNCTION")
    made = new_kernel(root, name, make_pack=shared.root is not None, taken=taken)
    document = {
        "root": str(root),
        "packs": list(made.packs),
        "files": list(made.files),
        "remarks": list(made.remarks),
    }
    lines = [f"wrote {root / file}" for file in made.files]
    if shared.root is None and root != Path():
        which = f"pack{'s' if made.packs[1:] else ''} {', '.join(made.packs)}"
        lines.insert(0, f"using {which} in {root}, which the current directory lies in")
    last = f"test it with: python -m kernelpkg test --root {root}"
    tell(shared, document, [*lines, *made.remarks, last])
    return FINE


@frozen(kw_only=True)
class NewKernel:
    """The files that were written, relative to the root, and what is left to be done by hand.

    `packs` are all of the root, of which those take the kernel that do not list theirs.
    """

    packs: tuple[str, ...]
    files: tuple[str, ...]
    remarks: tuple[str, ...]


def new_kernel(
    root: Path, name: str, *, make_pack: bool, taken: TakenKernel | None = None
) -> NewKernel:
    """Write a kernel below a root, and a pack manifest where there is none and one may be made.

    It is one that works as it is, or one that was `taken` from elsewhere. Raises UsageError for a
    name that is not an identifier or is taken, and where nothing can be written; then nothing was.
    """
    _check_name(name)
    target = root / "kernels" / name
    if os.path.lexists(target):
        raise UsageError(f"{target} already exists; choose another name, or remove it")
    packs = sorted(root.glob("manifests/*.toml"))
    if not packs and not make_pack:
        raise UsageError(
            f"{root.absolute()} holds no pack (manifests/<pack>.toml); "
            "go to one, or give --root DIR to make one there"
        )
    made: list[Path] = []
    try:
        if not packs:
            made += _write_pack(root)
        files = ("kernel.toml", "kernel.py", "host.py")
        texts = taken.files if taken else {file: _text(file, name) for file in files}
        _write_directory(target, texts)
    except OSError as error:
        for path in reversed(made):
            path.unlink(missing_ok=True)
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
    shown = [path.relative_to(root).as_posix() for path in made]
    shown += [f"kernels/{name}/{file}" for file in texts]
    remarks = [*_remarks(packs, name), *(() if taken is None else _left(root, taken))]
    names = find.Root(path=root, origin="").packs()
    return NewKernel(packs=names, files=tuple(shown), remarks=tuple(remarks))


def _left(root: Path, taken: TakenKernel) -> Iterator[str]:
    """Yield what of a kernel from elsewhere does not fit, or is left to its author."""
    yield from taken.remarks
    try:
        read_kernel(root, taken.name)
    except PackError as error:
        yield from map(str, error.problems)


def _text(file: str, name: str) -> str:
    """Return the text of a file of a new kernel or pack."""
    return (_TEMPLATES / f"{file}.txt").read_text(encoding="utf-8").replace("NAME", name)


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(
            f"'{name}' is not a name for a kernel; use letters, digits and underscores, and no "
            "keyword of Python"
        )
    if name in _TAKEN:
        raise UsageError(f"'{name}' is not a name for a kernel; {_TAKEN[name]}; choose another")


def _remarks(packs: Sequence[Path], name: str) -> Iterator[str]:
    """Say where the kernel has to be entered, if no pack of the root takes every kernel."""
    listing = []
    for path in packs:
        try:
            kernels = tomllib.loads(path.read_text(encoding="utf-8"))["pack"]["kernels"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # `load` says what is wrong with it
        if kernels == "*":
            return
        listing.append(f"manifests/{path.name}")
    if listing:
        yield f'add "{name}" to [pack] kernels in {" or ".join(listing)}, which is not "*"'


def _write_pack(root: Path) -> list[Path]:
    """Write a pack without kernels, named like its directory: all that a module of it needs."""
    word = re.sub(r"\W+", "_", root.resolve().name, flags=re.ASCII).strip("_").lower() or "pack"
    fine = re.fullmatch(NAME, word) and not keyword.iskeyword(word) and word not in _NAMESPACES
    name = word if fine else f"pack_{word}"
    texts = {f"manifests/{name}.toml": _text("pack.toml", name)}
    texts |= {keys.FILES[kind][0]: keys.schema_text(kind) for kind in keys.FILES}
    texts["__init__.py"] = (
        f'"""Pack {name}: kernelpkg finds it by this module, and never runs it."""\n'
    )
    made = []
    for file, text in texts.items():
        path = root / file
        if not path.exists():
            replace_text(path, text)
            made.append(path)
    return made


def _write_directory(target: Path, files: Mapping[str, str]) -> None:
    """Make a directory with its files appear at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_left_overs(target.parent)
    beside = place_beside(target)
    beside.mkdir()
    try:
        for file, text in files.items():
            (beside / file).write_text(text, encoding="utf-8")
        beside.rename(target)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            error.filename = str(target)  # that of a disk which is full names none
        raise
