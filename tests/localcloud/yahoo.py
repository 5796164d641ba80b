# SPDX-License-Identifier: Apache-2.0
"""Synthetic Yahoo chart documents: true in form, computed from the symbol and the instant alone.

A price is a decimal with two places (none for KRW), sent as the double that its float32 widens to,
as Yahoo does; expected() lists the rows that a crawler should make of the documents.
"""

import datetime
import json
import struct
from functools import lru_cache
from zoneinfo import ZoneInfo

INTRADAY = {"1m": 60, "2m": 120, "5m": 300, "15m": 900, "30m": 1800, "60m": 3600, "1h": 3600}
LOOK_BACK = {60: 30, 120: 60, 300: 60, 900: 60, 1800: 60, 3600: 730}
RANGES = {"1d": 1, "5d": 5, "1mo": 31, "3mo": 92, "6mo": 183, "1y": 366, "2y": 731, "5y": 1827,
          "10y": 3653, "max": 18250}
MASK = (1 << 64) - 1
# suffix or form of a symbol: zone, open, close (minutes of the day), currency, digits, exchange, type
EXCHANGES = [
    (".KS", "Asia/Seoul", 540, 930, "KRW", 0, "KSC", "KSE", "EQUITY"),
    (".KQ", "Asia/Seoul", 540, 930, "KRW", 0, "KOE", "KOSDAQ", "EQUITY"),
    (".T", "Asia/Tokyo", 540, 930, "JPY", 0, "JPX", "Tokyo", "EQUITY"),
    (".L", "Europe/London", 480, 990, "GBp", 2, "LSE", "LSE", "EQUITY"),
    (".AX", "Australia/Sydney", 600, 960, "AUD", 2, "ASX", "ASX", "EQUITY"),
    (".DE", "Europe/Berlin", 540, 1050, "EUR", 2, "GER", "XETRA", "EQUITY"),
    ("^KS11", "Asia/Seoul", 540, 930, "KRW", 2, "KSC", "KSE", "INDEX"),
    ("=X", "Europe/London", 0, 1439, "USD", 2, "CCY", "CCY", "CURRENCY"),
    ("-USD", "UTC", 0, 1440, "USD", 2, "CCC", "CCC", "CRYPTOCURRENCY"),
    ("", "America/New_York", 570, 960, "USD", 2, "NMS", "NasdaqGS", "EQUITY"),
]


def mix(value):
    """splitmix64: a well stirred number of a number."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return value ^ value >> 31


@lru_cache(4096)
def seed_of(symbol):
    seed = 0
    for byte in symbol.encode():
        seed = mix(seed ^ byte)
    return seed


class Exchange:
    def __init__(self, row):
        (self.form, zone, self.opens, self.closes, self.currency, self.digits, self.name,
         self.full_name, self.kind) = row
        self.zone_name, self.zone = zone, ZoneInfo(zone)
        self.always = self.kind == "CRYPTOCURRENCY"

    @lru_cache(65536)
    def session(self, day, holidays=frozenset()):
        """(first second, end) of the regular session of a date, None where there is none."""
        if not self.always and (day.weekday() > 4 or day in holidays):
            return None
        midnight = datetime.datetime(day.year, day.month, day.day, tzinfo=self.zone)
        if self.always:
            start = int(midnight.timestamp())
            return start, start + 86400
        return tuple(int(midnight.replace(hour=m // 60, minute=m % 60).timestamp())
                     for m in (self.opens, self.closes))

    def date(self, when):
        return datetime.datetime.fromtimestamp(when, self.zone).date()


EXCHANGE_LIST = [Exchange(row) for row in EXCHANGES]


def exchange_of(symbol):
    return next(e for e in EXCHANGE_LIST if symbol.endswith(e.form))


@lru_cache(65536)
def bar(symbol, index, digits):
    """(open, high, low, close, volume) number `index`, in the smallest unit; None for a null."""
    seed = seed_of(symbol)
    close, word = _level(seed, index, digits)
    open_ = _level(seed, index - 1, digits)[0]
    high = max(open_, close) + (word >> 8) % 9
    low = min(open_, close) - (word >> 16) % 9
    volume = (word >> 24) % 100000 + 100
    if word % 97 == 0:
        return None, None, None, None, (None if word % 2 else 0)
    if word % 211 == 5:
        return None, high, low, close, volume
    return open_, high, low, close, volume


def _level(seed, index, digits):
    word = mix(seed ^ index & MASK)
    base = 5000 + seed % 25000
    swing = index % 400
    swing = swing if swing < 200 else 400 - swing
    return base + base * swing // 4000 + word % 41 - 20, word


def widen(units, digits):
    """The double that the price's float32 is."""
    if units is None:
        return None
    return struct.unpack("f", struct.pack("f", units / 10 ** digits))[0]


