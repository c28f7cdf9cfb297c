"""docs/reference/api.md is what the docstrings say, and these say what each public name takes."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "reference" / "api.py"
API = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
NODES = {
    f"{node.name}.{member.name}" if member is not node else node.name: member
    for nodes in API.public().values()
    for node in nodes
    for member in (node, *(API.members(node) if isinstance(node, ast.ClassDef) else ()))
}


def test_the_page_is_what_the_docstrings_say():
    """`make docs` writes it again."""
    assert API.PAGE.read_text(encoding="utf-8") == API.page()


@pytest.mark.parametrize("name", NODES)
def test_arguments_results_and_attributes_are_told(name):
    """Each argument and each attribute has an entry, and no other; a result is said to be one."""
    node = NODES[name]
    first, sections = API.sections(node)
    assert first
    entries = {section: list(API.entries(text)) for section, text in sections.items()}
    if isinstance(node, ast.ClassDef):
        assert entries.get("Attributes", []) == [field.target.id for field in API.fields(node)]
    assert entries.get("Args", []) == API.parameters(node)
    if isinstance(node, ast.FunctionDef) and not API.is_property(node):
        assert ("Returns" in sections) == (ast.unparse(node.returns) != "None")
    assert sections.keys() <= {"Args", "Attributes", "Returns", "Raises"}
