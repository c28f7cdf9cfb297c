"""Tuned keys, and what a function that picks configs may return."""

from __future__ import annotations

import copy
import pickle

import pytest

from kernelpkg.configs.tuned_key import KeyPicker, TunedKey
from kernelpkg.errors import ConfigError

SMALL = TunedKey(rows=4, dtype="int8")
LARGE = TunedKey({"rows": 64, "dtype": "int8"})


def test_a_tuned_key_is_a_key_of_a_dict():
    """It is equal and hashed by its values, in whichever order they were given."""
    again = TunedKey({"dtype": "int8", "rows": 4})
    assert (again, hash(again), str(again)) == (SMALL, hash(SMALL), '{"dtype":"int8","rows":4}')
    assert {SMALL: 1}[again] == 1
    assert {TunedKey(rows=4.0): 1}[TunedKey(rows=4)] == 1
    assert repr(SMALL) == "TunedKey({'rows': 4, 'dtype': 'int8'})"
    assert SMALL == {"rows": 4, "dtype": "int8"}


def test_the_default_key():
    """It names no axis, and is made by name alone."""
    default = TunedKey.default()
    assert default.is_default()
    assert not SMALL.is_default()
    assert (str(default), repr(default), default) == ("{}", "TunedKey.default()", TunedKey.of({}))
    for nothing in ((), {}):
        with pytest.raises(TypeError, match="has at least one key-value pair"):
            TunedKey(nothing)


@pytest.mark.parametrize("key", [SMALL, TunedKey.default()], ids=["key", "default"])
def test_copies_are_equal(key):
    """A key goes to another process, and along with what is copied."""
    for again in (pickle.loads(pickle.dumps(key)), copy.copy(key), copy.deepcopy(key)):
        assert (type(again), again) == (TunedKey, key)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.__setitem__("rows", 5),
        lambda key: key.__delitem__("rows"),
        lambda key: key.__ior__({"rows": 5}),
        lambda key: key.update(rows=5),
        lambda key: key.pop("rows"),
        lambda key: key.popitem(),
        lambda key: key.setdefault("columns", 5),
        lambda key: key.clear(),
    ],
    ids=["set", "delete", "or", "update", "pop", "popitem", "setdefault", "clear"],
)
def test_nothing_changes_a_key(change):
    """Every way to change a dict is refused."""
    with pytest.raises(TypeError, match="immutable"):
        change(SMALL)
    assert dict(SMALL) == {"rows": 4, "dtype": "int8"}


def picked(answer, *, keys=(LARGE, SMALL, {})):
    """Return what becomes of an answer, and which keys the picker was offered."""
    seen = []

    def picker(args, offered):
        seen.append((args, offered))
        return answer

    return KeyPicker(picker, "op", keys).pick([1, 2]), seen


@pytest.mark.parametrize(
    "answer",
    [LARGE, dict(LARGE), str(LARGE), {"dtype": "int8", "rows": 64.0}],
    ids=["key", "dict", "text", "equal"],
)
def test_a_key_is_taken_in_each_form(answer):
    """A picker may return a key, what is equal to one, or its text."""
    found, seen = picked(answer)
    assert found is LARGE or type(found) is TunedKey
    assert found == LARGE
    assert seen == [((1, 2), [SMALL, LARGE])]  # by their texts, without the default


def test_none_is_the_default():
    """None is the key of the default config where there is one."""
    assert picked(None)[0] == TunedKey.default()
    assert picked(TunedKey.default())[0] == picked("{}")[0] == TunedKey.default()
    assert picked(None, keys=[SMALL])[0] is None
    assert picked(SMALL, keys=[]) == (None, [])
    assert picked(SMALL, keys=[{}]) == (TunedKey.default(), [])
    assert KeyPicker(None, "op", [SMALL]).pick(()) is None


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("rows_64", "'rows_64'"),
        ({"rows": 5}, "{'rows': 5}"),
        ({}, "{}"),
        (64, "64"),
        ([str(LARGE)], '[\'{"dtype":"int8","rows":64}\']'),
    ],
    ids=["text", "dict", "empty", "number", "list"],
)
def test_what_is_no_tuned_key_is_refused(answer, shown):
    """In one line, whatever it is."""
    with pytest.raises(ConfigError) as caught:
        picked(answer, keys=[SMALL, LARGE])
    assert str(caught.value) == (
        f"Config picker returned invalid config key {shown} for kernel 'op', which is none of the "
        "tuned keys; return one of them, or None"
    )
