# SPDX-License-Identifier: Apache-2.0
import gzip
import socket
import time

import pytest

from localcloud.bq_types import Row, float_seconds, normalise_schema
from localcloud.testing import LOCATION, PROJECT, SCHEMA, Table, lines, row


@pytest.fixture
def table(cloud):
    return Table(cloud)


# -- load jobs


def test_a_load_reports_strings_and_writes_every_row(table):
    job = table.load([row(1), row(2, close=None)])
    assert job["statistics"]["load"]["outputRows"] == "2"
    assert job["statistics"]["load"]["badRecords"] == "0"
    assert table.rows()[0] == {
        "source": "y", "symbol": "S1", "ts": "2026-10-07T06:01:00Z", "trade_date": "2026-10-07",
        "close": "1.5", "volume": "1", "is_final": True, "revision": 0}
    assert table.rows()[1]["close"] is None


def test_a_load_with_one_bad_row_writes_nothing(table):
    job = table.load([row(1), row(2, close="5233.56298828125")])
    assert job["status"]["errorResult"]["reason"] == "invalid"
    assert "Invalid NUMERIC value: 5233.56298828125" in job["status"]["errors"][1]["message"]
    assert table.rows() == []
    job = table.load([row(1), row(2, close="5233.56298828125")], maxBadRecords=1)
    assert "errorResult" not in job["status"] and len(job["status"]["errors"]) == 1
    assert len(table.rows()) == 1


@pytest.mark.parametrize("change, message", [
    ({"nonsense": 1}, "No such field: nonsense"), ({"source": None}, "Missing required field"),
    ({"trade_date": "2026-02-30"}, "Invalid date"), ({"trade_date": "20260230"}, "Invalid date"),
    ({"ts": "yesterday"}, "Could not parse"), ({"ts": 1791350400000}, "out of the range"),
    ({"ts": "2026-10-07T06:00:00.1234567Z"}, "Could not parse"),
    ({"revision": 1.5}, "Could not convert value to integer"),
    ({"revision": str(1 << 63)}, "out of range"), ({"is_final": "maybe"}, "to boolean"),
    ({"close": "1e400"}, "Invalid NUMERIC"), ({"close": "NaN"}, "Invalid NUMERIC"),
    ({"close": 5233.56298828125}, "Invalid NUMERIC"), ({"symbol": ["a"]}, "Array specified")])
def test_values_are_checked_against_their_columns(table, change, message):
    job = table.load([row(1, **change)])
    assert message in job["status"]["errors"][1]["message"]


@pytest.mark.parametrize("data", [b"{\"source\": \n", b"[]\n", b"\xff\xfe\n",
                                  b'{"source":"a","source":"b","symbol":"c","ts":1}\n'])
def test_what_is_no_json_row_is_refused(table, data):
    job = table.done(table.multipart(data))
    assert job["status"]["errorResult"]["reason"] == "invalid"


def test_exact_values_are_kept():
    check = Row(normalise_schema(SCHEMA)).check
    kept = check({"SOURCE": "a", "symbol": "삼성", "ts": "2026-10-07T15:30:00.123456+09:00",
                  "close": "-0012.340", "volume": "1" + "0" * 37 + "." + "1" * 38,
                  "is_final": "TRUE", "revision": "9007199254740993"})
    assert kept[2] == 1791354600123456 and kept[4] == "-12.34"
    assert kept[5].endswith("1" * 38) and kept[6] == 1 and kept[7] == 9007199254740993
    assert check({"source": "a", "symbol": "b", "ts": 1791354600})[2] == 1791354600000000


def test_csv_and_gzip_are_loaded(table):
    text = b"y,A,2026-10-07 06:00:00 UTC,2026-10-07,1.25,7,true,0\n"
    csv = {"sourceFormat": "CSV", "skipLeadingRows": 1}
    job = table.done(table.multipart(gzip.compress(b"head\n" + text), table.job(**csv)))
    assert job["statistics"]["load"]["outputRows"] == "1"
    job = table.done(table.multipart(b"h\n" + text + b"y,A\n", table.job(**csv)))
    assert "contains only 2 columns" in job["status"]["errors"][1]["message"]
    assert "errorResult" not in table.done(
        table.multipart(gzip.compress(lines([row(1)]))))["status"]
    assert [r["close"] for r in table.rows()] == ["1.25", "1.5"]


def test_a_job_id_is_refused_twice_even_after_a_kill(own):
    table = Table(own)
    job = table.job("mervis_bars_1_0")
    table.done(table.multipart(lines([row(1)]), job))
    own.kill()
    own.start()
    again = table.multipart(lines([row(1)]), job)
    assert (again.status, again.reason) == (409, "duplicate")
    assert again.message == f"Already Exists: Job {PROJECT}:{LOCATION}.mervis_bars_1_0"
    assert len(table.rows()) == 1


