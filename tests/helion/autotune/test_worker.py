"""What a worker does for one case, in Helion's interpreter, with times and searches that are given.

What only a GPU does, searching and timing, is in tests/gpu/test_autotune.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import define, field

from kernelpkg.autotune import worker
from kernelpkg.autotune.choose import Trial, judge
from kernelpkg.autotune.worker import TuningCase
from kernelpkg.bench import gpu, timing
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.configs.store import config_id
from kernelpkg.jobs.worker import _kind
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.helion_config import Config
from kernelpkg.packs.read import read_kernel

EACH_KERNEL = False

FAST = {"block_sizes": [16], "num_warps": 1}
SLOW = {"block_sizes": [32], "num_warps": 8}
WRONG = {"block_sizes": [64], "num_warps": 2}
OTHER = {"block_sizes": [8], "num_warps": 1}


@define
class Bench(worker.Gpu):
    """Runs calls in the interpreter; the times of configs are given, and WRONG adds one."""

    device: str = "cpu"
    found: tuple[Config, ...] = (FAST, WRONG)
    memory: int = 1 << 30
    timed: list[list[Config]] = field(factory=list)
    ran: list[tuple[Config, int]] = field(factory=list)

    def free(self) -> int:
        return self.memory

    def search(self, tuned: TuningCase, payload: Any) -> list[Config]:
        return list(self.found)

    def call(self, tuned: TuningCase, config: Config) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.ran.append((config, args[0].numel()))
            result = tuned.kernel.interpret(*args)
            return result + 1 if config.get("num_warps") == 2 else result

        return run

    def launch(self, tuned: TuningCase, config: Config) -> Callable[[], Any]:
        def nothing() -> Config:
            return config

        return nothing

    def time(self, launches: Sequence[Callable[[], Any]]) -> list[list[float]]:
        configs = [launch() for launch in launches]
        self.timed.append(configs)
        return [[0.01 if config == FAST else 0.02 for config in configs]] * 5


@pytest.fixture
def payload(demo) -> dict[str, Any]:
    """The job of a case of the pack "demo"."""
    return {
        "root": str(demo.root),
        "kernel": "twice",
        "kind": "searched",
        "case": {"num_tokens": 16},
        "beside": {"num_tokens": 15},
        "single": {"num_tokens": 1},
        "old": SLOW,
        "seeds": [SLOW],
        "effort": "quick",
        "budget": 30,
        "sharing": 1,
    }


def test_the_fastest_right_config_is_held_against_the_old_and_the_default(payload):
    bench = Bench()
    value = worker.perform(payload, bench)
    assert json.loads(json.dumps(value)) == value
    trial = Trial.of(value)
    assert trial.configs["new"] == FAST and trial.configs["old"] == SLOW
    assert trial.ms == {"old": 0.02, "default": 0.02, "new": 0.01}
    assert trial.ratios["new"] == 0.5
    assert judge(trial, 0.02).side == "new"
    assert value["found"] == [FAST]


def test_a_config_is_run_on_the_case_on_other_values_beside_it_and_on_one(payload):
    bench = Bench(found=(FAST,))
    worker.perform(payload, bench)
    for config in (FAST, SLOW):
        assert [count for ran, count in bench.ran if ran == config] == [16, 16, 15, 1]


class WrongAlone(Bench):
    """FAST is wrong for one token alone."""

    def call(self, tuned: TuningCase, config: Config) -> Callable[..., Any]:
        right = super().call(tuned, config)
        return lambda *args: right(*args) + (config == FAST and args[0].numel() == 1)


@pytest.mark.parametrize("kind", ["searched", "timed"])
def test_a_config_that_is_wrong_for_one_token_alone_is_never_stored(payload, kind):
    bench = WrongAlone(found=(FAST, OTHER))
    value = worker.perform(payload | {"kind": kind, "configs": [FAST, OTHER]}, bench)
    assert config_id(FAST) not in value["ms"]
    if kind == "searched":
        assert value["configs"]["new"] == OTHER
        assert value["found"] == [OTHER]
    else:
        assert value["wrong"][config_id(FAST)].startswith("num_tokens=1: return[0] is ")


def test_a_search_that_finds_only_what_is_wrong_for_one_token_says_so(payload):
    value = worker.perform(payload, WrongAlone(found=(FAST,)))
    assert value["wrong"]["new"].startswith("num_tokens=1: return[0] is ")
    assert "new" not in value["ms"]


def test_other_values_are_other_values(payload):
    spec = read_kernel(Path(payload["root"]), "twice")
    case = Case(values={"num_tokens": 16}, use=("tune",), grid=0)
    first, again, other = (make_inputs(spec, case, variation=n)[0] for n in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)


def test_a_config_that_disagrees_with_the_reference_is_never_timed(payload):
    bench = Bench(found=(WRONG,))
    value = worker.perform(payload | {"old": None, "seeds": []}, bench)
    assert "new" not in value["ms"]
    assert value["wrong"]["new"].startswith("num_tokens=16: return[0] is ")
    assert all(WRONG not in configs for configs in bench.timed)


def test_the_seeds_stand_in_where_the_search_finds_nothing(payload):
    value = worker.perform(payload | {"old": None}, Bench(found=()))
    assert value["configs"]["new"] == SLOW


def test_a_found_config_that_is_the_old_one_in_full_is_not_new(payload):
    full = worker.perform(payload | {"old": None, "seeds": []}, Bench(found=()))
    default = full["configs"]["default"]
    value = worker.perform(payload | {"old": {}, "seeds": []}, Bench(found=(default,)))
    assert "new" not in value["configs"]


def test_an_old_config_that_helion_refuses_is_wrong(payload):
    class Refusing(Bench):
        def call(self, tuned: TuningCase, config: Config) -> Callable[..., Any]:
            tuned.tunable.normalised(config)
            return super().call(tuned, config)

    old = {"block_sizes": [16, 16, 16]}
    value = worker.perform(payload | {"old": old}, Refusing())
    assert "Helion refuses it: " in value["wrong"]["old"]
    assert judge(Trial.of(value), 0.02).side == "new"


def test_a_case_that_is_too_large_says_what_it_needs(payload):
    value = worker.perform(payload, Bench(memory=1000))
    assert value == {"failed": "needs 1.2 KiB, and 1000 bytes are free"}


def test_a_case_without_inputs_says_why(payload):
    payload["case"] = {"num_tokens": -1}
    value = worker.perform(payload, Bench())
    assert value["failed"].startswith("case num_tokens=-1: argument 'input' would have shape")


def test_the_configs_of_a_portfolio_are_timed_in_one_run(payload):
    bench = Bench()
    payload |= {"kind": "timed", "configs": [FAST, WRONG]}
    value = worker.perform(payload, bench)
    assert json.loads(json.dumps(value)) == value
    default = value["default"]
    assert value["ms"] == {config_id(SLOW): 0.02, default: 0.02, config_id(FAST): 0.01}
    assert value["ratios"][config_id(FAST)] == 0.5
    assert set(value["tried"]) == {*value["ms"], config_id(WRONG)}
    assert value["wrong"].keys() == {config_id(WRONG)}
    assert len(bench.timed) == 1


def test_what_a_search_compares_is_held_against_the_manifest(payload):
    tuned = TuningCase(
        spec=read_kernel(Path(payload["root"]), "twice"),
        case=Case(values={"num_tokens": 4}, use=("tune",), grid=0),
        beside=None,
        single=None,
        device="cpu",
    )
    want = torch.ones(4)
    tuned._agrees(want * (1 + 5e-7), want)
    with pytest.raises(AssertionError, match=r"return\[0\] is 1\.1, the reference's 1 "):
        tuned._agrees(want * 1.1, want)


def test_arguments_that_are_written_are_compared_in_a_search(specs, make_args):
    spec = specs["per_token_group_fp8_quant"]
    args = make_args("per_token_group_fp8_quant")
    case = Case(values={}, use=("tune",), grid=0)
    tuned = TuningCase(spec=spec, case=case, beside=None, single=None, device="cpu")
    tuned._agrees(None, None)
    tuned._agrees(args, args)
    other = make_args("per_token_group_fp8_quant", sentinel=3.0)
    with pytest.raises(AssertionError, match="output"):
        tuned._agrees(args, other)


def test_what_has_properties_is_held_against_them(copied, payload):
    """A kernel without a reference is tuned; a config with another share of zeros is wrong."""
    case = {"height": 24, "width": 96, "p": 0.25}
    job = {**payload, "root": str(copied("random").root), "kernel": "dropout", "case": case}
    two = [{"block_sizes": [8, 32], "num_warps": warps} for warps in (1, 2)]
    bench = Bench(found=tuple(two))
    job |= {"beside": None, "single": None, "old": None, "seeds": []}
    value = worker.perform(job, bench)
    assert value["found"] == [two[0]]
    assert {config["num_warps"] for config, _ in bench.ran} >= {1, 2}


def test_without_a_gpu_a_worker_says_that_its_device_is_gone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA-capable device is detected"):
        timing.facts()
    assert _kind(RuntimeError("CUDA error: no CUDA-capable device is detected")) == "gone"


def test_facts_are_the_gpu_and_the_public_versions_of_the_tools(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = gpu.GpuFacts(name="NVIDIA H200", arch="sm_90")
    monkeypatch.setattr(gpu, "current_gpu", lambda: found)
    monkeypatch.setenv("PATH", "")
    found = timing.perform({})
    assert found["gpu"] == "NVIDIA H200" and found["driver"] == ""
    assert {"torch", "triton", "helion"} <= found.keys()
    assert "+" not in found["torch"]
