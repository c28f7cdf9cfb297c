"""The picker against a naive model, which filters lists of keys rule by rule."""

from __future__ import annotations

from fractions import Fraction

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.configs.picker import compile_picker
from kernelpkg.manifest.spec import Rule

MATCHES = ("exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore")
WORST = ("exact", "bucketed", "extrapolated", "miss")
SCALARS = st.one_of(
    st.integers(-3, 40), st.sampled_from([True, False, None, "int8", "fp8", 0.5, 2.0, 7.25])
)


def valid(rule):
    """Return a rule as a manifest may have it: what finds equal values alone has no `inexact`."""
    return evolve(rule, inexact=None) if rule.match in ("exact", "ignore") else rule


RULES = st.builds(
    Rule,
    axis=st.just("?"),
    match=st.sampled_from(MATCHES),
    distance=st.sampled_from(["abs", "log"]),
    max=st.sampled_from([None, 0.0, 0.25, 0.3, 1.0]),
    over=st.sampled_from(["largest", "miss"]),
    under=st.sampled_from(["smallest", "miss"]),
    bounds=st.sets(st.integers(0, 30), max_size=3).map(lambda ends: tuple(sorted(ends))),
    inexact=st.sampled_from([None, "floor", "below"]),
).map(valid)


@st.composite
def cases(draw):
    """Draw rules, tuned keys that are distinct, and calls of which many are near the keys."""
    drawn = draw(st.lists(RULES, min_size=1, max_size=3))
    rules = [evolve(rule, axis=f"axis{place}") for place, rule in enumerate(drawn)]
    rows = draw(
        st.lists(
            st.tuples(*(SCALARS for _ in rules)),
            max_size=8,
            unique_by=lambda row: tuple(sameness(value) for value in row),
        )
    )
    keys = [{rule.axis: value for rule, value in zip(rules, row, strict=True)} for row in rows]
    pools = [
        SCALARS if not rows else st.one_of(SCALARS, st.sampled_from([row[place] for row in rows]))
        for place in range(len(rules))
    ]
    calls = draw(st.lists(st.tuples(*pools), min_size=1, max_size=6))
    return rules, keys, calls


def sameness(value):
    return (isinstance(value, bool), value)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def rounded(value):
    power = 1
    while power < value:
        power *= 2
    return power


def model_of_one_rule(rule, tuned, value):
    """Return the tuned value of one level that the docstring of Rule promises, and how."""
    if rule.match == "exact" or not is_number(value):
        equal = [item for item in tuned if sameness(item) == sameness(value)]
        return (equal[0], "exact") if equal else (None, "miss")
    numbers = sorted(item for item in tuned if is_number(item))
    if rule.match == "pow2":
        numbers = [item for item in numbers if item == rounded(item)]
    if rule.match == "nearest" and rule.distance == "log":
        numbers = [item for item in numbers if item > 0 and value > 0]
    if not numbers:
        return None, "miss"
    wanted = rounded(value) if rule.match == "pow2" else value
    if rule.match == "nearest":
        if rule.distance == "abs":
            taken = min(numbers, key=lambda item: (abs(Fraction(item) - Fraction(value)), item))
            deviation = abs(Fraction(taken) - Fraction(value))
            allowed = abs(Fraction(value))
        else:
            taken = min(
                numbers, key=lambda item: Fraction(max(item, value)) / Fraction(min(item, value))
            )
            deviation = Fraction(max(taken, value)) / Fraction(min(taken, value)) - 1
            allowed = 1
        if rule.max is not None and deviation > Fraction(str(rule.max)) * allowed:
            return None, "miss"
    elif rule.match in ("floor", "below"):
        below = [item for item in numbers if item < value]
        if rule.match == "floor" and value in numbers:
            below.append(value)
        if not below and rule.under == "miss":
            return None, "miss"
        taken = below[-1] if below else numbers[0]
    elif rule.match == "ranges":
        home = sum(value > end for end in rule.bounds)
        numbers_at_home = [n for n in numbers if sum(n > end for end in rule.bounds) == home]
        if not numbers_at_home:
            return None, "miss"
        taken = next((n for n in numbers_at_home if n >= value), numbers_at_home[-1])
    else:
        above = [item for item in numbers if item >= wanted]
        if not above and rule.over == "miss":
            return None, "miss"
        if above and rule.match == "pow2" and above[0] != wanted:
            return None, "miss"
        taken = above[0] if above else numbers[-1]
    if taken == value:
        return taken, "exact"
    if wanted > numbers[-1] or (value < numbers[0] and rule.match in ("nearest", "floor", "below")):
        return taken, "extrapolated"
    return taken, "bucketed"


