"""The first pack, loaded for the CPU: what these tests run is Helion's interpreter.

CI runs this directory under both releases of Helion.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kernelpkg
from kernelpkg.cases import Case, cases_of
from kernelpkg.inputs import make_inputs
from kernelpkg.manifest import read_kernel
from kernelpkg.spec import KernelSpec

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
