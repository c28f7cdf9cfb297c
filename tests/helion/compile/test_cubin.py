"""Binaries for GPUs that are not there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import triton

from kernelpkg.check.level2 import resource_rows
from kernelpkg.compile import cubin
from kernelpkg.compile.bind import Binder, Target
from kernelpkg.compile.cubin import perform, registers, target_of
from kernelpkg.compile.variants import known_cases, variants_of
from kernelpkg.launch.host import NotRecorded


@pytest.fixture(scope="module")
def launch(specs):
    spec = specs["silu_mul_fp8"]
    variant = variants_of(spec, known_cases(spec))[0]
    binding = Binder(spec).bind(variant.largest, Target(capability=(9, 0)))
    return binding.launch({"block_sizes": [1024, 1], "num_warps": 2})


@pytest.mark.parametrize("arch", ["sm_90", "sm_89", "sm_100", "sm_120", "gfx942"])
def test_needs_of_an_architecture(arch, launch, monkeypatch, tmp_path):
    """Every thread has registers, and this kernel no shared memory and nothing to spill."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = perform(launch.payload(arch))
    assert 8 < found.pop("registers") < 128
    assert found == {"shared": 0, "spills": 0, "warps": 2}


def test_registers_are_those_that_cuobjdump_says(launch, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = perform(launch.payload("sm_90"))
    (file,) = tmp_path.rglob("*.cubin")
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True)
    text = said.stdout + said.stderr
    assert f"REG:{found['registers']} " in text
    assert registers(file.read_bytes()) == {"registers": found["registers"], "spills": 0}


def test_a_binary_that_our_launcher_cannot_launch_compiles(launch, monkeypatch, tmp_path):
    """It says why, beside what it needs; nothing is kept."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))

    def refuse(_):
        raise NotRecorded("its code asks for launch_pdl=True")

    monkeypatch.setattr(cubin, "described", refuse)
    found = perform({**launch.payload("sm_90"), "keep": str(tmp_path)})
    assert found.pop("absent") == "its code asks for launch_pdl=True"
    assert sorted(found) == ["registers", "shared", "spills", "warps"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_nothing_is_said_of_code_where_the_system_refuses_a_file(launch, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file/cache"))
    assert perform(launch.payload("sm_90")) == {
        "refused": (
            f"the system refuses a file: NotADirectoryError: [Errno 20] Not a directory: "
            f"'{tmp_path}/file/cache'; TRITON_CACHE_DIR and TORCHINDUCTOR_CACHE_DIR name "
            "directories with room to write"
        )
    }


def test_nothing_is_said_of_code_where_triton_only_interprets(launch, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert perform(launch.payload("sm_90")) == {
        "refused": "TRITON_INTERPRET is set, so Triton compiles nothing; unset it"
    }


def test_an_architecture_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"^architecture 'xe2' is neither sm_\* nor gfx9\*$"):
        target_of("xe2")


def test_the_table_has_the_worst_of_each_op_and_platform():
    row = {"kernel": "k", "platform": "p", "shared": 8, "spills": 0}
    rows = [{**row, "registers": 32}, {**row, "registers": None, "shared": 64}]
    assert resource_rows(rows) == [
        ("op", "platform", "classes", "registers", "shared", "spills"),
        ("k", "p", "2", "32", "64", "0"),
    ]
