#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every recorded reply of a market-data source, read once by "crawlerd recipe test" and once here.

The reading here shares nothing with the C code: Python's own JSON, XML, HTML and CSV readers, decimal, struct and zoneinfo.
It knows the sources, not the recipes. Prints TAP, and a table of what each reply gave.

usage: extract-expected.py RECIPE_TOOL FIXTURES
"""

import csv
import html.parser
import json
import os
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree
from datetime import date, datetime, time, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

TOOL, FIXTURES = sys.argv[1], sys.argv[2]
AMOUNTS = ("open", "high", "low", "close", "volume", "adj_close", "amount", "ratio_num", "ratio_den")
COLUMNS = (
    "source symbol venue currency interval kind ts trade_date tz session open high low close volume adj_close amount "
    "ratio_num ratio_den is_final revision ingested_at batch_id"
).split()
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=timezone.utc)


class Number(str):
    """A JSON number as it was sent."""


def decimal_text(value):
    if value is None:
        return None
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def as_float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def price(cell):
    """What a price column holds for this cell of a reply."""
    if cell is None:
        return None
    exact = Decimal(cell)
    if isinstance(cell, Number):
        wide = float(cell)
        if abs(wide) < 3e38 and as_float32(wide) == wide:
            for digits in range(1, 10):
                short = "%.*g" % (digits, wide)
                if as_float32(float(short)) == wide:
                    exact = Decimal(short)
                    break
        if -exact.as_tuple().exponent > 9 and len(Decimal(cell).as_tuple().digits) >= 16:
            exact = exact.quantize(Decimal("1e-9"), rounding=ROUND_HALF_EVEN)
    assert -exact.normalize().as_tuple().exponent <= 9, cell
    return decimal_text(exact)


def count(cell):
    return None if cell is None else decimal_text(Decimal(cell))


def stamp(when):
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def row(kind, when, zone, **values):
    local = when.astimezone(ZoneInfo(zone))
    result = dict.fromkeys(AMOUNTS)
    result.update(kind=kind, ts=stamp(when), trade_date=local.date().isoformat(), tz=zone)
    result.update(values)
    return result


def epoch(text):
    return datetime.fromtimestamp(int(Decimal(text)), timezone.utc)


def load_json(body):
    return json.loads(body, parse_float=Number, parse_int=Number)


# --- The sources --------------------------------------------------------------------------------


def read_yahoo(body, symbol):
    document = load_json(body)
    chart = document["chart"]["result"][0]
    meta = chart["meta"]
    zone, rows = meta["exchangeTimezoneName"], []
    quote = chart["indicators"]["quote"][0]
    adjusted = chart["indicators"].get("adjclose", [{}])[0].get("adjclose")
    stamps = chart.get("timestamp", [])
    common = dict(symbol=meta["symbol"], venue=meta["exchangeName"], interval=meta["dataGranularity"],
                  currency=meta["currency"])
    for i, second in enumerate(stamps):
        cells = {name: quote[name][i] for name in ("open", "high", "low", "close") if name in quote}
        if all(cell is None for cell in cells.values()):
            continue
        values = {name: price(cell) for name, cell in cells.items()}
        if "volume" in quote:
            values["volume"] = count(quote["volume"][i])
        if adjusted:
            values["adj_close"] = price(adjusted[i])
        rows.append(row("bar", epoch(second), zone, **common, **values))
    # A row of the last trade inside of the hour that the row before is of.
    if len(stamps) > 1 and meta["dataGranularity"] == "1h" and int(stamps[-1]) - int(stamps[-2]) < 3600:
        rows.pop()
    # A live row inside of the month that the row before is of.
    if len(stamps) > 1 and meta["dataGranularity"] == "1mo" and stamps[-1] == meta["regularMarketTime"]:
        rows.pop()
    # A live row of the day, stamped with the last trade: it is the bar of the session that is on.
    if stamps and meta["dataGranularity"] == "1d" and stamps[-1] == meta["regularMarketTime"]:
        rows[-1]["ts"] = stamp(epoch(meta["currentTradingPeriod"]["regular"]["start"]))
    common["interval"] = "1d"
    events = chart.get("events", {})
    for event in sorted(events.get("dividends", {}).values(), key=lambda e: int(e["date"])):
        rows.append(row("dividend", epoch(event["date"]), zone, **common, amount=price(event["amount"])))
    for event in sorted(events.get("splits", {}).values(), key=lambda e: int(e["date"])):
        rows.append(row("split", epoch(event["date"]), zone, **dict(common, currency=None),
                        ratio_num=price(event["numerator"]), ratio_den=price(event["denominator"])))
    for event in sorted(events.get("capitalGains", {}).values(), key=lambda e: int(e["date"])):
        rows.append(row("capital_gain", epoch(event["date"]), zone, **common, amount=price(event["amount"])))
    return rows


def read_upbit(body, symbol):
    rows = []
    for candle in load_json(body):
        when = datetime.fromisoformat(candle["candle_date_time_utc"]).replace(tzinfo=timezone.utc)
        rows.append(
            row("bar", when, "Asia/Seoul", symbol=candle["market"], currency=candle["market"].split("-")[0],
                open=count(candle["opening_price"]), high=count(candle["high_price"]), low=count(candle["low_price"]),
                close=count(candle["trade_price"]), volume=count(candle["candle_acc_trade_volume"]),
                amount=count(candle["candle_acc_trade_price"])))
    return rows[::-1]


def read_binance(body, symbol):
    rows = []
    for kline in load_json(body):
        when = datetime.fromtimestamp(int(kline[0]) / 1000, timezone.utc)
        rows.append(row("bar", when, "UTC", symbol=symbol, open=count(kline[1]), high=count(kline[2]),
                        low=count(kline[3]), close=count(kline[4]), volume=count(kline[5]), amount=count(kline[7])))
    return rows


def on_day(day, zone, hour=0):
    return datetime.combine(day, time(hour), ZoneInfo(zone))


def read_ecb(body, symbol):
    rows = []
    for outer in xml.etree.ElementTree.fromstring(body).iter():
        if "time" not in outer.attrib:
            continue
        for cube in outer:
            rows.append(row("bar", on_day(date.fromisoformat(outer.attrib["time"]), "Europe/Berlin", 16), "Europe/Berlin",
                            symbol="EUR" + cube.attrib["currency"], currency=cube.attrib["currency"],
                            close=count(cube.attrib["rate"])))
    rows.sort(key=lambda r: r["ts"])
    return rows


def none_if_zero(text):
    return None if text in ("", "null") or Decimal(text) == 0 else decimal_text(Decimal(text))


def read_fchart(body, symbol):
    text = body.decode("cp949", "replace")
    code = re.search(r'<chartdata symbol="([^"]*)"', text).group(1)
    rows, last_day, last_volume = [], None, 0
    for data in re.findall(r'<item data="([^"]*)"', text):
        cells = data.split("|")
        if len(cells[0]) == 12:
            when = datetime.strptime(cells[0], "%Y%m%d%H%M").replace(tzinfo=ZoneInfo("Asia/Seoul"))
            interval, volume = "1m", Decimal(cells[5])
            if last_day == when.date():
                volume -= last_volume
            last_day, last_volume = when.date(), Decimal(cells[5])
        else:
            when = on_day(datetime.strptime(cells[0], "%Y%m%d").date(), "Asia/Seoul", 9)
            interval, volume = "1d", Decimal(cells[5])
        rows.append(row("bar", when, "Asia/Seoul", symbol=code, currency="KRW", interval=interval,
                        open=none_if_zero(cells[1]), high=none_if_zero(cells[2]), low=none_if_zero(cells[3]),
                        close=none_if_zero(cells[4]), volume=decimal_text(volume)))
    return rows


class Table(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.cell = [], None

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag == "td" and self.rows:
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag == "td":
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def read_sise_day(body, symbol):
    table, rows = Table(), []
    table.feed(body.decode("cp949", "replace"))
    for cells in table.rows:
        if len(cells) != 7:
            continue
        day, close, _, first, high, low, volume = (cell.strip().replace(",", "") for cell in cells)
        rows.append(row("bar", on_day(datetime.strptime(day, "%Y.%m.%d").date(), "Asia/Seoul", 9), "Asia/Seoul",
                        currency="KRW", interval="1d", open=none_if_zero(first), high=none_if_zero(high),
                        low=none_if_zero(low), close=none_if_zero(close), volume=decimal_text(Decimal(volume))))
    return rows[::-1]


def read_sise_json(body, symbol):
    rows = []
    for cells in json.loads(body.decode().replace("'", '"'), parse_float=Number, parse_int=Number)[1:]:
        rows.append(row("bar", on_day(datetime.strptime(cells[0], "%Y%m%d").date(), "Asia/Seoul", 9), "Asia/Seoul",
                        open=none_if_zero(cells[1]), high=none_if_zero(cells[2]), low=none_if_zero(cells[3]),
                        close=none_if_zero(cells[4]), volume=count(cells[5])))
    return rows


def read_stooq(body, symbol):
    rows = []
    lines = list(csv.reader(body.decode().splitlines()))
    for cells in lines[1:]:
        cells += [None] * (6 - len(cells))
        day = date.fromisoformat(cells[0])
        rows.append(row("bar", on_day(day, "America/New_York"), "America/New_York", symbol=symbol, currency="USD",
                        open=count(cells[1]), high=count(cells[2]), low=count(cells[3]), close=count(cells[4]),
                        volume=count(cells[5] or None)))
    return rows


# Which recipe reads a file, and what it must give: a reader, or an exit status with a word of the message.
EMPTY, SOURCE_ERROR, REFUSED = "empty", 3, 4
EXPECTED = [
    (r"yahoo/chart-AAPL-1m-weekend-empty", "yahoo-chart", EMPTY, "nothing"),
    (r"yahoo/chart-(CAPIO|VXAPL)", "yahoo-chart", EMPTY, "nothing"),
    (r"yahoo/chart-422", "yahoo-chart", SOURCE_ERROR, "30 days"),
    (r"yahoo/chart-BEKE-400", "yahoo-chart", SOURCE_ERROR, "Data doesn't exist"),
    (r"yahoo/chart-SI-404", "yahoo-chart", SOURCE_ERROR, "no such symbol"),
    (r"yahoo/(chart|getcrumb)-429", "yahoo-chart", SOURCE_ERROR, "too many requests"),
    (r"yahoo/chart-500", "yahoo-chart", SOURCE_ERROR, "in trouble"),
    (r"yahoo/maintenance", "yahoo-chart", SOURCE_ERROR, "maintenance"),
    (r"yahoo/getcrumb\.txt", "yahoo-chart", REFUSED, "not JSON"),
    (r"yahoo/quote-", "yahoo-chart", REFUSED, "chart.result[0]"),
    (r"yahoo/(yfr-)?chart-", "yahoo-chart", read_yahoo, None),
    (r"upbit/candles-404", "upbit-candles", SOURCE_ERROR, "no such market"),
    (r"upbit/429", "upbit-candles", SOURCE_ERROR, "too many requests"),
    (r"upbit/candles-", "upbit-candles", read_upbit, None),
    (r"upbit/", "upbit-candles", REFUSED, ""),
    (r"binance/klines-400", "binance-klines", SOURCE_ERROR, "no such interval"),
    (r"binance/depth-400", "binance-klines", SOURCE_ERROR, "no such symbol"),
    (r"binance/418", "binance-klines", SOURCE_ERROR, "too many requests"),
    (r"binance/451", "binance-klines", SOURCE_ERROR, "region"),
    (r"binance/.*klines", "binance-klines", read_binance, None),
    (r"binance/", "binance-klines", REFUSED, ""),
    (r"ecb/eurofxref-hist-empty", "ecb-fx", EMPTY, "nothing"),
    (r"ecb/.*\.xml", "ecb-fx", read_ecb, None),
    (r"ecb/", "ecb-fx", REFUSED, "not XML"),
    (r"naver/fchart-unknown", "naver-day", EMPTY, "nothing"),
    (r"naver/fchart", "naver-day", read_fchart, None),
    (r"naver/sise_day-error", "naver-sise-day", REFUSED, "the page has no"),
    (r"naver/sise_day", "naver-sise-day", read_sise_day, None),
    (r"naver/siseJson", "naver-sise-json", read_sise_json, None),
    (r"stooq/no-data", "stooq-day", EMPTY, "nothing"),
    (r"stooq/exceeded", "stooq-day", SOURCE_ERROR, "used up"),
    (r"stooq/apikey", "stooq-day", SOURCE_ERROR, "key"),
    (r"stooq/proof", "stooq-day", SOURCE_ERROR, "browsers"),
    (r"stooq/page-history", "stooq-day", REFUSED, ""),
    (r"stooq/", "stooq-day", read_stooq, None),
]
SYMBOLS = {"binance-klines": "BTCUSDT", "stooq-day": "aapl.us"}
# Replies whose last bar was still moving, or was no bar at all, when they were recorded.
LIVE_TAIL = {
    "yahoo/chart-AAPL-1m-2024-10-02-nulls.json": "the print of the close, a day later",
    "yahoo/chart-AAPL-dividends-many.json": "the month was not over",
    "yahoo/yfr-chart-GBPUSD_X-3c1dd5.json": "the day was not over",
    "naver/sise_day-005930-page1-synthetic.html": "close above high: after-hours trades",
}


def compare(name, expected, actual, symbol):
    if len(expected) != len(actual):
        return "%d rows expected, %d given" % (len(expected), len(actual))
    for i, (want, have) in enumerate(zip(expected, actual)):
        if list(have) != COLUMNS:
            return "row %d: columns %s" % (i, list(have))
        for key, value in want.items():
            if have[key] != value:
                return "row %d (%s): %s is %r, expected %r" % (i, want["ts"], key, have[key], value)
        bars_after = any(r["kind"] == "bar" for r in actual[i + 1:])
        final = not (name in LIVE_TAIL and have["kind"] == "bar" and not bars_after)
        if have["is_final"] != final:
            return "row %d (%s): is_final is %r" % (i, want["ts"], have["is_final"])
        if have["source"] is None or have["revision"] != 0:
            return "row %d: source or revision" % i
    return None


def check(name, recipe, wanted, word):
    path, symbol = os.path.join(FIXTURES, name), SYMBOLS.get(recipe)
    command = [TOOL, "test", recipe, "--reply", path, "--now", NOW.strftime("%Y-%m-%dT%H:%M:%SZ")]
    if symbol:
        command += ["--symbol", symbol]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    # What it comes to is the last line that is no advice.
    message = [line for line in run.stderr.decode().split("\n") if line and not line.startswith("  ")][-1]
    status = run.returncode
    if callable(wanted):
        if status != 0:
            return "status %d: %s" % (status, message), message
        with open(path, "rb") as file:
            expected = wanted(file.read(), symbol)
        actual = [json.loads(line) for line in run.stdout.decode().splitlines()]
        return compare(name, expected, actual, symbol), message
    if status != (0 if wanted is EMPTY else wanted):
        return "status %d: %s" % (status, message), message
    if word not in message or run.stdout:
        return "%r is not in %r, or there are rows" % (word, message), message
    return None, message


def main():
    names = sorted(
        os.path.join(folder, name) for folder in ("yahoo", "naver", "ecb", "upbit", "binance", "stooq")
        for name in os.listdir(os.path.join(FIXTURES, folder)) if not name.endswith(".meta"))
    failed = 0
    print("1..%d" % len(names))
    for number, name in enumerate(names, 1):
        for pattern, recipe, wanted, word in EXPECTED:
            if re.match(pattern, name):
                fault, message = check(name, recipe, wanted, word)
                break
        else:
            fault, message = "no expectation for this reply", ""
        failed += fault is not None
        print("%sok %d - %s: %s" % ("not " if fault else "", number, name, message.replace("#", "No.")))
        if fault:
            print("# " + fault)
    return 1 if failed else 0


sys.exit(main())
