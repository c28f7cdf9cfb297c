"""Rules over tuned keys: every match kind, its ties and ends, and what a picker refuses."""

# ruff: noqa: E501  # tables of cases have a line each

from __future__ import annotations

import pytest

from kernelpkg.configs import picker
from kernelpkg.configs.picker import Pick, Step, compile_picker
from kernelpkg.manifest.spec import Rule

TOKENS = (1, 8, 64)


def rule(match, **options):
    return Rule(axis="x", match=match, **options)


def outcome(rule: Rule, tuned, value):
    """Return the tuned value that one rule takes for a call, and the outcome."""
    found = compile_picker([rule], [{rule.axis: item} for item in tuned], {}).pick((value,))
    return None if found.index is None else tuned[found.index], found.outcome


ONE_RULE = {
    "exact-equal": (rule("exact"), (64, 128), 128, (128, "exact")),
    "exact-other": (rule("exact"), (64, 128), 100, (None, "miss")),
    "exact-true-is-not-1": (rule("exact"), (1, 2), True, (None, "miss")),
    "exact-0-is-not-false": (rule("exact"), (False,), 0, (None, "miss")),
    "exact-1.0-is-1": (rule("exact"), (1, 2), 1.0, (1, "exact")),
    "exact-none": (rule("exact"), ("int8", None), None, (None, "exact")),
    "nearest-equal": (rule("nearest"), (8, 2), 8, (8, "exact")),
    "nearest-tie": (rule("nearest"), (2, 8), 5, (2, "bucketed")),
    "nearest-past-the-tie": (rule("nearest"), (2, 8), 6, (8, "bucketed")),
    "nearest-below": (rule("nearest"), (2, 8), 1, (2, "extrapolated")),
    "nearest-above": (rule("nearest"), (2, 8), 9, (8, "extrapolated")),
    "nearest-negative": (rule("nearest"), (2, 8), -9, (2, "extrapolated")),
    "max-reached": (rule("nearest", max=0.3), (13, 99), 10, (13, "extrapolated")),
    "max-over": (rule("nearest", max=0.3), (14, 99), 10, (None, "miss")),
    "max-of-zero": (rule("nearest", max=1.0), (5,), 0, (None, "miss")),
    "max-zero-takes-equal": (rule("nearest", max=0.0), (5, 0), 0, (0, "exact")),
    "log-tie": (rule("nearest", distance="log"), (2, 8), 4, (2, "bucketed")),
    "log-past-tie": (rule("nearest", distance="log"), (2, 8), 5, (8, "bucketed")),
    "log-beyond-floats": (rule("nearest", distance="log"), (10**40 - 1, 10**40 + 1), 10**40, (10**40 + 1, "bucketed")),
    "log-of-zero": (rule("nearest", distance="log"), (2, 8), 0, (None, "miss")),
    "log-zero": (rule("nearest", distance="log"), (0, 8), 1, (8, "extrapolated")),
    "log-max-reached": (rule("nearest", distance="log", max=1.0), (8, 64), 4, (8, "extrapolated")),
    "log-max-over": (rule("nearest", distance="log", max=1.0), (9, 64), 4, (None, "miss")),
    "nearest-floats": (rule("nearest"), (0.25, 0.75), 0.5, (0.25, "bucketed")),
    "ceil-equal": (rule("ceil"), TOKENS, 8, (8, "exact")),
    "ceil-between": (rule("ceil"), TOKENS, 9, (64, "bucketed")),
    "ceil-below-all": (rule("ceil"), TOKENS, 0, (1, "bucketed")),
    "ceil-over": (rule("ceil"), TOKENS, 65, (64, "extrapolated")),
    "ceil-over-miss": (rule("ceil", over="miss"), TOKENS, 65, (None, "miss")),
    "floor-equal": (rule("floor"), TOKENS, 8, (8, "exact")),
    "floor-between": (rule("floor"), TOKENS, 63, (8, "bucketed")),
    "floor-above-all": (rule("floor"), TOKENS, 65, (64, "extrapolated")),
    "floor-under": (rule("floor"), TOKENS, 0, (1, "extrapolated")),
    "floor-under-miss": (rule("floor", under="miss"), TOKENS, 0, (None, "miss")),
    "pow2-equal": (rule("pow2"), (4, 16), 4, (4, "exact")),
    "pow2-rounded": (rule("pow2"), (4, 16), 3, (4, "bucketed")),
    "pow2-at-least-1": (rule("pow2"), (1, 16), -3, (1, "bucketed")),
    "pow2-of-a-float": (rule("pow2"), (4, 16), 2.5, (4, "bucketed")),
    "pow2-not-tuned": (rule("pow2"), (4, 16), 5, (None, "miss")),
    "pow2-over": (rule("pow2"), (4, 16), 17, (16, "extrapolated")),
    "pow2-over-miss": (rule("pow2", over="miss"), (4, 16), 17, (None, "miss")),
    "pow2-no-power": (rule("pow2"), (4, 100), 100, (4, "extrapolated")),
    "pow2-no-powers-at-all": (rule("pow2"), (6,), 6, (None, "miss")),
    "ranges-equal": (rule("ranges", bounds=(16, 64)), (8, 40), 8, (8, "exact")),
    "ranges-last": (rule("ranges", bounds=(16, 64)), (8, 40), 16, (8, "bucketed")),
    "ranges-next": (rule("ranges", bounds=(16, 64)), (8, 40), 17, (40, "bucketed")),
    "ranges-open": (rule("ranges", bounds=(16, 64)), (8, 40), 65, (None, "miss")),
    "ranges-several": (rule("ranges", bounds=(16,)), (99, 20, 40), 30, (40, "bucketed")),
    "ranges-above-all": (rule("ranges", bounds=(16,)), (20, 40), 50, (40, "extrapolated")),
    "ranges-one": (rule("ranges", bounds=()), (5,), 1, (5, "bucketed")),
    "ignore-anything": (rule("ignore"), (7,), "any", (7, "exact")),
    "ignore-smallest-wins": (rule("ignore"), (9, 3, 5), 9, (3, "exact")),
    "ordered-none": (rule("ceil"), (None, 8), None, (None, "exact")),
    "ordered-none-not-tuned": (rule("ceil"), (8,), None, (None, "miss")),
    "ordered-text": (rule("ceil"), (8, "big"), "big", ("big", "exact")),
    "ordered-only-text": (rule("ceil"), ("big",), 4, (None, "miss")),
    "ordered-true": (rule("nearest"), (1, 8), True, (None, "miss")),
    "ordered-nan": (rule("ceil"), (8,), float("nan"), (None, "miss")),
    "ordered-inf": (rule("floor"), (8,), float("inf"), (None, "miss")),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "tuned", "value", "expected"), ONE_RULE.values(), ids=ONE_RULE)
