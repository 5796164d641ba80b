# SPDX-License-Identifier: Apache-2.0
import pytest

from localcloud.testing import Table, row


@pytest.fixture
def table(cloud):
    one = Table(cloud, timePartitioning={"type": "DAY", "field": "trade_date"},
                requirePartitionFilter=True)
    one.load([row(n, trade_date=f"2026-10-{n:02d}", ts=f"2026-10-{n:02d}T00:00:00Z",
                  close=c) for n, c in ((1, "9"), (2, "10"), (3, "9.75"), (8, None))])
    return one


def values(answer):
    assert answer.status == 200, answer.body
    return [[cell["v"] for cell in r["f"]] for r in answer.json.get("rows", [])]


INT64 = {"formatOptions": {"useInt64Timestamp": True}}


def date(value, name="since"):
    return {"parameterMode": "NAMED", "queryParameters": [
        {"name": name, "parameterType": {"type": "DATE"}, "parameterValue": {"value": value}}]}


def test_the_cursor_query_lists_what_is_present(table):
    answer = table.query("SELECT symbol, ts FROM BARS WHERE trade_date >= @since ORDER BY ts",
                         **date("2026-10-03"), **INT64)
    assert values(answer) == [["S3", "1790985600000000"], ["S1", "1791417600000000"]]
    assert answer.json["totalRows"] == "2" and answer.json["jobComplete"] is True
    assert [f["type"] for f in answer.json["schema"]["fields"]] == ["STRING", "TIMESTAMP"]


def test_numbers_compare_as_numbers(table):
    answer = table.query("SELECT MAX(close), MIN(close), SUM(close), COUNT(close), COUNT(*) "
                         "FROM BARS WHERE trade_date > '2026-01-01' AND close < 10.5")
    assert values(answer) == [["10", "9", "28.75", "3", "3"]]
    answer = table.query("SELECT close FROM BARS WHERE trade_date > '2026-01-01' AND close > 9 "
                         "ORDER BY close DESC")
    assert values(answer) == [["10"], ["9.75"]]


def test_timestamps_come_as_float_seconds_unless_asked_otherwise(table):
    sql = "SELECT MAX(ts) AS newest FROM BARS WHERE trade_date > '2026-01-01'"
    assert values(table.query(sql)) == [["1.7914176E9"]]
    assert values(table.query(sql, **INT64)) == [["1791417600000000"]]


@pytest.mark.parametrize("condition, count", [
    ("symbol IN ('S1', 'S2')", "3"), ("symbol NOT IN ('S1')", "2"), ("close IS NULL", "1"),
    ("ts BETWEEN TIMESTAMP '2026-10-02' AND '2026-10-03'", "2"), ("symbol LIKE 'S%'", "4"),
    ("ts >= TIMESTAMP_SUB(TIMESTAMP '2026-10-03', INTERVAL 1 DAY)", "3"),
    ("DATE(ts, 'Asia/Seoul') = DATE '2026-10-03'", "1"), ("NOT is_final", "0"),
    ("trade_date = DATE_ADD(DATE '2026-09-30', INTERVAL 2 DAY)", "1"),
    ("UNIX_SECONDS(ts) > 1790985600", "1"), ("(symbol = 'S1' OR symbol = 'S3')", "3"),
    ("CAST(revision AS STRING) || symbol = '0S2'", "1")])
def test_conditions(table, condition, count):
    answer = table.query(f"SELECT COUNT(*) FROM BARS WHERE trade_date > '2026-01-01' AND {condition}")
    assert values(answer) == [[count]]


def test_groups_arrays_and_qualify(table):
    symbols = {"name": "s", "parameterType": {"type": "ARRAY", "arrayType": {"type": "STRING"}},
               "parameterValue": {"arrayValues": [{"value": "S1"}, {"value": "S2"}]}}
    answer = table.query(
        "SELECT symbol, COUNT(*) n FROM BARS WHERE trade_date > '2026-01-01' AND symbol IN "
        "UNNEST(@s) GROUP BY symbol HAVING n > 1 ORDER BY 1",
        parameterMode="NAMED", queryParameters=[symbols])
    assert values(answer) == [["S1", "2"]]
    answer = table.query(
        "SELECT symbol, close FROM BARS WHERE trade_date > '2026-01-01' QUALIFY ROW_NUMBER() OVER "
        "(PARTITION BY symbol ORDER BY ts) = 1 ORDER BY symbol")
    assert values(answer) == [["S1", "9"], ["S2", "10"], ["S3", "9.75"]]


def test_a_partition_filter_is_required(table):
    refused = table.query("SELECT MAX(ts) FROM BARS")
    assert refused.reason == "invalidQuery" and "'trade_date'" in refused.message
    assert table.query("SELECT MAX(ts) FROM (SELECT * FROM BARS) WHERE trade_date > '2026-01-01'"
                       ).status == 200


def test_a_view_passes_a_filter_only_where_its_window_is_partitioned_by_it(table):
    path = table.path.rpartition("/")[0]
    for name, columns in (("good", "symbol, trade_date"), ("bad", "symbol")):
        made = table.cloud.api("POST", path, {"tableReference": {"tableId": name}, "view": {
            "useLegacySql": False, "query": f"SELECT * FROM `{table.key}` WHERE TRUE QUALIFY "
            f"ROW_NUMBER() OVER (PARTITION BY {columns} ORDER BY revision DESC) = 1"}})
        assert made.status == 200, made.body
    sql = f"SELECT COUNT(*) FROM {table.dataset}.%s WHERE trade_date > '2026-01-01'"
    assert values(table.query(sql % "good")) == [["4"]]
    assert table.query(sql % "bad").reason == "invalidQuery"


