"""What holds of every room: the ladder of docs/inside/architecture.md, door plates, and names."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

PLATES = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("door_plates.py"))))
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


def test_light_commands_import_neither_torch_nor_helion(demo, tmp_path):
    """All of them in one process, on the first pack, and on one that may be locked."""
    given = "num_tokens=4 intermediate_size=4096 --platform nvidia_h200"
    commands = ["list", "list --json", "schema", "schema pack", f"explain silu_mul_fp8 {given}"]
    commands += [f"coverage --svg {tmp_path}/map.svg", "check silu_mul_fp8", "lock --check"]
    commands += ["build --check --platform nvidia_h200"]
    commands += [f"lock --no-fingerprints --root {demo.root}"]
    code = (
        "import sys; from kernelpkg.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    findings = 'check' in command  # may be there while one works on the pack\n"
        "    assert main(command.split()) in ((0, 1) if findings else (0,)), command\n"
        "import kernelpkg.plugin, kernelpkg.vllm.vendor.vendor, kernelpkg.vllm.exchange\n"
        f"print(sorted({HEAVY | {'numpy', 'rich'}} & set(sys.modules)))\n"
    )
    arguments = [sys.executable, "-c", code, *commands]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_plugin_imports_nothing_of_the_package():
    """vLLM imports it in every process, whether routes are asked for or not."""
    found = {*imported(at_import(TREES["kernelpkg.vllm.plugin"]))}
    assert found <= {"__future__", "os", "typing"}


@pytest.mark.parametrize("room", PLATES.rooms(), ids=lambda room: room.name)
def test_a_plate_says_what_is_there(room):
    """Its modules, and no face that is wider than needed; `make docs` writes it again."""
    source = (room / "__init__.py").read_text(encoding="utf-8")
    assert source == PLATES.written(room)
    purpose, face, inside = PLATES.plate(room)
    assert "\n" not in purpose
    assert purpose.endswith(".")
    assert all({**face, **inside}.values())
    assert max(map(len, source.split("\n"))) <= 100


@pytest.mark.parametrize("room", PLATES.rooms(), ids=lambda room: room.name)
def test_other_rooms_import_the_face_of_a_room_alone(room):
    """`make docs` widens no face, for what other rooms may use is a decision."""
    assert PLATES.inner_imports(room) == []


def exported(tree: ast.Module) -> list[str]:
    """Return the classes and the aliases of types that a module exports."""
    found = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in found if name[0].isupper() and not name.isupper()]


def test_an_exported_class_name_stands_once():
    counts = Counter(name for tree in TREES.values() for name in exported(tree))
    assert {name: count for name, count in counts.items() if count > 1} == {}


def test_no_default_argument_is_the_environment():
    """It is shown by `help`, and it is the environment of the import, not of the call."""
    found = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                if any("environ" in ast.unparse(default).split(".") for default in defaults):
                    found.append(f"{name}:{node.lineno}")
    assert found == []
