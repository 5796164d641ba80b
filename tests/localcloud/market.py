# SPDX-License-Identifier: Apache-2.0
"""Market hosts: replies registered by a test, generated charts, else the recorded fixtures."""

import base64
import gzip
import hashlib
import json
import os
import re
import threading
import time
import zlib
from urllib.parse import unquote

from .server import Response, json_response
from .yahoo import Generator

YAHOO_HEADERS = [("Cache-Control", "public, max-age=10, stale-while-revalidate=20"),
                 ("Vary", "Origin,Accept-Encoding"), ("Server", "ATS"), ("y-rid", "local")]
FORBIDDING = "User-agent: *\nDisallow: /\n"
ROBOTS = {
    "query1.finance.yahoo.com": FORBIDDING, "query2.finance.yahoo.com": FORBIDDING,
    "finance.naver.com": "User-agent: *\nDisallow: /\nAllow: /sise/\n",
    "stooq.com": "User-agent: Googlebot\nDisallow:\n\nUser-agent: Bingbot\nDisallow:\n\n"
                 + FORBIDDING,
    "www.ecb.europa.eu": "User-agent: *\nDisallow: /internal/\n",
}
# host, path (and query) as regular expressions, the fixture that answers
REPLAYS = [
    (r"fchart\.stock\.naver\.com", r"timeframe=minute", "naver/fchart-005930-minute-synthetic.xml"),
    (r"fchart\.stock\.naver\.com", r"/sise\.nhn\?.*symbol=005930", "naver/fchart-005930-day-1835.xml"),
    (r"fchart\.stock\.naver\.com", r"/sise\.nhn", "naver/fchart-unknown-code-synthetic.xml"),
    (r"finance\.naver\.com", r"/item/sise_day\.naver",
     "naver/sise_day-005930-page1-synthetic.html"),
    (r"api\.finance\.naver\.com", r"/siseJson\.naver", "naver/siseJson-005930-synthetic.txt"),
    (r"www\.ecb\.europa\.eu", r"/eurofxref-daily\.xml", "ecb/eurofxref-daily-2015-01-07.xml"),
    (r"www\.ecb\.europa\.eu", r"/eurofxref-hist-90d\.xml", "ecb/eurofxref-hist-90d-2019-11-29.xml"),
    (r"www\.ecb\.europa\.eu", r"/eurofxref-hist\.zip", "ecb/eurofxref-hist-2026-04-13.zip"),
    (r"api\.upbit\.com", r"/v1/market/all", "upbit/market-all-2018.json"),
    (r"api\.upbit\.com", r"/v1/ticker", "upbit/ticker-KRW-BTC-2018.json"),
    (r"(api\.binance\.com|data-api\.binance\.vision)", r"/api/v3/time", "binance/time.json"),
    (r"stooq\.com", r"[?&]s=aapl\.us", "stooq/aapl_us_d-synthetic.csv"),
    (r"stooq\.com", r"[?&]s=usdpln", "stooq/usdpln_d-synthetic.csv"),
    (r"stooq\.com", r"[?&]s=cl\.f", "stooq/cl_f_d-pl-synthetic.csv"),
    (r"stooq\.com", r"/q/d/l/", "stooq/no-data-synthetic.txt"),
    (r"query[12]\.finance\.yahoo\.com", r"/v1/test/getcrumb", "yahoo/getcrumb.txt"),
]
REPLY_KEYS = {"status", "headers", "body", "body_base64", "file", "gzip", "times", "content_type",
              "regex", "repeat", "chunked", "keep_body"}


