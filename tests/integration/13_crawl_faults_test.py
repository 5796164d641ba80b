# SPDX-License-Identifier: Apache-2.0
"""What crawlerd does when BigQuery, a market host or its own disk fails, told from the ledger of the
doubles: how often it asked, under which job ids, and that each row is in the table once.

    MERVIS_BUILD=BUILD-DIRECTORY python3 -m pytest --noconftest tests/integration/13_crawl_faults_test.py
"""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from crawling import HOST, TABLE, crawl  # noqa: F401

UPLOAD = {"service": "bigquery", "path": "^/upload/"}


def job_ids(crawl):
    return [job["jobReference"]["jobId"] for job in crawl.cloud.jobs()
            if "load" in job["configuration"]]


def assert_first_attempts(crawl):
    ids = job_ids(crawl)
    assert ids and all(i.endswith("_1") for i in ids), ids
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("do", [
    {"status": 500}, {"status": 502, "html": True}, {"status": 503, "html": True},
    {"status": 403, "reason": "rateLimitExceeded", "message": "slow down"},
    {"status": 429, "reason": "rateLimitExceeded", "message": "slow down"},
    {"status": 400, "reason": "tableUnavailable", "message": "later"},
    {"status": 503, "after_effect": True}, {"lose_answer": True}, {"reset": True}, {"truncate": 30},
], ids=lambda do: "-".join(str(v) for v in do.values()))
def test_trouble_that_passes_is_repeated_gently_under_the_same_id(crawl, do):
    symbols = crawl.new_symbols(1)
    crawl.cloud.fault(UPLOAD, do, times=1)
    assert crawl.run(symbols)[0] == 0
    crawl.done = symbols
    crawl.check()
    assert_first_attempts(crawl)
    assert len(crawl.cloud.uploads()) <= 4, "hammered"


def test_a_job_that_failed_is_tried_under_the_next_id_and_not_before_it_was_seen(crawl):
    symbols = crawl.new_symbols(1)
    crawl.cloud.fault(UPLOAD, {"job_error": {"reason": "backendError", "message": "oops"}}, times=1)
    assert crawl.run(symbols)[0] == 0
    crawl.done = symbols
    crawl.check()
    ids = job_ids(crawl)
    assert sorted(i[-2:] for i in ids) == ["_1", "_2"], ids
    assert ids[0][:-2] == ids[1][:-2]


@pytest.mark.parametrize("do, words", [
    ({"status": 403, "reason": "quotaExceeded", "message": "too many imports"}, "quota exceeded"),
    ({"status": 403, "reason": "accessDenied", "message": "Access Denied: Table x"}, "roles/bigquery"),
    ({"status": 403, "reason": "billingNotEnabled", "message": "no billing"}, "no billing"),
    ({"status": 400, "reason": "invalid", "message": "bad job"}, "bad job"),
    ({"status": 501, "reason": "notImplemented", "message": "no"}, "refused"),
], ids=["quota", "denied", "billing", "invalid", "not-implemented"])
def test_what_needs_a_person_is_said_once_asked_once_and_loses_nothing(crawl, do, words):
    symbols = crawl.new_symbols(1)
    fault = crawl.cloud.fault(UPLOAD, do)
    status, said = crawl.run(symbols)
    assert status == 1 and words in said, said
    assert len(crawl.cloud.uploads()) == 1, "asked again without a pause"
    assert crawl.cloud.rows() == []
    crawl.cloud.ask("DELETE", f"/_admin/faults/{fault}")
    crawl.finish(symbols)
    crawl.check()
    assert_first_attempts(crawl)


def test_exists_already_then_not_found_then_found_is_the_same_job(crawl):
    symbols = crawl.new_symbols(1)
    crawl.cloud.ask("PUT", "/_admin/options", {"conflict_404": 3})
    # The answer is lost, and so is the lookup that follows: the second sending meets the first job.
    crawl.cloud.fault(UPLOAD, {"lose_answer": True}, times=1)
    crawl.cloud.fault({"service": "bigquery", "method": "GET", "path": "/jobs/mervis_"},
                      {"status": 404, "reason": "notFound", "message": "Not found: Job"}, times=1)
    assert crawl.run(symbols)[0] == 0
    crawl.done = symbols
    crawl.check()
    assert_first_attempts(crawl)
    assert [r["status"] for r in crawl.cloud.uploads()].count(409) == 1


