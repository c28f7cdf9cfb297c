"""Rules over tuned keys: every match kind, its ties and ends, and what a picker refuses."""

from __future__ import annotations

import pytest

from kernelpkg.configs import picker
from kernelpkg.configs.picker import Pick, Step, compile_picker, relax
from kernelpkg.manifest.spec import Rule

TOKENS = (1, 8, 64)


def outcome(rule: Rule, tuned, value):
    """Return the tuned value that one rule takes for a call, and the outcome."""
    found = compile_picker([rule], [{rule.axis: item} for item in tuned], {}).pick((value,))
    return None if found.index is None else tuned[found.index], found.outcome


@pytest.mark.parametrize(
    ("rule", "tuned", "value", "expected"),
    [
        pytest.param({"match": "exact"}, (64, 128), 128, (128, "exact"), id="exact-equal"),
        pytest.param({"match": "exact"}, (64, 128), 100, (None, "miss"), id="exact-other"),
        pytest.param({"match": "exact"}, (1, 2), True, (None, "miss"), id="exact-true-is-not-1"),
        pytest.param({"match": "exact"}, (False,), 0, (None, "miss"), id="exact-0-is-not-false"),
        pytest.param({"match": "exact"}, (1, 2), 1.0, (1, "exact"), id="exact-1.0-is-1"),
        pytest.param({"match": "exact"}, ("int8", None), None, (None, "exact"), id="exact-none"),
        pytest.param({"match": "nearest"}, (8, 2), 8, (8, "exact"), id="nearest-equal"),
        pytest.param({"match": "nearest"}, (2, 8), 5, (2, "bucketed"), id="nearest-tie"),
        pytest.param({"match": "nearest"}, (2, 8), 6, (8, "bucketed"), id="nearest-past-the-tie"),
        pytest.param({"match": "nearest"}, (2, 8), 1, (2, "extrapolated"), id="nearest-below"),
        pytest.param({"match": "nearest"}, (2, 8), 9, (8, "extrapolated"), id="nearest-above"),
        pytest.param({"match": "nearest"}, (2, 8), -9, (2, "extrapolated"), id="nearest-negative"),
        pytest.param(
            {"match": "nearest", "max": 0.3}, (13, 99), 10, (13, "extrapolated"), id="max-reached"
        ),
        pytest.param({"match": "nearest", "max": 0.3}, (14, 99), 10, (None, "miss"), id="max-over"),
        pytest.param({"match": "nearest", "max": 1.0}, (5,), 0, (None, "miss"), id="max-of-zero"),
        pytest.param(
            {"match": "nearest", "max": 0.0}, (5, 0), 0, (0, "exact"), id="max-zero-takes-equal"
        ),
        pytest.param(
            {"match": "nearest", "distance": "log"}, (2, 8), 4, (2, "bucketed"), id="log-tie"
        ),
        pytest.param(
            {"match": "nearest", "distance": "log"}, (2, 8), 5, (8, "bucketed"), id="log-past-tie"
        ),
        pytest.param(
            {"match": "nearest", "distance": "log"},
            (10**40 - 1, 10**40 + 1),
            10**40,
            (10**40 + 1, "bucketed"),
            id="log-beyond-floats",
        ),
        pytest.param(
            {"match": "nearest", "distance": "log"}, (2, 8), 0, (None, "miss"), id="log-of-zero"
        ),
        pytest.param(
            {"match": "nearest", "distance": "log"}, (0, 8), 1, (8, "extrapolated"), id="log-zero"
        ),
        pytest.param(
            {"match": "nearest", "distance": "log", "max": 1.0},
            (8, 64),
            4,
            (8, "extrapolated"),
            id="log-max-reached",
        ),
        pytest.param(
            {"match": "nearest", "distance": "log", "max": 1.0},
            (9, 64),
            4,
            (None, "miss"),
            id="log-max-over",
        ),
        pytest.param(
            {"match": "nearest"}, (0.25, 0.75), 0.5, (0.25, "bucketed"), id="nearest-floats"
        ),
        pytest.param({"match": "ceil"}, TOKENS, 8, (8, "exact"), id="ceil-equal"),
        pytest.param({"match": "ceil"}, TOKENS, 9, (64, "bucketed"), id="ceil-between"),
        pytest.param({"match": "ceil"}, TOKENS, 0, (1, "bucketed"), id="ceil-below-all"),
        pytest.param({"match": "ceil"}, TOKENS, 65, (64, "extrapolated"), id="ceil-over"),
        pytest.param(
            {"match": "ceil", "over": "miss"}, TOKENS, 65, (None, "miss"), id="ceil-over-miss"
        ),
        pytest.param({"match": "floor"}, TOKENS, 8, (8, "exact"), id="floor-equal"),
        pytest.param({"match": "floor"}, TOKENS, 63, (8, "bucketed"), id="floor-between"),
        pytest.param({"match": "floor"}, TOKENS, 65, (64, "extrapolated"), id="floor-above-all"),
        pytest.param({"match": "floor"}, TOKENS, 0, (1, "extrapolated"), id="floor-under"),
        pytest.param(
            {"match": "floor", "under": "miss"}, TOKENS, 0, (None, "miss"), id="floor-under-miss"
        ),
        pytest.param({"match": "pow2"}, (4, 16), 4, (4, "exact"), id="pow2-equal"),
        pytest.param({"match": "pow2"}, (4, 16), 3, (4, "bucketed"), id="pow2-rounded"),
        pytest.param({"match": "pow2"}, (1, 16), -3, (1, "bucketed"), id="pow2-at-least-1"),
        pytest.param({"match": "pow2"}, (4, 16), 2.5, (4, "bucketed"), id="pow2-of-a-float"),
        pytest.param({"match": "pow2"}, (4, 16), 5, (None, "miss"), id="pow2-not-tuned"),
        pytest.param({"match": "pow2"}, (4, 16), 17, (16, "extrapolated"), id="pow2-over"),
        pytest.param(
            {"match": "pow2", "over": "miss"}, (4, 16), 17, (None, "miss"), id="pow2-over-miss"
        ),
        pytest.param({"match": "pow2"}, (4, 100), 100, (4, "extrapolated"), id="pow2-no-power"),
        pytest.param({"match": "pow2"}, (6,), 6, (None, "miss"), id="pow2-no-powers-at-all"),
        pytest.param(
            {"match": "ranges", "bounds": (16, 64)}, (8, 40), 8, (8, "exact"), id="ranges-equal"
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16, 64)}, (8, 40), 16, (8, "bucketed"), id="ranges-last"
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16, 64)}, (8, 40), 17, (40, "bucketed"), id="ranges-next"
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16, 64)}, (8, 40), 65, (None, "miss"), id="ranges-open"
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16,)},
            (99, 20, 40),
            30,
            (40, "bucketed"),
            id="ranges-several",
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16,)},
            (20, 40),
            50,
            (40, "extrapolated"),
            id="ranges-above-all",
        ),
        pytest.param({"match": "ranges", "bounds": ()}, (5,), 1, (5, "bucketed"), id="ranges-one"),
        pytest.param({"match": "ignore"}, (7,), "any", (7, "exact"), id="ignore-anything"),
        pytest.param({"match": "ignore"}, (9, 3, 5), 9, (3, "exact"), id="ignore-smallest-wins"),
        pytest.param({"match": "ceil"}, (None, 8), None, (None, "exact"), id="ordered-none"),
        pytest.param({"match": "ceil"}, (8,), None, (None, "miss"), id="ordered-none-not-tuned"),
        pytest.param({"match": "ceil"}, (8, "big"), "big", ("big", "exact"), id="ordered-text"),
        pytest.param({"match": "ceil"}, ("big",), 4, (None, "miss"), id="ordered-only-text"),
        pytest.param({"match": "nearest"}, (1, 8), True, (None, "miss"), id="ordered-true"),
        pytest.param({"match": "ceil"}, (8,), float("nan"), (None, "miss"), id="ordered-nan"),
        pytest.param({"match": "floor"}, (8,), float("inf"), (None, "miss"), id="ordered-inf"),
    ],
)
def test_one_rule(rule, tuned, value, expected):
    """One rule takes the tuned value that its kind promises, and says how."""
    assert outcome(Rule(axis="x", **rule), tuned, value) == expected


