"""A config file as checks see it: its cases filled in, its lines, and how cases are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelpkg.check.checkedfile import CheckedFile
from kernelpkg.configs import store
from kernelpkg.errors import counted
from kernelpkg.packs.read import read_kernel

ROOT = Path(__file__).parents[2]
SPEC = read_kernel(ROOT, "silu_mul_fp8")

TEXT = """\
{
  "edition": 1,
  "kernel": "silu_mul_fp8",
  "platform": "nvidia_h200",
  "tuned_with": {},
  "configs": [{"num_warps": 4}],
  "cases": [
    {"key": {}, "config": 0},
    {"key": {"intermediate_size": 4096, "num_tokens": 16}, "config": 0},
    {"key": {"num_tokens": 16, "in_dtype": "float16", "intermediate_size": 4096}, "config": 0}
  ]
}
"""


@pytest.fixture
def checked(tmp_path: Path) -> CheckedFile:
    path = tmp_path / "x.json"
    path.write_text(TEXT)
    name, platform = SPEC.name, "nvidia_h200"
    file = store.read(path, "x.json", name, platform, SPEC.key_axes, SPEC.defaults)
    return CheckedFile(
        spec=SPEC, shown="x.json", platform=platform, overlay=False, file=file, text=TEXT
    )


def test_cases_are_filled_in_the_order_of_the_rules(checked):
    """The case {} has no row."""
    assert checked.rows == {1: ("bfloat16", 4096, 16), 2: ("float16", 4096, 16)}
    assert checked.by_row["float16", 4096, 16] == 2


def test_cases_are_named_without_defaults(checked):
    assert [checked.case(place) for place in range(3)] == [
        "{}",
        "intermediate_size=4096, num_tokens=16",
        "in_dtype=float16, intermediate_size=4096, num_tokens=16",
    ]
    assert checked.shown_case(("bfloat16",)) == "in_dtype=bfloat16"


def test_findings_stand_on_the_line_of_their_value(checked):
    found = checked.finding("KP999", "is wrong", "cases", 1, "key", "num_tokens")
    assert str(found) == "x.json:9: KP999 is wrong"
    assert str(checked.finding("KP999", "lacks", severity="unverified")) == (
        "x.json: KP999 unverified: lacks"
    )


def test_counted():
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
