"""What a check found."""

from __future__ import annotations

from kernelpkg.errors import Problem
from kernelpkg.findings import Checked, Finding

WRONG = Finding(path="a", line=3, code="KP201", message="is off; correct it", level=1)
OPEN = Finding(path="a", line=2, code="KP202", severity="unverified", message="needs a GPU")


def test_a_finding_is_one_line_that_says_how_sure_it_is():
    assert str(WRONG) == "a:3: KP201 is off; correct it"
    assert str(OPEN) == "a:2: KP202 unverified: needs a GPU"


def test_a_problem_is_an_error_of_the_level_that_met_it():
    problem = Problem(path="a", line=3, code="KP201", message="is off; correct it")
    assert Finding.of(problem, 1) == WRONG
    assert WRONG.to_json() == {
        "path": "a",
        "line": 3,
        "code": "KP201",
        "severity": "error",
        "message": "is off; correct it",
        "level": 1,
    }


def test_what_two_levels_found_is_sorted_and_told_once():
    first = Checked(findings=[WRONG], counts={"kernels": 1})
    second = Checked(findings=[WRONG, OPEN], counts={"variants": 2})
    both = first.merge(second)
    assert both.findings == (OPEN, WRONG)
    assert both.counts == {"kernels": 1, "variants": 2}
