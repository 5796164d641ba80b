# SPDX-License-Identifier: Apache-2.0
"""What `crawlerd --once` says when it cannot get through: why, what to do, and the verdict last.

Needs no machine of the rig:

    MERVIS_BUILD=BUILD-DIRECTORY python3 -m pytest --noconftest tests/integration/13_crawl_once_test.py
"""

import base64
import datetime
import gzip
import json
import os
import subprocess

import pytest

from crawling import ROOT, crawl  # noqa: F401

REMEDY = "(remedy: "


def once(crawl, plan=None, timeout="12s", metadata=None, state="state"):
    """The exit status and the lines of one run."""
    done = subprocess.run(
        [os.path.join(os.environ["MERVIS_BUILD"], "crawlerd"), "--once", "--plan", plan or crawl.plan(["T1"]),
         "--state-dir", crawl.directory / state, "--timeout", timeout],
        env={**os.environ, "GCE_METADATA_HOST": metadata or crawl.cloud.base.removeprefix("http://"),
             "MERVIS_RECIPES_DIR": str(crawl.directory / "recipes")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    print(done.stdout)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("match, why", [
    ({"service": "bigquery"}, "cold start: BigQuery: HTTP 503"),
    ({"service": "bigquery", "path": "^/upload/"}, "BigQuery: HTTP 503"),
    ({"service": "market"}, "job us: HTTP 503"),
])
def test_what_does_not_answer_is_named_after_ten_seconds_and_at_the_end(crawl, match, why):
    crawl.cloud.fault(match, {"status": 503})
    status, lines = once(crawl)
    assert status == 1
    early = [line for line in lines if line.startswith(why) and "time is up in" in line]
    assert len(early) == 1 and REMEDY in early[0]
    assert lines[-1].startswith(f"not everything was delivered: time is up: {why}") and REMEDY in lines[-1]


def test_a_refusal_ends_it_at_once_and_is_the_last_line(crawl):
    crawl.cloud.fault({"service": "bigquery"}, {"status": 403, "reason": "accessDenied", "message": "Access Denied"})
    status, lines = once(crawl)
    assert status == 1
    assert lines[-1].startswith("not everything was delivered: ") and "Access Denied" in lines[-1] and REMEDY in lines[-1]
    assert sum("Access Denied" in line for line in lines) == 1


def test_a_symbol_that_the_source_does_not_know_is_the_verdict(crawl):
    crawl.cloud.fault({"service": "market", "path": "/T2"}, {"status": 404})
    status, lines = once(crawl, crawl.plan(["T1", "T2"]), "60s")
    assert status == 1
    assert lines[-1].startswith("1 symbol could not be fetched, the last: job us: T2: HTTP 404") and REMEDY in lines[-1]
    assert "all rows are delivered" not in lines
    crawl.done = ["T1"]
    crawl.check()


def test_each_fault_of_a_plan_is_said_once_with_the_file_and_a_remedy(crawl):
    plan = crawl.directory / "bad.json"
    plan.write_text(json.dumps({"version": 1, "crawl": {"jobz": [], "jobs": [{"name": "x", "recipe": "no-such"}]}}))
    status, lines = once(crawl, plan)
    assert status == 1
    for fault in ("crawl.jobz: ", "crawl.jobs[0].symbols: ", "crawl.jobs[0].recipe: "):
        assert sum(fault in line for line in lines) == 1, fault
    assert str(plan) in lines[-1] and "crawl: crawl." not in lines[-1]
    assert f"{REMEDY}agentctl plan validate {plan}" in lines[-1]


@pytest.mark.parametrize("program", [["crawlerd", "--once", "--plan"], ["agentctl", "plan", "validate"]])
def test_a_plan_that_is_not_there_has_a_remedy(crawl, program):
    missing = crawl.directory / "missing.json"
    arguments = [os.path.join(os.environ["MERVIS_BUILD"], program[0]), *program[1:], missing]
    if program[0] == "crawlerd":
        arguments += ["--state-dir", crawl.state]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stdout.count(str(missing)) >= 1 and "No such file" in done.stdout
    assert "agentctl plan schema" in done.stdout


def test_a_metadata_server_that_is_away_is_said_once_and_so_is_its_return(crawl):
    crawl.cloud.fault({"service": "metadata"}, {"status": 503}, times=12)
    status, lines = once(crawl, timeout="100s")
    assert status == 0
    away = [line for line in lines if line.startswith("metadata server: ") and "time is up in" not in line]
    assert len(away) == 1 and REMEDY in away[0]
    assert lines.count("the metadata server answers: going on") == 1
    assert lines[-1] == "all rows are delivered"
    status, lines = once(crawl, metadata="127.0.0.1:9", timeout="25s", state="other")
    assert status == 1 and "time is up: metadata server" in lines[-1] and REMEDY in lines[-1]
    assert sum("asking again" in line for line in lines) == 1


def test_a_compressed_document_that_ends_early_is_no_wrong_price(crawl):
    recipe = json.loads((ROOT / "crawler/recipe/stooq-day.json").read_text())
    (crawl.directory / "recipes/stooq-day.json").write_text(json.dumps(recipe))
    day = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=7)).date().isoformat()
    text = f"Date,Open,High,Low,Close\n{day},180.11,190.22,170.33,185.64\n".encode()
    whole = gzip.compress(text, 0)  # stored: what is cut is what is missing, to the byte
    cut = whole[:whole.index(b"185.64") + 5]
    plan = json.loads(crawl.plan(["T1"]).read_text())
    plan["endpoints"]["stooq.com"] = f"{crawl.cloud.base}/market/stooq.com"
    plan["crawl"]["jobs"] = [{"name": "stooq", "recipe": "stooq-day", "symbols": ["TEST.US"], "interval": "1d",
                              "every": "1h", "backfill": "30d", "terms": "acknowledged"}]
    path = crawl.directory / "stooq.json"
    path.write_text(json.dumps(plan))

    def serve(body):
        crawl.cloud.ask("PUT", "/_admin/market/stooq.com/^/q/d/l/",
                        {"body_base64": base64.b64encode(body).decode(), "content_type": "text/csv",
                         "headers": {"Content-Encoding": "gzip"}})

    def rows():
        return crawl.cloud.ask("GET", "/_admin/ledger?only=tables&table=demo-project.market.bars_daily")[
            "tables"].get("demo-project.market.bars_daily", [])

    serve(cut)
    status, lines = once(crawl, path)
    assert status == 1 and rows() == []
    assert "the compressed body ends early" in lines[-1]
    serve(whole)
    status, lines = once(crawl, path, "60s", state="other")
    assert status == 0
    assert [(row["symbol"], row["close"]) for row in rows()] == [("TEST.US", "185.64")]
