# SPDX-License-Identifier: Apache-2.0
import base64
import datetime
import gzip
import struct

import pytest

YAHOO = "/market/query1.finance.yahoo.com/v8/finance/chart/"
AGENT = {"User-Agent": "mervis-agent/1.0"}
# Monday 2026-09-21 10:13:20 in New York
NOW = 1790000000


def chart(cloud, symbol, **query):
    words = "&".join(f"{k}={v}" for k, v in query.items())
    return cloud.get(f"{YAHOO}{symbol}?{words}", **AGENT)


def result(answer):
    assert answer.status == 200, answer.body
    return answer.json["chart"]["result"][0]


@pytest.fixture
def generated(cloud):
    cloud.admin("PUT", "market/generate", {"now": NOW})
    yield cloud
    cloud.admin("DELETE", "market/generate")


def test_recorded_charts_are_replayed_by_symbol_interval_and_period(cloud):
    found = result(chart(cloud, "AAPL", interval="1m"))
    assert found["meta"]["dataGranularity"] == "1m" and None in found["indicators"]["quote"][0]["open"]
    split = result(chart(cloud, "AAPL", interval="1d", period1=1598880000, period2=1604707200))
    assert "splits" in split["events"]
    assert "timestamp" not in result(chart(cloud, "%5EVXAPL", interval="1d"))
    assert chart(cloud, "SI", interval="1d").status == 404
    assert chart(cloud, "NOTHING", interval="1d").json["chart"]["error"]["code"] == "Not Found"


def test_a_request_without_user_agent_is_refused(cloud):
    answer = cloud.get(f"{YAHOO}AAPL")
    assert (answer.status, answer.body) == (429, b"Too Many Requests\r\n")


@pytest.mark.parametrize("path, begins, ctype", [
    ("/fchart.stock.naver.com/sise.nhn?symbol=005930&timeframe=day", b"<?xml", "text/xml;charset=EUC-KR"),
    ("/fchart.stock.naver.com/sise.nhn?symbol=1", b"\n\n<?xml", "text/xml;charset=EUC-KR"),
    ("/finance.naver.com/item/sise_day.naver?code=005930", b"\r\n<html", "text/html;charset=EUC-KR"),
    ("/api.finance.naver.com/siseJson.naver?symbol=1", b"\n\t\n [['", "text/plain;charset=UTF-8"),
    ("/www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml", b"<?xml", "text/xml"),
    ("/stooq.com/q/d/l/?s=aapl.us&i=d", b"Date,Open", "text/csv"),
    ("/stooq.com/q/d/l/?s=none&i=d", b"No data", "text/plain"),
    ("/api.upbit.com/v1/market/all", b"[{", "application/json;charset=UTF-8")])
def test_other_sources_are_replayed(cloud, path, begins, ctype):
    answer = cloud.get("/market" + path, **AGENT)
    assert answer.body.startswith(begins) and answer.headers["Content-Type"] == ctype


def test_a_market_host_is_known_by_its_host_header_too(cloud):
    answer = cloud.get("/v1/candles/minutes/1?market=KRW-BTC&count=500", Host="api.upbit.com")
    rows = answer.json
    assert rows[0]["candle_date_time_utc"] > rows[-1]["candle_date_time_utc"]
    assert b".00000000" in answer.body and "Remaining-Req" in answer.headers
    older = cloud.get("/v1/candles/minutes/1?market=KRW-BTC&count=2&to="
                      + rows[3]["candle_date_time_utc"], Host="api.upbit.com").json
    assert [r["candle_date_time_utc"] for r in older] == \
        [r["candle_date_time_utc"] for r in rows[4:6]]
    assert cloud.get("/api/v3/klines?symbol=X", Host="api.binance.com").json["code"] == -1121


def test_unchanged_rates_are_304(cloud):
    path = "/market/www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
    first = cloud.get(path)
    assert cloud.get(path, **{"If-None-Match": first.headers["ETag"]}).status == 304
    again = cloud.get(path, **{"If-Modified-Since": first.headers["Last-Modified"]})
    assert (again.status, again.body) == (304, b"")


def test_robots_say_what_the_real_ones_say(cloud):
    for host, status in (("query1.finance.yahoo.com", 200), ("api.upbit.com", 404)):
        assert cloud.get(f"/market/{host}/robots.txt").status == status


# -- replies that a test registers


def test_registered_replies_come_first_and_so_often(cloud):
    cloud.admin("PUT", "market/example.com/a?b=1", {"body": "two", "times": 1, "status": 203})
    cloud.admin("PUT", "market/example.com/^/items/\\d+$", {"body": {"n": 1}})
    assert cloud.get("/market/example.com/a?b=1").status == 203
    assert cloud.get("/market/example.com/a?b=1").status == 404
    assert cloud.get("/market/example.com/items/7").json == {"n": 1}
    assert cloud.get("/items/7", Host="example.com").json == {"n": 1}
    assert cloud.call("PUT", "/_admin/market/example.com/a", {"bdy": "x"}).status == 400


def test_what_was_sent_is_shown_where_a_reply_asks_for_it(cloud):
    cloud.admin("PUT", "market/hooks.example.com/x", {"body": "ok", "keep_body": True})
    cloud.call("POST", "/market/hooks.example.com/x", "rolled back")
    assert cloud.admin("GET", "ledger?only=requests")["requests"][-1]["body"] == "rolled back"