def test_dry_runs_and_limits_on_bytes(table):
    sql = "SELECT * FROM BARS WHERE trade_date > '2026-01-01'"
    dry = table.query(sql, dryRun=True).json
    assert "rows" not in dry and int(dry["totalBytesProcessed"]) > 0
    part = table.query("SELECT * FROM BARS WHERE trade_date = '2026-10-01'", dryRun=True).json
    assert 0 < int(part["totalBytesProcessed"]) < int(dry["totalBytesProcessed"])
    assert table.query(sql, maximumBytesBilled="1000").reason == "bytesBilledLimitExceeded"
    assert table.query(sql, maximumBytesBilled="10485760").status == 200


@pytest.mark.parametrize("sql, message", [
    ("SELECT nothing FROM BARS WHERE trade_date > '2026-01-01'", "Unrecognized name: nothing"),
    ("SELECT 1 +", "got end of query"),
    ("SELECT interval FROM BARS", ""), ("DELETE FROM BARS", "Expected keyword SELECT"),
    ("SELECT COUNT(*) FROM BARS WHERE trade_date > 5", "No matching signature"),
    ("SELECT x FROM nothing.at_all", "Not found: Dataset"), ("SELECT @p", "parameter 'p' not found"),
    ("SELECT ST_AREA(1)", "Function not found")])
def test_wrong_queries_are_refused(table, sql, message):
    answer = table.query(sql)
    assert answer.status in (400, 404) and message in answer.message


def test_legacy_sql_is_the_default_and_refused(table):
    answer = table.cloud.api("POST", "queries", {"query": "SELECT 1"})
    assert answer.reason == "invalidQuery" and "useLegacySql" in answer.message


def test_a_slow_query_is_completed_later_and_its_pages_follow(table):
    table.cloud.options(query_seconds=0.3)
    first = table.query("SELECT ts FROM BARS WHERE trade_date > '2026-01-01'", timeoutMs=10)
    assert first.json["jobComplete"] is False
    reference = first.json["jobReference"]
    path = f"queries/{reference['jobId']}?location={reference['location']}&maxResults=3"
    page = table.cloud.api("GET", path).json
    assert len(page["rows"]) == 3 and page["totalRows"] == "4"
    rest = table.cloud.api("GET", f"{path}&pageToken={page['pageToken']}").json
    assert len(rest["rows"]) == 1 and "pageToken" not in rest


def test_a_request_id_makes_a_query_once(table):
    ids = {table.query("SELECT 1", requestId="abc").json["jobReference"]["jobId"]
           for _ in range(2)}
    assert len(ids) == 1


def test_the_queries_of_crawlerd_are_understood(table):
    cloud, path = table.cloud, table.path.rpartition("/")[0]
    found = cloud.api("GET", table.path).json
    for name in ("x_intraday", "x_daily"):
        cloud.api("POST", path, {"tableReference": {"tableId": name}, "schema": found["schema"],
                                 "timePartitioning": found["timePartitioning"]})
        cloud.api("POST", f"{path}/{name}/insertAll", {"rows": [
            {"json": row(1, symbol=name, revision=n, close=str(n), is_final=n == 1)}
            for n in (0, 1)]})
    view = (f"SELECT * FROM (SELECT * FROM `demo-project.{table.dataset}.x_intraday` UNION ALL "
            f"SELECT * FROM `demo-project.{table.dataset}.x_daily`) QUALIFY ROW_NUMBER() OVER "
            "(PARTITION BY source, symbol, ts ORDER BY revision DESC, close DESC) = 1")
    made = cloud.api("POST", path, {"tableReference": {"tableId": "x_latest"},
                                    "view": {"query": view, "useLegacySql": False}})
    assert made.status == 200, made.body
    answer = table.query(f"SELECT symbol, close FROM {table.dataset}.x_latest ORDER BY symbol")
    assert values(answer) == [["x_daily", "1"], ["x_intraday", "1"]]
    sources = {"name": "sources", "parameterType": {"type": "ARRAY",
                                                    "arrayType": {"type": "STRING"}},
               "parameterValue": {"arrayValues": [{"value": "y"}]}}
    since = {"name": "since", "parameterType": {"type": "TIMESTAMP"},
             "parameterValue": {"value": "2026-10-07T00:00:00Z"}}
    answer = table.query(
        "SELECT source, symbol, ts, MAX(revision) AS revision, LOGICAL_OR(is_final) AS is_final "
        f"FROM {table.dataset}.x_daily WHERE trade_date >= @date AND ts >= @since AND source IN UNNEST(@sources) GROUP BY source, "
        "symbol, ts", maxResults=1, maximumBytesBilled="10737418240", parameterMode="NAMED",
        queryParameters=[date("2026-10-06", "date")["queryParameters"][0], since, sources], **INT64)
    assert values(answer) == [["y", "x_daily", "1791352860000000", "1", "true"]]
