"""When one platform's configs are a copy of another's, and when they are merely alike."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kernelpkg.check.checkedfile import CheckedFile
from kernelpkg.check.copiedfiles import copies, copy_findings
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[2]
SPEC = read_kernel(ROOT, "silu_mul_fp8")
PACK = read_pack(ROOT, "kernelpkg")
CONFIGS = tuple({"block_sizes": [1 << place, 1], "num_warps": 4} for place in range(12))


def file(
    platform: str, picks: list[int], times: list[float | None] | None = None, **facts: str
) -> CheckedFile:
    """Return a file whose cases have the given configs, and times."""
    cases = tuple(
        TunedCase(
            key={"in_dtype": "bfloat16", "intermediate_size": 4096, "num_tokens": place + 1},
            config=pick,
            ms=None if times is None else times[place],
        )
        for place, pick in enumerate(picks)
    )
    return CheckedFile(
        spec=SPEC,
        shown=f"configs/silu_mul_fp8/{platform}.json",
        platform=platform,
        overlay=False,
        file=ConfigFile(
            kernel=SPEC.name, platform=platform, tuned_with=facts, configs=CONFIGS, cases=cases
        ),
        text="",
    )


def is_copy(first: CheckedFile, second: CheckedFile) -> bool:
    assert len(list(copies([first, second]))) == len(list(copies([second, first])))
    return bool(list(copies([first, second])))


MANY = [place % 12 for place in range(24)]
FEW = [place % 3 for place in range(24)]
OTHER = [(pick + 1) % 12 for pick in MANY]
TIMES = [0.004 + 0.000032 * place for place in range(24)]


@pytest.mark.parametrize(
    ("first", "second", "copied"),
    [
        ((MANY, None), (MANY, None), True),
        ((MANY, None), (OTHER, None), False),
        ((MANY, None), ([*OTHER[:2], *MANY[2:]], None), True),
        ((MANY, None), ([*OTHER[:3], *MANY[3:]], None), False),
        ((MANY, None), (MANY[:15], None), False),
        ((MANY, None), (MANY[:16], None), True),
        ((FEW, None), (FEW, None), False),
        ((FEW, TIMES), (FEW, TIMES), True),
        ((FEW, TIMES), (FEW, [*TIMES[1:], 1.0]), False),
        ((MANY, TIMES), (MANY, [*TIMES[1:], 1.0]), False),
        ((MANY, TIMES), (OTHER, TIMES), True),
        ((MANY, TIMES), (MANY, None), True),
        ((MANY, TIMES), (MANY, [*TIMES[:3], *[None] * 21]), True),
        ((MANY, TIMES), (MANY, [*TIMES[1:4], *[None] * 21]), False),
        ((FEW[:7], TIMES), (FEW[:7], TIMES), False),
        (([], None), ([], None), False),
    ],
    ids=[
        *("same", "other", "nearly", "not-nearly", "part", "larger-part", "few-configs"),
        *("few-configs-same-times", "few-configs-other-times", "same-configs-other-times"),
        *("other-configs-same-times", "times-in-one", "few-times", "few-other-times"),
        *("few-cases", "none"),
    ],
)
def test_when_a_file_is_a_copy(first, second, copied):
    assert is_copy(file("nvidia_h100", *first), file("nvidia_h200", *second)) is copied


def test_two_tunings_from_a_few_configs_are_no_copies():
    """What happens on GPUs of one kind: nine picks of ten are equal, and the times are not."""
    chance = random.Random(0)
    picks = [[0 if chance.random() < 0.95 else 1 for _ in range(80)] for _ in range(2)]
    times = [[0.004 + 0.000032 * chance.randrange(12) for _ in range(80)] for _ in range(2)]
    first, second = (file(name, picks[n], times[n]) for n, name in enumerate(("a100", "h100")))
    assert not is_copy(first, second)


@pytest.mark.parametrize(
    ("first", "second", "where", "what"),
    [
        ("NVIDIA H200", "NVIDIA H200", "nvidia_h100", "a copy of that of nvidia_h200:"),
        ("NVIDIA H100", "NVIDIA H100", "nvidia_h200", "a copy of that of nvidia_h100:"),
        ("NVIDIA H100", "NVIDIA H200", "nvidia_h100", "nvidia_h200, or that one of this:"),
        ("???", "", "nvidia_h100", "nvidia_h200, or that one of this:"),
    ],
    ids=["first", "second", "either", "not-said"],
)
def test_the_copy_is_the_file_whose_gpu_is_the_others(first, second, where, what):
    """Where the facts of both fit, or say nothing, nobody can tell, and the message says so."""
    facts = [{"gpu": gpu} if gpu else {} for gpu in (first, second)]
    files = [
        file(name, MANY, None, **fact)
        for name, fact in zip(("nvidia_h100", "nvidia_h200"), facts, strict=True)
    ]
    (finding,) = copy_findings(PACK, files)
    assert finding.path == f"configs/silu_mul_fp8/{where}.json"
    assert what in finding.message