def test_a_job_survives_a_kill_and_is_finished_once(own):
    table = Table(own)
    own.options(job_running=0.4)
    answer = table.multipart(lines([row(n) for n in range(500)]))
    own.kill()
    own.start()
    assert table.done(answer)["statistics"]["load"]["outputRows"] == "500"
    assert len(table.rows()) == 500


def test_jobs_are_pending_then_running_then_done(table):
    table.cloud.options(job_pending=0.2, job_running=0.2)
    answer = table.multipart(lines([row(1)]))
    name, states = answer.json["jobReference"]["jobId"], []
    while not states or states[-1] != "DONE":
        state = table.cloud.api("GET", f"jobs/{name}?location={LOCATION}").json["status"]["state"]
        if state not in states:
            states.append(state)
        time.sleep(0.02)
    assert states == ["PENDING", "RUNNING", "DONE"]


def test_a_job_can_be_ordered_to_fail_when_done(table):
    table.cloud.fault({"job_error": {"reason": "jobBackendError", "message": "sorry"}}, times=1,
                      service="bigquery", path="uploadType")
    job = table.load([row(1)])
    assert job["status"]["errorResult"] == {"reason": "jobBackendError", "message": "sorry"}
    assert table.rows() == []


def test_a_job_is_not_found_for_a_while_after_its_409(table):
    table.cloud.options(conflict_404=0.4)
    job = table.job()
    table.done(table.multipart(lines([row(1)]), job))
    assert table.multipart(lines([row(1)]), job).status == 409
    path = f"jobs/{job['jobReference']['jobId']}?location={LOCATION}"
    assert table.cloud.api("GET", path).status == 404
    time.sleep(0.45)
    assert table.cloud.api("GET", path).status == 200


def test_locations_must_agree_and_a_regional_job_is_asked_for_by_its_own(table):
    job = table.job()
    job["jobReference"]["location"] = "US"
    assert table.multipart(lines([row(1)]), job).status == 404
    name = table.load([row(1)])["jobReference"]["jobId"]
    assert table.cloud.api("GET", f"jobs/{name}").status == 404


def test_jobs_are_listed_by_state_newest_first_with_labels_and_pages(table):
    since = int(time.time() * 1000)
    for n in range(3):
        table.done(table.multipart(lines([row(n)]), table.job(labels={"instance": f"vm-{n}"})))
    table.cloud.options(job_running=1)
    table.multipart(lines([row(9)]), table.job(labels={"instance": "vm-9"}))
    path = f"jobs?minCreationTime={since}"
    listed = table.cloud.api("GET", path + "&projection=full&stateFilter=done&maxResults=2").json
    assert [j["configuration"]["labels"]["instance"] for j in listed["jobs"]] == ["vm-2", "vm-1"]
    rest = table.cloud.api("GET", path + "&stateFilter=done&maxResults=2"
                           f"&pageToken={listed['nextPageToken']}").json
    assert len(rest["jobs"]) == 1 and "configuration" not in rest["jobs"][0]
    open_ = table.cloud.api("GET", path + "&stateFilter=pending&stateFilter=running").json
    assert len(open_["jobs"]) == 1
    bad = table.multipart(b"", table.job(labels={"Instance": "x"}))
    assert (bad.status, bad.reason) == (400, "invalid")


def test_quotas_are_counted_by_table_name(cloud):
    table = Table(cloud, timePartitioning={"type": "DAY", "field": "trade_date"})
    cloud.options(quota_table_modifications=2)
    table.load([row(1), row(2, trade_date="2026-10-08")])
    assert "errorResult" in table.load([row(1, nonsense=1)])["status"]  # failed ones count
    refused = table.multipart(lines([row(3)]))
    assert (refused.status, refused.reason) == (403, "quotaExceeded")
    assert refused.json["error"]["errors"][0]["location"] == "load_job_per_table.long"
    cloud.options(quota_in_job=True)
    assert table.load([row(3)])["status"]["errorResult"]["reason"] == "quotaExceeded"
    cloud.options(quota_table_modifications=1500, quota_partition_modifications=2)
    error = table.load([row(3)])["status"]["errorResult"]
    assert error["location"].startswith("partition_modifications")
    counted = cloud.admin("GET", "ledger/count")["tables"][table.key]
    assert counted["partition_modifications_today"] == 2 and counted["rows"] == 2


