"""The door plates of the rooms: what each `__init__` says is in it, held against what is.

    python tests/door_plates.py

writes them again: modules that are new stand inside, as do those that no other room imports any
more, and modules that are gone are left out. The order of the lines and their words stay, for
people write them, and so does the face: only who moves a line above "Inside only:" widens it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).absolute().parents[1] / "kernelpkg"
INSIDE = "Inside only:"
FIRST = 75
"""How long the begin of a docstring may be where no words were written."""
LINE = re.compile(r"^ *`?(\w+)`? {2,}(\S.*)$")


def rooms() -> list[Path]:
    """Return the directories of all rooms."""
    return sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def modules(room: Path) -> set[str]:
    """Return the modules of a room, and the rooms inside it."""
    inner = {path.name for path in rooms() if path.parent == room}
    return inner | {path.stem for path in room.glob("*.py") if path.name != "__init__.py"}


@cache
def imported(path: Path) -> frozenset[str]:
    """Return what a file imports, in functions and for types too, as dotted names."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def importers(room: Path) -> Mapping[str, list[str]]:
    """Return the modules of a room that files outside of it import, each with these files."""
    prefix = ".".join(("kernelpkg", *room.relative_to(PACKAGE).parts))
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        if room in path.parents:
            continue
        for module in sorted(modules(room)):
            if any(f"{name}.".startswith(f"{prefix}.{module}.") for name in imported(path)):
                found[module].append(path.relative_to(PACKAGE).with_suffix("").as_posix())
    return found


def inner_imports(room: Path) -> list[str]:
    """Return a line for each import, from outside, of a module that is not in the face."""
    _, face, _ = plate(room)
    where = room.relative_to(PACKAGE).as_posix()
    return [
        f"{file} imports {where}/{module}, which is inside only; if other rooms may, widen the "
        f"face by hand: move its line in {where}/__init__.py above '{INSIDE}'"
        for module, files in importers(room).items()
        if module not in face
        for file in files
    ]


def plate(room: Path) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return what a plate says: its purpose, the face, and what is inside only."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")), False)
    head, _, rest = (text or "").partition("\n\n")
    face, _, inside = rest.partition(INSIDE)
    return " ".join(head.split()), _words(face), _words(inside)


def _words(text: str) -> dict[str, str]:
    found = map(LINE.match, text.split("\n"))
    return {match[1]: match[2] for match in found if match is not None}


def written(room: Path) -> str:
    """Return the whole `__init__` of a room, as it should be."""
    purpose, face, inside = plate(room)
    words = {**face, **inside}
    known = [name for name in words if name in modules(room)]
    names = [*known, *sorted(modules(room) - set(known))]
    outer = face.keys() & importers(room).keys()
    width = max(map(len, names)) + 4
    lines = {name: f"    {name:<{width}}{words.get(name) or _first(room, name)}" for name in names}
    parts = [purpose, "", *(lines[name] for name in names if name in outer)]
    inner = [lines[name] for name in names if name not in outer]
    parts += [INSIDE, *inner] if inner else [f"{INSIDE} none."]  # at the margin, for ruff format
    source = (room / "__init__.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    rest = source.split("\n")[tree.body[0].end_lineno if tree.body else 0 :]
    return "\n".join(['"""' + parts[0], *parts[1:], '"""', *rest]).rstrip("\n") + "\n"


def _first(room: Path, name: str) -> str:
    """Return the begin of a module's docstring, for one that no plate names yet."""
    path = room / name / "__init__.py" if (room / name).is_dir() else room / f"{name}.py"
    line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
    while len(line) > FIRST:
        line = re.sub(r"(?:[,;:]|\s)[^,;:\s]*$", "", line)
    return line.rstrip(".")


if __name__ == "__main__":
    for directory in rooms():
        (directory / "__init__.py").write_text(written(directory), encoding="utf-8")
