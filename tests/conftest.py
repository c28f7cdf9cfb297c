"""Packs for tests: copies of `tests/fixtures` that a test may change, unloaded behind it."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from attrs import frozen
from hypothesis import HealthCheck, settings

from kernelpkg import cli
from kernelpkg.cli import console
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.read import read_pack
from kernelpkg.packs.routes import Routing, read_routing
from kernelpkg.vllm.vendor.op_picker import write_shared

# No example may fail for the time that it takes: machines are shared and slow.
settings.register_profile("kernelpkg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kernelpkg")


SLOW = (
    "test_benchmarks.py",
    "test_planted.py",
    "test_wheel.py",
    "cli/test_widths.py",
    "helion/cli/test_widths.py",
    "vllm/wheel/",
    "gpu/",
    "autotune/test_run.py::test_kills_at_random_moments_damage_and_lose_nothing",
    "launch/test_fuzz.py",
    "launch/test_native.py::test_c_and_python_tell_calls_apart_alike",
    "jobs/test_pool.py",
    "jobs/test_ray_pool.py",
    "properties/",
    "manifest/test_keys.py::test_both_take_each_manifest_and_agree_on_its_mutations",
    "helion/test_torch_compile.py",
    "helion/test_kernels.py::test_test_grid",
    "helion/test_kinds.py::test_level_1_binds_each_variant",
    "helion/test_kinds.py::test_level_2_compiles_each_class",
    "helion/test_kinds.py::test_level_2_compiles_each_config",
    "helion/test_kinds.py::test_level_3_finds_no_error",
    "helion/test_planted_bindings.py",
    "helion/test_planted_kinds.py",
    "helion/test_planted_runs.py",
    "helion/check/test_level1.py",
    "helion/check/test_level2.py",
    "helion/check/test_level3.py",
    "helion/cli/test_load.py::test_the_whole_program_loads_the_first_pack",
    "helion/compile/",
    "helion/runtime/test_load.py::test_a_fork_while_another_thread_loads_or_makes_a_first_call",
    "helion/runtime/test_prebuilt.py::test_loading_and_a_first_call_import_no_helion",
    "helion/runtime/test_prebuilt.py::test_the_build_of_the_first_pack_has_code_for_the_layers_of_an_engine",
    "helion/runtime/test_warm.py",
    "helion/test_docs_adding.py::test_builds_go_as_they_are_written",
    "helion/vllm/test_plugin.py",
    "helion/vllm/vendor/test_op_inputs.py",
)
"""What `make quick` leaves out, by the beginnings of test ids: one test in six, and most of the
time."""

LONG = (
    *map(
        "test_benchmarks.py::test_a_benchmark_runs[{}]".format,
        ("check", "check_helion", "load", "plugin", "routes_gpu", "vendor"),
    ),
    "test_benchmarks.py::test_dispatch",
    "test_wheel.py::test_a_pack_of_others_is_installed_found_and_called",
    "helion/check/test_level2.py::test_names_of_the_kernels_file[constants]",
    "helion/cli/test_widths.py::test_nothing_is_wider_than_the_terminal[120-never]",
    "helion/compile/test_build.py::test_a_build_that_is_ended_leaves_nothing_but_what_was_there[term]",
    "helion/runtime/test_load.py::test_a_fork_while_another_thread_loads_or_makes_a_first_call",
    "helion/test_docs_adding.py::test_builds_go_as_they_are_written",
    "helion/test_kinds.py::test_level_2_compiles_each_class",
    "helion/test_kinds.py::test_level_2_compiles_each_config[nvidia_b200]",
    "helion/vllm/test_plugin.py::test_forked_processes",
    "vllm/wheel/test_bench_picker.py",
)
"""What `make test` leaves out too, and `make whole` runs: 16 tests, for 500 s of one core."""

FIRST = ("test_ray_pool.py", "test_kinds.py", "test_planted_kinds.py", "test_vllms_tests.py")
"""Files whose tests begin first: at the end, one process would wait for another that has them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests; put the longest first, and those of a Ray cluster in one process."""
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if name.startswith(LONG):
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: item.path.name not in FIRST)


FIXTURES = Path(__file__).parent / "fixtures"


def copy(source: Path, target: Path) -> None:
    """Copy a directory of `tests/fixtures` to where a test may change it."""
    shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)


@frozen
class PackDirectory:
    """A pack on disk that a test writes and changes."""

    root: Path

    def kernel(self, name: str) -> Path:
        """Write a kernel that doubles its input; returns its directory."""
        directory = self.root / "kernels" / name
        copy(FIXTURES / "demo" / "kernels" / "twice", directory)
        for path in directory.iterdir() if name != "twice" else ():
            path.write_text(path.read_text().replace("twice", name))
        return directory

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that a file of the pack has."""
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def configs(self, name: str, text: str | None = None, platform: str = "nvidia_h200") -> None:
        """Write a config file of a kernel: a text in which NAME is its name, or that of `demo`."""
        if text is None:
            text = (FIXTURES / "demo/configs/twice/nvidia_h200.json").read_text()
            text = text.replace("twice", "NAME")
        path = self.root / "configs" / name / f"{platform}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", name))


