"""Which cases stand for all, and which configs are kept."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from attrs import asdict
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.autotune.choose import Trial, judge, prune, representatives

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


def fewest(times: Times, within: float) -> int:
    """How many configs are needed at least: try all choices, the small ones first."""
    rows = measured(times).values()
    allowed = [{c for c, value in row.items() if value <= bound(row, within)} for row in rows]
    for count in itertools.count():
        if any(
            all(row & set(chosen) for row in allowed)
            for chosen in itertools.combinations(NAMES, count)
        ):
            return count
    raise AssertionError


def bound(row: dict[str, float], within: float) -> float:
    return max(min(row.values()), min(row.values()) * (1 + within))


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


def test_failed_and_wrong_configs_never_count():
    """A case gets the fastest that was right, of equal ones the first by its text, or nothing."""
    nan, inf = math.nan, math.inf
    times = {"a": {"x": nan, "z": 2.0, "y": 2.0}, "b": {"x": 0.5, "y": inf}, "c": {"x": inf}}
    times["d"] = {}
    assert prune(times, 0.0) == {"a": "y", "b": "x"}


def test_configs_within_the_bound_are_merged():
    """Two configs of which one is nearly as good everywhere become one."""
    times = {"a": {"x": 1.0, "y": 1.02}, "b": {"x": 2.0, "y": 1.0}, "c": {"x": 1.5, "y": 1.51}}
    assert prune(times, 0.02) == {"a": "y", "b": "y", "c": "y"}
    assert prune(times, 0.01) == {"a": "x", "b": "y", "c": "x"}
    assert prune(times, 0.0) == {"a": "x", "b": "y", "c": "x"}


def test_a_config_that_others_made_superfluous_is_dropped():
    """The one that serves the most comes first; in the end two others serve all."""
    rows = {"a": "xz", "b": "xz", "c": "yz", "d": "yz", "e": "x", "f": "y"}
    times = {case: dict.fromkeys(configs, 1.0) for case, configs in rows.items()}
    assert prune(times, 0.02) == {
        case: "x" if "x" in configs else "y" for case, configs in rows.items()
    }


def test_of_configs_that_serve_as_many_the_fastest_is_kept():
    times = {"a": {"x": 1.01, "y": 1.0}, "b": {"x": 1.0, "y": 1.005}}
    assert set(prune(times, 0.02).values()) == {"y"}


@given(table, st.sampled_from([0.0, 0.01, 0.02, 0.5]), st.randoms())
def test_every_case_has_a_config_within_the_bound_in_any_order(times, within, shuffle):
    """The fastest that is kept; none is superfluous; and one more than needed is the most here."""
    kept = prune(times, within)
    rows = measured(times)
    assert kept.keys() == rows.keys()
    distinct = set(kept.values())
    for case, config in kept.items():
        assert rows[case][config] <= bound(rows[case], within)
        assert (rows[case][config], config) == min(
            (rows[case][other], other) for other in distinct if other in rows[case]
        )
    assert len(distinct) <= fewest(times, within) + 1
    cases = [(case, list(row.items())) for case, row in times.items()]
    shuffle.shuffle(cases)
    for _, row in cases:
        shuffle.shuffle(row)
    assert prune({case: dict(row) for case, row in cases}, within) == kept


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


def test_a_trial_is_what_a_worker_sent_and_no_more():
    given = trial(new=0.9, old=1.0, default=1.5, noise=0.01)
    assert Trial.of(asdict(given, recurse=False) | {"found": []}) == given
