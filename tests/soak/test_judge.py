# SPDX-License-Identifier: Apache-2.0
"""The judge of the soak is judged: samples that were made up, with a leak or without."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.line import fit  # noqa: E402
from bench.measure import Report  # noqa: E402
from soak import judge  # noqa: E402

KIB = 1024
SECONDS, CHANGES = 1200, 240


def run(seconds=SECONDS, **leaks):
    """A sample a second of a daemon that fills its caches in the first quarter and wavers by some pages, as real ones
    do; LEAKS is how much of each figure stays behind with each change."""
    noise = random.Random(7)
    made = []
    for at in range(seconds):
        change = at * CHANGES // SECONDS
        warm = min(1, at / (seconds / 4))
        one = {"at": at, "private_dirty": int(3000 * KIB + 400 * KIB * warm) + 4 * KIB * noise.randint(-12, 12),
               "descriptors": 20 + noise.randint(0, 4), "database": int(100 * KIB + 60 * KIB * warm),
               "log": 4096 * KIB * (at % 60) // 60, "lines": int(2 * at)}
        for what, each in leaks.items():
            one[what] += int(each * change)
        made.append(one)
    return made


def missed(samples, changes=CHANGES):
    report = Report("soak", "made up")
    judge.judge(report, "agentd", samples, changes)
    assert all(aim["verdict"] in ("met", "MISSED") for aim in report.aims)
    return {aim["what"] for aim in report.aims if aim["verdict"] == "MISSED"}


def test_what_only_wavers_and_warms_up_is_well():
    assert missed(run()) == set()
    assert missed(run(180), 36) == set()


@pytest.mark.parametrize("each", [1 * KIB, 4 * KIB])
def test_a_leak_of_a_kibibyte_a_change_is_found_in_the_long_run(each):
    assert "agentd: private_dirty risen in the second half" in missed(run(private_dirty=each))


def test_a_leak_of_eight_kibibytes_a_change_is_found_in_the_short_run():
    assert "agentd: private_dirty risen in the second half" in missed(run(180, private_dirty=8 * KIB), 36)


def test_a_database_that_keeps_a_row_of_each_change_is_found():
    assert "agentd: database risen in the second half" in missed(run(database=1 * KIB))


def test_a_descriptor_left_open_by_every_twentieth_change_is_found():
    assert "agentd: descriptors risen in the second half" in missed(run(descriptors=0.05))


def test_a_step_in_the_last_third_is_found():
    samples = run()
    for one in samples[850:]:
        one["private_dirty"] += 200 * KIB
    assert "agentd: private_dirty, last third to middle" in missed(samples)


def test_a_log_that_no_checkpoint_ends_and_a_chattier_journal_are_found():
    samples = run()
    for one in samples:
        one["log"] = 9 * KIB * one["at"]
        one["lines"] += max(0, one["at"] - 600)
    assert missed(samples) == {"agentd: the database's log, ever", "agentd: journal lines a minute more"}


def test_the_line_goes_through_its_points():
    assert fit([(0, 5), (10, 25), (20, 45)]) == pytest.approx((5, 2))
    assert fit([(0, 1), (1, 0), (2, 2), (3, 1)])[1] == pytest.approx(0.2)
    with pytest.raises(ValueError):
        fit([(1, 2), (1, 3)])