class Market:
    def __init__(self, store, fixtures, options, ledger):
        self.store = store
        self.fixtures = fixtures
        self.options = options
        self.ledger = ledger
        self.lock = threading.Lock()
        self.replies = {}  # host -> [{pattern, ...}], the newest first
        self.types = self._types()
        self.charts = self._charts()
        self.generator = None
        config = store.get("generate")
        if config is not None:
            self.generator = Generator(config, time.time)

    # -- fixtures

    def read(self, name):
        path = os.path.realpath(os.path.join(self.fixtures, name))
        if not path.startswith(os.path.realpath(self.fixtures) + os.sep):
            raise ValueError(f"{name}: not inside the fixtures")
        with open(path, "rb") as f:
            return f.read()

    def _types(self):
        out = {}
        index = os.path.join(self.fixtures, "INDEX.tsv")
        if os.path.exists(index):
            with open(index, encoding="utf-8") as f:
                for line in f.read().splitlines()[1:]:
                    cells = line.split("\t")
                    out[cells[0]] = (int(cells[3] or 200), cells[4])
        return out

    def _charts(self):
        """(symbol, granularity) -> [(first, last, file)] of the recorded Yahoo charts."""
        out = {}
        for name, (status, _) in self.types.items():
            if not re.match(r"yahoo/(yfr-)?chart-.*\.json$", name) or "synthetic" in name:
                continue
            chart = json.loads(self.read(name)).get("chart", {})
            if not chart.get("result"):
                match = re.match(r"yahoo/chart-([A-Z0-9.]+)-\d{3}-", name)
                if match:
                    out.setdefault((match[1], None), []).append((0, 0, name))
                continue
            result = chart["result"][0]
            meta, instants = result["meta"], result.get("timestamp") or [0]
            key = (meta["symbol"], meta.get("dataGranularity", "1d"))
            out.setdefault(key, []).append((instants[0], instants[-1], name))
        return out

    # -- orders of tests

    def register(self, host, pattern, reply):
        if not isinstance(reply, dict):
            raise ValueError("a reply is a JSON object")
        unknown = set(reply) - REPLY_KEYS
        if unknown:
            raise ValueError(f"unknown key {sorted(unknown)[0]!r}, known: "
                             f"{', '.join(sorted(REPLY_KEYS))}")
        entry = dict(reply, pattern=pattern)
        if reply.get("regex") or pattern.startswith("^"):
            entry["compiled"] = re.compile(pattern)
        if "file" in reply:
            self.read(reply["file"])
        with self.lock:
            self.replies.setdefault(host, []).insert(0, entry)

    def forget(self, host=None):
        with self.lock:
            if host is None:
                self.replies = {}
            else:
                self.replies.pop(host, None)

    def generate(self, config):
        self.generator = Generator(config, time.time) if config is not None else None
        self.store.put("generate", config)

    def _ordered(self, host, path, target):
        with self.lock:
            for entry in self.replies.get(host, ()):
                if entry.get("times") == 0:
                    continue
                pattern = entry["pattern"]
                if "compiled" in entry:
                    hit = entry["compiled"].search(target)
                else:
                    hit = pattern in (target, path, unquote(target), unquote(path)) or \
                        unquote(pattern) in (unquote(target), unquote(path))
                if hit:
                    if "times" in entry:
                        entry["times"] -= 1
                    return entry
        return None

    def _reply(self, entry):
        body, status, ctype = b"", 200, "application/json"
        if "file" in entry:
            body = self.read(entry["file"])
            status, ctype = self.types.get(entry["file"], (200, ctype))
        elif "body_base64" in entry:
            body = base64.b64decode(entry["body_base64"])
        elif "body" in entry:
            body = entry["body"]
            body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        headers = dict(entry.get("headers") or {})
        response = Response(entry.get("status", status), body)
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = entry.get("content_type", ctype)
        repeat = int(entry.get("repeat", 1))
        if entry.get("gzip"):
            response.body = squeeze(body, repeat)
            headers["Content-Encoding"] = "gzip"
        elif repeat != 1:
            response.stream = ((body for _ in range(repeat)), len(body) * repeat)
        if entry.get("chunked"):
            parts = response.stream[0] if response.stream else iter([response.body])
            response.stream = (parts, None)
        for name, value in headers.items():
            response.headers.append((name, str(value)))
        return response

    # -- HTTP

    def locate(self, request):
        """(host, path) of a market request: by the path, else by the Host header."""
        match = re.match(r"^/market/([^/]+)(/.*)?$", request.path)
        if match:
            return match[1], match[2] or "/"
        return request.host.rpartition(":")[0] or request.host, request.path

    def handle(self, request):
        host, path = self.locate(request)
        limit = self.options["nat_ports"]
        if limit and request.conn.hosts == set() and self.ledger.recent_connections(host) >= limit:
            request.note["nat_dropped"] = True
            request.conn.wait(None)
        target = path + ("?" + request.raw_query if request.raw_query else "")
        entry = self._ordered(host, path, target)
        if entry:
            if entry.get("keep_body"):
                request.note["body"] = request.body()[:65536].decode("utf-8", "replace")
            return self._reply(entry)
        if path == "/robots.txt":
            if host in ROBOTS:
                return Response(200, ROBOTS[host], "text/plain")
            return Response(404, "not found\n", "text/plain")
        response = self._default(request, host, path, target)
        return self._compress(request, response)

    def _default(self, request, host, path, target):
        if re.fullmatch(r"query[12]\.finance\.yahoo\.com", host) and \
                path.startswith("/v8/finance/chart/"):
            if not request.headers.get("user-agent"):
                return Response(429, "Too Many Requests\r\n", "text/plain", YAHOO_HEADERS)
            return self._chart(request, host, unquote(path[len("/v8/finance/chart/"):]))
        if host == "finance.naver.com" and not request.headers.get("user-agent"):
            return self._file("naver/sise_day-error-page-synthetic.html")
        if host == "api.upbit.com" and path.startswith("/v1/candles/"):
            return self._upbit(request)
        if path == "/api/v3/klines" and "binance" in host:
            return self._binance(request)
        for host_form, form, name in REPLAYS:
            if re.fullmatch(host_form, host) and re.search(form, target):
                response = self._file(name)
                if host == "www.ecb.europa.eu":
                    return self._conditional(request, response)
                return response
        return Response(404, "<html><head><title>404 Not Found</title></head></html>\n",
                        "text/html")

    def _file(self, name):
        status, ctype = self.types.get(name, (200, "application/octet-stream"))
        return Response(status, self.read(name), ctype)

    @staticmethod
    def _conditional(request, response):
        etag = '"' + hashlib.sha256(response.body).hexdigest()[:20] + '"'
        modified = "Mon, 13 Apr 2026 14:56:12 GMT"
        headers = [("ETag", etag), ("Last-Modified", modified)]
        if request.headers.get("if-none-match", "") == etag or (
                "if-none-match" not in request.headers
                and request.headers.get("if-modified-since") == modified):
            return Response(304, b"", None, headers)
        response.headers += headers
        return response

    @staticmethod
    def _compress(request, response):
        if "gzip" in request.headers.get("accept-encoding", "") and len(response.body) > 860 and \
                response.header("content-encoding") is None and \
                "zip" not in (response.header("content-type") or ""):
            response.body = gzip.compress(response.body, 1)
            response.headers.append(("Content-Encoding", "gzip"))
        return response

    def _chart(self, request, host, symbol):
        query = {name: values[-1] for name, values in request.query.items()}
        generator = self.generator
        if generator and host in generator.config["hosts"]:
            status, body = generator.document(symbol, query)
            return Response(status, body, "application/json;charset=utf-8", YAHOO_HEADERS)
        found = self.charts.get((symbol, query.get("interval", "1d"))) or \
            self.charts.get((symbol, None))
        if not found:
            return Response(404, json.dumps({"chart": {"result": None, "error": {
                "code": "Not Found", "description": "No data found, symbol may be delisted"}}}),
                "application/json;charset=utf-8", YAHOO_HEADERS)
        try:
            first, last = int(query.get("period1", 0)), int(query.get("period2", 1 << 62))
        except ValueError:
            first, last = 0, 1 << 62
        best = max(found, key=lambda f: (min(last, f[1]) - max(first, f[0]), f[1]))
        response = self._file(best[2])
        response.headers += YAHOO_HEADERS
        return response

    def _upbit(self, request):
        rows = json.loads(self.read("upbit/candles-minutes-1-KRW-BTC-synthetic.json"),
                          parse_float=Exact)
        if request.arg("market") != "KRW-BTC":
            return self._file("upbit/candles-404-unknown-market-synthetic.json")
        to = (request.arg("to") or "9999").replace(" ", "T").rstrip("Z")
        try:
            count = min(200, int(request.arg("count") or 1))
        except ValueError:
            return json_response({"error": {"name": 400, "message": "count is invalid"}}, 400)
        rows = [row for row in rows if row["candle_date_time_utc"] < to][:count]
        body = re.sub(r'"\x00([0-9.]+)"', r"\1", json.dumps(rows, separators=(",", ":"))
                      .replace("\\u0000", "\x00"))
        return Response(200, body, "application/json;charset=utf-8",
                        [("Remaining-Req", "group=candles; min=600; sec=9")])

    def _binance(self, request):
        rows = json.loads(self.read("binance/klines-BTCUSDT-1m-synthetic.json"))
        if request.arg("symbol") != "BTCUSDT":
            return json_response({"code": -1121, "msg": "Invalid symbol."}, 400)
        try:
            first = int(request.arg("startTime") or 0)
            last = int(request.arg("endTime") or 1 << 62)
            limit = min(1000, int(request.arg("limit") or 500))
        except ValueError:
            return json_response({"code": -1100, "msg": "Illegal characters found in a parameter."},
                                 400)
        rows = [row for row in rows if first <= row[0] <= last]
        rows = rows[:limit] if request.arg("startTime") else rows[-limit:]
        return json_response(rows, 200, [("X-MBX-USED-WEIGHT-1M", "2")])


def squeeze(body, repeat):
    """gzip of the body so many times over: a bomb need not fit into memory."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join([packer.compress(body) for _ in range(repeat)] + [packer.flush()])


class Exact(str):
    """A number's text, marked so that it can be written back without quotes."""

    def __new__(cls, value):
        return str.__new__(cls, "\x00" + value)