def test_one_rule(rule, tuned, value, expected):
    """One rule takes the tuned value that its kind promises, and says how."""
    assert outcome(rule, tuned, value) == expected


def test_rules_narrow_in_their_order_and_do_not_go_back():
    """Each rule sees only the keys that the ones before it left, even if none of them fits."""
    rules = [Rule(axis="hidden", match="nearest"), Rule(axis="dtype", match="exact")]
    keys = [{"hidden": 100, "dtype": "fp8"}, {"hidden": 200, "dtype": "int8"}]
    assert compile_picker(rules, keys, {}).pick((199, "fp8")) == Pick(index=None, outcome="miss")
    assert compile_picker(rules, keys, {}).pick((199, "int8")) == Pick(index=1, outcome="bucketed")


HEADS = (Rule(axis="heads", match="nearest"), Rule(axis="kind", match="ignore"))
INEXACT = {
    "exact-equal": ("ceil", "below", (16, 8), 8, "exact"),
    "exact-between": ("ceil", "below", (16, 9), 64, "bucketed"),
    "below-equal": ("ceil", "below", (20, 8), 1, "bucketed"),
    "below-between": ("ceil", "below", (20, 9), 8, "bucketed"),
    "below-largest": ("ceil", "below", (20, 64), 8, "bucketed"),
    "below-above-all": ("ceil", "below", (20, 65), 64, "extrapolated"),
    "below-smallest": ("ceil", "below", (20, 1), 1, "bucketed"),
    "below-under": ("ceil", "below", (20, 0), 1, "extrapolated"),
    "floor-equal": ("nearest", "floor", (20, 8), 8, "bucketed"),
    "floor-between": ("nearest", "floor", (20, 63), 8, "bucketed"),
    "pow2-exact": ("pow2", "floor", (32, 9), None, "miss"),
    "pow2": ("pow2", "floor", (33, 9), 8, "extrapolated"),
}


@pytest.mark.parametrize(
    ("match", "inexact", "call", "tokens", "outcome"), INEXACT.values(), ids=INEXACT
)
def test_a_rule_behind_one_that_found_no_equal_value(match, inexact, call, tokens, outcome):
    """It may take a smaller value, whatever it takes where all before it were equal."""
    rules = [*HEADS, Rule(axis="tokens", match=match, inexact=inexact)]
    keys = [{"heads": h, "kind": "a", "tokens": n} for h in (16, 32) for n in TOKENS]
    heads, value = call
    found = compile_picker(rules, keys, {}).pick((heads, "b", value))
    assert found.outcome == outcome
    assert found.index is None or keys[found.index]["tokens"] == tokens