@pytest.mark.parametrize("do, match", [
    ({"short_range": 300000}, {"method": "PUT"}),
    ({"lose_answer": True}, {"method": "PUT"}),
    ({"status": 503}, {"method": "PUT"}),
    ({"reset": True}, {"method": "POST"}),
    (None, None),
], ids=["short-range", "lost-answer", "503", "session-lost", "session-expired"])
def test_a_large_batch_is_resumed(crawl, do, match):
    crawl.sink = {"max_rows": 100000}
    symbols = crawl.new_symbols(24)
    if do:
        crawl.cloud.fault({"service": "bigquery", "path": "upload", **match}, do, times=1)
    else:
        crawl.cloud.ask("PUT", "/_admin/options", {"upload_seconds": 0.0})
        crawl.cloud.fault({"service": "bigquery", "path": "upload", "method": "PUT"}, {"status": 503},
                          times=1)
    process = crawl.start(symbols)
    if not do:
        time.sleep(5)
        crawl.cloud.ask("PUT", "/_admin/options", {"upload_seconds": 604800.0})
    assert process.wait(120) == 0, crawl.tail()
    crawl.done = symbols
    crawl.check()
    assert_first_attempts(crawl)


def test_a_missing_column_pauses_with_its_remedy_or_is_added(crawl):
    symbols = crawl.new_symbols(1)
    crawl.finish(symbols)
    token = crawl.cloud.token()
    tables = "/bigquery/v2/projects/demo-project/datasets/market/tables"
    table = crawl.cloud.ask("GET", f"{tables}/bars_intraday", token=token)
    fields = [f for f in table["schema"]["fields"] if f["name"] != "adj_close"]
    crawl.cloud.ask("POST", tables, {
        "tableReference": {"projectId": "demo-project", "datasetId": "market",
                           "tableId": "other_intraday"},
        "schema": {"fields": fields}}, token)
    crawl.sink = {"table": "other"}
    crawl.state = crawl.directory / "other"
    status, said = crawl.run(symbols)
    assert status == 1 and "ADD COLUMN `adj_close` NUMERIC" in said, said
    crawl.sink["schema"] = "extend"
    assert crawl.run(symbols)[0] == 0, crawl.tail()
    table = crawl.cloud.ask("GET", f"{tables}/other_intraday", token=token)
    assert "adj_close" in [f["name"] for f in table["schema"]["fields"]]


def older_writer(crawl):
    """Begins a load job as an older instance of the same jobs would."""
    load = next(job for job in crawl.cloud.jobs() if "load" in job["configuration"])
    job = json.dumps({"jobReference": {"projectId": "demo-project", "jobId": "other_writer",
                                       "location": "asia-northeast3"},
                      "configuration": {"load": load["configuration"]["load"], "labels": {
                          **load["configuration"]["labels"], "mervis_instance": "vm-older",
                          "mervis_started": "1"}}})
    crawl.cloud.post_raw(
        "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=multipart",
        (f"--b\r\nContent-Type: application/json\r\n\r\n{job}\r\n--b\r\n"
         "Content-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n").encode(),
        "multipart/related; boundary=b")


def test_another_writer_of_the_same_rows_is_seen_and_fetching_pauses(crawl):
    symbols = crawl.new_symbols(1)
    # A job that failed shows our labels, and leaves a batch to be sent when we start again.
    crawl.cloud.fault(UPLOAD, {"job_error": {"reason": "backendError", "message": "oops"}}, times=1)
    assert crawl.kill_at("attempt.before-commit", symbols)
    crawl.cloud.fault({"service": "metadata"}, {"delay": 3}, times=1)
    crawl.timeout = "8s"
    process = crawl.start(symbols)
    time.sleep(1.5)
    older_writer(crawl)
    process.wait(60)
    assert "instance vm-older began before us" in crawl.tail(), crawl.tail()


def test_another_writer_is_seen_although_there_is_nothing_to_send(crawl):
    symbols = crawl.new_symbols(2)
    crawl.finish(symbols)
    sent = len(crawl.cloud.uploads())
    crawl.cloud.fault({"service": "market"}, {"status": 500})
    crawl.cloud.fault({"service": "metadata"}, {"delay": 4}, times=1)
    process = crawl.daemon(symbols)
    time.sleep(1.5)
    older_writer(crawl)
    crawl.wait_for(lambda: "instance vm-older began before us" in crawl.log.read_text())
    assert "fetching pauses until it is gone" in crawl.tail()
    process.terminate()
    assert process.wait(20) == 0
    assert len(crawl.cloud.uploads()) == sent + 1, "the other's alone"


def test_a_spool_of_noise_is_kept_aside_and_the_table_still_has_each_row_once(crawl):
    symbols = crawl.new_symbols(2)
    crawl.finish(symbols[:1])
    with open(crawl.state / "spool.db", "r+b") as spool:
        spool.write(os.urandom(16384))
    status, said = crawl.run(symbols)
    assert status == 0 and "could not be read" in said and ".broken-" in said, said
    crawl.done = symbols
    crawl.check()


