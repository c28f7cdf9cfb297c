"""The pack of all kinds of kernels, `tests/packs/kinds`: it runs, binds and compiles as it stands.

All of it is right, but for what Helion's interpreter cannot run, which is `UNVERIFIED`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import kernelpkg
from kernelpkg.bench.reference import check_case
from kernelpkg.check.level0 import check_static
from kernelpkg.check.level1 import check_bindings
from kernelpkg.check.level2 import check_compiling
from kernelpkg.check.level3 import check_runs
from kernelpkg.compile import units
from kernelpkg.compile.units import KernelBuilder, Unit
from kernelpkg.compile.variants import filed_configs
from kernelpkg.configs.selection import ConfigSelection
from kernelpkg.configs.store import config_id
from kernelpkg.errors import NotInterpreted
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[1] / "packs" / "kinds"
NAMES = sorted(path.parent.name for path in ROOT.glob("kernels/*/kernel.toml"))
PLATFORMS = {
    "nvidia_h100": NAMES,
    "nvidia_b200": ["attention", "fp8_matmul", "int4_matmul", "jagged_sum", "matmul", "rms_norm"],
}
"""What is compiled for which GPU: for the second, of which code differs from that of the first."""

UNVERIFIED = {"jagged_squares": "hl.jagged_tile(length)"}
"""The kernels that Helion's interpreter cannot run, and what of them."""


@pytest.fixture(scope="module")
def kinds() -> Iterator[kernelpkg.LoadReport]:
    """The pack, registered for the CPU, with a smoke check of each kernel."""
    report = kernelpkg.load(root=ROOT, device="cpu", smoke=True)
    yield report
    kernelpkg.unload(*(kernel.op for kernel in report.kernels))


@pytest.fixture(scope="module")
def pack() -> PackSpec:
    """The manifest of the pack."""
    return read_pack(ROOT, "kinds")


@pytest.fixture(scope="module")
def specs() -> list[KernelSpec]:
    """The manifests of its kernels."""
    return [read_kernel(ROOT, name) for name in NAMES]


def test_each_kernel_loads_and_passes_its_smoke_check(kinds: kernelpkg.LoadReport) -> None:
    """What the interpreter cannot run is one line, which names it."""
    assert kinds.problems == ()
    wrong = {kernel.name: kernel.check for kernel in kinds.kernels if kernel.check != "ok"}
    assert wrong.keys() == UNVERIFIED.keys()
    for name, construct in UNVERIFIED.items():
        assert "KP269 unverified: " in str(wrong[name])
        assert f" cannot run '{construct}': " in str(wrong[name])


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("name", sorted({*NAMES} - {*UNVERIFIED}))
def test_each_kernel_agrees_with_its_reference(name: str) -> None:
    """Its op is right in the interpreter for all cases of the grid for tests."""
    spec = read_kernel(ROOT, name)
    op = getattr(torch.ops.kinds, name)
    cases = cases_of(spec, "test")
    assert len(cases) > 1
    assert [check_case(spec, op, case, device="cpu") for case in cases] == [None] * len(cases)


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("name", UNVERIFIED)
def test_what_the_interpreter_cannot_run_is_said_at_a_call(name: str) -> None:
    """A later Helion that can run it fails this test: take the kernel out of `UNVERIFIED`."""
    spec = read_kernel(ROOT, name)
    with pytest.raises(NotInterpreted):
        check_case(spec, getattr(torch.ops.kinds, name), cases_of(spec, "test")[0], device="cpu")


def test_level_0_finds_nothing(pack: PackSpec) -> None:
    """Manifests, functions and configs fit each other, and each case of the grid has a config."""
    checked, _ = check_static(pack, NAMES, (), datetime.date.today(), lambda *_: None)
    assert [str(finding) for finding in checked.findings] == []
    assert checked.counts["files"] == len(NAMES)


@pytest.mark.usefixtures("shared_binders")
def test_level_1_binds_each_variant(pack: PackSpec, specs: list[KernelSpec]) -> None:
    """Helion binds them for an H100, whose configs fit; for a B200 level 2 has it do so."""
    checked = check_bindings(pack, specs, ["nvidia_h100"], jobs=1)
    assert [str(finding) for finding in checked.findings] == []
    assert checked.counts["variants"] > len(specs)


@pytest.mark.usefixtures("shared_binders")
@pytest.mark.parametrize("platform", PLATFORMS)
def test_level_2_compiles_each_config(
    pack: PackSpec, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each config becomes a cubin that fits its GPU, for one class of calls of each."""
    made = KernelBuilder.units

    def first_of_each(self: KernelBuilder) -> Iterator[Unit]:
        configs = {config_id(one.config) for one in filed_configs(pack, self.spec, "nvidia_h100")}
        for unit in made(self):
            if unit.chosen.config_id in configs:
                configs.remove(unit.chosen.config_id)
                yield unit
            if not configs:
                return

    def of_files(_: PackSpec, selection: ConfigSelection, *__: object, **___: object) -> list[Case]:
        filed = filed_configs(pack, selection.spec, "nvidia_h100")
        return [variant.largest for one in filed for variant in one.variants]

    monkeypatch.setattr(KernelBuilder, "units", first_of_each)
    monkeypatch.setattr(units, "build_cases", of_files)  # Helion binds the classes of these alone
    names = PLATFORMS[platform]
    checked = check_compiling(pack, [read_kernel(ROOT, name) for name in names], [platform], jobs=1)
    assert [str(found) for found in checked.findings if found.severity == "error"] == []
    assert [*dict.fromkeys(row["kernel"] for row in checked.counts["resources"])] == names


@pytest.mark.parametrize("platform", PLATFORMS)
def test_level_2_compiles_each_class(
    pack: PackSpec, specs: list[KernelSpec], platform: str
) -> None:
    """As users run it: all classes of all kernels, whatever the platform has configs of."""
    checked = check_compiling(pack, specs, [platform])
    assert [str(found) for found in checked.findings if found.severity == "error"] == []
    assert checked.counts["sources"] > 700


def test_level_3_finds_no_error(pack: PackSpec, specs: list[KernelSpec]) -> None:
    """Tuned cases, calls around them, orders of calls and opcheck, in the interpreter."""
    checked = check_runs(pack, specs, device="cpu", jobs=1)
    told = [str(found) for found in checked.findings if found.code != "KP267"]
    assert len(told) == len(UNVERIFIED)
    for line, construct in zip(told, UNVERIFIED.values(), strict=True):
        assert f" cannot run '{construct}': " in line