def test_rules_narrow_in_their_order_and_do_not_go_back():
    """Each rule sees only the keys that the ones before it left, even if none of them fits."""
    rules = [Rule(axis="hidden", match="nearest"), Rule(axis="dtype", match="exact")]
    keys = [{"hidden": 100, "dtype": "fp8"}, {"hidden": 200, "dtype": "int8"}]
    assert compile_picker(rules, keys, {}).pick((199, "fp8")) == Pick(index=None, outcome="miss")
    assert compile_picker(rules, keys, {}).pick((199, "int8")) == Pick(index=1, outcome="bucketed")


def test_worst_step_is_the_outcome():
    """An outcome is extrapolated as soon as one axis is, whatever the others are."""
    rules = [Rule(axis="hidden", match="nearest"), Rule(axis="tokens", match="ceil")]
    found = compile_picker(rules, [{"hidden": h, "tokens": 8} for h in (64, 128)], {})
    assert found.pick((300, 8)).outcome == "extrapolated"
    assert found.pick((100, 8)).outcome == "bucketed"
    assert found.pick((128, 8)).outcome == "exact"


def test_memo_tells_flags_from_numbers():
    """A remembered call with 1 does not answer the same call with True."""
    found = compile_picker([Rule(axis="x", match="exact")], [{"x": True}, {"x": 1}], {})
    assert [found.pick((value,)).index for value in (1, True, 1.0, False, 1)] == [1, 0, 1, None, 1]


