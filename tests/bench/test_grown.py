# SPDX-License-Identifier: Apache-2.0
"""The judge of growth is judged: costs that were made up, flat or not."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.grown import Grown  # noqa: E402
from bench.measure import Report  # noqa: E402

SIZES = (10, 100, 1000, 10_000)


def verdict(cost, noise=0.001, sizes=SIZES):
    report = Report("growth", "made up")
    grown = Grown("thing: cost", "each", noise)
    for size in sizes:
        grown.add(size, cost(size))
    grown.judge(report)
    return report.aims[0]["verdict"]


@pytest.mark.parametrize("cost", [lambda n: 5 + 0.3 * n, lambda n: 40 + 0.3 * n - 0.2 * min(n, 50), lambda n: 7,
                                  lambda n: 9 - n / 1e9])
def test_a_cost_that_stays_flat_is_well(cost):
    assert verdict(cost) == "met"


@pytest.mark.parametrize("cost", [lambda n: n * n / 1000, lambda n: 5 + n ** 1.3,
                                  lambda n: 0.3 * n + 0.15 * max(0, n - 1000)])
def test_a_cost_that_grows_with_the_number_is_found(cost):
    assert verdict(cost) == "MISSED"


def test_a_step_before_that_cost_nothing_or_less_does_not_excuse_the_last_one():
    assert verdict(lambda n: 50 - n / 100 if n <= 1000 else 2 * n) == "MISSED"
    assert verdict(lambda n: 7 if n <= 1000 else 7 + n / 100) == "MISSED"


def test_images_that_cost_twenty_five_times_as_much_are_found():
    assert verdict(lambda n: 18.5 + 0.0089 * (n - 100), noise=0.02, sizes=(1, 100, 300, 1000)) == "met"
    worse = {1: 3.5, 100: 18.5, 300: 20.3, 1000: 20.3 + 25 * 0.0089 * 700}
    assert verdict(worse.get, noise=0.02, sizes=tuple(worse)) == "MISSED"


def test_what_is_below_the_noise_is_no_growth():
    assert verdict(lambda n: 7 if n <= 1000 else 7 + n * 0.0009) == "met"