def write_pack(root: Path) -> PackDirectory:
    """Write a pack "demo" with one good kernel, "twice", for which nothing is tuned."""
    for folder in ("manifests", "kernels"):
        copy(FIXTURES / "demo" / folder, root / folder)
    return PackDirectory(root)


@pytest.fixture(scope="session")
def new_pack() -> Callable[[Path], PackDirectory]:
    """Writes a pack like `demo`, for tests that share one."""
    return write_pack


@pytest.fixture(autouse=True, scope="session")
def documents() -> Iterator[set[str]]:
    """Holds every document that a command prints in any test against its schema.

    It is the set of what was printed so far: commands, and "failure".
    """
    printed: set[str] = set()
    plain = console.json_text

    def json_text(document: Any) -> str:
        if "format" in document:  # SARIF has none
            context = click.get_current_context(silent=True)
            command = "load" if context is None else str(context.info_name)
            validator(command).validate(json.loads(plain(document)))
            printed.add("failure" if "errors" in document else command)
        return plain(document)

    console.json_text = json_text
    yield printed
    console.json_text = plain


@functools.cache
def validator(command: str) -> Any:
    """Return what holds documents of a command against their schema."""
    import jsonschema

    from kernelpkg.cli.document_schemas import document_schema

    return jsonschema.Draft202012Validator(document_schema(command))


@pytest.fixture
def demo(tmp_path: Path) -> PackDirectory:
    """A pack "demo" with one good kernel, "twice", which doubles its input."""
    return write_pack(tmp_path / "demo")


@pytest.fixture
def on_demo(demo: PackDirectory, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command on the pack "demo"; returns status, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            status = cli.main([*words, "--root", str(demo.root)])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def rich(demo: PackDirectory) -> PackDirectory:
    """The pack "demo" with axes of every type, guards and models, and two tuned cases."""
    copy(FIXTURES / "rich", demo.root)
    return demo


@pytest.fixture
def other(tmp_path: Path) -> PackDirectory:
    """A second pack like `demo`, with the same namespace, below another root."""
    return write_pack(tmp_path / "other")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], PackDirectory]:
    """Copies a pack of `tests/fixtures`, named by its directory, to where a test may change it."""

    def copied(name: str) -> PackDirectory:
        copy(FIXTURES / name, tmp_path / name)
        return PackDirectory(tmp_path / name)

    return copied


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test see the environment of who runs it, or ops that another left in "demo"."""
    names = ("BUILDS", "CONFIGS", "DISABLE", "LAUNCHER", "NO_PROGRESS", "PATH")
    for name in ("NO_COLOR", "FORCE_COLOR", *(f"KERNELPKG_{word}" for word in names)):
        monkeypatch.delenv(name, raising=False)
    yield
    forget("demo")


def forget(namespace: str) -> None:
    """Unload the ops of a namespace, where anything was loaded at all."""
    register = sys.modules.get("kernelpkg.runtime.register")
    if register is not None:
        names = [n for n in register.get_registered_kernels() if n.startswith(f"{namespace}::")]
        if names:
            register.unload(*names)


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """A directory with as much of vLLM's sources as vendoring looks at; none of it can run."""
    copy(FIXTURES / "vllm_sources", tmp_path / "sources")
    return tmp_path / "sources"