def test_memo_is_bounded(monkeypatch):
    """A full memo is cleared, and picks stay the same."""
    monkeypatch.setattr(picker, "MEMO_LIMIT", 3)
    found = compile_picker([Rule(axis="x", match="ceil")], [{"x": 8}], {})
    assert {found.pick((value,)).index for value in range(9)} == {0}
    assert len(found._memo) == 3


def test_defaults_fill_axes_that_a_key_lacks():
    """A key without an axis counts as tuned for the default of that axis."""
    rules = [Rule(axis="dtype", match="exact"), Rule(axis="tokens", match="ceil")]
    found = compile_picker(rules, [{"tokens": 4}], {"dtype": "fp8"})
    assert found.pick(("fp8", 3)) == Pick(index=0, outcome="bucketed")
    assert found.pick(("int8", 3)) == Pick(index=None, outcome="miss")


def test_default_case_is_apart():
    """The empty key is named by its position and never picked by rules."""
    found = compile_picker([Rule(axis="x", match="ceil")], [{"x": 1}, {}], {"x": 5})
    assert found.default_index == 1
    assert found.pick((5,)) == Pick(index=0, outcome="extrapolated")
    assert compile_picker([Rule(axis="x", match="ceil")], [{"x": 1}], {}).default_index is None


@pytest.mark.parametrize("match", ["exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore"])
def test_without_keys_every_call_misses(match):
    """A kernel without a single tuned key gets a miss, not an error."""
    found = compile_picker([Rule(axis="x", match=match)], [{}], {})
    assert found.pick((4,)) == Pick(index=None, outcome="miss")
    assert found.default_index == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param(
            [{"tokens": 1}, {"token": 1}],
            "key 1 names axis 'token', which has no rule; did you mean 'tokens'?",
            id="axis-without-rule",
        ),
        pytest.param(
            [{"dtype": "fp8"}],
            "key 0 has no value for axis 'tokens', which has no default either",
            id="axis-without-value",
        ),
        pytest.param(
            [{"tokens": 1}, {"tokens": 2}, {"tokens": 1, "dtype": "fp8"}],
            "keys 0 and 2 are the same: {'tokens': 1, 'dtype': 'fp8'}",
            id="same-key",
        ),
        pytest.param([{}, {}], "keys 0 and 1 are the same: {}", id="same-default"),
    ],
)
def test_keys_that_are_refused(keys, message):
    """A key that does not fit the rules is refused, with its position and the remedy."""
    rules = [Rule(axis="dtype", match="exact"), Rule(axis="tokens", match="ceil")]
    with pytest.raises(ValueError, match="key") as caught:
        compile_picker(rules, keys, {"dtype": "fp8"})
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["pick", "explain"])
def test_wrong_number_of_values(name):
    """A call with too few values is refused instead of picking from half a tree."""
    found = compile_picker([Rule(axis="x", match="ceil")], [{"x": 8}], {})
    with pytest.raises(ValueError, match=r"^2 axis values were given for 1 rules$"):
        getattr(found, name)((1, 2))


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        pytest.param({"match": "ceil"}, (1, 3, 6), (), id="all-reachable"),
        pytest.param({"match": "pow2"}, (4, 6, 8, 0), (1, 3), id="no-power-of-two"),
        pytest.param({"match": "ignore"}, (4, 3, 8), (0, 2), id="shadowed-in-ignore"),
        pytest.param(
            {"match": "nearest", "distance": "log"}, (0, 3, -8), (0, 2), id="not-positive-in-log"
        ),
    ],
)
def test_unreachable(rule, values, expected):
    """Keys that no call can get are named, by their positions."""
    found = compile_picker([Rule(axis="x", **rule)], [{"x": value} for value in values], {})
    assert found.unreachable() == expected


