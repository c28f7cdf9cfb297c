"""Python code as text: laid out as ruff's formatter would."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kernelpkg.vllm.vendor.op_code import (
    WIDTH,
    assign,
    call,
    collection,
    comment,
    docstring,
    flat,
    lay,
    unhidden,
)

LONG = "a_name_thats_long"

LAYOUTS = {
    "fits": ([*assign("x", call("f", "a", "b"), 0)], ["x = f(a, b)"]),
    "arguments share a line": (
        [*assign("x", call("function", *[LONG] * 4), 4)],
        ["    x = function(", f"        {', '.join([LONG] * 4)}", "    )"],
    ),
    "arguments have lines of their own": (
        [*assign("x", call("function", *[LONG] * 5), 4)],
        ["    x = function(", *[f"        {LONG},"] * 5, "    )"],
    ),
    "items never share a line": (
        [*assign("x", collection("[]", [LONG] * 5), 4)],
        ["    x = [", *[f"        {LONG},"] * 5, "    ]"],
    ),
    "one argument gets no comma": (
        [*assign("x", call("Key", collection("{}", [f'"{LONG}": {LONG}'] * 3)), 4)],
        [
            "    x = Key(",
            "        {",
            *[f'            "{LONG}": {LONG},'] * 3,
            "        }",
            "    )",
        ],
    ),
    "a long value has parentheses": (
        assign("a_longer_name", " + ".join([LONG] * 4), 4),
        ["    a_longer_name = (", f"        {' + '.join([LONG] * 4)}", "    )"],
    ),
    "a condition is broken before its operators": (
        assign("x", " and ".join([LONG] * 3) + f" and not ({LONG} and a)", 4),
        [
            "    x = (",
            f"        {LONG}",
            f"        and {LONG}",
            f"        and {LONG}",
            f"        and not ({LONG} and a)",
            "    )",
        ],
    ),
    "a sum is broken before its signs": (
        assign("x", f"{LONG} * 2 + {LONG} - ({LONG} + 1) * {LONG} + {LONG} // 128", 4),
        [
            "    x = (",
            f"        {LONG} * 2",
            f"        + {LONG}",
            f"        - ({LONG} + 1) * {LONG}",
            f"        + {LONG} // 128",
            "    )",
        ],
    ),
    "a choice is broken before its words": (
        assign("x", f"None if {LONG} is None or {LONG} is None else {LONG}.shape[0] + 1", 4),
        [
            "    x = (",
            "        None",
            f"        if {LONG} is None or {LONG} is None",
            f"        else {LONG}.shape[0] + 1",
            "    )",
        ],
    ),
    "a loop": (
        [*lay(call("product", f"[{LONG}]", "[1, 2]"), before="for a, b in ", after=":")],
        [f"for a, b in product([{LONG}], [1, 2]):"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("got", "want"), LAYOUTS.values(), ids=LAYOUTS)
def test_layout(got, want):
    """What fits stays on a line; what does not is broken at its outermost brackets."""
    assert got == want


def test_layouts_are_those_of_ruff():
    """Ruff's formatter changes none of them."""
    text = "\n".join(
        ["if True:", *(line for _, lines in LAYOUTS.values() for line in lines if line[:1] == " ")]
    )
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(WIDTH), "-"]
    done = subprocess.run(ruff, input=f"{text}\n", capture_output=True, text=True, check=True)
    assert done.stdout == f"{text}\n"


def test_a_tuple_of_one_keeps_its_comma():
    assert flat(collection("()", ["a"])) == "(a,)"
    assert flat(collection("()", ["a", "b"])) == "(a, b)"
    assert flat(call("f", "a")) == "f(a)"


def test_docstrings_are_wrapped_and_escaped():
    """One line where it fits; paragraphs apart, numbered ones together and hanging."""
    assert docstring(["Short."], 4) == ['    """Short."""']
    assert docstring(['Ends in a "quote"']) == ['"""Ends in a "quote"', '"""']
    assert docstring(['Back\\slash and """.']) == ['"""Back\\\\slash and \'\'\'."""']
    lines = docstring(["First.", "1. " + "word " * 20, "2. two", "Last."], 4)
    assert lines == [
        '    """First.',
        "",
        "    1. " + " ".join(["word"] * 16),
        "       word word word word",
        "    2. two",
        "",
        "    Last.",
        '    """',
    ]


def test_comments_are_wrapped():
    lines = comment("word " * 30, 4)
    assert lines == ["    # " + " ".join(["word"] * 16), "    # " + " ".join(["word"] * 14)]


def test_names_hide_nothing():
    """A name that is taken gets an underscore, and another where that is a name as well."""
    assert unhidden(["a", "max", "max_", "b"], {"max"}) == {
        "a": "a",
        "max": "max__",
        "max_": "max_",
        "b": "b",
    }
