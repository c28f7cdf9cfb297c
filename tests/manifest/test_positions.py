"""The line scanner on documents that are hard to read."""

from __future__ import annotations

import textwrap

import pytest

from kernelpkg.manifest.positions import key_lines, line_of


def lines_of(text):
    return key_lines(textwrap.dedent(text).lstrip("\n"))


def test_tables_keys_and_entries():
    """Everything in a document has the line on which it is spelled."""
    assert lines_of("""
        # a comment with [brackets] = "and 'quotes
        edition = 1
        [a]
        b = [1,
             [2, 3],  # ] = 4
             { c = 4 }]
        "d e".'f'.g = "]\\"" # tail
        [[t]]
        x = '''
        [not.a.table]
        '''
        [[t]]
        [t.y]
    """) == {
        ("edition",): 2,
        ("a",): 3,
        ("a", "b"): 4,
        ("a", "b", 0): 4,
        ("a", "b", 1): 5,
        ("a", "b", 1, 0): 5,
        ("a", "b", 1, 1): 5,
        ("a", "b", 2): 6,
        ("a", "b", 2, "c"): 6,
        ("a", "d e"): 7,
        ("a", "d e", "f"): 7,
        ("a", "d e", "f", "g"): 7,
        ("t",): 8,
        ("t", 0): 8,
        ("t", 0, "x"): 9,
        ("t", 1): 12,
        ("t", 1, "y"): 13,
    }


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ('"\\U0001F600"', "😀"),
        ('"\\\\U0001F600"', "\\U0001F600"),
        ("\"'quoted'\"", "'quoted'"),
        ("''", ""),
        ('""', ""),
        ('"a\tb"', "a\tb"),
        ('"a\\tb"', "a\tb"),
        ("'a\\tb'", "a\\tb"),
        ("1.2", "1"),
        ("-", "-"),
    ],
)
def test_keys_are_read_as_tomllib_reads_them(key, name):
    """Escapes of keys are TOML's, not JSON's or Python's."""
    assert next(iter(key_lines(f"{key} = 0"))) == (name,)


@pytest.mark.parametrize(
    "value",
    [
        '""',
        '"""\n"""',
        '""""quoted"""""',
        "''''quoted'''''",
        '"""a \\""" b"""',
        "1979-05-27 07:32:00",
        "1979-05-27T07:32:00+01:00",
        "[]",
        "[ # ]\n]",
        "{}",
        "-inf",
        '"\\\\"',
    ],
)
def test_what_follows_a_value_is_found(value):
    """No value, however it is written, takes the key behind it along."""
    text = f"a = {value}\nb = [{value}, {value}]\nc = 0\n"
    found = key_lines(text)
    assert found["c",] == text.count("\n")
    assert ("b", 1) in found
    assert ("b", 2) not in found


def test_windows_line_ends_count_once():
    """A line is a line, whatever ends it."""
    assert key_lines("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


def test_a_table_that_is_implied_first_stands_at_its_header():
    """A header of its own says where a table is; until then, that of a table in it does."""
    assert key_lines("[a.b]\n[c.d]\n[a]\n") == {("a",): 3, ("a", "b"): 1, ("c",): 2, ("c", "d"): 2}


def test_a_path_that_is_not_there_has_the_line_around_it():
    """What is missing is told where it is missing."""
    lines = {("a",): 3, ("a", "b"): 4}
    assert line_of(lines, ("a", "b", "c", 7)) == 4
    assert line_of(lines, ("a", "x")) == 3
    assert line_of(lines, ("x",)) == 1
    assert line_of(lines, ()) == 1