def test_too_many_loads_in_ten_seconds_are_refused(cloud):
    table = Table(cloud, timePartitioning={"type": "DAY", "field": "trade_date"})
    cloud.options(quota_partition_operations_10s=2)
    reasons = [table.load([row(n)])["status"].get("errorResult", {}).get("reason")
               for n in range(3)]
    assert reasons == [None, None, "jobRateLimitExceeded"]


def test_a_partition_is_replaced_as_a_whole(cloud):
    table = Table(cloud, timePartitioning={"type": "DAY", "field": "trade_date"})
    table.load([row(1), row(2, trade_date="2026-10-08")])
    job = table.job(writeDisposition="WRITE_TRUNCATE")
    job["configuration"]["load"]["destinationTable"]["tableId"] = "bars$20261007"
    table.done(table.multipart(lines([row(5), row(6)]), job))
    assert sorted(r["close"] for r in table.rows()) == ["2.5", "5.5", "6.5"]
    job["jobReference"]["jobId"] += "x"
    wrong = table.done(table.multipart(lines([row(5, trade_date="2026-10-09")]), job))
    assert "errorResult" in wrong["status"]


def test_missing_tables_and_unknown_options_are_refused(table):
    job = table.job()
    job["configuration"]["load"]["destinationTable"]["tableId"] = "nothing"
    assert table.done(table.multipart(b"", job))["status"]["errorResult"]["reason"] == "notFound"
    job["configuration"]["load"]["destinationTable"]["datasetId"] = "nothing"
    assert table.multipart(b"", job).status == 404
    assert table.multipart(b"", table.job(projectionFields=["x"])).status == 400
    assert table.multipart(b"", table.job(sourceFormat="PARQUET")).status == 400


# -- resumable uploads


def upload_rows(count=4000):
    data = lines([row(n, symbol=f"S{n}") for n in range(count)])
    assert len(data) > 2 * 262144
    return data


def test_chunks_are_multiples_of_256_kib_and_kept(table):
    data = upload_rows()
    url = table.begin(size=len(data)).headers["Location"]
    odd = table.put(url, data[:1000], f"bytes 0-999/{len(data)}")
    assert odd.status == 400 and "262144" in odd.message
    first = table.put(url, data[:262144], f"bytes 0-262143/{len(data)}")
    assert (first.status, first.headers["Range"]) == (308, "bytes=0-262143")
    gap = table.put(url, data[524288:], f"bytes 524288-{len(data) - 1}/{len(data)}")
    assert gap.status == 400 and "exceeds already uploaded size" in gap.message
    asked = table.put(url, b"", f"bytes */{len(data)}")
    assert (asked.status, asked.headers["Range"]) == (308, "bytes=0-262143")
    last = table.put(url, data[262144:], f"bytes 262144-{len(data) - 1}/{len(data)}")
    assert table.done(last)["statistics"]["load"]["outputRows"] == "4000"


def test_less_may_be_kept_than_was_sent(table):
    data = upload_rows()
    url = table.begin().headers["Location"]
    table.cloud.fault({"short_range": 0}, times=1, service="bigquery", method="PUT")
    nothing = table.put(url, data[:262144], f"bytes 0-262143/{len(data)}")
    assert nothing.status == 308 and "Range" not in nothing.headers
    table.cloud.fault({"short_range": 262144}, times=1, service="bigquery", method="PUT")
    short = table.put(url, data, f"bytes 0-{len(data) - 1}/{len(data)}")
    assert (short.status, short.headers["Range"]) == (308, "bytes=0-262143")
    rest = table.put(url, data[262144:], f"bytes 262144-{len(data) - 1}/{len(data)}")
    table.done(rest)
    assert len(table.rows()) == 4000


def test_a_broken_connection_keeps_whole_256_kib(table):
    data = upload_rows()
    url = table.begin().headers["Location"]
    head = (f"PUT {url.removeprefix(table.cloud.base)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Length: {len(data)}\r\nContent-Range: bytes 0-{len(data) - 1}/{len(data)}"
            "\r\n\r\n").encode()
    with socket.create_connection(("127.0.0.1", table.cloud.port), 5) as sock:
        sock.sendall(head + data[:300000])
    for _ in range(50):
        asked = table.put(url, b"", f"bytes */{len(data)}")
        if "Range" in asked.headers:
            break
        time.sleep(0.05)
    assert asked.headers["Range"] == "bytes=0-262143"


