"""`doctor`: what is said of a machine, and what to do about it."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import json
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from kernelpkg import cli
from kernelpkg.cli import doctor
from kernelpkg.errors import PackError, Problem, UsageError
from kernelpkg.packs.drift import take_inventory
from kernelpkg.packs.find import Root
from kernelpkg.packs.lock import Lock, write_lock
from kernelpkg.packs.read import read_pack

VERSIONS = {"torch": "2.13.0+cpu", "helion": "1.5.1", "triton": "3.9.0"}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine that a test describes: versions, and what PyTorch sees."""
    state = SimpleNamespace(
        versions=dict(VERSIONS),
        found=SimpleNamespace(
            device="cuda",
            gpu="NVIDIA H200",
            interpret=False,
            platform=SimpleNamespace(name="nvidia_h200"),
        ),
        error=None,
        launcher="C (compiled, and fits)",
        compilers={"cc"},
        starts=True,
    )

    def version(name):
        if name not in state.versions:
            raise metadata.PackageNotFoundError(name)
        return state.versions[name]

    def detect(device):
        assert device == "auto"
        if state.error is not None:
            raise state.error
        return state.found

    cuda = SimpleNamespace(is_available=lambda: state.starts)
    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "kernelpkg.runtime.torch_ops", SimpleNamespace(detect=detect))
    launcher = SimpleNamespace(status=lambda: state.launcher)
    monkeypatch.setitem(sys.modules, "kernelpkg.launch.native", launcher)
    monkeypatch.setattr("kernelpkg.launch.native", launcher, raising=False)
    monkeypatch.setattr("shutil.which", lambda name: name if name in state.compilers else None)
    monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
    return state


def rows(roots=(), **environment):
    found = doctor.examine(roots, environment)
    return [(finding.name, finding.status, finding.text) for finding in found]


PACKAGES = [
    ("python", "ok", "3.11.7"),
    ("torch", "ok", "2.13.0+cpu"),
    ("helion", "ok", "1.5.1"),
    ("triton", "ok", "3.9.0"),
]
LAUNCHER = ("launcher", "ok", "C (compiled, and fits)")
CPU = ("cpu", "ok", "ops run in Helion's interpreter, for tests")


def test_a_machine_with_a_gpu_compiles():
    text = "NVIDIA H200, platform nvidia_h200: ops without a build are compiled at their first call"
    assert rows() == [*PACKAGES, LAUNCHER, CPU, ("gpu", "ok", text)]


def test_a_machine_without_a_gpu_interprets(machine):
    machine.found.device = "cpu"
    text = "PyTorch sees no GPU, so nothing is compiled"
    assert rows() == [*PACKAGES, LAUNCHER, CPU, ("gpu", "limited", text)]


def test_a_gpu_that_does_not_start_is_said(machine):
    """NVML may know of GPUs that the driver does not run this PyTorch on."""
    machine.starts = False
    text = "NVIDIA H200, platform nvidia_h200: CUDA does not start on it; update the driver, or install another torch"
    assert rows()[-1] == ("gpu", "missing", text)


def test_an_interpreter_that_was_asked_for_is_said(machine):
    machine.found.interpret = True
    assert rows(HELION_INTERPRET="1", KERNELPKG_VLLM_ROUTES="all")[4:] == [
        ("environment", "ok", "HELION_INTERPRET is '1'"),
        ("environment", "ok", "KERNELPKG_VLLM_ROUTES is 'all'"),
        LAUNCHER,
        CPU,
        (
            "gpu",
            "limited",
            "NVIDIA H200, platform nvidia_h200: HELION_INTERPRET is set, so nothing is compiled; unset it",
        ),
    ]


def test_a_gpu_without_a_compiler_for_triton_is_said(machine):
    machine.compilers.clear()
    text = (
        "NVIDIA H200, platform nvidia_h200: Triton needs a C compiler, and there is none; "
        "install gcc"
    )
    assert rows()[-1] == ("gpu", "missing", text)


def test_a_package_that_is_not_there_says_how_to_get_it(machine):
    del machine.versions["helion"]
    machine.versions["torch"] = "2.10.1"
    assert rows()[1:] == [
        ("torch", "missing", "2.10.1 is older than 2.11; pip install -U 'torch>=2.11'"),
        ("helion", "missing", "is not installed; pip install 'helion>=1.4'"),
        ("triton", "ok", "3.9.0"),
        ("run", "missing", "no op runs here until the packages above are installed"),
    ]


