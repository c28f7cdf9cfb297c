"""Problems and the errors that carry them."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

import kernelpkg
from kernelpkg.errors import (
    OPTIONS,
    CallError,
    Checked,
    ConfigError,
    PackError,
    Problem,
    UsageError,
    aligned,
    counted,
    display_width,
    parameter,
    quoted,
    shown,
    suggestion,
    wrapped,
)


def test_a_problem_is_one_line():
    """Whatever a file holds, a problem has one line."""
    problem = Problem(path="a.toml", line=3, code="KP010", message="key 'a\nb\u2028\x1b[0m'")
    assert str(problem) == r"a.toml:3: KP010 key 'a\nb\u2028\x1b[0m'"
    assert str(Problem(path="a.toml", code="KP001", message="größe")) == "a.toml: KP001 größe"


def test_problems_sort_by_place():
    """The order of a report does not depend on how it was made."""
    problems = [
        Problem(path=path, line=line, code=code, message="")
        for path, line, code in [
            ("b", 1, "KP1"),
            ("a", 10, "KP1"),
            ("a", 9, "KP2"),
            ("a", 9, "KP1"),
        ]
    ]
    error = PackError(problems=tuple(problems))
    assert [(p.path, p.line, p.code) for p in error.problems] == [
        ("a", 9, "KP1"),
        ("a", 9, "KP2"),
        ("a", 10, "KP1"),
        ("b", 1, "KP1"),
    ]
    assert str(error).count("\n") == 3


def test_values_are_shortened():
    """A line shows enough of a value to find it."""
    assert shown("a") == "'a'"
    assert len(shown("a" * 999)) == 80
    assert shown(10**5000) == "a number of thousands of digits"
    assert quoted("a") == "'a'"
    assert quoted("a" * 999) == f"'{'a' * 79}…'"


def test_a_suggestion_is_made_for_what_is_near():
    """A slip of the finger is named; anything else is not guessed at."""
    assert suggestion("hidden", ["hidden_size", "x"]) == "; did you mean 'hidden_size'?"
    assert suggestion("q", ["hidden_size", "x"]) == ""
    assert suggestion("hidden_size" * 1000, ["hidden_size"]) == ""


def test_a_suggestion_is_sought_among_few_words(monkeypatch):
    """Hundreds of misspelt names beside hundreds of known ones take no time of their square."""
    asked: list[int] = []
    close = difflib.get_close_matches

    def counting(word, words, *args, **options):
        asked.append(len(words))
        return close(word, words, *args, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    known = [f"axis_{number}" for number in range(400)] + ["hidden_size"]
    for name in known:
        wrong = name[:1] + name[2:]
        assert suggestion(wrong, known) == f"; did you mean '{name}'?"
    assert max(asked) <= 30
    assert suggestion("hiddensize", [*known, "x" * 10_000]) == "; did you mean 'hidden_size'?"


@pytest.mark.parametrize(
    "error", [UsageError, ConfigError, CallError], ids=lambda kind: kind.__name__
)
def test_what_is_quoted_is_cut(error):
    """Words, and lists of them; a message of our own words stays as it is."""
    word = "x" * 100_000
    told = f"'{'x' * 79}…{'x' * 39}' is not known; did you mean 'y'?"
    assert str(error(f"'{word}' is not known; did you mean 'y'?")) == told
    problem = Problem(path=word, code="KP010", message=f"'{word}' is not known; did you mean 'y'?")
    assert problem.message == told
    assert str(problem) == f"{'x' * 80}…{'x' * 39}: KP010 {told}"
    many = f"known are {', '.join(map(str, range(100_000)))}; choose one"
    assert len(str(error(many))) == len(evolve(problem, message=many).message) == 1401
    assert str(error(many)).startswith("known are 0, 1") and str(error(many)).endswith(
        "; choose one"
    )
    ours = "a message of our own words " * 50
    assert str(error(ours)) == ours


WRONG = Problem(path="a", line=3, code="KP201", message="is off; correct it", level=1)
OPEN = Problem(path="a", line=2, code="KP202", severity="unverified", message="needs a GPU")


def test_a_finding_is_one_line_that_says_how_sure_it_is():
    assert str(WRONG) == "a:3: KP201 is off; correct it"
    assert str(OPEN) == "a:2: KP202 unverified: needs a GPU"


def test_a_problem_is_an_error_of_level_0_unless_it_says_otherwise():
    problem = Problem(path="a", line=3, code="KP201", message="is off; correct it")
    assert evolve(problem, level=1) == WRONG
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


def test_a_table_has_its_numbers_to_the_right_and_no_blanks_at_line_ends():
    rows = [("op", "cases", "note"), ("longer", "1", "")]
    assert aligned(rows, right=[1]) == ["op      cases  note", "longer      1"]


def test_counted():
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_a_parameter_is_spelled_for_who_reads_it():
    """Whoever wrote `root=` is not told of an option, and the other way round."""
    assert [parameter("root"), parameter("prebuilt_only", "True"), parameter("rounds", "5")] == [
        "root=",
        "prebuilt_only=True",
        "rounds=5",
    ]
    token = OPTIONS.set(True)
    try:
        spelled = [parameter("root"), parameter("prebuilt_only", "True"), parameter("rounds", "5")]
    finally:
        OPTIONS.reset(token)
    assert spelled == ["--root", "--prebuilt-only", "--rounds 5"]


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a module with more than one word; docstrings are none of them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        if id(node) in within | said:
            continue
        text = "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…"
            for part in parts
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
        if " " in text:
            yield text


def test_no_message_below_the_command_line_spells_an_option_but_in_a_command():
    """`errors.parameter` spells them, for callers of Python have parameters."""
    package = Path(kernelpkg.__file__).parent
    found = [
        f"{path.relative_to(package)}: {text}"
        for path in sorted(package.rglob("*.py"))
        if path.parent.name != "cli"
        for text in texts(path)
        if re.search(r"(?<![\w-])--[a-z]", re.sub(r"'(kernelpkg|check) [^']*'", "", text))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "width"),
    [
        pytest.param("abc", 3, id="ascii"),
        pytest.param("量化", 4, id="wide"),
        pytest.param("e\u0301", 1, id="combining"),
        pytest.param("µ…", 2, id="narrow"),
    ],
)
def test_the_width_of_a_text_is_in_columns_of_a_terminal(text, width):
    assert display_width(text) == width


def test_wide_signs_are_wrapped_and_aligned_by_their_columns():
    assert wrapped("量化 量化 量化", 9, indent="  ") == ["量化 量化", "  量化"]
    assert aligned([("op", "n"), ("量化", "1")]) == ["op    n", "量化  1"]