def test_a_lost_last_answer_is_found_by_asking(table):
    data = lines([row(1), row(2)])
    url = table.begin().headers["Location"]
    table.cloud.fault({"lose_answer": True}, times=1, service="bigquery", method="PUT")
    with pytest.raises(OSError):
        table.put(url, data, f"bytes 0-{len(data) - 1}/{len(data)}")
    table.done(table.put(url, b"", f"bytes */{len(data)}"))
    assert len(table.rows()) == 2


def test_a_session_ends_with_404_or_410(table):
    url = table.begin().headers["Location"]
    table.cloud.options(upload_seconds=0.0)
    for code in (404, 410):
        table.cloud.options(upload_gone=code)
        assert table.put(url, b"x", "bytes 0-0/1").status == code
    table.cloud.options(upload_seconds=60.0)
    assert table.put(url.replace("upload_id=", "upload_id=x"), b"x", "bytes 0-0/1").status == 410


def test_a_duplicate_is_told_at_the_end_or_at_the_beginning(table):
    job = table.job()
    table.done(table.multipart(lines([row(1)]), job))
    url = table.begin(job).headers["Location"]
    assert table.put(url, b"{}", "bytes 0-1/2").status == 409
    assert table.put(url, b"", "bytes */2").status == 409
    table.cloud.options(early_duplicate=True)
    assert table.begin(job).status == 409


def test_sessions_survive_a_kill(own):
    table, data = Table(own), upload_rows()
    url = table.begin().headers["Location"]
    table.put(url, data[:262144], f"bytes 0-262143/{len(data)}")
    own.kill()
    old = own.port
    own.start()
    url = url.replace(str(old), str(own.port))
    assert table.put(url, b"", "bytes */*").headers["Range"] == "bytes=0-262143"
    last = table.put(url, data[262144:], f"bytes 262144-{len(data) - 1}/{len(data)}")
    table.done(last)
    assert len(table.rows()) == 4000


def test_100000_rows_load_in_three_seconds(table):
    data = lines([row(n) for n in range(1000)]) * 100
    begun = time.monotonic()
    job = table.done(table.multipart(data), 20)
    assert job["statistics"]["load"]["outputRows"] == "100000"
    assert time.monotonic() - begun < 9  # 1.6 s alone; the machine may be busy


# -- insertAll


def test_a_refused_row_stops_its_neighbours(table):
    answer = table.insert([{"json": row(1)}, {"json": row(2, close="1.0123456789")},
                           {"json": row(3)}])
    assert answer.status == 200
    errors = answer.json["insertErrors"]
    assert [e["index"] for e in errors] != [0, 1, 2]
    reasons = {e["index"]: e["errors"][0] for e in errors}
    assert reasons[1]["reason"] == "invalid" and reasons[1]["location"] == "close"
    assert reasons[0] == {"reason": "stopped", "location": "", "debugInfo": "", "message": ""}
    assert table.rows() == []


def test_invalid_rows_may_be_skipped_but_schema_mismatches_take_all_down(table):
    rows = [{"json": row(1)}, {"json": row(2, close="x")}]
    assert [e["index"] for e in table.insert(rows, skipInvalidRows=True).json["insertErrors"]] == [1]
    assert len(table.rows()) == 1
    rows[1]["json"] = row(2, nonsense=1)
    refused = table.insert(rows, skipInvalidRows=True).json["insertErrors"]
    assert {e["index"] for e in refused} == {0, 1} and len(table.rows()) == 1
    assert "insertErrors" not in table.insert(rows, ignoreUnknownValues=True).json


def test_an_insert_id_is_remembered_for_a_while_only(table):
    table.cloud.options(insert_id_seconds=0.4)
    for _ in range(2):
        table.insert([{"insertId": "a", "json": row(1)}])
    assert len(table.rows()) == 1
    time.sleep(0.45)
    table.insert([{"insertId": "a", "json": row(1)}])
    assert len(table.rows()) == 2


def test_insert_all_has_limits(table):
    table.cloud.options(insert_max_rows=2, insert_max_bytes=2000)
    assert "too many rows present" in table.insert([{"json": row(n)} for n in range(3)]).message
    big = [{"json": row(1, symbol="x" * 2000)}]
    assert table.insert(big).reason == "badRequest"
    table.cloud.options(insert_empty_400=True)
    answer = table.insert(big)
    assert (answer.status, answer.body) == (400, b"")
    assert table.insert([]).reason == "invalid"
    table.cloud.options(sandbox=True)
    assert "free tier" in table.insert([{"json": row(1)}]).message


