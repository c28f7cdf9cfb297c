"""Each fault of `tests/planted_kinds.py` is found at its level, and at no lower one."""

from __future__ import annotations

import datetime
import runpy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from kernelpkg.check import level3
from kernelpkg.check.level0 import check_static
from kernelpkg.check.level1 import check_bindings
from kernelpkg.check.level2 import check_compiling
from kernelpkg.check.level3 import check_runs
from kernelpkg.check.run_plan import Planned, plan_runs
from kernelpkg.compile.units import KernelBuilder, Unit
from kernelpkg.errors import Checked
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.read import read_pack

CATALOGUE = runpy.run_path(str(Path(__file__).parents[1] / "planted_kinds.py"))
PLANTED = CATALOGUE["PLANTED"]
NOT_TUNED = {"KP207", "KP208", "KP267"}
"""What is not tuned, or has configs that are not run here, is told of all."""

Found = Mapping[str, Sequence[str]]
"""The lines that a level finds, by the kernel."""


def lines(checked: Checked) -> Found:
    """Return what is found, without what is told of all."""
    found = defaultdict(list)
    for finding in checked.findings:
        if finding.code not in NOT_TUNED:
            found[finding.path.split("/")[1]].append(str(finding))
    return found


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> PackSpec:
    """A pack with all of the faults."""
    root = tmp_path_factory.mktemp("kinds") / "planted"
    CATALOGUE["plant"](root, PLANTED)
    return read_pack(root, "planted")


@pytest.fixture(scope="module")
def read(pack: PackSpec) -> tuple[Checked, Sequence[KernelSpec]]:
    """What level 0 finds, and the kernels that it can read."""
    today = datetime.date(2026, 11, 30)
    return check_static(pack, pack.kernels, (), today, lambda *_: None)


def at(read: tuple[Checked, Sequence[KernelSpec]], *levels: int) -> list[KernelSpec]:
    """Return the kernels whose faults are of these levels."""
    return [spec for spec in read[1] if PLANTED[spec.name].level in levels]


@pytest.fixture(scope="module")
def found(
    pack: PackSpec,
    read: tuple[Checked, Sequence[KernelSpec]],
    shared_binders: None,
    tmp_path_factory: Any,
) -> Sequence[Found]:
    """What each level finds of the faults that are its own, or of higher levels.

    What differs from the kernels of the pack in no code of theirs is not bound again.
    """
    other_code = [s for s in at(read, 3) if any("kernel.py" in e for e in PLANTED[s.name].edits)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        patch.setattr(KernelBuilder, "units", _one)
        patch.setattr(level3, "plan_runs", _few_runs)
        return (
            lines(read[0]),
            lines(check_bindings(pack, [*at(read, 1, 2), *other_code], jobs=1)),
            lines(check_compiling(pack, at(read, 2), jobs=1)),
            lines(check_runs(pack, at(read, 3), device="cpu", jobs=1)),
        )


_units = KernelBuilder.units


def _one(self: KernelBuilder) -> Iterator[Unit]:
    """Compile one class of calls, of no small sizes: the faults are those of configs."""
    for unit in _units(self):
        sizes = (value for value in unit.case.values.values() if isinstance(value, int))
        if unit.chosen.config is not None and min(sizes) >= 16:
            yield unit
            return


def _few_runs(pack: PackSpec, spec: KernelSpec, *args: Any, **more: Any) -> Planned:
    """Plan of each kind that can find the fault of a kernel some runs alone, to spare time."""
    planned = plan_runs(pack, spec, *args, **more)
    kinds = defaultdict(list)
    for run in sorted(planned.runs, key=lambda run: run.cases[0].size()):
        kinds[run.kind].append(run)
    code = PLANTED[spec.name].code
    wanted = {"opcheck"} if code == "KP263" else {"call", "empty", "strided", "zeros"}
    kept = [run for kind in wanted for run in (*kinds[kind][:2], *kinds[kind][2:][-8:])]
    return evolve(planned, runs=tuple(kept))


def told(name: str, found: Iterable[str]) -> list[str]:
    """Return the lines of what is found that tell a fault."""
    fault = PLANTED[name]
    start, code = f"{fault.path(name)}:", f": {fault.code} "
    return [
        line for line in found if line.startswith(start) and code in line and fault.text in line
    ]


@pytest.mark.parametrize("name", [name for name, fault in PLANTED.items() if fault.code])
def test_the_fault_is_found_at_its_level(name: str, found: Sequence[Found]) -> None:
    """A line names the file and what is wrong; lower levels say nothing of the kernel."""
    level = PLANTED[name].level
    assert [lower[name] for lower in found[:level] if name in lower] == []
    assert told(name, found[level][name]), found[level][name]


def test_nothing_is_found_of_a_kernel_without_a_fault(found: Sequence[Found]) -> None:
    """What is done to all of the kernels is no fault of its own."""
    assert [level["clean"] for level in found if "clean" in level] == []


def test_each_kind_of_kernel_has_a_fault() -> None:
    """All kernels of the pack of kinds have one but that which the interpreter cannot run."""
    kinds = {path.parent.name for path in CATALOGUE["KINDS"].glob("kernels/*/kernel.toml")}
    assert kinds - {fault.kernel for fault in PLANTED.values()} == {"jagged_squares"}
