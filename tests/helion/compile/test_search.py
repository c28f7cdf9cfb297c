"""Helion's autotuner: a real search whose compilations and times are made up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import helion.autotuner.base_search as base_search
import helion.autotuner.benchmark_provider as provider
import pytest
import torch

from kernelpkg.compile import helion
from kernelpkg.compile.search import Tunable
from kernelpkg.errors import ConfigError
from kernelpkg.manifest.spec import Reference
from kernelpkg.packs.sources import load_function

KINDS = Path(__file__).parents[2] / "packs" / "kinds"
TWICE = Reference(file="kernel.py", name="twice")


def agrees(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want)


@pytest.fixture
def tunable(demo) -> Tunable:
    """The kernel that doubles its input, for 64 numbers."""
    directory = demo.root / "kernels" / "twice"
    return Tunable(
        load_function(directory, TWICE),
        helion.check_settings({}, "twice"),
        (torch.ones(64),),
        reference=lambda given: given * 2,
        agrees=agrees,
    )


@pytest.fixture
def made_up(monkeypatch) -> list[dict[str, Any]]:
    """Times of 1 ms for blocks of 16, and more the farther a block is from that; 8 warps fail.

    Returns the configs that were asked for.
    """
    asked: list[dict[str, Any]] = []

    def benchmark(self: Any, configs: Any, **_: Any) -> Any:
        results = []
        for config in configs:
            asked.append(dict(config.config))
            time = 1 + abs(math.log2(config.config["block_sizes"][0]) - 4)
            failed = config.config["num_warps"] == 8
            values = dict.fromkeys(provider.BenchmarkResult._fields)
            values |= {"config": config, "fn": lambda *_: None, "compile_time": 0.1}
            values |= {"perf": math.inf if failed else time, "status": "error" if failed else "ok"}
            results.append(provider.BenchmarkResult(**values))
        return results

    monkeypatch.setenv("HELION_AUTOTUNE_MAX_GENERATIONS", "2")
    monkeypatch.setattr(provider.LocalBenchmarkProvider, "benchmark", benchmark)
    monkeypatch.setattr(base_search.PopulationBasedSearch, "rebenchmark", lambda *_, **__: None)
    return asked


def test_the_best_configs_of_a_search_come_back_the_best_first(tunable, made_up):
    found = tunable.search([], effort="quick", budget=60, jobs=2, most=3)
    assert found[0]["block_sizes"] == [16]
    assert 1 <= len(found) <= 3
    assert len(set(map(str, found))) == len(found)
    assert all(config["num_warps"] != 8 for config in found)


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_seeds_are_among_the_first_configs_that_are_tried(tunable, made_up, effort):
    seed = {"block_sizes": [4], "num_warps": 2}
    tunable.search([seed], effort=effort, budget=60, jobs=2, most=3)
    tried = [(config["block_sizes"], config["num_warps"]) for config in made_up[:3]]
    assert ([4], 2) in tried


def test_a_search_prints_nothing(tunable, made_up, capfd):
    tunable.search([{"num_warps": 2}], effort="quick", budget=60, jobs=2, most=3)
    assert capfd.readouterr() == ("", "")


def test_a_search_leaves_no_cache_behind(tunable, made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path / "cache"))
    tunable.search([], effort="quick", budget=60, jobs=2, most=3)
    assert not list(tmp_path.glob("cache/**/*.best_config"))


def test_no_effort_is_no_search(tunable, made_up):
    assert tunable.search([], effort="none", budget=None, jobs=2, most=3) == []
    assert made_up == []


def test_nothing_is_found_where_every_config_fails(tunable, made_up, monkeypatch):
    made_up.clear()
    monkeypatch.setattr(math, "log2", lambda _: math.inf)
    assert tunable.search([], effort="quick", budget=60, jobs=2, most=3) == []


def test_a_config_in_full_is_the_same_whichever_way_it_was_given(tunable):
    default = tunable.default()
    few = {"block_sizes": default["block_sizes"]}
    assert tunable.normalised(few) == default
    assert tunable.normalised(default) == default
    assert tunable.normalised(few | {"num_warps": 2}) == default | {"num_warps": 2}


def test_what_a_kernel_registers_is_searched_and_given_in_full(made_up):
    """A config without it has the default that it is registered with."""
    directory = KINDS / "kernels" / "sliced_matmul"
    tunable = Tunable(
        load_function(directory, Reference(file="kernel.py", name="sliced_matmul")),
        helion.check_settings({}, "sliced_matmul"),
        (torch.ones(16, 64), torch.ones(64, 16)),
        reference=torch.matmul,
        agrees=agrees,
    )
    blocks = {"block_sizes": [16, 16, 16]}
    assert tunable.default()["split_k"] == tunable.normalised(blocks)["split_k"] == 1
    assert tunable.normalised({**blocks, "split_k": 8})["split_k"] == 8
    (best, *_) = tunable.search([], effort="quick", budget=None, jobs=1, most=1)
    assert best["split_k"] in {1 << power for power in range(9)}
    assert len({config["split_k"] for config in made_up}) > 1


def test_a_config_that_helion_refuses_is_one_line(tunable):
    with pytest.raises(ConfigError, match=r"^Helion refuses it: [^\n]+$"):
        tunable.normalised({"block_sizes": [16, 16, 16]})