@pytest.fixture(scope="session")
def shared_rules() -> Iterator[ModuleType]:
    """The file that the vendored ops of a pack share, run from its text."""
    module = ModuleType("shared_rules")
    sys.modules[module.__name__] = module  # its classes are pickled
    exec(compile(write_shared("Copied."), "shared_rules.py", "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with what pip writes of kernelpkg beside its files: the entry point for vLLM."""
    about = tomllib.loads((FIXTURES.parents[1] / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "kernelpkg-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernelpkg\nVersion: 0.1.0\n")
    entries = about["entry-points"]["vllm.general_plugins"].items()
    lines = ["[vllm.general_plugins]", *(f"{name} = {value}" for name, value in entries)]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path / "site"


_BLOCK = re.compile(r"(?:^`([^`\n]+)`\n\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SECONDS = re.compile(r"\d+\.\d s\)")


@pytest.fixture
def run_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Path], int]]:
    """Do what a page of the documentation shows, in an empty directory.

    A block below the name of a file is written there; one of Python is run; and of a console, each
    command must print what is shown below it, stderr first, where `...` stands for any text.
    """

    def run(page: Path) -> int:
        monkeypatch.chdir(tmp_path)
        count = 0
        for file, kind, text in _BLOCK.findall(page.read_text()):
            if file:
                path = tmp_path / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            elif kind == "python":
                path = tmp_path / f"example_{len(text)}.py"  # Helion reads the source of kernels
                path.write_text(text)
                runpy.run_path(str(path))
            elif kind == "console":
                for command in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                    line, _, shown = command.partition("\n")
                    assert _printed(line, capsys, shown, monkeypatch), line
                    count += 1
        return count

    yield run
    forget("my_kernels")


def _printed(
    line: str, capsys: pytest.CaptureFixture[str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> bool:
    variables, words = line.split("python -m kernelpkg ", 1)
    capsys.readouterr()  # what Python above it printed
    with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
        for name, _, value in (word.partition("=") for word in shlex.split(variables)):
            patch.setenv(name, value)
        cli.main(shlex.split(words))
    out, err = capsys.readouterr()
    pattern = re.escape(_SECONDS.sub("0.0 s)", shown)).replace(re.escape("..."), ".*")
    if re.fullmatch(pattern, _SECONDS.sub("0.0 s)", err + out), re.DOTALL) is None:
        print(f"{line}\n{err}{out}")
        return False
    return True


@frozen
class RoutedPack:
    """The pack "demo" with the kernel "scale", whose routes a test writes."""

    demo: PackDirectory

    def read(self, text: str, target: str = "_C::scale") -> PackSpec:
        """Add one route to the manifest, and read the pack."""
        path = self.demo.root / "manifests" / "demo.toml"
        path.write_text(f'{path.read_text()}[vllm.routes."{target}"]\nop = "scale"\n{text}\n')
        return read_pack(self.demo.root, "demo")

    def routing(self, text: str) -> Routing:
        """Add one route, and hold it against its kernel."""
        spec = self.read(text)
        return read_routing(spec, spec.routes[0])


@pytest.fixture
def routed_pack(demo: PackDirectory) -> RoutedPack:
    """A kernel with all kinds of arguments, for routes."""
    copy(FIXTURES / "routed" / "kernels", demo.root / "kernels")
    return RoutedPack(demo)
