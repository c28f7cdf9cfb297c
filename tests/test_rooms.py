"""The ladder of docs/inside/architecture.md holds: a room imports rooms on lower steps only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LADDER = (ROOT / "docs" / "inside" / "architecture.md").read_text()
STEPS = {room: int(step) for step, room in re.findall(r"^\| (\d+) \| (\w+) \|", LADDER, re.M)}
TREES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted((ROOT / "kernelpkg").rglob("*.py"))
}
DOORS = {f"kernelpkg.{name}" for name in ("__init__", "__main__", "plugin")}
"""What opens the rooms: the catalogue, the program, and the name that vLLM's entry point has."""

HEAVY = {"torch", "helion", "triton"}


def step(module: str) -> int:
    return STEPS.get(module.split(".")[1], STEPS["root"])


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield what import statements name: our modules in full, others by their top."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("kernelpkg"):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in TREES else str(node.module) for name in whole)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported."""
    waiting: list[ast.AST] = list(tree.body)
    for node in waiting:
        typed = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not typed and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)
            yield node


def test_a_room_imports_rooms_on_lower_steps_only():
    wrong = {
        f"{module} imports {other}"
        for module, tree in TREES.items()
        for other in imported(ast.walk(tree))
        if other in TREES and module not in DOORS and step(other) >= step(module)
        if other.split(".")[1] != module.split(".")[1]
    }
    assert {room for room in STEPS if not (ROOT / "kernelpkg" / room).is_dir()} == {"root"}
    assert wrong == set()


def test_torch_and_helion_begin_at_bench_and_are_not_in_report():
    users = {name for name, tree in TREES.items() if HEAVY & {*imported(ast.walk(tree))}}
    assert min(map(step, users)) == STEPS["bench"]
    assert [name for name in users if name.startswith("kernelpkg.report")] == []


def test_no_modules_import_each_other_in_a_circle():
    known = {name: {*imported(at_import(tree))} & {*TREES} for name, tree in TREES.items()}
    while free := {name for name, others in known.items() if not others & {*known}}:
        known = {name: others for name, others in known.items() if name not in free}
    assert known == {}


def test_light_commands_import_neither_torch_nor_helion():
    """All of them in one process, on the first pack."""
    given = "num_tokens=4 intermediate_size=4096 --platform nvidia_h200"
    commands = ["list", "schema", f"explain silu_mul_fp8 {given}"]
    commands += ["coverage silu_mul_fp8", "check silu_mul_fp8", "lock --check"]
    code = (
        "import sys; from kernelpkg.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    assert main(command.split()) != 2, command\n"
        "import kernelpkg.plugin, kernelpkg.vllm.vendor.vendor, kernelpkg.vllm.exchange\n"
        f"print(sorted({HEAVY} & set(sys.modules)))\n"
    )
    arguments = [sys.executable, "-c", code, *commands]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_plugin_imports_nothing_of_the_package():
    """vLLM imports it in every process, whether routes are asked for or not."""
    found = {*imported(at_import(TREES["kernelpkg.vllm.plugin"]))}
    assert found <= {"__future__", "os", "typing"}
