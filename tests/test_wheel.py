"""The wheel: it works away from the source tree, and a pack of others installs beside it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[1]
KERNELS = sorted(path.parent.name for path in ROOT.glob("kernels/*/kernel.toml"))

pytestmark = pytest.mark.wheel


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program without what the environment of the tests adds to the path of Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KERNELPKG"))}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def build(project: Path, into: Path) -> Path:
    """Build the wheel of a project; with the hatchling that is there, or one from the network.

    `CC` of the environment of this process says with which compiler.
    """
    there = importlib.util.find_spec("hatchling") is not None
    isolation = ["--no-build-isolation"] if there else []
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "-w", into, project]
    done = run(*command, cwd=into)
    assert done.returncode == 0, done.stderr
    (wheel,) = into.glob("*.whl")
    return wheel


@frozen
class Environment:
    """A virtual environment that has kernelpkg from its wheel, and lies away from its source."""

    directory: Path
    wheel: Path

    def python(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return run(self.directory / "bin/python", "-I", *arguments, cwd=self.directory)

    def install(self, wheel: Path) -> None:
        python = self.directory / "bin/python"
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel]
        done = run(*command, cwd=self.directory)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What `pip install kernelpkg` makes; torch, helion and triton are those of the tests."""
    wheel = build(ROOT, tmp_path_factory.mktemp("wheel"))
    directory = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(directory, symlinks=True)
    made = Environment(directory, wheel)
    (site,) = directory.glob("lib/python*/site-packages")
    outer = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "outer.pth").write_text("\n".join(outer))
    made.install(wheel)
    return made


def test_the_wheel_carries_the_first_pack_and_no_tests(environment):
    names = set(zipfile.ZipFile(environment.wheel).namelist())
    wanted = {"kernelpkg/py.typed", "kernelpkg/cli/codes.toml"}
    wanted |= {"kernelpkg/_data/manifests/kernelpkg.toml"}
    wanted |= {"kernelpkg/_data/kernelpkg.lock"}
    wanted |= {"kernelpkg/_data/manifests/pack.schema.json"}
    wanted |= {"kernelpkg/_data/kernels/kernel.schema.json"}
    for directory in ("kernels", "configs", "manifests", "builds"):
        wanted |= {
            f"kernelpkg/_data/{path.relative_to(ROOT)}"
            for path in (ROOT / directory).rglob("*")
            if path.suffix in (".toml", ".py", ".json") or path.name.startswith("sha256-")
        }
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "kernelpkg").rglob("*.py")}
    assert wanted - names == set()
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    parts = {part for name in names for part in name.split("/")}
    assert {part for part in parts if part.startswith("test_")} == set()
    assert parts.isdisjoint({"tests", "__pycache__", ".pytest_cache"})
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"kernelpkg"}


def test_the_wheel_says_what_it_needs_and_installs_a_command(environment):
    with zipfile.ZipFile(environment.wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    assert "\nRequires-Python: >=3.11\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    done = run(environment.directory / "bin/kernelpkg", "--version", cwd=environment.directory)
    assert done.stdout.startswith("kernelpkg ")


def extensions(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


STATUS = "from kernelpkg.launch import native; print(native.status())"


def test_the_wheel_has_the_launcher_in_c_for_every_python_of_this_machine(environment):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert environment.wheel.name.endswith(f"-cp311-abi3-{machine}.whl")
    assert extensions(environment.wheel) == ["kernelpkg/launch/_native.abi3.so"]
    assert environment.python("-c", STATUS).stdout == "C (compiled, and fits)\n"


def test_without_a_c_compiler_the_wheel_is_pure(tmp_path, monkeypatch):
    """It fits any machine, an extension in the source tree or not."""
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    wheel = build(ROOT, tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == []


def test_the_first_pack_loads_from_the_wheel(environment):
    place = environment.python("-c", "import kernelpkg; print(kernelpkg.__file__)").stdout
    assert Path(place).is_relative_to(environment.directory)
    done = environment.python("-m", "kernelpkg", "load", "--smoke", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    head, *rows, alike, summary = done.stdout.splitlines()
    assert head.split() == ["op", "cases", "configs"]
    assert [row.split()[0] for row in rows] == [f"kernelpkg::{name}" for name in KERNELS]
    assert alike == "all: mode interpret, lock locked, reason no GPU"
    assert len(rows) == 7
    assert summary.startswith("pack kernelpkg: 7 registered, 7 of 7 checks ok (cpu, ")


def test_the_build_of_the_first_pack_is_in_the_wheel_and_current(environment):
    done = environment.python("-m", "kernelpkg", "build", "--check", "--platform", "nvidia_h200")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("kernelpkg/_data/builds/kernelpkg/nvidia_h200 is current\n")


OTHERS = """
import sys

import torch

import kernelpkg

report = kernelpkg.load("my_kernels", device="cpu", smoke=True, strict=True)
assert "my_kernels" not in sys.modules
x = torch.ones(3, 8)
print([kernel.op for kernel in report.kernels], torch.ops.my_kernels.scale(x, 2.5).sum().item())
"""


def test_a_pack_of_others_is_installed_found_and_called(environment, tmp_path):
    page = (ROOT / "docs/guide/ship.md").read_text()
    found = re.search(r"^`pyproject.toml`\n\n```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(found[1])
    pack = project / "my_kernels"
    done = environment.python("-m", "kernelpkg", "new", "scale", "--root", pack)
    assert done.returncode == 0, done.stderr
    (pack / "__init__.py").write_text("raise ImportError('a pack is not imported')\n")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    environment.install(build(project, wheels))
    shutil.rmtree(project)

    done = environment.python("-c", OTHERS)
    assert (done.returncode, done.stdout) == (0, "['my_kernels::scale'] 60.0\n"), done.stderr
    listed = environment.python("-m", "kernelpkg", "list")
    assert "\npack my_kernels 0.1.0 (from entry point 'my_kernels')\n" in f"\n{listed.stdout}"
    assert "\npack kernelpkg 0.1.0 (from kernelpkg)\n" in f"\n{listed.stdout}"
