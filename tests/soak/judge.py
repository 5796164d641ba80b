# SPDX-License-Identifier: Apache-2.0
"""Whether a daemon grows: from samples of what it holds, and nothing else.

Two questions are asked of each figure. How much has the straight line through the second half of the run risen, from
that half's begin to its end: a leak shows there whatever the noise of single samples, and divided by what was done in
that time it is what one change leaves behind. And how much more is the median of the last third than that of the middle
one: a step that a line would smooth over. The first half fills caches and tables that are bounded; it is not judged.
"""

from bench.line import fit

KIB = 1024
# What either may be, and why it is not 0. A day in 20 minutes showed 59 KiB more private memory of agentd in its second
# half, of crawlerd none, of statusd 26. SQLite caches the pages of the events, of which agentd keeps 500, and they are
# full toward the end of such a day only; statusd has no table, and its heap takes a page ever more seldom (from the 10th
# minute to the 16th seven, then none). The events' table made agentd's database 33 KiB larger, the identities of 2,800 rows
# crawlerd's 37. A descriptor is a connection that is open at that moment.
RISE = {"private_dirty": 96 * KIB, "descriptors": 2, "database": 64 * KIB}
STEP = {"private_dirty": 96 * KIB, "descriptors": 3, "database": 64 * KIB}
LINES_PER_MINUTE = 30
# SQLite's log goes up and down between two checkpoints: what counts is that it never goes beyond them.
LOG_MAX = 8704 * KIB


def median(values):
    return sorted(values)[len(values) // 2]


def part(samples, first, last):
    """Those between two shares of the run's time."""
    end = samples[-1]["at"]
    return [one for one in samples if first * end <= one["at"] <= last * end]


def rise(samples, what):
    """How much the line through the second half rises over that half."""
    half = part(samples, 1 / 2, 1)
    _, slope = fit([(one["at"], one[what]) for one in half])
    return slope * (half[-1]["at"] - half[0]["at"])


def step(samples, what):
    """(before, after): the medians of the middle third and the last one."""
    return (median([one[what] for one in part(samples, *third)]) for third in ((1 / 3, 2 / 3), (2 / 3, 1)))


def lines_per_minute(samples):
    _, slope = fit([(one["at"], one["lines"]) for one in samples])
    return 60 * slope


def judge(report, name, samples, changes):
    """Put each verdict about one daemon's samples into REPORT; CHANGES were made in the whole run, evenly."""
    for what, limit in RISE.items():
        risen = rise(samples, what)
        report.aim(f"{name}: {what} risen in the second half", risen, limit,
                   f"{risen:+.0f} ({risen / (changes / 2):+.1f} a change)")
        before, after = step(samples, what)
        report.aim(f"{name}: {what}, last third to middle", after - before, STEP[what], f"{before} -> {after}")
    log = max(one["log"] for one in samples)
    report.aim(f"{name}: the database's log, ever", log, LOG_MAX, f"{log}")
    before, after = (lines_per_minute(part(samples, *half)) for half in ((0, 1 / 2), (1 / 2, 1)))
    report.aim(f"{name}: journal lines a minute more", after - before, LINES_PER_MINUTE, f"{before:.0f} -> {after:.0f}")