def test_a_torch_that_does_not_import_is_said(machine):
    machine.error = OSError("libcudart.so.13: cannot open\nshared object file")
    text = (
        "torch cannot be imported: libcudart.so.13: cannot open shared object file; "
        "install it again"
    )
    assert rows()[-1] == ("run", "missing", text)


def test_a_variable_that_nothing_reads_is_said():
    """Its name may be a mistake; those of our tests are none."""
    assert rows(KERNELPKG_VLLM_ROUTE="all", KERNELPKG_VLLM_DIR="x")[4:5] == [
        (
            "environment",
            "limited",
            "KERNELPKG_VLLM_ROUTE is not a variable that kernelpkg reads; did you mean 'KERNELPKG_VLLM_ROUTES'?",
        )
    ]


def test_an_environment_that_helion_refuses_is_said(machine):
    machine.error = UsageError("HELION_INTERPRET is 'perhaps'")
    assert rows()[-1] == ("run", "missing", "HELION_INTERPRET is 'perhaps'")


def test_packs_and_roots_that_are_none_are_said(demo, tmp_path):
    broken = PackError(problems=(Problem(path="/no", code="KP604", message="does not exist"),))
    roots = [Root(path=demo.root, origin="--root"), Root(path=tmp_path, origin="x"), broken]
    assert rows(roots)[4:7] == [
        ("packs", "ok", f"demo in {demo.root} (from --root)"),
        ("packs", "limited", f"none in {tmp_path} (from x)"),
        ("packs", "missing", "/no: KP604 does not exist"),
    ]


def test_a_broken_lock_is_said(demo):
    (demo.root / "kernelpkg.lock").write_text("edition = 2\n")
    found = rows([Root(path=demo.root, origin="--root")])
    assert (
        "lock",
        "limited",
        f"in {demo.root}: kernelpkg.lock:1: KP002 edition 2 is newer than this version of kernelpkg reads (1); upgrade kernelpkg",
    ) in found


@pytest.mark.parametrize(
    ("installed", "when"),
    [
        pytest.param(False, "by 'load --locked'", id="by-path"),
        pytest.param(True, "whenever they are loaded", id="installed"),
    ],
)
def test_locked_packs_are_said_and_when_they_are_verified(demo, installed, when):
    write_lock(
        demo.root, Lock(packs={"demo": take_inventory(read_pack(demo.root, "demo"), {}).pack})
    )
    found = rows([Root(path=demo.root, origin="x", installed=installed)])
    assert ("lock", "ok", f"demo in {demo.root}, verified {when}") in found


def test_directories_of_configs_that_are_not_there_are_said(tmp_path):
    assert ("environment", "ok", f"KERNELPKG_CONFIGS is '{tmp_path}:'") in rows(
        KERNELPKG_CONFIGS=f"{tmp_path}:"
    )
    assert (
        "environment",
        "limited",
        f"KERNELPKG_CONFIGS is '{tmp_path}:nowhere'; no pack loads, because nowhere is not a directory; correct it",
    ) in rows(KERNELPKG_CONFIGS=f"{tmp_path}:nowhere")


def test_the_command_prints_a_table(demo, capsys):
    indent = " " * len("python    ok  ")
    assert cli.main(["doctor", "--root", str(demo.root)]) == 0
    assert capsys.readouterr() == (
        (
            "python    ok  3.11.7\n"
            "torch     ok  2.13.0+cpu\n"
            "helion    ok  1.5.1\n"
            "triton    ok  3.9.0\n"
            f"packs     ok  demo in\n{indent}{demo.root}\n{indent}(from --root)\n"
            "launcher  ok  C (compiled, and fits)\n"
            "cpu       ok  ops run in Helion's interpreter, for tests\n"
            "gpu       ok  NVIDIA H200, platform nvidia_h200: ops without a build are\n"
            f"{indent}compiled at their first call\n"
        ),
        "",
    )


def test_the_command_prints_a_document_and_status_1_where_something_is_missing(
    demo, capsys, machine
):
    machine.versions.clear()
    assert cli.main(["doctor", "--root", str(demo.root), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings[1] == {
        "name": "torch",
        "status": "missing",
        "text": "is not installed; pip install 'torch>=2.11'",
    }


def test_a_launcher_in_python_is_a_limit(machine):
    """Calls cost more with it; why it is used is said."""
    machine.launcher = "Python (not compiled: no C compiler was there)"
    assert ("launcher", "limited", machine.launcher) in rows()
