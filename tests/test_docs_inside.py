"""What the pages on the inside say of modules is true: each name that they give is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kernelpkg"
ROOMS = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
NAME = re.compile(rf"`((?:{'|'.join(ROOMS)})/[\w/]+|errors|files)((?:\.\w+)*)`")


def there(module, names):
    """Whether a module is there, and defines a name, or one inside of a class."""
    path = PACKAGE / f"{module}.py"
    if not names:
        return path.is_file() or (PACKAGE / module).is_dir()
    nodes = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
    for name in names.removeprefix(".").split("."):
        for node in nodes:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            if name in (getattr(node, "name", None), *(getattr(t, "id", None) for t in targets)):
                nodes = getattr(node, "body", [])
                break
        else:
            return False
    return True


@pytest.mark.parametrize("page", ["docs/inside/architecture.md", "CONTRIBUTING.md"])
def test_every_name_is_there(page):
    """`room/module` is a module, `room/module.name` a name of it."""
    found = NAME.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(found) > 10
    assert ["".join(name) for name in found if not there(*name)] == []


def test_the_ladder_has_every_room():
    """The table names each folder of the package once, highest first."""
    text = (ROOT / "docs/inside/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\w+) \| \S.* \|$", text, re.MULTILINE)
    assert sorted(room for _, room in rows) == sorted([*ROOMS, "root"])
    steps = [int(step) for step, _ in rows]
    assert steps == sorted(steps, reverse=True)


def test_a_kernels_way_is_told_by_its_files():
    """Each of the eight files names, in its docstring, the one before it and the one after it."""
    text = (ROOT / "docs/inside/architecture.md").read_text(encoding="utf-8")
    way = text.split("## A kernel's way")[1].split("\n## ")[0]
    files = re.findall(r"^\| `(\w+/\w+)` \|", way, re.MULTILINE)
    assert len(files) == 8
    for place, file in enumerate(files):
        doc = ast.get_docstring(ast.parse((PACKAGE / f"{file}.py").read_text(encoding="utf-8")))
        before, after = doc.partition("Before: ")[2].split(" After: ")
        assert place == 0 or f"`{files[place - 1]}`" in before, file
        assert place == 7 or f"`{files[place + 1]}`" in after, file