def test_hostile_replies_can_be_registered(cloud):
    cut = gzip.compress(b"x" * 10000)[:-20]
    cloud.admin("PUT", "market/h/cut", {"body_base64": base64.b64encode(cut).decode(),
                                        "headers": {"Content-Encoding": "gzip"}})
    assert cloud.get("/market/h/cut").body == cut
    cloud.admin("PUT", "market/h/loop", {"status": 302, "headers": {"Location": "/market/h/loop"}})
    assert cloud.get("/market/h/loop").headers["Location"] == "/market/h/loop"
    cloud.admin("PUT", "market/h/wrong", {"file": "naver/sise_day-005930-page1-synthetic.html",
                                          "content_type": "text/html; charset=utf-8"})
    assert cloud.get("/market/h/wrong").headers["Content-Type"].endswith("utf-8")
    cloud.admin("PUT", "market/h/big", {"body": "x" * 65536, "repeat": 160, "chunked": True})
    answer = cloud.get("/market/h/big")
    assert "Content-Length" not in answer.headers and len(answer.body) == 160 * 65536
    cloud.admin("PUT", "market/h/bomb", {"body": "\0" * 65536, "repeat": 1600, "gzip": True})
    assert len(cloud.get("/market/h/bomb").body) < 600000
    cloud.admin("PUT", "market/h/later", {"status": 429, "headers": {"Retry-After": "1000000000"}})
    assert cloud.get("/market/h/later").headers["Retry-After"] == "1000000000"


# -- generated charts


def test_generated_charts_are_true_in_form_and_repeatable(generated):
    query = dict(interval="1m", period1=NOW - 3600, period2=NOW)
    answer = chart(generated, "AAPL", **query)
    assert chart(generated, "AAPL", **query).body == answer.body
    assert answer.headers["Cache-Control"].startswith("public, max-age=10")
    found = result(answer)
    quote = found["indicators"]["quote"][0]
    stamps = found["timestamp"]
    assert stamps[0] == 1789997400 and stamps[-1] == NOW and quote["volume"][-1] == 0
    assert all(stamp % 60 == 0 for stamp in stamps[:-1]) and len(stamps) == 44
    assert {len(quote[k]) for k in ("open", "high", "low", "close", "volume")} == {44}
    assert any(value is None for value in quote["close"]) or len(stamps) < 97
    price = next(value for value in quote["close"] if value is not None)
    assert struct.unpack("f", struct.pack("f", price))[0] == price


def test_the_expected_rows_are_the_final_ones(generated):
    found = result(chart(generated, "005930.KS", interval="1m", period1=NOW - 6 * 86400,
                         period2=NOW))
    rows = generated.admin("GET", f"market/expected?symbol=005930.KS&interval=1m"
                           f"&from={NOW - 6 * 86400}&to={NOW}")["rows"]
    quote = found["indicators"]["quote"][0]
    final = [i for i, stamp in enumerate(found["timestamp"]) if stamp % 60 == 0]
    kept = [i for i in final if any(quote[k][i] is not None for k in ("open", "high", "low", "close"))]
    assert len(kept) < len(final) and len(rows) == len(kept)
    assert any(quote["open"][i] is None for i in kept)
    row, i = rows[0], kept[0]
    assert row["ts"] == datetime.datetime.fromtimestamp(
        found["timestamp"][i], datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert row["close"] == f"{quote['close'][i]:.0f}" and row["currency"] == "KRW"
    assert row["tz"] == "Asia/Seoul" and row["trade_date"] == row["ts"][:10]


def test_sessions_follow_the_exchange_and_its_dst(generated):
    # the week in which New York's summer time begins: Friday 6 and Monday 9 March 2026
    generated.admin("PUT", "market/generate", {"now": 1773200000, "live": False})
    rows = generated.admin("GET", "market/expected?symbol=AAPL&interval=1d&from=1772668800"
                           "&to=1773187200")["rows"]
    assert [(r["trade_date"], r["ts"][11:16]) for r in rows] == [
        ("2026-03-05", "14:30"), ("2026-03-06", "14:30"), ("2026-03-09", "13:30"),
        ("2026-03-10", "13:30")][:len(rows)] and len(rows) >= 3
    sydney = generated.admin("GET", "market/expected?symbol=BHP.AX&interval=1d&from=1772668800"
                             "&to=1773187200")["rows"]
    assert all(r["trade_date"] > r["ts"][:10] for r in sydney)


def test_weekends_are_empty_and_old_minutes_refused(generated):
    empty = result(chart(generated, "AAPL", interval="1m", period1=NOW - 2 * 86400,
                         period2=NOW - 86400))
    assert "timestamp" not in empty and empty["indicators"]["quote"] == [{}]
    assert chart(generated, "AAPL", interval="1m", period1=NOW - 9 * 86400, period2=NOW).status == 422
    assert chart(generated, "AAPL", interval="1m", period1=NOW - 40 * 86400,
                 period2=NOW - 39 * 86400).status == 422
    assert chart(generated, "AAPL", interval="7m", period1=1, period2=2).status == 422
    generated.admin("PUT", "market/generate", {"now": NOW, "symbols": ["MSFT"]})
    assert chart(generated, "AAPL", interval="1d").status == 404


def test_a_live_day_is_stamped_with_the_last_trade(generated):
    found = result(chart(generated, "AAPL", interval="1d", period1=NOW - 10 * 86400, period2=NOW))
    assert found["timestamp"][-1] == NOW and found["indicators"]["adjclose"]


def test_documents_are_gzipped_for_who_accepts_it(generated):
    plain = chart(generated, "AAPL", interval="1m", period1=NOW - 3600, period2=NOW)
    answer = generated.get(f"{YAHOO}AAPL?interval=1m&period1={NOW - 3600}&period2={NOW}",
                           **AGENT, **{"Accept-Encoding": "gzip"})
    assert gzip.decompress(answer.body) == plain.body
