# SPDX-License-Identifier: Apache-2.0
"""A past range of a job, asked for by agentctl or crawlerd: with progress, and resumed where a kill -9 cut it off."""

import json
import signal
import time

import pytest

from rig.process import RigError, run, tail, wait_for

DAY = 86400
SYMBOLS = [f"B{i:02d}" for i in range(12)]
TABLE = "demo-project.market.bars_daily"


def date(days):
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * DAY))


@pytest.fixture
def crawling(machine):
    """A job that polls the last days of a dozen symbols, slowly enough to be caught in the act."""
    recipes = machine.dir / "recipes"
    recipes.mkdir()
    for recipe in machine.recipes.glob("*.json"):
        (recipes / recipe.name).write_text(recipe.read_text())
    slow = json.loads((machine.recipes / "yahoo-chart.json").read_text())
    slow.update(name="slow", politeness={"robots": "api", "delay": "300ms", "connections": 1}, terms={})
    (recipes / "slow.json").write_text(json.dumps(slow))
    for daemon in (machine.agentd, machine.crawlerd):
        daemon.env["MERVIS_RECIPES_DIR"] = str(recipes)
    machine.cloud.make_dataset("market")
    machine.cloud.admin("PUT", "market/generate", {"hosts": ["query1.finance.yahoo.com"], "now": int(time.time()),
                                                   "live": False})
    machine.put_plan(machine.make_plan(containers=[], secrets=[], crawl=machine.crawl(
        jobs=[{"name": "days", "recipe": "slow", "symbols": SYMBOLS, "interval": "1d", "every": "1h", "backfill": "9d"}],
        egress={"min_delay": "0s"})))
    machine.start_daemons()
    explained(machine, "the first round", lambda: job(machine)["state"] == "ok" and job(machine)["rows"] > 0)
    return machine


def crawler(machine):
    return machine.status().get("crawler") or {}


def job(machine):
    return (crawler(machine).get("jobs") or [{"state": None, "rows": 0}])[0]


def backfill(machine):
    return next(iter(crawler(machine).get("backfills") or []), None)


def explained(machine, what, question, timeout=60):
    try:
        return wait_for(what, question, timeout, 0.1)
    except RigError as err:
        raise RigError(f"{err}\n{json.dumps(crawler(machine))[:3000]}\n{tail(machine.crawlerd.log, 20)}") from None


def rows(machine, since):
    """(symbol, day) of what is in the table from SINCE on."""
    found = machine.cloud.admin("GET", f"ledger?only=tables&table={TABLE}")["tables"].get(TABLE, [])
    return [(row["symbol"], row["trade_date"]) for row in found if row["trade_date"] >= since and row["kind"] == "bar"]


def expected(machine, first, last):
    begin, end = (int(time.mktime(time.strptime(day, "%Y-%m-%d"))) for day in (first, last))
    return [(symbol, row["trade_date"]) for symbol in SYMBOLS for row in machine.cloud.admin(
        "GET", f"market/expected?symbol={symbol}&interval=1d&from={begin}&to={end}")["rows"] if row["kind"] == "bar"]


def test_a_backfill_shows_how_far_it_is_and_goes_on_after_a_kill(crawling):
    machine, first, last = crawling, date(120), date(20)
    done = machine.agentctl("crawl", "backfill", "days", "--from", first, "--to", last)
    assert done.returncode == 0 and f"fetches from {first} to {last}" in done.stdout, done.stdout + done.stderr

    seen = explained(machine, "half of it", lambda: (
        found := backfill(machine)) and found["symbols_done"] >= 4 and found)
    assert (seen["job"], seen["symbols"]) == ("days", len(SYMBOLS)) and seen["from"].startswith(first), seen
    shown = " ".join(machine.agentctl("crawl", "status").stdout.split())
    assert f"backfill days from {first}" in shown and f"of {len(SYMBOLS)} symbols" in shown, shown
    asked = job(machine)["requests"]
    machine.crawlerd.signal(signal.SIGKILL)
    machine.crawlerd.wait()

    machine.start(machine.crawlerd)
    seen = explained(machine, "the same back-fill", lambda: backfill(machine))
    assert seen["from"].startswith(first), seen
    explained(machine, "its end", lambda: backfill(machine) is None)
    assert job(machine)["requests"] < len(SYMBOLS) + 4, (asked, job(machine))  # those that were read are not asked again

    assert machine.agentctl("crawl", "flush").returncode == 0
    wanted = expected(machine, first, last)
    explained(machine, "all its rows", lambda: set(wanted) <= set(rows(machine, first)), 120)
    found = rows(machine, first)
    assert len(wanted) > 60 * len(SYMBOLS) and len(found) == len(set(found)), (len(wanted), len(found))


def test_a_backfill_says_what_is_wrong_with_it(crawling):
    machine = crawling
    for words, arguments in (("begins nowhere", ["days"]), ("but once", ["days", date(9), "--from", date(9)])):
        done = machine.agentctl("crawl", "backfill", *arguments)
        assert done.returncode == 64 and words in done.stderr and "--from TIME" in done.stderr, done.stderr
    for words, arguments in (("there is no crawl job", ["nights", "--from", date(9)]),
                             ("is no date", ["days", "--from", "yesterday"]),
                             ("--from must lie before --to", ["days", "--from", date(3), "--to", date(5)])):
        done = machine.agentctl("crawl", "backfill", *arguments)
        assert done.returncode == 1 and words in done.stderr, done.stderr
        done = run([machine.program("crawlerd"), "backfill", *arguments], check=False)
        assert done.returncode == 1 and words in done.stderr, done.stderr
    assert run([machine.program("crawlerd"), "backfill", "days"], check=False).returncode == 64
    done = run([machine.program("crawlerd"), "backfill", "--from", date(40), "--to", date(35), "days"])
    assert "fetches from" in done.stdout
    explained(machine, "its beginning", lambda: backfill(machine))
