"""Jobs of one op done by real worker processes, and what was made of them."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from kernelpkg.autotune.run import autotune
from kernelpkg.autotune.tune_op import TuningRequest
from kernelpkg.configs import platforms, store
from kernelpkg.configs.directories import ConfigDirectory
from kernelpkg.jobs import pool
from kernelpkg.packs.read import read_kernel, read_pack

HERE = Path(__file__).parents[1]
MACHINE = {"gpu": "NVIDIA H200", "torch": "2.11.0", "triton": "3.6.0", "helion": "1.4.0"}


def test_two_worker_processes_tune_the_cases_of_an_op(demo, monkeypatch):
    """The stub tuner runs in them; what goes there and comes back is JSON."""
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    demo.edit("kernels/twice/kernel.toml", 'requires = ">=1.4"', "default = { block_sizes = [8] }")
    demo.configs("twice")
    devices = ("cpu", "cpu:1")
    results = autotune(
        read_pack(demo.root, "demo"),
        [read_kernel(demo.root, "twice")],
        {},
        TuningRequest(case_timeout=60),
        target=ConfigDirectory(path=demo.root / "configs", shown="configs", overlay=False),
        here=platforms.resolve("nvidia_h200"),
        machine=MACHINE,
        date="2026-11-22",
        run_jobs=partial(pool.run_jobs, perform="tuning_stub:perform", devices=devices),
    )
    assert results.ok, results.failures()
    assert {record.device for record in results.ops[0].records} <= set(devices)
    path = demo.root / "configs/twice/nvidia_h200.json"
    file = store.read(path, str(path), "twice", "nvidia_h200", ["num_tokens"], {})
    assert [case.ms for case in file.cases] == [0.004, 0.004]