@pytest.mark.parametrize(
    ("rule", "tuned", "value", "text"),
    [
        pytest.param({"match": "exact"}, ("a", None), "a", "is tuned", id="exact"),
        pytest.param({"match": "exact"}, ("a", None), "b", "is none of none, a", id="exact-miss"),
        pytest.param({"match": "ceil"}, (), 3, "nothing is tuned", id="nothing-tuned"),
        pytest.param({"match": "nearest"}, (2, 8), 6, "nearest of 2, 8", id="nearest"),
        pytest.param(
            {"match": "nearest", "max": 0.25},
            (2, 8),
            4,
            "no tuned value within 25%",
            id="nearest-too-far",
        ),
        pytest.param(
            {"match": "nearest", "distance": "log"},
            (2, 8),
            0,
            "is not positive, so it has no ratio to a tuned value",
            id="log-of-zero",
        ),
        pytest.param({"match": "ceil"}, TOKENS, 9, "takes the next larger tuned value", id="ceil"),
        pytest.param(
            {"match": "ceil"}, TOKENS, 99, "above the largest tuned value, takes it", id="ceil-over"
        ),
        pytest.param(
            {"match": "ceil", "over": "miss"},
            TOKENS,
            99,
            "above the largest tuned value",
            id="ceil-over-miss",
        ),
        pytest.param(
            {"match": "floor"}, TOKENS, 9, "takes the next smaller tuned value", id="floor"
        ),
        pytest.param(
            {"match": "floor"},
            TOKENS,
            0,
            "below the smallest tuned value, takes it",
            id="floor-under",
        ),
        pytest.param(
            {"match": "floor", "under": "miss"},
            TOKENS,
            0,
            "below the smallest tuned value",
            id="floor-under-miss",
        ),
        pytest.param({"match": "pow2"}, (8,), 5, "rounds up to 8, which is tuned", id="pow2"),
        pytest.param(
            {"match": "pow2"}, (8, 64), 9, "rounds up to 16, which is not tuned", id="pow2-miss"
        ),
        pytest.param(
            {"match": "pow2"},
            (8, 64),
            65,
            "rounds up to 128, above the largest tuned, takes that",
            id="pow2-over",
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16, 64)}, (8,), 9, "in the range up to 16", id="ranges"
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16, 64)},
            (8,),
            17,
            "no tuned value above 16, up to 64",
            id="ranges-miss",
        ),
        pytest.param(
            {"match": "ranges", "bounds": (16, 64)},
            (99,),
            70,
            "in the range above 64",
            id="ranges-open",
        ),
        pytest.param({"match": "ignore"}, (8,), 70, "is ignored", id="ignore"),
        pytest.param({"match": "ceil"}, (8,), None, "is none of 8", id="ordered-none"),
    ],
)
def test_explanations(rule, tuned, value, text):
    """Every outcome has its phrase, word for word."""
    found = compile_picker([Rule(axis="x", **rule)], [{"x": item} for item in tuned], {})
    assert [step.text for step in found.explain((value,))] == [text]