def text(units, digits):
    """The decimal text that was meant: no exponent, no trailing zeros."""
    if units is None:
        return None
    if not digits:
        return str(units)
    return f"{units / 10 ** digits:.{digits}f}".rstrip("0").rstrip(".")


class Generator:
    DEFAULTS = {"hosts": ["query1.finance.yahoo.com", "query2.finance.yahoo.com"], "now": None,
                "live": True, "nulls": True, "symbols": None, "holidays": []}

    def __init__(self, config, clock):
        unknown = set(config) - set(self.DEFAULTS)
        if unknown:
            raise ValueError(f"generate: unknown key {sorted(unknown)[0]!r}, known: "
                             f"{', '.join(self.DEFAULTS)}")
        self.config = {**self.DEFAULTS, **config}
        self.clock = clock
        self.holidays = frozenset(datetime.date.fromisoformat(d) for d in self.config["holidays"])

    def now(self):
        return int(self.config["now"] or self.clock())

    def bars(self, symbol, interval, first, last):
        """(instant, bar, is final) with first <= instant < last, none later than now."""
        exchange, now = exchange_of(symbol), self.now()
        step = INTRADAY.get(interval)
        day = exchange.date(first) - datetime.timedelta(days=1)
        end = exchange.date(min(last, now))
        while day <= end:
            session = exchange.session(day, self.holidays)
            if session:
                yield from self._day(symbol, exchange, step, day, session, first, last, now)
            day += datetime.timedelta(days=1)

    def _day(self, symbol, exchange, step, day, session, first, last, now):
        start, end = session
        if step is None:
            if now >= end and first <= start < last:
                yield start, self._bar(symbol, day.toordinal(), exchange), True
            elif start <= now < end and self.config["live"] and first <= now:
                # the live bar carries the time of the last trade and comes even past the end asked
                yield now, self._live(symbol, day.toordinal(), exchange, now), False
            return
        instant = max(start, first - (first - start) % step) if first > start else start
        while instant < min(end, last, now + 1):
            if instant >= first and instant + step <= now:
                yield instant, self._bar(symbol, instant // step, exchange), True
            elif instant <= now < instant + step and self.config["live"] and now < end:
                yield now, self._live(symbol, instant // step, exchange, now), False
            instant += step

    def _bar(self, symbol, index, exchange):
        values = bar(symbol, index, exchange.digits)
        if values[0] is None and not self.config["nulls"]:
            values = bar(symbol, index + 1000003, exchange.digits)
            if values[0] is None:
                values = (1, 1, 1, 1, 1)
        return values

    def _live(self, symbol, index, exchange, now):
        open_, high, low, close, _ = bar(symbol, index, exchange.digits)
        if close is None:
            close = _level(seed_of(symbol), index, exchange.digits)[0]
        open_ = open_ if open_ is not None else close
        current = open_ + mix(now) % 5 - 2
        return open_, max(open_, current), min(open_, current), current, 0

    # -- documents

    def document(self, symbol, query):
        """(status, body) of /v8/finance/chart/SYMBOL."""
        interval = query.get("interval", "1d")
        step, now = INTRADAY.get(interval), self.now()
        if step is None and interval != "1d":
            return error(422, "Unprocessable Entity",
                         f"Invalid input - interval={interval} is not supported. Valid intervals: "
                         "[1m, 2m, 5m, 15m, 30m, 60m, 1h, 1d]")
        if self.config["symbols"] is not None and symbol not in self.config["symbols"]:
            return error(404, "Not Found", "No data found, symbol may be delisted")
        try:
            first, last = self._period(query, now)
        except ValueError:
            return error(400, "Bad Request", "Invalid input - period1 or period2 is no number")
        if last < first:
            return error(400, "Bad Request", "Invalid input - start date cannot be after end date. "
                         f"startDate = {first}, endDate = {last}")
        refusal = self._too_far(interval, step, first, last, now)
        if refusal:
            return refusal
        exchange = exchange_of(symbol)
        rows = list(self.bars(symbol, interval, first, last))
        result = {"meta": self._meta(symbol, interval, exchange, now, query)}
        quote = {}
        if rows:
            result["timestamp"] = [instant for instant, _, _ in rows]
            for i, name in enumerate(("open", "high", "low", "close")):
                quote[name] = [widen(values[i], exchange.digits) for _, values, _ in rows]
            quote["volume"] = [values[4] for _, values, _ in rows]
        result["indicators"] = {"quote": [quote]}
        if step is None and rows:
            result["indicators"]["adjclose"] = [{"adjclose": quote["close"]}]
        elif step is None:
            result["indicators"]["adjclose"] = [{}]
        return 200, json.dumps({"chart": {"result": [result], "error": None}},
                               separators=(",", ":"))

    @staticmethod
    def _period(query, now):
        if "period1" in query or "period2" in query:
            return int(query.get("period1", 0)), int(query.get("period2", now))
        return now - 86400 * RANGES.get(query.get("range", "1d"), 1), now + 1

    @staticmethod
    def _too_far(interval, step, first, last, now):
        if step is None:
            return None
        head = f"{interval} data not available for startTime={first} and endTime={last}. "
        if interval == "1m" and last - first > 8 * 86400:
            return error(422, "Unprocessable Entity", head + "Only 8 days worth of 1m granularity "
                         "data are allowed to be fetched per request.")
        if first < now - LOOK_BACK[step] * 86400 - 86400:
            return error(422, "Unprocessable Entity", head + "The requested range must be within "
                         f"the last {LOOK_BACK[step]} days.")
        return None

    def _meta(self, symbol, interval, exchange, now, query):
        today = exchange.date(now)
        while not exchange.session(today, self.holidays):
            today -= datetime.timedelta(days=1)
        start, end = exchange.session(today, self.holidays)
        local = datetime.datetime.fromtimestamp(now, exchange.zone)
        offset, zone = int(local.utcoffset().total_seconds()), local.tzname()
        close = widen(_level(seed_of(symbol), today.toordinal(), exchange.digits)[0],
                      exchange.digits)

        def period(first, last):
            return {"timezone": zone, "start": first, "end": last, "gmtoffset": offset}
        return {
            "currency": exchange.currency, "symbol": symbol, "exchangeName": exchange.name,
            "fullExchangeName": exchange.full_name, "instrumentType": exchange.kind,
            "firstTradeDate": 345479400, "regularMarketTime": min(max(now, start), end),
            "hasPrePostMarketData": exchange.currency == "USD" and exchange.kind == "EQUITY",
            "gmtoffset": offset, "timezone": zone, "exchangeTimezoneName": exchange.zone_name,
            "regularMarketPrice": close, "fiftyTwoWeekHigh": close, "fiftyTwoWeekLow": close,
            "regularMarketVolume": 0, "longName": f"{symbol} (synthetic)", "shortName": symbol,
            "chartPreviousClose": close, "priceHint": exchange.digits,
            "currentTradingPeriod": {"pre": period(start - 19800, start),
                                     "regular": period(start, end),
                                     "post": period(end, end + 14400)},
            "dataGranularity": interval, "range": query.get("range", ""),
            "validRanges": list(RANGES)}

    def expected(self, symbol, interval, first, last):
        """The rows a crawler should deliver of final bars in [first, last)."""
        exchange, out = exchange_of(symbol), []
        for instant, values, final in self.bars(symbol, interval, first, last):
            if not final or all(value is None for value in values[:4]):
                continue
            row = {"symbol": symbol, "interval": interval, "kind": "bar",
                   "ts": datetime.datetime.fromtimestamp(instant, datetime.timezone.utc)
                   .strftime("%Y-%m-%dT%H:%M:%SZ"),
                   "trade_date": exchange.date(instant).isoformat(), "tz": exchange.zone_name,
                   "currency": exchange.currency}
            row.update((name, text(value, exchange.digits))
                       for name, value in zip(("open", "high", "low", "close"), values))
            row["volume"] = None if values[4] is None else str(values[4])
            out.append(row)
        return out


def error(status, code, description):
    return status, json.dumps({"chart": {"result": None, "error": {
        "code": code, "description": description}}}, separators=(",", ":"))