def inexact(rule, tuned):
    """Return a rule and its tuned values as they are behind one that found no equal value."""
    if rule.inexact is None:
        return rule, tuned
    if rule.match == "pow2":
        tuned = [item for item in tuned if not is_number(item) or item == rounded(item)]
    if rule.match == "nearest" and rule.distance == "log":
        tuned = [item for item in tuned if not is_number(item) or item > 0]
    return evolve(rule, match=rule.inexact), tuned


def model(rules, keys, values):
    """Return the key and the outcome for one call."""
    left = list(keys)
    outcomes = ["exact"]
    for rule, value in zip(rules, values, strict=True):
        if rule.match == "ignore":
            continue
        tuned = [key[rule.axis] for key in left]
        equal = set(outcomes) == {"exact"}
        counts, tuned = (rule, tuned) if equal else inexact(rule, tuned)
        taken, outcome = model_of_one_rule(counts, tuned, value)
        if outcome == "miss":
            return None, "miss"
        outcomes.append(outcome)
        left = [key for key in left if sameness(key[rule.axis]) == sameness(taken)]
    if not left:
        return None, "miss"
    for rule in rules:
        if rule.match == "ignore":
            smallest = min((key[rule.axis] for key in left), key=rank)
            left = [key for key in left if sameness(key[rule.axis]) == sameness(smallest)]
    assert len(left) == 1
    return left[0], max(outcomes, key=WORST.index)


def rank(value):
    """Numbers come first, then None, then flags and texts by the names of their types."""
    return (0, "", value) if is_number(value) else (1, type(value).__name__, value)


def key_of(keys, pick):
    return None if pick.index is None else keys[pick.index]


@given(cases())
def test_picker_agrees_with_the_model(case):
    """Every pick is the model's, the first time and from the memo."""
    rules, keys, calls = case
    found = compile_picker(rules, keys, {})
    for values in calls + calls:
        pick = found.pick(values)
        key, outcome = model(rules, keys, values)
        assert key_of(keys, pick) is key
        assert pick.outcome == outcome


@given(cases())
def test_explain_agrees_with_pick(case):
    """The worst step is the outcome, and what the steps chose is in the picked key."""
    rules, keys, calls = case
    found = compile_picker(rules, keys, {})
    for values in calls:
        steps = found.explain(values)
        pick = found.pick(values)
        assert [step.axis for step in steps] == [rule.axis for rule in rules]
        if keys:
            assert max((step.outcome for step in steps), key=WORST.index) == pick.outcome
        for step in steps:
            if pick.index is not None and step.match != "ignore":
                assert sameness(step.chosen) == sameness(keys[pick.index][step.axis])
                assert sameness(step.chosen) in map(sameness, step.candidates)


@given(cases(), st.randoms(use_true_random=False))
def test_order_of_keys_does_not_matter(case, random):
    """Keys in another order give the same key for every call."""
    rules, keys, calls = case
    shuffled = random.sample(keys, len(keys))
    found, other = compile_picker(rules, keys, {}), compile_picker(rules, shuffled, {})
    for values in calls:
        assert key_of(keys, found.pick(values)) is key_of(shuffled, other.pick(values))


@given(cases())
def test_unreachable_keys_are_the_ones_that_no_call_gets(case):
    """A key is unreachable exactly if the call that equals it gets another one, or none."""
    rules, keys, calls = case
    found = compile_picker(rules, keys, {})
    missed = [
        place
        for place, key in enumerate(keys)
        if model(rules, keys, tuple(key.values()))[0] is not key
    ]
    assert list(found.unreachable()) == missed
    assert not {found.pick(values).index for values in calls} & set(missed)


@given(st.integers(1, 10**30), st.integers(1, 10**30), st.integers(1, 10**30))
def test_log_distance_of_integers_is_exact(low, high, value):
    """The nearer of two tuned values by ratio is taken, however large they are."""
    rule = Rule(axis="x", match="nearest", distance="log")
    tuned = sorted({low, high})
    pick = compile_picker([rule], [{"x": item} for item in tuned], {}).pick((value,))
    ratios = [Fraction(max(item, value), min(item, value)) for item in tuned]
    assert pick.index == ratios.index(min(ratios))
