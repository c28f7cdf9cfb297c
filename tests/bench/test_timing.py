"""What is made of times that were taken in turns."""

from __future__ import annotations

import pytest

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
