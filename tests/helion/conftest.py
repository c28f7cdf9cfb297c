"""The first pack, loaded for the CPU: what these tests run is Helion's interpreter.

CI runs this directory under both releases of Helion.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import kernelpkg
from kernelpkg.bench.gpu import GpuFacts
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.check import level1, level2
from kernelpkg.compile.bind import Binder
from kernelpkg.configs.platforms import resolve
from kernelpkg.configs.store import ConfigFile, TunedCase, write
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.builds import own_directory
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.runtime import torch_ops

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in ROOT.glob("kernels/*/kernel.toml"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """In modules with EACH_KERNEL, run a test that takes `name` for each kernel of the pack."""
    if getattr(metafunc.module, "EACH_KERNEL", False) and "name" in metafunc.fixturenames:
        own = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
        if "name" not in own:
            metafunc.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def pack() -> kernelpkg.LoadReport:
    """The first pack, registered; other modules may have unloaded it."""
    return kernelpkg.load(root=ROOT, device="cpu", strict=True)


@pytest.fixture
def play_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets this machine have a GPU of a name, as long as nothing is run on it."""

    def play_gpu(name: str) -> None:
        found = GpuFacts(name=name, arch="sm_90")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch_ops, "first_gpu", lambda environment: found)

    return play_gpu


@pytest.fixture(scope="session")
def specs() -> dict[str, KernelSpec]:
    """The manifests of the first pack, by kernel."""
    return {name: read_kernel(ROOT, name) for name in NAMES}


@pytest.fixture(scope="session")
def make_args(specs: dict[str, KernelSpec]) -> Callable[..., tuple[Any, ...]]:
    """Makes arguments of a kernel: those of its test cases' first with the values asked for."""

    def make(name: str, *, sentinel: float = 96.0, **values: Any) -> tuple[Any, ...]:
        spec = specs[name]
        wanted = {"num_tokens": 3, **values}
        base = [case for case in cases_of(spec, "test") if case.values["num_tokens"] == 3]
        for case in base:
            if all(case.values[axis] == value for axis, value in wanted.items() if axis in values):
                break
        else:
            case = base[0]
        made = Case(values={**case.values, **wanted}, use=("test",), grid=0)
        return make_inputs(spec, made, sentinel=sentinel)

    return make


@pytest.fixture(scope="session")
def plant(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[PackSpec, list[KernelSpec]]]:
    """Makes a pack of copies of kernels, with configs and edits of files, and reads it.

    `configs` are by kernel and platform: pairs of a case key and the config that it gets.
    """

    def make(
        configs: Mapping[str, Mapping[str, Sequence[tuple[Any, Any]]]],
        edits: Sequence[tuple[str, str, str]] = (),
    ) -> tuple[PackSpec, list[KernelSpec]]:
        root = tmp_path_factory.mktemp("planted")
        (root / "manifests").mkdir()
        (root / "manifests/planted.toml").write_text(
            'edition = 1\n[pack]\nname = "planted"\nversion = "1"\nnamespace = "planted"\n'
            'license = "Apache-2.0"\nkernels = "*"\n'
        )
        for kernel, files in configs.items():
            shutil.copytree(ROOT / "kernels" / kernel, root / "kernels" / kernel)
            if kernel == "silu_mul_fp8":  # whose grid stays as faults are planted in it
                manifest = ROOT / "tests" / "fixtures" / "planted" / "kernel.toml"
                shutil.copyfile(manifest, root / "kernels" / kernel / "kernel.toml")
            for platform, pairs in files.items():
                file = ConfigFile(
                    kernel=kernel,
                    platform=platform,
                    configs=tuple(config for _, config in pairs),
                    cases=tuple(TunedCase(key=key, config=n) for n, (key, _) in enumerate(pairs)),
                )
                write(root / "configs" / kernel / f"{platform}.json", file)
        for path, before, after in edits:
            text = (root / path).read_text()
            assert before in text
            (root / path).write_text(text.replace(before, after, 1))
        return read_pack(root, "planted"), [read_kernel(root, name) for name in configs]

    return make


@pytest.fixture(scope="module")
def shared_binders() -> Iterator[None]:
    """Lets level 2 of a check have what level 1 has bound of a kernel: binding takes most of both.

    For kernels whose files stay as they are.
    """
    made: dict[str, Binder] = {}

    def binder(spec: KernelSpec) -> Binder:
        if spec.directory not in made:
            made[spec.directory] = Binder(spec)
        return made[spec.directory]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(level1, "Binder", binder)
        patch.setattr(level2, "Binder", binder)
        yield


@pytest.fixture(scope="session")
def stub_build() -> Callable[..., Any]:
    """Builds a pack for an H200 with a compiler of `stub_compilers`, in one process.

    Takes the root and the name of the compiler; returns what `make_build` does, of the pack's own
    directory.
    """

    def build(root: Path, compiler: str = "made", *kernels: str, **options: Any) -> Any:
        from kernelpkg.compile import build as module

        pack = read_pack(root, "demo")
        platform = resolve("NVIDIA H200")
        directory = options.pop("directory", None) or own_directory(pack, platform.name)
        specs = [read_kernel(root, name) for name in kernels or pack.kernels]
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(Path(__file__).parent))
            patch.setattr(module, "PERFORM", f"stub_compilers:{compiler}")
            return module.make_build(pack, specs, platform, directory, jobs=1, **options)

    return build


@pytest.fixture(scope="session")
def built_pack(
    new_pack: Callable[[Path], Any],
    stub_build: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The root of a pack "demo" with configs and a build for an H200, which a test may copy."""
    demo = new_pack(tmp_path_factory.mktemp("built") / "demo")
    demo.configs("twice")
    stub_build(demo.root)
    return demo.root