def test_a_market_host_that_says_when_is_not_asked_before_not_even_after_a_restart(crawl):
    symbols = crawl.new_symbols(2)
    crawl.cloud.fault({"service": "market"}, {"status": 429, "headers": {"Retry-After": "6"}},
                      times=1)
    process = crawl.start(symbols)
    deadline = time.monotonic() + 20
    while not any(r["service"] == "market" for r in crawl.cloud.requests()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.wait(10)
    crawl.finish(symbols)
    crawl.check()
    times = [r["time"] for r in crawl.cloud.requests() if r["service"] == "market"]
    assert times[1] - times[0] >= 6, times


def test_a_page_of_html_is_refused_kept_and_never_a_row(crawl):
    symbols = crawl.new_symbols(1)
    crawl.cloud.fault({"service": "market"}, {"status": 200, "html": True, "content_type":
                                              "text/html"}, times=1)
    status, said = crawl.run(symbols)
    assert "kept for `agentctl crawl replay`" in said, said
    assert status == 0, said  # asked again later in the round, and then it was well
    crawl.done = symbols
    crawl.check()
    assert TABLE in crawl.cloud.ask("GET", "/_admin/ledger/count")["tables"]


def fetched(crawl, n):
    return lambda: sum(r["service"] == "market" and r["status"] == 200
                       for r in crawl.cloud.requests()) >= n


def test_a_stop_delivers_what_is_spooled(crawl):
    crawl.sink = {"max_rows": 100000}  # nothing is due before the flush
    symbols = crawl.new_symbols(3)
    process = crawl.daemon(symbols)
    crawl.wait_for(fetched(crawl, 3))
    assert crawl.cloud.rows() == []
    process.terminate()
    assert process.wait(18) == 0
    crawl.done = symbols
    crawl.check()


def test_a_stop_does_not_wait_for_a_table_that_is_refused(crawl):
    crawl.cloud.fault(UPLOAD, {"status": 403, "reason": "quotaExceeded", "message": "imports"})
    symbols = crawl.new_symbols(1)
    process = crawl.daemon(symbols)
    crawl.wait_for(lambda: "quota exceeded" in crawl.log.read_text())
    process.terminate()
    assert process.wait(3) == 0
    crawl.cloud.calm()
    crawl.finish(symbols)
    crawl.check()


def test_a_document_that_is_taken_back_ends_fetching_and_what_is_spooled_goes(crawl):
    crawl.sink = {"max_rows": 100000}
    symbols = crawl.new_symbols(2)
    process = crawl.daemon(symbols)
    crawl.wait_for(fetched(crawl, 2))
    (crawl.directory / "run/crawl.json").unlink()
    process.send_signal(signal.SIGHUP)
    crawl.wait_for(lambda: len(crawl.cloud.rows()) > 0)
    process.terminate()
    assert process.wait(18) == 0
    crawl.done = symbols
    crawl.check()


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(crawl):
    recipe = crawl.directory / "recipes/yahoo-chart.json"
    port = crawl.cloud.base.rpartition(":")[2]
    text = recipe.read_text().replace("https://query1.finance.yahoo.com", f"http://localhost:{port}")
    recipe.write_text(text.replace("query1.finance.yahoo.com", "localhost"))
    crawl.timeout = "20s"
    status, said = crawl.run(crawl.new_symbols(1))
    assert status == 1, said
    assert not [r for r in crawl.cloud.requests() if r["path"].startswith("/v8/")], "connected to"


@pytest.mark.full  # two connects that time out take 20 s
def test_market_hosts_out_of_reach_while_google_answers_is_named(crawl):
    # A listener whose queue is full drops SYNs, as Cloud NAT does without a free port.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        crawl.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        crawl.timeout = "40s"
        status, said = crawl.run(crawl.new_symbols(1))
        for filler in fillers:
            filler.close()
    assert status == 1 and "Cloud NAT has no port left" in said, said


def wakes(pid):
    """How often the process went to sleep."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))


def test_waiting_for_an_answer_costs_nothing(crawl):  # noqa: F811
    """The last symbol of a round is asked for, its host might be asked more, and there is nothing left to ask for."""
    recipe = crawl.directory / "recipes" / "yahoo-chart.json"
    recipe.write_text(recipe.read_text().replace('"connections": 1', '"connections": 4'))
    crawl.egress = {"connections_per_host": 4}
    crawl.cloud.fault({"service": "market"}, {"delay": 6}, times=1)
    process = crawl.daemon(crawl.new_symbols(1))
    crawl.wait_for(lambda: "going on without D-Bus" in crawl.log.read_text(errors="replace"))
    time.sleep(1)
    before = wakes(process.pid)
    time.sleep(3)
    woken = wakes(process.pid) - before
    process.terminate()
    process.wait(30)
    assert woken < 100
