"""Default arguments of every function of the package."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "kernelpkg"


def test_no_default_argument_is_the_environment():
    """It is shown by `help`, and it is the environment of the import, not of the call."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                if any("environ" in ast.unparse(default).split(".") for default in defaults):
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []
