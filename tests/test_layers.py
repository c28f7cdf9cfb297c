"""The layers of the package: imports point down, in no circle, and few modules import torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kernelpkg"
MODULES = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.glob("*.py")}

# A module imports from its own layer and from those below it.
LAYERS = (
    # What went wrong.
    {"errors"},
    # Texts and numbers in, values out.
    {
        "arrival",
        "atomic",
        "coldtiming",
        "collector",
        "digest",
        "expr",
        "exprtypes",
        "extent",
        "fields",
        "files",
        "jsontext",
        "opschema",
        "pins",
        "platforms",
        "portfolio",
        "positions",
        "svg",
        "toolchain",
    },
    # What manifests and reports say.
    {"codec", "console", "findings", "keys", "matching", "report", "spec", "tally"},
    # From files to checked values, and back.
    {"casesize", "offgrid"}
    | {"accept", "casecheck", "cases", "catalogue", "configs", "consistency", "discover"}
    | {"document", "manifest", "opening", "overlays", "picker", "reader", "schema", "source"}
    | {"inventory", "lock", "lockcheck", "lockplan", "seal"}
    | {"transfer", "vllmconfigs", "vllmfolder", "vllmkeys", "vllmtree"}
    | {"exprcode", "fixedsizes", "opaccuracy", "opfake", "opinputs", "oppicker", "oprules"}
    | {"opsource", "optensors", "pycode", "pyfile", "sizeclass"}
    | {"checkedfile", "configtree", "copiedfiles", "missingfiles", "raggedkeys", "tunedcases"}
    | {"tuningfacts"}
    | {"domain"},
    # From a call to a config; Helion.
    {"dispatch", "fallback", "hostpart", "routecode", "routing", "seam"}
    | {"opconfigs", "opfile", "vendorrecord", "vendorsteps"},
    # PyTorch; what answers without it.
    {"accuracy", "exchange", "explain", "inputs", "machine", "ops", "pickedplan", "routes"}
    | {"scaffold"}
    | {"vendor"}
    | {"atlas", "coverage", "coveragechart", "coveragecolours", "coveragemap", "coveragetext"}
    | {"gpus", "jobcall", "rayworkers", "warden", "workerprocess", "workers"}
    | {"autotune", "gpufacts", "helionsearch", "optuning", "retuned", "tuninglock", "tuningplan"}
    | {"tuningreport", "tuningstart", "tuningstore", "tuningverdict"},
    # A pack on disk as a whole.
    {"checkup", "runplan", "staticcheck"},
    # Kernels as a whole.
    {"binding", "variants"},
    {"check", "fingerprints", "preparation", "register", "tunework"},
    {"configfit", "cubins"},
    {"bindcheck"},
    {"compilecheck"},
    # Packs as a whole.
    {"caserun", "doctor", "loader", "routeline", "runcheck"},
    # All of a process; vLLM's way in.
    {"switchboard"},
    {"plugin"},
    {"cli_autotune", "cli_check", "cli_coverage", "cli_lock", "cli_vllm"},
    {"cli"},
    {"__init__", "__main__"},
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

HEAVY = {"torch", "helion", "triton"}
SEAMS = {"accuracy", "binding", "caserun", "cubins", "inputs", "machine", "ops", "register"} | {
    "routes",
    "seam",
}
SEAMS |= {"gpufacts", "helionsearch", "tunework"}
"""The modules that import torch or helion themselves."""


def imported(node: ast.AST) -> Iterator[str]:
    """Yield what an import statement imports: our modules as ".name", all others by their top."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.split(".")[0]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports name their module in full"
        top, _, module = (node.module or "").partition(".")
        if top != "kernelpkg":
            yield top
        elif module:
            yield f".{module}"
        else:
            yield from (f".{alias.name}" for alias in node.names if alias.name in MODULES)


def imports(name: str, *, inner: bool) -> set[str]:
    """Return what a module imports when it is imported, or, `inner`, when its functions run."""
    functions = [
        node
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    within = {id(node) for function in functions for node in ast.walk(function)}
    found: set[str] = set()
    for node in ast.walk(MODULES[name]):
        if (id(node) in within) is inner:
            found.update(imported(node))
    return found


def ours(name: str, *, inner: bool) -> set[str]:
    return {word[1:] for word in imports(name, inner=inner) if word[0] == "."}


def reached(name: str) -> set[str]:
    """Return all modules of ours that are imported when a module is."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in ours(waiting.pop(), inner=False) - found:
            found.add(other)
            waiting.append(other)
    return found


def test_every_module_has_one_layer():
    assert sorted(LAYER) == sorted(MODULES)
    assert sum(map(len, LAYERS)) == len(LAYER)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name):
    used = ours(name, inner=False) | ours(name, inner=True)
    assert {other for other in used if LAYER[other] > LAYER[name]} == set()


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__"}))
def test_no_module_is_in_a_circle(name):
    assert name not in reached(name)


def test_only_the_seams_import_torch_or_helion():
    assert {name for name in MODULES if imports(name, inner=False) & HEAVY} == SEAMS


def test_only_what_runs_ops_reaches_torch():
    touched = {name for name in set(MODULES) - {"__init__"} if reached(name) & SEAMS}
    assert touched - SEAMS == {
        *("check", "fingerprints", "loader", "pickedplan", "plugin", "preparation", "routeline"),
        "switchboard",
        *("bindcheck", "compilecheck", "configfit"),
    }


COMMANDS = {name for name in MODULES if name.startswith("cli_")}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__", "cli", "plugin"} - COMMANDS))
def test_functions_import_only_what_is_slow(name):
    slow = {*HEAVY, "tqdm", "importlib"} | {f".{seam}" for seam in SEAMS}
    assert imports(name, inner=True) - slow == set()


def test_importing_the_plugin_imports_nothing_of_the_package():
    """vLLM imports it in every process, whether routes are asked for or not."""
    tree = MODULES["plugin"]
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    tree.body.remove(typed)
    assert imports("plugin", inner=False) == {"__future__", "os", "typing"}


def test_importing_the_package_imports_nothing_of_it():
    tree = MODULES["__init__"]
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    tree.body.remove(typed)
    assert ours("__init__", inner=False) == set()


def test_the_catalogue_of_the_package_is_what_type_checkers_see():
    import kernelpkg

    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: str(node.module).partition(".")[2]
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == kernelpkg._PLACES
    for name, module in seen.items():
        names = {getattr(node, "name", None) for node in MODULES[module].body}
        names |= {
            target.id
            for node in MODULES[module].body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        assert name in names, f"{name} is defined in {module}"
