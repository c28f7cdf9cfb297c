"""A driver that only records, and the launchers in C and in Python, both held to the same tests."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import runpy
import shutil
import subprocess
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from kernelpkg.launch import driver, native
from kernelpkg.launch.calls import Calls
from kernelpkg.launch.recorded import Recorded

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def compile_c(source: Path, target: Path, *options: str) -> Path:
    """Compile a shared library with the C compiler that is there; skip the test without one."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    command = [*compiler.split(), "-shared", "-fPIC", "-O1", "-g", *warnings, *options]
    done = subprocess.run(
        [*command, "-o", str(target), str(source), "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


class Attribute(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_int),
        ("padding", ctypes.c_char * 4),
        ("value", ctypes.c_ubyte * 64),
    )


class Record(ctypes.Structure):
    """One launch, as `stub_driver.c` keeps it."""

    _fields_ = (
        ("kernel", ctypes.c_uint64),
        ("stream", ctypes.c_uint64),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("device", ctypes.c_int),
        ("attribute_count", ctypes.c_uint),
        ("attributes", Attribute * 4),
        ("params", ctypes.c_uint64 * 32),
    )


@frozen
class Stub:
    """The driver of `stub_driver.c`, from the side of the tests."""

    path: Path
    library: Any

    def sizes(self, *sizes: int) -> None:
        """Say how many bytes each parameter of the next launches has."""
        self.library.stub_set_sizes((ctypes.c_int * len(sizes))(*sizes), len(sizes))

    def launches(self) -> int:
        return int(self.library.stub_launches())

    def last(self) -> Record:
        made = self.launches()
        assert made
        return Record.from_buffer_copy(self.library.stub_record((made - 1) % 64).contents)

    def fail(self, function: str, code: int) -> None:
        self.library.stub_fail(function.encode(), code)

    def history(self) -> list[str]:
        return self.library.stub_history().decode().split()


def open_stub(path: Path) -> Stub:
    library = ctypes.CDLL(str(path))
    library.stub_launches.restype = ctypes.c_uint64
    library.stub_record.restype = ctypes.POINTER(Record)
    library.stub_history.restype = ctypes.c_char_p
    library.stub_reset()
    return Stub(path, library)


@pytest.fixture(scope="session")
def stub_path(tmp_path_factory):
    target = tmp_path_factory.mktemp("driver") / "libstub.so"
    return compile_c(HERE / "stub_driver.c", target)


@pytest.fixture(scope="session")
def old_driver_path(tmp_path_factory):
    target = tmp_path_factory.mktemp("driver") / "libold.so"
    return compile_c(HERE / "stub_driver.c", target, "-DOLD_DRIVER")


@pytest.fixture(scope="session", name="compile_c")
def _compile_c():
    return compile_c


@pytest.fixture(scope="session")
def hook():
    """What the build hook defines."""
    return runpy.run_path(str(ROOT / "hatch_build.py"))


@pytest.fixture(scope="session")
def extension_path(tmp_path_factory, hook):
    """The launcher in C, compiled from the source that is here, with every warning an error."""
    target = tmp_path_factory.mktemp("native") / "_native.abi3.so"
    problem = hook["compile_extension"](ROOT / hook["SOURCE"], target, "-Wpedantic", "-Werror")
    if "no C compiler" in problem:
        pytest.skip(problem)
    assert problem == ""
    return target


@pytest.fixture(scope="session")
def extension(extension_path):
    return load(extension_path)


def load(path: Path) -> Any:
    """Import an extension from where it lies, and set it up."""
    loader = ExtensionFileLoader("kernelpkg.launch._native", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    extension = importlib.util.module_from_spec(spec)
    loader.exec_module(extension)
    native.set_up(extension)
    return extension


@pytest.fixture
def stub(stub_path, monkeypatch):
    """The stub as the driver of the launcher in Python, with nothing recorded yet."""
    stub = open_stub(stub_path)
    monkeypatch.setattr(driver, "_opened", [])
    driver.open_driver(str(stub_path))
    return stub


@pytest.fixture(params=["python", "c"])
def launcher(request):
    """Both launchers in turn; with the fixture `stub`, it is the driver of both."""
    if request.param == "python":
        return native.Launcher(name="python", calls=Calls, recorded=Recorded, reason="a test")
    extension = request.getfixturevalue("extension")
    if "stub" in request.fixturenames:
        extension.open_driver(str(request.getfixturevalue("stub").path))
    return native.Launcher(
        name="c", calls=extension.Calls, recorded=extension.Recorded, reason="a test"
    )
