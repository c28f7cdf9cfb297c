"""The strict decoder: no coercion, every problem told, and one wrong key hides no other."""

# ruff: noqa: E501  # messages are asserted as whole lines

from __future__ import annotations

import datetime

import pytest

from kernelpkg.manifest.decode import (
    MISSING,
    Anything,
    Choice,
    Either,
    Flag,
    Key,
    ListOf,
    MapOf,
    Number,
    Table,
    Text,
)


def decode(kind, value, at=("key",)):
    """Return what a kind makes of a value, and the lines that it reports."""
    found = []
    decoded = kind.decode(
        value, at, lambda path, code, message: found.append((path, code, message))
    )
    return decoded, found


@pytest.mark.parametrize(
    ("kind", "value", "decoded"),
    [
        (Text(), "", ""),
        (Text("a word", "[a-z]+"), "abc", "abc"),
        (Number(), 1.5, 1.5),
        (Number(), 10**400, 10**400),
        (Number(whole=True, least=0, most=3), 3, 3),
        (Flag(), False, False),
        (Choice(("a", "b")), "b", "b"),
        (ListOf(item=Number()), [1, 2], (1, 2)),
        (ListOf(item=Number()), [], ()),
        (MapOf(item=Flag()), {"x": True}, {"x": True}),
        (Either((Flag(), Number())), True, True),
        (Either((Flag(), Number())), 1, 1),
        (Anything(), datetime.date(2000, 1, 1), datetime.date(2000, 1, 1)),
    ],
)
def test_a_value_of_its_kind_is_taken_as_it_is(kind, value, decoded):
    """What fits is returned unchanged, arrays as tuples."""
    found, problems = decode(kind, value)
    assert (found, problems) == (decoded, [])
    assert type(found) is type(decoded)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Text(), 1, "'key' must be a text, not a whole number (1)"),
        (Text("a word", "[a-z]+"), "A1", "'key' must be a word, not 'A1'"),
        (Text("a word", "[a-z]+"), "abc\n", "'key' must be a word, not 'abc\\n'"),
        (Text("a word", "[a-z]+"), "A" * 99, f"'key' must be a word, not '{'A' * 78}…"),
        (Number(), "4", "'key' must be a number, not a text ('4')"),
        (Number(), True, "'key' must be a number, not true or false"),
        (Number(), float("inf"), "'key' must be a number, not a number that is not finite (inf)"),
        (Number(whole=True), 1.0, "'key' must be a whole number, not a number (1.0)"),
        (Number(least=0, most=1), 1.5, "'key' must be a number at least 0 and at most 1, not 1.5"),
        (Number(least=0), -(10**400), f"'key' must be a number at least 0, not -1{'0' * 77}…"),
        (Number(whole=True, least=1, most=1), 2, "'key' must be 1, not 2"),
        (Flag(), "false", "'key' must be true or false, not a text ('false')"),
        (Flag(), 0, "'key' must be true or false, not a whole number (0)"),
        (Choice(("exact", "ceil")), "exac", "'key' must be one of 'exact', 'ceil', not 'exac'; did you mean 'exact'?"),
        (Choice(("exact", "ceil")), 1, "'key' must be one of 'exact', 'ceil', not a whole number (1)"),
        (Choice(("*",)), "all", "'key' must be '*', not 'all'"),
        (ListOf(item=Flag()), {}, "'key' must be an array, not a table"),
        (ListOf(item=Flag(), least=1), [], "'key' must be an array that is not empty, and has 0"),
        (MapOf(item=Flag()), [], "'key' must be a table, not an array"),
        (Table(), 1, "'key' must be a table, not a whole number (1)"),
        (Either((Flag(), Number())), "x", "'key' must be true or false or a number, not a text ('x')"),
        (Either((Flag(), Number()), "a scalar"), [], "'key' must be a scalar, not an array"),
        (Either((Number(least=0), Text())), -1, "'key' must be a number at least 0, not -1"),
        (Text(), datetime.date(2000, 1, 1), "'key' must be a text, not a date or time"),
    ],
)  # fmt: skip
def test_another_value_is_refused_and_shown(kind, value, message):
    """Nothing is converted; the message has what is wanted and what was got."""
    assert decode(kind, value) == (MISSING, [(("key",), "KP012", message)])


def test_every_entry_of_an_array_is_told():
    """Entries count from one, and name the array that they stand in."""
    kind = ListOf(item=ListOf(item=Number()))
    found, problems = decode(kind, [[1, "a"], 2, [True]])
    assert found is MISSING
    assert problems == [
        (("key", 0, 1), "KP012", "entry 2 of 'key' must be a number, not a text ('a')"),
        (("key", 1), "KP012", "entry 2 of 'key' must be an array, not a whole number (2)"),
        (("key", 2, 0), "KP012", "entry 1 of 'key' must be a number, not true or false"),
    ]


TABLE = Table(
    keys={
        "name": Key(kind=Text(), required=True, doc=""),
        "size": Key(kind=Number(whole=True), default=4, doc=""),
        "inner": Key(kind=Table(keys={"deep": Key(kind=Flag(), default=True, doc="")}), default={}, doc=""),
        "other": Key(kind=Table(keys={"must": Key(kind=Flag(), required=True, doc="")}), doc=""),
    }
)  # fmt: skip


def test_a_table_has_every_known_key():
    """Keys that are not given have their defaults, those of tables inside them too."""
    found, problems = decode(TABLE, {"name": "x"})
    assert found == {"name": "x", "size": 4, "inner": {"deep": True}, "other": None}
    assert problems == []


def test_one_wrong_key_hides_no_other():
    """All problems of a table come, and what is right is kept."""
    value = {"nam": "x", "size": "4", "inner": {"deep": 1, "q": 0}, "other": {}}
    found, problems = decode(TABLE, value, at=())
    assert found == {
        "name": MISSING,
        "size": MISSING,
        "inner": {"deep": MISSING},
        "other": {"must": MISSING},
    }
    assert problems == [
        ((), "KP011", "key 'name' is missing; it must be a text"),
        (("size",), "KP012", "'size' must be a whole number, not a text ('4')"),
        (("inner", "deep"), "KP012", "'deep' must be true or false, not a whole number (1)"),
        (("inner", "q"), "KP010", "key 'q' is not known in [inner]; known are deep"),
        (("other",), "KP011", "key 'must' is missing in [other]; it must be true or false"),
        (("nam",), "KP010", "key 'nam' is not known; did you mean 'name'?"),
    ]


def test_a_table_with_free_keys_checks_their_names_and_values():
    """Free keys stand beside known ones."""
    kind = Table(
        keys={"use": Key(kind=Flag(), default=False, doc="")},
        rest=MapOf(item=Number(), key=Text("a word", "[a-z]+")),
    )
    assert decode(kind, {"a": 1, "use": True}) == ({"use": True, "a": 1}, [])
    found, problems = decode(kind, {"A": 1, "b": "x"})
    assert found == {"use": False, "A": 1}
    assert problems == [
        (("key", "A"), "KP013", "'A' must be a word"),
        (("key", "b"), "KP012", "'b' must be a number, not a text ('x')"),
    ]
