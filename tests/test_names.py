"""Names of the package: one word, one thing."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "kernelpkg"
TREES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def defined(tree: ast.Module) -> list[str]:
    """Return the classes and the aliases of types that a module exports."""
    found = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in found if name[0].isupper() and not name.isupper()]


def test_an_exported_class_name_stands_once():
    counts = Counter(name for tree in TREES.values() for name in defined(tree))
    assert {name: count for name, count in counts.items() if count > 1} == {}