def test_explain_has_a_step_for_every_rule():
    """Steps name the candidates that were left at each level, and rules that were not reached."""
    rules = [
        Rule(axis="hidden", match="nearest"),
        Rule(axis="dtype", match="exact"),
        Rule(axis="tokens", match="ceil"),
    ]
    keys = [
        {"hidden": 4096, "dtype": "fp8", "tokens": 16},
        {"hidden": 2048, "dtype": "int8", "tokens": 16},
    ]
    assert compile_picker(rules, keys, {}).explain((4000, "int8", 8)) == (
        Step(
            axis="hidden",
            match="nearest",
            value=4000,
            candidates=(2048, 4096),
            chosen=4096,
            outcome="bucketed",
            text="nearest of 2048, 4096",
        ),
        Step(
            axis="dtype",
            match="exact",
            value="int8",
            candidates=("fp8",),
            chosen=None,
            outcome="miss",
            text="is none of fp8",
        ),
        Step(
            axis="tokens",
            match="ceil",
            value=8,
            candidates=(),
            chosen=None,
            outcome="miss",
            text="not reached",
        ),
    )


FLAGS = [
    Rule(axis="dtype", match="exact"),
    Rule(axis="residual", match="exact"),
    Rule(axis="hidden", match="nearest", max=0.5),
    Rule(axis="tokens", match="ceil"),
]


def variant(dtype, residual, hidden=4096, tokens=16):
    return {"dtype": dtype, "residual": residual, "hidden": hidden, "tokens": tokens}


@pytest.mark.parametrize(
    ("keys", "values", "expected"),
    [
        pytest.param(
            [variant("int8", False), variant("fp8", True)],
            ("fp8", False, 4096, 8),
            (1, ("residual",)),
            id="later-rule-is-cheaper",
        ),
        pytest.param(
            [variant("int8", True), variant("int8", False)],
            ("fp8", False, 4096, 8),
            (1, ("dtype",)),
            id="fewest-axes",
        ),
        pytest.param(
            [variant("int8", True)],
            ("fp8", False, 4096, 8),
            (0, ("dtype", "residual")),
            id="all-axes",
        ),
        pytest.param(
            [variant("int8", False, tokens=16), variant("int8", False, tokens=64)],
            ("fp8", False, 4000, 17),
            (1, ("dtype",)),
            id="ordered-rules-within-the-variant",
        ),
        pytest.param(
            [variant("fp8", True, hidden=64), variant("int8", False)],
            ("fp8", False, 4096, 8),
            (1, ("dtype",)),
            id="variant-beyond-its-bound",
        ),
        pytest.param(
            [variant("fp8", True, hidden=64)], ("fp8", False, 4096, 8), (None, ()), id="none-fits"
        ),
        pytest.param(
            [variant("int8", False), variant("bf16", False)],
            ("fp8", False, 4096, 8),
            (1, ("dtype",)),
            id="smaller-value-of-two-variants",
        ),
        pytest.param(
            [{}, variant("fp8", 1)],
            ("fp8", True, 4096, 8),
            (1, ("residual",)),
            id="true-differs-from-1",
        ),
        pytest.param([{}], ("fp8", False, 4096, 8), (None, ()), id="only-the-default-case"),
    ],
)
def test_relax(keys, values, expected):
    """A call whose variant is not tuned gets a key of the nearest one, with what differs."""
    assert relax(FLAGS, keys, {}, values) == expected
