"""Which config a case gets, from the times of one run."""

from __future__ import annotations

from typing import Any

import pytest

from kernelpkg.autotune.tuningverdict import Trial, judge

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