def test_a_new_table_and_a_new_column_take_a_while(cloud):
    cloud.options(table_lag=0.3, column_lag=0.3)
    table = Table(cloud)
    assert table.insert([{"json": row(1)}]).status == 404
    time.sleep(0.35)
    assert "insertErrors" not in table.insert([{"json": row(1)}]).json
    cloud.api("PATCH", table.path,
              {"schema": {"fields": SCHEMA + [{"name": "note", "type": "STRING"}]}})
    errors = table.insert([{"json": row(1, note="n")}]).json["insertErrors"]
    assert errors[0]["errors"][0]["message"] == "no such field: note."
    time.sleep(0.35)
    assert "insertErrors" not in table.insert([{"json": row(1, note="n")}]).json


def test_streamed_rows_show_in_the_buffer(table):
    table.insert([{"json": row(1)}])
    found = table.cloud.api("GET", table.path).json
    assert found["streamingBuffer"]["estimatedRows"] == "1" and found["numRows"] == "1"


# -- tables and access


def test_schemas_grow_by_nullable_columns_and_relax_only(table):
    def patch(fields):
        return table.cloud.api("PATCH", table.path, {"schema": {"fields": fields}})
    more = SCHEMA + [{"name": "note", "type": "STRING"}]
    assert patch(more).json["schema"]["fields"][-1]["name"] == "note"
    assert "missing in new schema" in patch(SCHEMA).message
    assert "Cannot add required" in patch(
        more + [{"name": "n2", "type": "STRING", "mode": "REQUIRED"}]).message
    assert "has changed type" in patch([{**more[0], "type": "INT64"}] + more[1:]).message
    assert patch([{**more[0], "mode": "NULLABLE"}] + more[1:]).status == 200


def test_partitioning_and_clustering_are_checked_and_echoed(cloud):
    made = {"timePartitioning": {"type": "MONTH", "field": "trade_date"},
            "clustering": {"fields": ["symbol", "source"]}, "requirePartitionFilter": True}
    table = Table(cloud, **made)
    found = cloud.api("GET", table.path).json
    assert {k: found[k] for k in made} == made
    again = cloud.api("POST", table.path.rpartition("/")[0],
                      {"tableReference": {"tableId": "bars"}})
    assert (again.status, again.reason) == (409, "duplicate")
    wrong = cloud.api("POST", table.path.rpartition("/")[0], {
        "tableReference": {"tableId": "x"}, "schema": {"fields": SCHEMA},
        "timePartitioning": {"type": "DAY", "field": "symbol"}})
    assert wrong.reason == "invalid"


def test_scope_iam_api_and_project_are_told_apart(table):
    cloud = table.cloud
    cloud.admin("PUT", "scopes", "https://www.googleapis.com/auth/devstorage.read_only")
    narrow = cloud.api("POST", "queries", {})
    assert narrow.reason == "insufficientPermissions"
    cloud.admin("PUT", "scopes", "https://www.googleapis.com/auth/bigquery.insertdata")
    assert "insertErrors" not in table.insert([{"json": row(1)}]).json
    assert cloud.api("GET", "jobs").status == 403
    cloud.admin("PUT", "scopes", "https://www.googleapis.com/auth/bigquery")
    cloud.admin("PUT", "iam", {"deny": ["bigquery.jobs.create"]})
    denied = table.query("SELECT 1")
    assert denied.reason == "accessDenied" and "bigquery.jobs.create permission" in denied.message
    cloud.admin("PUT", "iam", {"deny": ["bigquery.tables.updateData"]})
    assert "Permission bigquery.tables.updateData denied" in table.insert([{"json": row(1)}]).message
    asked = cloud.api("POST", f"{table.path}:testIamPermissions",
                      {"permissions": ["bigquery.tables.updateData", "bigquery.tables.get"]})
    assert asked.json == {"permissions": ["bigquery.tables.get"]}
    cloud.admin("PUT", "apis", {"disabled": ["bigquery.googleapis.com"]})
    assert cloud.api("GET", "jobs").reason == "accessNotConfigured"
    cloud.admin("PUT", "apis", {"disabled": []})
    assert cloud.api("GET", "/bigquery/v2/projects/elsewhere/datasets").reason == "notFound"


def test_bigquery_answers_at_the_root_and_under_resumable_upload(table):
    assert table.cloud.api("GET", f"/projects/{PROJECT}/datasets").status == 200
    begun = table.cloud.api("POST", f"/resumable/upload/bigquery/v2/projects/{PROJECT}/jobs"
                            "?uploadType=resumable", table.job())
    assert begun.status == 200 and "/resumable/upload/" in begun.headers["Location"]


def test_float_seconds_look_like_the_real_ones():
    assert float_seconds(1759646400000000) == "1.7596464E9"
    assert float_seconds(1500000) == "1.5E0"
    assert float_seconds(-1000000) == "-1.0E0"
