"""What is made of times that were taken in turns."""

from __future__ import annotations

import pytest

from kernelpkg.bench import timing
from kernelpkg.bench.timing import summarised


def test_medians_and_ratios_are_taken_over_the_rounds():
    rounds = [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    found = summarised(rounds, base=0, twin=2)
    assert found.ms == (1.0, 2.0, 1.0)
    assert found.ratios == (1.0, 2.0, 1.0)
    assert found.noise == 0.0


def test_what_slows_a_whole_round_down_is_no_difference():
    rounds = [[1.0, 0.9, 1.0], [5.0, 4.5, 5.0], [3.0, 2.7, 3.0]]
    found = summarised(rounds, base=0, twin=2)
    assert found.ratios[1] == pytest.approx(0.9)
    assert found.noise == pytest.approx(0.0)


def test_a_twin_that_differs_is_noise():
    rounds = [[1.0, 0.5, 1.05]] * 9
    assert summarised(rounds, base=0, twin=2).noise == pytest.approx(0.05)


def test_ratios_that_scatter_are_noise_that_falls_with_the_rounds():
    scattered = [[1.0, ratio, 1.0] for ratio in (0.8, 0.9, 1.0, 1.1, 1.2)]
    some, many = (summarised(scattered * times, base=0, twin=2).noise for times in (10, 1000))
    assert some == pytest.approx(10 * many)
    assert 0.005 < many < 0.01


def test_captures_that_differ_are_noise_however_many_rounds_they_have():
    def noise(rounds: int) -> float:
        captures = [[[1.0, 0.93 + 0.1 * (number % 2), 1.0]] * rounds for number in range(10)]
        return summarised([one for rounds in captures for one in rounds], base=0, twin=2).noise

    assert noise(2) == pytest.approx(noise(200))
    assert noise(200) > 0.05


def played(monkeypatch, took):
    """Let calls take seconds of a clock that is played; returns what makes one, and the calls."""
    now, made = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: round(now[0] * 1e9))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call(name):
        made.append(name)
        now[0] += took[name]

    return (lambda name: lambda: call(name)), made, now


def test_the_host_is_timed_in_turns_that_are_turned_round(monkeypatch):
    make, made, _ = played(monkeypatch, {"ours": 0.1, "other": 0.3})
    found = timing.time_host([make("ours"), make("other")], rounds=7)
    assert found == [[pytest.approx(1e5), pytest.approx(3e5)]] * 6  # seconds are left for six
    turns = [made[at : at + 2] for at in range(4, len(made), 2)]
    assert turns == [["other", "ours"], ["ours", "other"]] * 3


def test_calls_that_take_little_are_made_in_a_row(monkeypatch):
    make, made, _ = played(monkeypatch, {"ours": 1e-5})
    (times, *_) = timing.time_host([make("ours")])
    assert times == [pytest.approx(10)]
    assert len(made) == 2 + 15 * 50


def test_the_time_of_the_device_is_not_the_hosts(monkeypatch):
    make, _, now = played(monkeypatch, {"ours": 1e-5})

    def wait():
        now[0] += 1.0

    (times, *_) = timing.time_host([make("ours")], wait=wait)
    assert times == [pytest.approx(10)]


def test_no_garbage_is_collected_while_the_host_is_timed():
    states = []
    timing.time_host([lambda: states.append(timing.gc.isenabled())], rounds=1)
    assert not any(states)
    assert timing.gc.isenabled()
