"""Facts and times of config files that cannot be, and those that can."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from kernelpkg.check.config_files import CheckedFile
from kernelpkg.check.provenance import fact_findings, time_findings
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[2]
SPEC = read_kernel(ROOT, "silu_mul_fp8")
PACK = read_pack(ROOT, "kernelpkg")
NOW = "sha256-" + "1" * 64
BEFORE = "sha256-" + "2" * 64
TODAY = datetime.date(2026, 11, 30)


def checked(
    facts: dict[str, str],
    *cases: dict[str, Any],
    runs: tuple[dict[str, str], ...] = (),
    **more: Any,
) -> CheckedFile:
    file = ConfigFile(
        kernel=SPEC.name,
        platform="nvidia_h200",
        tuned_with=facts,
        configs=({"block_sizes": [1]}, {"block_sizes": [1024, 1], "num_warps": 4}),
        cases=tuple(
            TunedCase(
                **{"key": {"intermediate_size": 4096, "num_tokens": place + 1}, "config": 0, **case}
            )
            for place, case in enumerate(cases or ({},))
        ),
        runs=runs,
    )
    return CheckedFile(
        **{"spec": SPEC, "shown": "x", "platform": "nvidia_h200", "overlay": False, **more},
        file=file,
        text="",
    )


def codes(file: CheckedFile, source: str | None = NOW) -> list[str]:
    return [finding.code for finding in fact_findings(PACK, file, source, TODAY)]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"gpu": "NVIDIA H200"},
        {"gpu": "nvidia_h200"},
        {"gpu": "NVIDIA H200 NVL"},
        {"date": "2026-11-22"},
        {"date": "2026-12-01"},
        {"date": "2026-11-22T10:00:00+00:00"},
        {"torch": "2.11.0+cu128", "helion": "1.4.0", "triton": "3.6.0", "driver": "what it says"},
        {"origin": "vLLM 0.33.0", "effort": "quick"},
    ],
    ids=["none", "gpu", "platform", "variant", "date", "tomorrow", "time", "versions", "texts"],
)
def test_facts_that_can_be(facts):
    """A day ahead is another time zone's today."""
    assert codes(checked({"source": NOW, **facts})) == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"gpu": "NVIDIA H100"}, "KP228"),
        ({"gpu": "!"}, "KP228"),
        ({"date": "yesterday"}, "KP229"),
        ({"date": "2026-12-02"}, "KP229"),
        ({"helion": "new"}, "KP227"),
        ({"source": "sha256-1"}, "KP227"),
        ({"source": BEFORE}, "KP225"),
    ],
    ids=["gpu", "no-gpu", "no-date", "future", "version", "digest", "source"],
)
def test_facts_that_cannot_be(facts, code):
    assert codes(checked({"source": NOW, **facts})) == [code]


def test_a_source_that_cannot_be_read_is_compared_with_none():
    assert codes(checked({"source": BEFORE}), None) == []


def test_variants_that_are_kept_apart_are_other_platforms():
    apart = evolve(PACK, variants="apart")
    file = checked({"source": NOW, "gpu": "NVIDIA H200 NVL"})
    assert [f.code for f in fact_findings(apart, file, NOW, TODAY)] == ["KP228"]


def test_runs_count_for_the_cases_that_name_them():
    """Facts of the file are of no interest where each case has a run, nor runs without a case."""
    runs = ({"source": NOW}, {"source": BEFORE}, {})
    assert codes(checked({}, {"run": 0}, runs=runs)) == []
    assert codes(checked({"source": NOW}, {}, {"run": 1}, {"run": 1}, runs=runs)) == ["KP225"]
    file = checked({"source": BEFORE}, {}, {"run": 1}, {"run": 2}, runs=runs)
    messages = [
        finding.message.partition(",")[0] for finding in fact_findings(PACK, file, NOW, TODAY)
    ]
    assert messages == [
        "1 case was tuned for another source: kernel.py has changed since (sha256-22222222… then",
        "1 case was tuned for another source: kernel.py has changed since (sha256-22222222… then",
        "run 2 does not say which source 1 case was tuned for",
    ]


@pytest.mark.parametrize(
    "times",
    [
        {},
        {"ms": 0.004},
        {"ms": 0.004, "old_ms": 0.005, "default_ms": 0.006},
        {"ms": 0.0042, "old_ms": 0.004},
        {"ms": 0.004, "default_ms": 0.004},
        {"default_ms": 0.004, "old_ms": 0.003},
        {"ms": 0.01, "default_ms": 0.004, "config": 1},
    ],
    ids=["none", "time", "faster", "noise", "equal", "no-time", "the-default"],
)
def test_times_that_can_be(times):
    """A slower default is no wonder where the config is the default."""
    assert list(time_findings(checked({}, times))) == []


@pytest.mark.parametrize(
    ("times", "code"),
    [
        ({"ms": 0}, "KP230"),
        ({"ms": -1.5}, "KP230"),
        ({"ms": 0.004, "old_ms": 0.0}, "KP230"),
        ({"ms": 0.005, "old_ms": 0.004}, "KP231"),
        ({"ms": 0.005, "default_ms": 0.004}, "KP231"),
        ({"ms": 0.005, "old_ms": 0.004, "config": 1}, "KP231"),
    ],
    ids=["zero", "negative", "old-zero", "than-old", "than-default", "default-than-old"],
)
def test_times_that_cannot_be(times, code):
    assert [finding.code for finding in time_findings(checked({}, times))] == [code]