@pytest.mark.parametrize("under", ["smallest", "miss"])
def test_nothing_below(under):
    """`under` is what calls get below all tuned values; the smallest is below none."""
    rules = [HEADS[0], Rule(axis="tokens", match="ceil", inexact="below", under=under)]
    found = compile_picker(rules, [{"heads": 16, "tokens": n} for n in TOKENS], {})
    picks = [found.pick((20, value)).index for value in (0, 1, 2)]
    assert picks == ([0, 0, 0] if under == "smallest" else [None, None, 0])
    assert found.pick((16, 0)).index == 0
    steps = [found.explain((20, value))[1].text for value in (0, 1, 2)]
    why = ", for a rule before it found no equal value"
    takes = ["below the smallest tuned value, takes it", "is tuned"]
    misses = ["below the smallest tuned value", "not above the smallest tuned value"]
    wanted = [*(takes if under == "smallest" else misses), "takes the next smaller tuned value"]
    assert steps == [text + why for text in wanted]


def test_a_variant_that_stands_in_is_inexact():
    """Where the call's own value of an `exact` axis was never tuned, nothing is taken as equal."""
    rules = [
        Rule(axis="dtype", match="exact"),
        Rule(axis="tokens", match="ceil", inexact="below"),
    ]
    found = compile_picker(rules, [{"dtype": "fp8", "tokens": n} for n in TOKENS], {})
    assert found.relax(("int8", 8)) == (0, ("dtype",))


def test_worst_step_is_the_outcome():
    """An outcome is extrapolated as soon as one axis is, whatever the others are."""
    rules = [Rule(axis="hidden", match="nearest"), Rule(axis="tokens", match="ceil")]
    found = compile_picker(rules, [{"hidden": h, "tokens": 8} for h in (64, 128)], {})
    assert found.pick((300, 8)).outcome == "extrapolated"
    assert found.pick((100, 8)).outcome == "bucketed"
    assert found.pick((128, 8)).outcome == "exact"


def test_memo_tells_flags_from_numbers():
    """A remembered call with 1 does not answer the same call with True."""
    found = compile_picker([rule("exact")], [{"x": True}, {"x": 1}], {})
    assert [found.pick((value,)).index for value in (1, True, 1.0, False, 1)] == [1, 0, 1, None, 1]


def test_memo_is_bounded(monkeypatch):
    """A full memo is cleared, and picks stay the same."""
    monkeypatch.setattr(picker, "MEMO_LIMIT", 3)
    found = compile_picker([rule("ceil")], [{"x": 8}], {})
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
    found = compile_picker([rule("ceil")], [{"x": 1}, {}], {"x": 5})
    assert found.default_index == 1
    assert found.pick((5,)) == Pick(index=0, outcome="extrapolated")
    assert compile_picker([rule("ceil")], [{"x": 1}], {}).default_index is None


@pytest.mark.parametrize("match", ["exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore"])
def test_without_keys_every_call_misses(match):
    """A kernel without a single tuned key gets a miss, not an error."""
    found = compile_picker([rule(match)], [{}], {})
    assert found.pick((4,)) == Pick(index=None, outcome="miss")
    assert found.default_index == 0


REFUSED = {
    "axis-without-rule": ([{"tokens": 1}, {"token": 1}], "key 1 names axis 'token', which has no rule; did you mean 'tokens'?"),
    "axis-without-value": ([{"dtype": "fp8"}], "key 0 has no value for axis 'tokens', which has no default either"),
    "same-key": ([{"tokens": 1}, {"tokens": 2}, {"tokens": 1, "dtype": "fp8"}], "keys 0 and 2 are the same: {'tokens': 1, 'dtype': 'fp8'}"),
    "same-default": ([{}, {}], "keys 0 and 1 are the same: {}"),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), REFUSED.values(), ids=REFUSED)
def test_keys_that_are_refused(keys, message):
    """A key that does not fit the rules is refused, with its position and the remedy."""
    rules = [Rule(axis="dtype", match="exact"), Rule(axis="tokens", match="ceil")]
    with pytest.raises(ValueError, match="key") as caught:
        compile_picker(rules, keys, {"dtype": "fp8"})
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["pick", "explain"])
def test_wrong_number_of_values(name):
    """A call with too few values is refused instead of picking from half a tree."""
    found = compile_picker([rule("ceil")], [{"x": 8}], {})
    with pytest.raises(ValueError, match=r"^axis values: 2 given, and 1 wanted$"):
        getattr(found, name)((1, 2))


