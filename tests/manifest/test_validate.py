"""The rules that hold between keys, one by one; whole lines are held by tests/golden."""

from __future__ import annotations

import pytest

from kernelpkg.manifest.spec import Rule
from kernelpkg.manifest.validate import axis_problems, option_problems, variant_problems

TABLE = dict.fromkeys(("distance", "max", "over", "under", "bounds", "inexact"))
OPTIONS = {
    "distance": "log",
    "max": 0.5,
    "over": "miss",
    "under": "miss",
    "bounds": (1, 2),
    "inexact": "below",
}
BEFORE = [Rule(axis="a", match="nearest")]
GOES_WITH = {
    "nearest": {"distance", "max", "inexact"},
    "ceil": {"over", "inexact"},
    "pow2": {"over", "inexact"},
    "floor": {"under", "inexact"},
    "ranges": {"bounds", "inexact"},
    "exact": set(),
    "ignore": set(),
}


@pytest.mark.parametrize("match", GOES_WITH)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_goes_with_its_kinds(match, option):
    """An option that says nothing is an error, for it was meant to say something."""
    given = {**TABLE, "match": match, option: OPTIONS[option]}
    if match == "ranges" and option != "bounds":
        given["bounds"] = (1,)
    found = [(key, code) for key, code, _ in option_problems(given, BEFORE)]
    assert found == ([] if option in GOES_WITH[match] else [(option, "KP105")])


@pytest.mark.parametrize(
    ("bounds", "wrong"), [((1,), 0), ((-5, 0, 7), 0), ((1, 1), 1), ((2, 1), 1), (None, 1)]
)
def test_bounds_rise(bounds, wrong):
    """Ranges need bounds, in rising order."""
    found = list(option_problems({**TABLE, "match": "ranges", "bounds": bounds}, ()))
    assert len(found) == wrong


def test_inexact_stands_behind_what_it_goes_by():
    """It takes `under` whatever the match, and is of no use where all before it are ignored."""
    given = {**TABLE, "match": "ceil", "inexact": "floor", "under": "miss"}
    assert list(option_problems(given, BEFORE)) == []
    for before in ((), (Rule(axis="a", match="ignore"),)):
        ((key, code, message),) = option_problems(given, before)
        assert (key, code) == ("inexact", "KP105")
        assert message == (
            "'inexact' has no effect in the first rule; put the axes that it depends on before it, "
            "or remove it"
        )


def test_an_axis_has_one_rule():
    """Two rules of one axis could never both hold."""
    before = [Rule(axis="a", match="exact")]
    assert list(axis_problems("b", ["a", "b"], before)) == []
    assert [code for _, code, _ in axis_problems("a", ["a", "b"], before)] == ["KP108"]
    assert [code for _, code, _ in axis_problems("c", ["a", "b"], before)] == ["KP104"]


@pytest.mark.parametrize(
    ("table", "tensor", "keys"),
    [
        ({"shape": (), "dtype": "int8"}, True, []),
        ({"shape": (1, "n"), "dtype": "int8", "strides": ("*", 1)}, True, []),
        ({"shape": ("*n", "m"), "dtype": "int8"}, True, []),
        ({"shape": (1,), "dtype": "int8", "init": "randint", "high": 4}, True, []),
        ({"shape": (1,)}, True, [""]),
        ({"value": 1}, True, ["", "", ""]),
        ({"shape": (1,), "dtype": "int8", "value": 1}, True, ["value"]),
        ({"shape": ("*n", "*m"), "dtype": "int8"}, True, ["shape"]),
        ({"shape": ("*",), "dtype": "int8"}, True, ["shape"]),
        ({"shape": ("*n",), "dtype": "int8", "strides": (1,)}, True, ["strides"]),
        ({"shape": (1,), "dtype": "int8", "strides": (1, 1)}, True, ["strides"]),
        ({"shape": (1,), "dtype": "int8", "strides": ("*n",)}, True, ["strides"]),
        ({"shape": (1,), "dtype": "int8", "high": 4}, True, ["high"]),
        ({"shape": (1,), "dtype": "int8", "init": "randint"}, True, ["init"]),
        ({"shape": (1,), "dtype": "int8", "init": "randint", "high": 4, "low": "n"}, True, []),
        ({"shape": (1,), "dtype": "int64", "init": "offsets", "total": "n"}, True, []),
        ({"shape": (1,), "dtype": "int64", "init": "offsets"}, True, ["init"]),
        ({"shape": (1,), "dtype": "int64", "init": "offsets", "high": 4}, True, ["init", "high"]),
        ({"shape": (1,), "dtype": "int8", "init": "offsets", "total": 4}, True, ["dtype"]),
        ({"shape": (1,), "dtype": "a", "init": "offsets", "total": 4}, True, []),
        ({"shape": (1,), "dtype": "float32", "init": "permutation"}, True, ["dtype"]),
        (
            {"shape": (1,), "dtype": "int8", "init": "packed", "bits": 4, "total": 1},
            True,
            ["total"],
        ),
        ({"value": 1}, False, []),
        ({"value": 0, "when": "a"}, False, []),
        ({"value": False}, False, []),
        ({"when": "a"}, False, [""]),
        ({"value": 1, "init": "ones", "dtype": "int8"}, False, ["dtype", "init"]),
    ],
)
def test_the_keys_of_an_argument_go_together(table, tensor, keys):
    """A tensor has shape and dtype, a scalar a value, and neither the other's keys."""
    found = list(variant_problems("x", table, tensor=tensor))
    assert [key for key, _, _ in found] == keys
    assert {code for _, code, _ in found} <= {"KP132"}
