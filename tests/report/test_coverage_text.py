"""The map in words: whole lines of small maps, and what the tables leave out."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import pytest

from kernelpkg.configs.selection import Move
from kernelpkg.packs.read import read_pack
from kernelpkg.report.coverage_text import WIDTH, details, ratio, remarks, tables
from kernelpkg.report.pack_coverage import cover_pack


def ask(demo, *platforms):
    return cover_pack(read_pack(demo.root, "demo"), given=platforms)


def test_the_tables(rich):
    """Of each platform the grid, without outcomes that are nowhere, and the models."""
    assert list(tables(ask(rich))) == [
        (
            "calls of the grid on nvidia_h200",
            [
                ("op", "cases", "calls", "exact", "extrapolated", "default", "farthest"),
                ("twice", "2", "8", "2", "2", "4", "hidden_size 2x above"),
            ],
        ),
        (
            "calls of models on nvidia_h200",
            [
                ("op", "tall", "flat", "crooked"),
                ("twice", "2 extrapolated, 2 default", "2 exact, 2 default", "refused"),
            ],
        ),
    ]


def test_the_details(rich):
    """Rows that say the same are told together; the rest is told once."""
    (entry,) = ask(rich).maps
    assert "\n".join(details(entry)) == DETAILS.rstrip()
    assert max(map(len, details(entry))) <= WIDTH


DETAILS = """\
twice on nvidia_h200: 2 cases, 2 configs, configs/twice/nvidia_h200.json
all calls: dtype=bfloat16
grid, by num_tokens (ceil)
  hidden_size=64; odd=false
    exact         1, 16
    bucketed      2-15 -> 16
    extrapolated  17-1000 -> 16
    refused by guard 'num_tokens <= 1000'  1001..
  hidden_size=64; odd=true
    takes odd true -> false
    default (a tuned variant stands in, without its positional lists)  1,
                  2-1000 -> 16
    refused by guard 'num_tokens <= 1000'  1001..
  hidden_size=128; odd=false
    takes hidden_size 128 -> 64 (2x above)
    extrapolated  1, 2-16 -> 16, 17-1000 -> 16
    refused by guard 'num_tokens <= 1000'  1001..
  hidden_size=128; odd=true
    takes odd true -> false, hidden_size 128 -> 64
    default (a tuned variant stands in, without its positional lists)  1,
                  2-1000 -> 16
    refused by guard 'num_tokens <= 1000'  1001..
hidden_size (nearest), where dtype=bfloat16; odd=false
    extrapolated  1-63 -> 64, 65.. -> 64
    exact         64
guards refuse calls unless hidden_size % 8 == 0; num_tokens <= 1000
model tall: hidden_size=256
  hidden_size=256; odd=false
    takes hidden_size 256 -> 64 (4x above)
    extrapolated  1, 2-16 -> 16, 17-1000 -> 16
    refused by guard 'num_tokens <= 1000'  1001..
  hidden_size=256; odd=true
    takes odd true -> false, hidden_size 256 -> 64
    default (a tuned variant stands in, without its positional lists)  1,
                  2-1000 -> 16
    refused by guard 'num_tokens <= 1000'  1001..
model flat: hidden_size=64, in the grid
model crooked: hidden_size=100
  hidden_size=100; odd=false, true
    refused by guard 'hidden_size % 8 == 0'  all
"""


def test_what_the_tables_leave_out(rich):
    """Platforms without a file, by what stands in; and models that the op is not for."""
    covered = ask(rich, "nvidia_h200", "nvidia_h100", "nvidia_l4", "cpu")
    assert list(remarks(covered)) == [
        "no configs for nvidia_h100, borrowed from nvidia_h200: twice",
        "no configs for nvidia_l4, nothing to borrow either: twice",
        "no configs for cpu, nothing to borrow either: twice",
        "model stranger gives no axis of: twice",
    ]


def test_models_that_cannot_be_mapped_are_told(rich):
    rich.edit("manifests/demo.toml", "hidden_size = 100", "hidden_size = 0.5")
    assert next(remarks(ask(rich))) == (
        "model crooked is not mapped for twice: axis 'hidden_size' is 0.5; it must be a whole "
        "number, 0 or more; correct [models]"
    )


def test_a_model_that_gives_the_axis_of_lines_is_told_what_it_gets(rich):
    """Its calls are a place on lines of the grid."""
    rich.edit("manifests/demo.toml", "hidden_size = 64", "hidden_size = 64, num_tokens = 300")
    (entry,) = ask(rich, "nvidia_h200").maps
    told = "\n".join(details(entry))
    assert (
        "\nmodel flat: num_tokens=300, hidden_size=64, in the grid: extrapolated, default\n  (a "
        "tuned variant stands in, without its positional lists)\n" in told
    )


def test_what_is_told_of_many_ops_is_told_once(rich):
    """A line for each problem, with all ops that have it."""
    names = [f"twice_{number:02}" for number in range(12)]
    for name in names:
        rich.kernel(name)
    rich.edit("manifests/demo.toml", "hidden_size = 64", "num_tokens = -1")
    told = list(remarks(ask(rich, "nvidia_l4")))
    assert told[:3] == [
        "no configs for nvidia_l4, nothing to borrow either: twice, twice_00, twice_01,",
        "  twice_02, twice_03, twice_04, twice_05, twice_06, twice_07, twice_08,",
        "  twice_09, twice_10, twice_11",
    ]
    assert [line for line in told if " is -1;" in line] == [
        f"model flat is not mapped for twice, {', '.join(names)}: axis 'num_tokens' is -1; it must be a whole number, 0 or more; correct [models]"
    ]


def test_a_picker_of_its_own_is_unverified(rich):
    """It has no numbers, and one line of details."""
    rich.edit("kernels/twice/kernel.toml", "version = 1", 'version = 1\npicker = "host.py:pick"')
    for kind in ('match = "nearest"', 'match = "ceil"'):
        rich.edit("kernels/twice/kernel.toml", kind, 'match = "exact"')
    covered = ask(rich)
    why = "unverified: picks with 'host.py:pick', which needs the arguments of a call"
    assert list(tables(covered)) == [
        (
            "calls of the grid on nvidia_h200",
            [("op", "cases", "calls", "exact", "farthest"), ("twice", "2", "?", "?", why)],
        )
    ]
    assert list(details(covered.maps[0]))[1:] == [why]


def test_a_guard_that_repeats_is_told_beside_the_outcome(rich):
    rich.edit("kernels/twice/kernel.toml", "num_tokens <= 1000", "num_tokens % 1 == 0")
    lines = list(details(ask(rich).maps[0]))
    assert "    exact where 'num_tokens % 1 == 0', else refused  1, 16" in lines


@pytest.mark.parametrize(
    ("value", "to", "words"),
    [(28, 4, "7x above"), (4, 7, "1.75x below"), (4100, 4096, "1.001x above"), (0, 4, "no ratio")],
    ids=str,
)
def test_ratios_in_words(value, to, words):
    assert ratio(Move(axis="n", value=value, to=to, extrapolated=True)) == words
