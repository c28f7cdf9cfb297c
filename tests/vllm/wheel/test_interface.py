"""vLLM's own tests of `register.py` and `case_key.py`, with our names in place of its own.

What ours does otherwise stands in a table of docs/guide/from_vllm.md: those tests fail, and no
others.
"""

from __future__ import annotations

import ast
import inspect
import operator
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import kernelpkg
from kernelpkg.configs.picked import platform_configs
from kernelpkg.configs.tuned_key import KeyPicker

pytestmark = pytest.mark.vllm

FOLDER = Path("vllm", "kernels", "helion")
HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "guide" / "from_vllm.md"

FILES = ("test_register.py", "test_case_key.py")

THEIRS = "vllm.kernels.helion"
NAMES = {
    f"{THEIRS}.config_manager.ConfigManager": "ours.ConfigManager",
    f"{THEIRS}.utils.get_canonical_gpu_name": "kernelpkg.compile.helion.platform_here",
    f"{THEIRS}.register.create_helion": "kernelpkg.compile.search.create_helion",
    f"{THEIRS}.register.helion.": "kernelpkg.compile.settings.helion.",
    f"{THEIRS}.register.infer_fake": "kernelpkg.compile.host_code.infer_fake",
    f"{THEIRS}.register.logger": "kernelpkg.compile.settings.warnings",
    "mock_logger.warning": "mock_logger.warn",
    "wrapper._configured_kernel": "wrapper.backend._configured",
    "vllm_helion": "kernelpkg",
    # How a kernel knows where its configs are.
    "register_kernel(op_name, ": "register_kernel(op_name, configs_dir=config_dir, ",
}
"""What vLLM's tests replace or look at, and what that is here."""


def with_our_names(text: str) -> str:
    """Return a file of vLLM's tests with our names in place of its own."""
    for theirs, ours in NAMES.items():
        text = text.replace(theirs, ours)
    text = text.replace("from tests.kernels.helion.helpers import", "from helpers import")
    return re.sub(r"from vllm\.[\w.]+ import", "from ours import", text)


@pytest.fixture(scope="module")
def outcomes(
    vllm_tests: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    """What became of each test, by file, of those that ran with our names."""
    work = tmp_path_factory.mktemp("tests")
    for name in (*FILES, "helpers.py"):
        (work / name).write_text(with_our_names((vllm_tests / name).read_text()))
    (work / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "ours", "-p", "no:cacheprovider"]
    command += ["-W", "ignore", "--junitxml=report.xml", *FILES]
    paths = [str(HERE / "inside"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_ADDOPTS": ""}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[str, str]] = {Path(name).stem: {} for name in FILES}
    for case in ElementTree.parse(work / "report.xml").getroot().iter("testcase"):
        file, _, _ = case.attrib["classname"].partition(".")
        found[file][case.attrib["name"]] = next((part.tag for part in case), "passed")
    return found


def differences() -> set[str]:
    """Return the tests that the page says ours do not pass."""
    return set(re.findall(r"^\| `(test_\w+)` \|", PAGE.read_text(), re.MULTILINE))


def test_ours_passes_vllms_tests_but_those_of_the_table(outcomes):
    """The table of the page is all that differs, with its reasons."""
    found = outcomes["test_register"]
    assert {name for name, outcome in found.items() if outcome == "failure"} == differences()
    # What vLLM 0.33.0 skips too, for it has switched that way of its own off.
    assert [name for name, outcome in found.items() if outcome == "skipped"] == [
        "test_init_eagerly_initializes_hop_path",
        "test_compiled_graph_contains_helion_hop",
        "test_inductor_backend_compiles_helion_hop",
    ]
    assert len(found) == 34
    assert set(found.values()) == {"passed", "failure", "skipped"}


def test_tuned_keys_are_vllms_case_keys(outcomes):
    """What vLLM says of its keys holds of ours."""
    assert set(outcomes["test_case_key"].values()) == {"passed"}


ALSO = {"kernel_name": "name"}
"""Arguments that have another name here, by which they are shown; `also_named` takes both."""


def called(node: ast.FunctionDef) -> tuple[list[str], set[str]]:
    """Return the arguments of a function that have places, and the names of the others."""
    args = [ALSO.get(arg.arg, arg.arg) for arg in (*node.args.posonlyargs, *node.args.args)]
    return [name for name in args if name != "self"], {arg.arg for arg in node.args.kwonlyargs}


def test_every_name_of_register_py_is_there_with_its_arguments(vllm_wheel):
    """Public functions, classes and methods take what vLLM's take, by position and by name."""
    source = (vllm_wheel / FOLDER / "register.py").read_text()
    theirs: dict[str, ast.FunctionDef] = {}
    for node in ast.parse(source).body:
        for inner in node.body if isinstance(node, ast.ClassDef) else (node,):
            within = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            if isinstance(inner, ast.FunctionDef):
                theirs[within + inner.name] = inner
    public = {n: f for n, f in theirs.items() if "._" not in n or n.endswith("__init__")}
    assert len(public) == 13
    for name, function in public.items():
        ours = operator.attrgetter(name)(kernelpkg)
        found = inspect.signature(ours).parameters.values()
        placed = [one.name for one in found if one.kind is one.POSITIONAL_OR_KEYWORD]
        places, names = called(function)
        assert [word for word in placed if word != "self"][: len(places)] == places, name
        assert names <= {one.name for one in found}, name


def test_vllms_picker_takes_vllms_configs(vllm_wheel):
    """A picker as it stands in vLLM, over a config file as it stands there, finds each case."""
    source = (vllm_wheel / FOLDER / "ops" / "silu_mul_fp8.py").read_text()
    (function,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "pick_silu_mul_fp8_config"
    )
    space = {"Any": Any, "CaseKey": kernelpkg.TunedKey, "_pick_cache": {}}
    exec(compile(ast.Module(body=[function], type_ignores=[]), "picker", "exec"), space)
    configs = platform_configs("silu_mul_fp8", "nvidia_h200", vllm_wheel / FOLDER / "configs")
    picker = KeyPicker(space[function.name], "silu_mul_fp8", configs)
    assert len(configs) > 300
    for key in configs:
        if key:
            x = torch.empty(key["numtokens"], 2 * key["intermediate"], device="meta")
            assert picker.pick((x, None)) == key
