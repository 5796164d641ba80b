# SPDX-License-Identifier: Apache-2.0
"""From a recorded reply to a row in the table, once."""

import json
import os
import signal
import time

import pytest

from rig.machine import NOBODY
from rig.process import run, stays, wait_for

TABLE = ("market", "bars_daily")
IDENTITY = ("source", "symbol", "interval", "kind", "ts", "revision")


@pytest.fixture(autouse=True)
def dataset(machine):
    machine.cloud.make_dataset(TABLE[0])


def each_once(rows):
    keys = [tuple(json.dumps(row.get(name)) for name in IDENTITY) for row in rows]
    assert len(set(keys)) == len(keys), "a row was delivered twice"
    return rows


def once(machine, plan=None, timeout=60):
    """crawlerd --once, as nobody; the finished process."""
    path = machine.dir / "once.json"
    path.write_text(json.dumps(plan or machine.make_plan(containers=[], secrets=[], crawl=machine.crawl())))
    return run([machine.program("crawlerd"), "--once", "--plan", path, "--state-dir", machine.dir / "crawlerd" / "state",
                "--runtime-dir", machine.dir / "crawlerd" / "run"],
               check=False, timeout=timeout, env={**os.environ, "MERVIS_RECIPES_DIR": str(machine.recipes)},
               user=NOBODY[0], group=NOBODY[1])


def test_once_fetches_delivers_and_says_so_with_its_exit_status(machine):
    done = once(machine)
    assert done.returncode == 0, done.stderr
    rows = each_once(machine.cloud.rows(*TABLE))
    assert rows
    assert {row["symbol"] for row in rows} == {"AAPL"} and {row["source"] for row in rows} == {"yahoo-chart"}
    for row in rows:
        assert row["batch_id"] and row["is_final"] in (True, "true")


def test_once_again_delivers_nothing_twice(machine):
    assert once(machine).returncode == 0
    before = machine.cloud.count(*TABLE)
    assert once(machine).returncode == 0
    assert len(each_once(machine.cloud.rows(*TABLE))) == before


def test_once_fails_while_a_delivery_is_refused_and_loses_nothing(machine):
    machine.cloud.fault({"service": "bigquery", "method": "POST"},
                        {"status": 403, "reason": "accessDenied", "message": "Access Denied"})
    done = once(machine)
    assert done.returncode != 0
    assert "Access Denied" in done.stderr or "denied" in done.stderr.lower()
    machine.cloud.clear_faults()
    assert once(machine).returncode == 0
    assert each_once(machine.cloud.rows(*TABLE))


def test_an_answer_lost_after_the_job_was_made_makes_no_second_one(machine):
    machine.cloud.fault({"service": "bigquery", "method": "POST", "path": "/jobs"}, {"lose_answer": True}, times=1)
    once(machine)
    assert once(machine).returncode == 0
    each_once(machine.cloud.rows(*TABLE))


def test_once_on_a_broken_plan_says_where(machine):
    plan = machine.make_plan(containers=[], secrets=[], crawl=machine.crawl(jobs=[{"name": "x", "recipe": "no-such"}]))
    done = once(machine, plan)
    assert done.returncode not in (0, -signal.SIGABRT, -signal.SIGSEGV)
    assert "no-such" in done.stderr or "symbols" in done.stderr


@pytest.mark.parametrize("after", [0.1, 0.4, 1.2])
def test_kill_9_of_crawlerd_loses_and_doubles_no_row(machine, after):
    symbols = ["TSLA"]
    machine.put_plan(machine.make_plan(containers=[], secrets=[], crawl=machine.crawl(jobs=[{
        "name": "us-1d", "recipe": "yahoo-chart", "symbols": symbols, "interval": "1d", "every": "1m",
        "terms": "acknowledged"}])))
    machine.start(machine.agentd)
    machine.start(machine.crawlerd)
    time.sleep(after)
    machine.crawlerd.kill()
    machine.start(machine.crawlerd)
    wait_for("rows of all symbols", lambda: {row["symbol"] for row in machine.cloud.rows(*TABLE)} == set(symbols),
             60)
    machine.cloud.wait_quiet(service="bigquery")
    each_once(machine.cloud.rows(*TABLE))


def test_the_crawler_runs_on_without_agentd_and_is_seen_in_the_status(machine):
    machine.put_plan(machine.make_plan(containers=[], secrets=[], crawl=machine.crawl()))
    machine.start(machine.agentd)
    machine.start(machine.crawlerd)
    rows = each_once(machine.cloud.wait_rows(*TABLE, 1))
    wait_for("rows in the status", lambda: (machine.status().get("crawler") or {}).get("delivery", {})
             .get("rows_delivered") == len(rows), 15)
    machine.agentd.stop()
    stays("crawlerd", lambda: machine.crawlerd.running, 2)
    assert machine.crawlerd.stop() == 0


def test_a_dead_crawler_is_degraded_and_said_so(machine):
    machine.put_plan(machine.make_plan(containers=[], secrets=[], crawl=machine.crawl()))
    machine.start(machine.agentd)
    machine.start(machine.crawlerd)
    machine.cloud.wait_rows(*TABLE, 1)
    wait_for("well", lambda: machine.agentctl("status").returncode == 0, 15)
    machine.crawlerd.kill()
    wait_for("degraded", lambda: machine.agentctl("status").returncode == 1, 15)
    wait_for("the reason", lambda: "crawlerd" in machine.agentctl("status").stdout, 5)
    machine.start(machine.crawlerd)
    wait_for("well again", lambda: machine.agentctl("status").returncode == 0, 30)
