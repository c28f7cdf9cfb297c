"""Every planted fault is found at the lowest level that can, and nothing but it."""

from __future__ import annotations

import datetime
import runpy
from pathlib import Path

import pytest

from kernelpkg.check import level0
from kernelpkg.errors import Problem

CATALOGUE = runpy.run_path(str(Path(__file__).with_name("planted.py")))
PLANTED, first_pack = CATALOGUE["PLANTED"], CATALOGUE["first_pack"]
ROOT = Path(__file__).parents[1]
TODAY = datetime.date(2026, 11, 30)


def findings(root: Path) -> tuple[Problem, ...]:
    """Return what level 0 finds in the first pack below a root."""
    pack, broken = level0.open_for_check(root, "kernelpkg")
    checked, _ = level0.check_static(pack, pack.kernels, (), TODAY, lambda *_: None)
    return tuple(sorted([*broken, *checked.findings]))


def test_nothing_is_found_in_the_clean_pack(tmp_path):
    assert findings(first_pack(tmp_path)) == ()


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name, tmp_path):
    """Exactly the findings that the catalogue gives, each with a place and one line of text."""
    fault = PLANTED[name]
    fault.plant(first_pack(tmp_path))
    found = findings(tmp_path)
    assert {
        f"{finding.path} {finding.code}{'?' if finding.severity == 'unverified' else ''}"
        for finding in found
    } == fault.found
    assert set(fault.lines) <= set(map(str, found))
    for finding in found:
        assert "\n" not in str(finding)
        assert len(finding.message) > 20


def test_there_are_forty_different_faults_of_level_0():
    """They differ in what is found, too: no fewer than 30 codes."""
    codes = {found.split()[1] for fault in PLANTED.values() for found in fault.found}
    assert len(PLANTED) >= 40
    assert len(codes) >= 30


def test_every_code_of_level_0_has_a_line():
    """The codes that the documentation lists as level 0's are those whose lines are held here."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    documented = {f"KP2{number:02}" for number in range(40) if f"### KP2{number:02}\n" in page}
    lines = " ".join(line for fault in PLANTED.values() for line in fault.lines)
    assert {word for word in lines.split() if word[:3] == "KP2"} == documented
