# SPDX-License-Identifier: Apache-2.0
"""Every row in the table exactly once, whenever crawlerd is killed.

crawlerd crawls a double of Yahoo into a double of BigQuery, both of which fail in one of ten
answers; it is killed at each injected point and at random instants, and started again. In the end
the table has each expected row once. Needs no machine of the rig:

    MERVIS_BUILD=BUILD-DIRECTORY python3 -m pytest --noconftest tests/integration/12_crawl_crash_loop_test.py

MERVIS_FULL=1 kills a thousand times, MERVIS_CRASH_KILLS=N that many times.
"""

import json
import os
import random
import sqlite3

import pytest

from crawling import FULL, crawl  # noqa: F401

POINTS = ["rows.before-commit", "rows.after-commit", "freeze.before-commit", "freeze.after-commit",
          "asked.after-commit", "request.sent:1", "request.sent:2", "request.sent:4",
          "request.sent:6", "reply.before-judge:1", "reply.before-judge:3", "reply.before-judge:5",
          "reply.before-judge:6", "delivered.before-commit", "delivered.after-commit"]
# points that are only reached when BigQuery plays along: a fault to order first
REPAIRS = {
    "attempt.before-commit": {"job_error": {"reason": "backendError", "message": "try again"}},
    "attempt.after-commit": {"job_error": {"reason": "backendError", "message": "try again"}},
    "repair.before-commit": {"status": 413, "reason": "uploadTooLarge", "message": "too large"},
    "repair.after-commit": {"status": 413, "reason": "uploadTooLarge", "message": "too large"},
}
# one answer in ten
FAULTS = [
    ({"service": "bigquery"}, {"status": 503, "html": True}, 0.02),
    ({"service": "bigquery"}, {"lose_answer": True}, 0.04),
    ({"service": "bigquery"}, {"reset": True}, 0.02),
    ({"service": "bigquery"}, {"truncate": 40}, 0.02),
    ({"service": "market"}, {"status": 500}, 0.03),
    ({"service": "market"}, {"truncate": 2000}, 0.04),
    ({"service": "market"}, {"reset": True}, 0.03),
]


def order_faults(cloud):
    for seed, (match, do, probability) in enumerate(FAULTS):
        cloud.fault(match, do, probability=probability, seed=seed + 1)


def test_no_row_is_lost_or_doubled_when_killed_at_each_point(crawl):
    reached = []
    for point in POINTS + list(REPAIRS):
        symbols = crawl.new_symbols(2)
        if point in REPAIRS:
            crawl.cloud.fault({"service": "bigquery", "method": "POST", "path": "^/upload/"},
                              REPAIRS[point], times=1)
        if crawl.kill_at(point, symbols):
            reached.append(point)
        crawl.cloud.calm()
        crawl.finish(symbols)
    crawl.check()
    assert set(POINTS + list(REPAIRS)) == set(reached), "points that were not reached"


def test_no_row_is_lost_or_doubled_with_random_kills_and_one_fault_in_ten(crawl):
    chance = random.Random(7)
    points = [p.partition(":")[0] for p in POINTS]
    while crawl.kills < int(os.environ.get("MERVIS_CRASH_KILLS", 1000 if FULL else 20)):
        symbols = []
        order_faults(crawl.cloud)
        for _ in range(5):
            # There must be something to do, or it would be over before it is killed.
            symbols += crawl.new_symbols(1)
            crawl.kill_after(chance.uniform(0.01, 0.15), symbols)
            crawl.kill_at(f"{chance.choice(points)}:{chance.randint(1, 2)}", symbols)
        crawl.cloud.calm()
        crawl.finish(symbols)
        if crawl.kills % 100 < 10:
            print(f"{crawl.kills} kills so far", flush=True)
    crawl.check()


def rows_of_sqlite(crawl):
    with sqlite3.connect(crawl.directory / "bars.db") as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM bars")]


def rows_of_ndjson(crawl):
    return [json.loads(line) for path in sorted((crawl.directory / "bars").iterdir()) if path.name != ".state.json"
            for line in path.read_text().splitlines()]


@pytest.mark.parametrize("sink, rows", [("sqlite", rows_of_sqlite), ("ndjson", rows_of_ndjson)])
def test_no_row_is_lost_or_doubled_in_a_local_sink(crawl, sink, rows):
    crawl.local_sink = {"sqlite": {"sqlite": {"path": str(crawl.directory / "bars.db"), "flush": "1s"}},
                        "ndjson": {"ndjson": {"path": str(crawl.directory / "bars"), "flush": "1s",
                                              "rotate_size": "64KiB"}}}[sink]
    points = ["rows.before-commit", "rows.after-commit", "freeze.before-commit", "freeze.after-commit",
              "stored.before-commit", "delivered.before-commit", "delivered.after-commit"]
    chance = random.Random(11)
    for point in points:
        symbols = crawl.new_symbols(2)
        assert crawl.kill_at(point, symbols), f"{point} was not reached"
        crawl.kill_after(chance.uniform(0.01, 0.2), symbols)
        crawl.finish(symbols)
    crawl.check(rows(crawl))


def test_a_new_disk_learns_what_its_forerunner_delivered_and_waits_for_its_last_load(crawl):
    first, second = crawl.new_symbols(2), crawl.new_symbols(1)
    crawl.finish(first)
    # The machine dies with its last load still running, and its disk with it.
    crawl.cloud.fault({"service": "bigquery", "path": "^/upload/"}, {"job_delay": 8}, times=9)
    crawl.kill_when_loading(first + second)
    crawl.cloud.calm()
    crawl.state.rename(crawl.directory / "dead")
    crawl.finish(first + second)
    crawl.done = first + second
    crawl.check()
    assert "still under way" in crawl.log.read_text()
