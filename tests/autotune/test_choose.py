"""Which cases stand for all, and which configs are kept."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.autotune.choose import Cover, Trial, best, cover, judge, prune, representatives

Times = dict[str, dict[str, float]]

NAMES = [f"config{number}" for number in range(6)]

# Few values, so that ties and times at the bound are common.
time = st.sampled_from([1.0, 1.01, 1.02, 1.03, 2.0, 2.04, math.inf, math.nan])
table = st.dictionaries(
    st.sampled_from("abcdefg"), st.dictionaries(st.sampled_from(NAMES), time), max_size=6
)


def measured(times: Times) -> Times:
    rows = {
        case: {config: value for config, value in row.items() if math.isfinite(value)}
        for case, row in times.items()
    }
    return {case: row for case, row in rows.items() if row}


def naive(times: Times, within: float) -> dict[str, str]:
    """Try all choices of configs, the small ones first."""
    rows = measured(times)
    bounds = {case: min(row.values()) * (1 + within) for case, row in rows.items()}
    allowed = {
        case: {config: value for config, value in row.items() if value <= bounds[case]}
        for case, row in rows.items()
    }
    configs = sorted({config for row in rows.values() for config in row})
    for count in range(len(configs) + 1):
        found = []
        for chosen in itertools.combinations(configs, count):
            if all(set(chosen) & set(row) for row in allowed.values()):
                picks = {
                    case: min((value, config) for config, value in row.items() if config in chosen)
                    for case, row in allowed.items()
                }
                total = math.fsum(value for value, _ in picks.values())
                found.append((total, chosen, {case: config for case, (_, config) in picks.items()}))
        if found:
            return min(found, key=lambda choice: choice[:2])[2]
    raise AssertionError


def grid(*sizes: list[int], flag: bool = False) -> list[tuple[bool, tuple[int, ...]]]:
    return [(flag, point) for point in itertools.product(*sizes)]


def chosen(cases: list[tuple[bool, tuple[int, ...]]], n: int):
    return representatives(cases, n, variant=lambda case: case[0], sizes=lambda case: case[1])


def test_one_representative_is_in_the_middle():
    """A single case is the one nearest to the medians, not a corner."""
    assert chosen(grid([1, 2, 4, 8, 16]), 1) == ((False, (4,)),)


def test_further_representatives_are_the_farthest():
    """After the middle come the ends, by doublings and not by differences."""
    found = chosen(grid([1, 2, 4, 8, 16, 32, 64, 128, 256]), 5)
    assert [size for _, (size,) in found] == [16, 1, 256, 4, 64]


def test_every_variant_has_a_representative_before_one_has_two():
    """The variant with the most cases comes first, and each gets its middle."""
    cases = [*grid([1, 2, 4]), *grid([1, 2, 4, 8, 16], flag=True)]
    assert chosen(cases, 2) == ((True, (4,)), (False, (2,)))
    assert chosen(cases, 1) == ((True, (4,)),)
    assert {flag for flag, _ in chosen(cases, 4)} == {True, False}


@pytest.mark.parametrize("n", [-1, 0], ids=["negative", "none"])
def test_no_representatives_of_none(n):
    """Nothing is chosen where nothing is asked for."""
    assert chosen(grid([1, 2]), n) == ()


def test_more_representatives_than_cases_are_all_cases():
    """Each case comes once, a case given twice as well, and sizes of nothing have a place."""
    cases = [*grid([0, 1, 2]), *grid([0, 1, 2])]
    assert sorted(chosen(cases, 10)) == grid([0, 1, 2])
    assert chosen([], 3) == ()


points = st.tuples(st.booleans(), st.tuples(st.integers(0, 300), st.integers(0, 300)))


@given(st.lists(points, min_size=1, max_size=30), st.integers(1, 12), st.randoms())
def test_representatives_do_not_depend_on_the_order(cases, n, shuffle: random.Random):
    """A grid in another order gives the same choice, and that of n begins that of n + 1."""
    other = list(cases)
    shuffle.shuffle(other)
    assert chosen(other, n) == chosen(cases, n) == chosen(cases, n + 1)[:n]
    assert len(chosen(cases, n)) == min(n, len(set(cases)))


def test_best_is_the_fastest_that_was_right():
    """Failed and wrong configs never win; of equal ones the first text does."""
    nan, inf = math.nan, math.inf
    times = {"a": {"x": nan, "z": 2.0, "y": 2.0}, "b": {"x": 0.5, "y": inf}, "c": {"x": inf}}
    times["d"] = {}
    assert best(times) == {"a": "y", "b": "x"}


def test_configs_within_the_bound_are_merged():
    """Two configs of which one is nearly as good everywhere become one."""
    times = {"a": {"x": 1.0, "y": 1.02}, "b": {"x": 2.0, "y": 1.0}, "c": {"x": 1.5, "y": 1.51}}
    assert prune(times, 0.02) == {"a": "y", "b": "y", "c": "y"}
    assert prune(times, 0.01) == {"a": "x", "b": "y", "c": "x"}
    assert prune(times, 0.0) == best(times)


def test_an_exact_cover_beats_a_greedy_one():
    """The largest config first would need three; two do."""
    rows = {"a": "xz", "b": "xz", "c": "yz", "d": "yz", "e": "x", "f": "y"}
    times = {case: dict.fromkeys(configs, 1.0) for case, configs in rows.items()}
    assert cover(times, 0.02) == Cover(
        configs={case: "x" if "x" in configs else "y" for case, configs in rows.items()}, exact=True
    )


def test_a_cover_that_takes_too_long_is_greedy_and_says_so():
    """The search is broken off, and what comes back holds the bound nevertheless."""
    draw = random.Random(1)
    configs = [f"config{number:02}" for number in range(40)]
    times = {
        str(case): {config: draw.choice([1.0, 1.01, 3.0, 3.0, 3.0, 3.0]) for config in configs}
        for case in range(120)
    }
    broken = cover(times, 0.02, work=500)
    assert not broken.exact
    for case, config in broken.configs.items():
        assert times[case][config] <= 1.02 * min(times[case].values())
    assert len(set(broken.configs.values())) < len(set(best(times).values()))
    assert broken == cover(dict(reversed(times.items())), 0.02, work=500)


@given(table, st.sampled_from([0.0, 0.01, 0.02, 0.5]))
def test_the_cover_is_that_of_all_choices(times, within):
    """As few configs as any choice has, of those the fastest, of those the first by text."""
    found = cover(times, within)
    assert found.exact
    assert found.configs == naive(times, within)


@given(table, st.sampled_from([0.0, 0.02]), st.integers(0, 60), st.randoms())
def test_a_cover_holds_the_bound_in_any_order(times, within, work, shuffle: random.Random):
    """However early it is broken off, each case has a config within the bound, and always one."""
    cases = [(case, list(row.items())) for case, row in times.items()]
    shuffle.shuffle(cases)
    for _, row in cases:
        shuffle.shuffle(row)
    found = cover(times, within, work=work)
    assert found == cover({case: dict(row) for case, row in cases}, within, work=work)
    rows = measured(times)
    assert found.configs.keys() == rows.keys() == best(times).keys()
    for case, config in found.configs.items():
        assert rows[case][config] <= min(rows[case].values()) * (1 + within)


CONFIGS = {side: {"num_warps": warps} for side, warps in (("new", 1), ("old", 2), ("default", 4))}


def trial(noise: float = 0.0, wrong: dict[str, str] | None = None, **ms: float) -> Trial:
    ratios = {side: value / ms["old"] for side, value in ms.items()} if "old" in ms else {}
    return Trial(configs=CONFIGS, ms=ms, ratios=ratios, noise=noise, wrong=wrong or {})


@pytest.mark.parametrize(
    ("given", "outcome", "side"),
    [
        (trial(new=0.90, old=1.0, default=1.5), "tuned", "new"),
        (trial(new=0.981, old=1.0, default=1.5), "kept", "old"),
        (trial(new=0.979, old=1.0, default=1.5), "tuned", "new"),
        (trial(new=0.979, old=1.0, default=1.5, noise=0.01), "kept", "old"),
        (trial(new=1.2, old=1.0, default=1.5), "kept", "old"),
        (trial(new=0.95, old=1.0, default=0.9), "tuned", "default"),
        (trial(old=1.0, default=1.5), "kept", "old"),
        (trial(new=1.0, default=1.01), "tuned", "new"),
        (trial(new=1.0, default=0.99), "tuned", "default"),
        (trial(new=1.0), "tuned", "new"),
        (trial(), "wrong", None),
    ],
    ids=[
        *("faster", "within_the_margin", "beyond_the_margin", "within_the_noise", "slower"),
        *("default_is_fastest", "nothing_found", "no_old", "no_old_default", "only_new", "none"),
    ],
)
def test_the_old_config_is_replaced_by_more_than_margin_and_noise(given, outcome, side):
    verdict = judge(given, 0.02)
    assert (verdict.outcome, verdict.side) == (outcome, side)


def test_an_old_config_that_is_wrong_is_replaced_by_a_slower_one_and_told():
    found = judge(trial(new=1.1, default=1.2, wrong={"old": "y[0] is 1"}), 0.02)
    assert (found.outcome, found.side) == ("tuned", "new")
    assert found.reason == "the old config is wrong: y[0] is 1"


def test_where_all_are_wrong_the_reason_names_each():
    found = judge(trial(wrong={"new": "a", "default": "b"}), 0.02)
    assert found.outcome == "wrong"
    assert found.reason == "the new config is wrong: a; the default config is wrong: b"


def test_a_trial_survives_json():
    given = trial(new=0.9, old=1.0, default=1.5, noise=0.01)
    document: dict[str, Any] = given.to_json()
    assert Trial.of(document | {"found": []}) == given
