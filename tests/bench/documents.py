# SPDX-License-Identifier: Apache-2.0
"""Yahoo chart documents as they are recorded in tests/fixtures/yahoo: a day of one-minute bars, each price the double
that its float32 widens to, about 94 bytes a bar."""

import json
import random
import struct
import time

BARS = 390
DAY = 86400
HOST = "bench.market.example"


def symbol(i):
    return f"B{i:05d}"


def session_start(now=None):
    """14:30 UTC two days ago: over for long, so that every bar is final."""
    now = int(time.time()) if now is None else now
    return now // DAY * DAY - 2 * DAY + 14 * 3600 + 1800


def _prices(rng):
    level = rng.randrange(500, 40000)
    bars = []
    for _ in range(BARS):
        opened, level = level, max(100, level + rng.randrange(-30, 31))
        high, low = max(opened, level) + rng.randrange(9), min(opened, level) - rng.randrange(9)
        bars.append([struct.unpack("f", struct.pack("f", cents / 100))[0] for cents in (opened, high, low, level)])
    return bars


def document(name, seed, start):
    rng = random.Random(seed)
    opens, highs, lows, closes = (list(column) for column in zip(*_prices(rng)))
    period = {"timezone": "EDT", "start": start, "end": start + BARS * 60, "gmtoffset": -14400}
    return json.dumps({"chart": {"result": [{
        "meta": {"currency": "USD", "symbol": name, "exchangeName": "NMS", "fullExchangeName": "NasdaqGS",
                 "instrumentType": "EQUITY", "firstTradeDate": 345479400, "regularMarketTime": start + BARS * 60,
                 "gmtoffset": -14400, "timezone": "EDT", "exchangeTimezoneName": "America/New_York",
                 "regularMarketPrice": closes[-1], "priceHint": 2,
                 "currentTradingPeriod": {"pre": period, "regular": period, "post": period},
                 "dataGranularity": "1m", "range": "", "validRanges": ["1d", "5d"]},
        "timestamp": [start + 60 * i for i in range(BARS)],
        "indicators": {"quote": [{"open": opens, "high": highs, "low": lows, "close": closes,
                                  "volume": [rng.randrange(1000, 999999) for _ in range(BARS)]}]},
    }], "error": None}}, separators=(",", ":"))


def write(directory, count):
    """COUNT documents, named by their symbols; the bars repeat after 200 symbols."""
    directory.mkdir(parents=True)
    start, name = session_start(), "SYMBOL"
    made = [document(name, seed, start) for seed in range(min(count, 200))]
    for i in range(count):
        (directory / symbol(i)).write_text(made[i % len(made)].replace(name, symbol(i), 1))
    directory.chmod(0o755)
    return sum(len(text) for text in made) / len(made)


def recipe(built_in):
    """The built-in recipe without its politeness: the same extraction from another host."""
    made = dict(built_in, name="bench-chart", hosts=[HOST],
                politeness={"robots": "api", "delay": "0s", "connections": 8})
    made["request"] = dict(made["request"])
    made["request"]["url"] = made["request"]["url"].replace("query1.finance.yahoo.com", HOST)
    made.pop("terms")
    return made
