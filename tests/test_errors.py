"""Problems and the errors that carry them."""

from __future__ import annotations

from kernelpkg.errors import PackError, Problem, quoted, shown, suggestion


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