UNREACHABLE = {
    "all-reachable": (rule("ceil"), (1, 3, 6), ()),
    "no-power-of-two": (rule("pow2"), (4, 6, 8, 0), (1, 3)),
    "shadowed-in-ignore": (rule("ignore"), (4, 3, 8), (0, 2)),
    "not-positive-in-log": (rule("nearest", distance="log"), (0, 3, -8), (0, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "values", "expected"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_unreachable(rule, values, expected):
    """Keys that no call can get are named, by their positions."""
    found = compile_picker([rule], [{"x": value} for value in values], {})
    assert found.unreachable() == expected


PHRASES = {
    "exact": (rule("exact"), ("a", None), "a", "is tuned"),
    "exact-miss": (rule("exact"), ("a", None), "b", "is not tuned, none, a are"),
    "nothing-tuned": (rule("ceil"), (), 3, "nothing is tuned"),
    "nearest": (rule("nearest"), (2, 8), 6, "nearest of 2, 8"),
    "nearest-too-far": (rule("nearest", max=0.25), (2, 8), 4, "no tuned value within 25%"),
    "log-of-zero": (rule("nearest", distance="log"), (2, 8), 0, "is not positive, so it has no ratio to a tuned value"),
    "ceil": (rule("ceil"), TOKENS, 9, "takes the next larger tuned value"),
    "ceil-over": (rule("ceil"), TOKENS, 99, "above the largest tuned value, takes it"),
    "ceil-over-miss": (rule("ceil", over="miss"), TOKENS, 99, "above the largest tuned value"),
    "floor": (rule("floor"), TOKENS, 9, "takes the next smaller tuned value"),
    "floor-under": (rule("floor"), TOKENS, 0, "below the smallest tuned value, takes it"),
    "floor-under-miss": (rule("floor", under="miss"), TOKENS, 0, "below the smallest tuned value"),
    "pow2": (rule("pow2"), (8,), 5, "rounds up to 8, which is tuned"),
    "pow2-miss": (rule("pow2"), (8, 64), 9, "rounds up to 16, which is not tuned"),
    "pow2-over": (rule("pow2"), (8, 64), 65, "rounds up to 128, above the largest tuned, takes that"),
    "ranges": (rule("ranges", bounds=(16, 64)), (8,), 9, "in the range up to 16"),
    "ranges-miss": (rule("ranges", bounds=(16, 64)), (8,), 17, "no tuned value above 16, up to 64"),
    "ranges-open": (rule("ranges", bounds=(16, 64)), (99,), 70, "in the range above 64"),
    "ignore": (rule("ignore"), (8,), 70, "is ignored"),
    "ordered-none": (rule("ceil"), (8,), None, "is not tuned, 8 is"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "tuned", "value", "text"), PHRASES.values(), ids=PHRASES)
def test_explanations(rule, tuned, value, text):
    """Every outcome has its phrase, word for word."""
    found = compile_picker([rule], [{"x": item} for item in tuned], {})
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
            text="is not tuned, fp8 is",
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


RELAXED = {
    "later-rule-is-cheaper": ([variant("int8", False), variant("fp8", True)], ("fp8", False, 4096, 8), (1, ("residual",))),
    "fewest-axes": ([variant("int8", True), variant("int8", False)], ("fp8", False, 4096, 8), (1, ("dtype",))),
    "all-axes": ([variant("int8", True)], ("fp8", False, 4096, 8), (0, ("dtype", "residual"))),
    "ordered-rules-within-the-variant": ([variant("int8", False, tokens=16), variant("int8", False, tokens=64)], ("fp8", False, 4000, 17), (1, ("dtype",))),
    "variant-beyond-its-bound": ([variant("fp8", True, hidden=64), variant("int8", False)], ("fp8", False, 4096, 8), (1, ("dtype",))),
    "none-fits": ([variant("fp8", True, hidden=64)], ("fp8", False, 4096, 8), (None, ())),
    "smaller-value-of-two-variants": ([variant("int8", False), variant("bf16", False)], ("fp8", False, 4096, 8), (1, ("dtype",))),
    "true-differs-from-1": ([{}, variant("fp8", 1)], ("fp8", True, 4096, 8), (1, ("residual",))),
    "only-the-default-case": ([{}], ("fp8", False, 4096, 8), (None, ())),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "values", "expected"), RELAXED.values(), ids=RELAXED)
def test_relax(keys, values, expected):
    """A call whose variant is not tuned gets a key of the nearest one, with what differs."""
    assert compile_picker(FLAGS, keys, {}).relax(values) == expected
