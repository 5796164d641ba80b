# SPDX-License-Identifier: Apache-2.0
"""crawlerd between a double of Yahoo and a double of BigQuery, on loopback and without a machine of
the rig: what the tests of crawling and delivery share."""

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FULL = bool(os.environ.get("MERVIS_FULL"))
HOST = "query1.finance.yahoo.com"
TABLE = "demo-project.market.bars_intraday"


class Cloud:
    """localcloud on a free port of loopback."""

    def __init__(self, directory):
        self.log = open(directory / "cloud.log", "wb")
        self.process = subprocess.Popen(
            [ROOT / "tests/localcloud/localcloud", "--dir", directory / "cloud", "--port", "0"],
            stdout=self.log, stderr=self.log)
        port = directory / "cloud/port"
        deadline = time.monotonic() + 20
        while not (port.exists() and port.read_text().strip()):
            assert time.monotonic() < deadline, "localcloud does not start"
            time.sleep(0.05)
        self.base = f"http://127.0.0.1:{port.read_text().strip()}"
        while True:
            try:
                self.ask("GET", "/_admin/")
                break
            except OSError:
                assert time.monotonic() < deadline, "localcloud does not answer"
                time.sleep(0.05)

    def ask(self, method, path, value=None, token=None):
        headers = {"Content-Type": "application/json", "Metadata-Flavor": "Google"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(
            self.base + path, None if value is None else json.dumps(value).encode(), headers,
            method=method)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read() or b"null")

    def post_raw(self, path, body, content_type):
        request = urllib.request.Request(
            self.base + path, body, {"Content-Type": content_type,
                                     "Authorization": f"Bearer {self.token()}"}, method="POST")
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())

    def token(self):
        return self.ask("GET", "/computeMetadata/v1/instance/service-accounts/default/token")[
            "access_token"]

    def make_dataset(self):
        self.ask("POST", "/bigquery/v2/projects/demo-project/datasets",
                 {"datasetReference": {"datasetId": "market"}, "location": "asia-northeast3"},
                 self.token())

    def fault(self, match, do, **when):
        return self.ask("POST", "/_admin/faults", {"match": match, "do": do, **when})["id"]

    def uploads(self, since=0):
        """Requests that carry rows or begin to."""
        return [r for r in self.requests(since) if r["path"].startswith("/upload/")]

    def requests(self, since=0):
        return self.ask("GET", f"/_admin/ledger?only=requests&since={since}")["requests"]

    def calm(self):
        self.ask("DELETE", "/_admin/faults")

    def count(self):
        return self.ask("GET", "/_admin/ledger/count")["tables"].get(TABLE, {})

    def rows(self):
        return self.ask("GET", f"/_admin/ledger?only=tables&table={TABLE}")["tables"].get(TABLE, [])

    def jobs(self):
        return self.ask("GET", "/_admin/ledger?only=jobs")["jobs"]

    def expected(self, symbol, first, last):
        return self.ask("GET", f"/_admin/market/expected?symbol={symbol}&interval=1m&from={first}"
                               f"&to={last}")["rows"]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Crawl:
    """crawlerd --once over a growing list of symbols, on one state directory."""

    def __init__(self, cloud, directory):
        self.cloud, self.directory = cloud, directory
        self.state = directory / "state"
        self.log = directory / "crawlerd.log"
        self.kills = 0
        self.numbers = iter(range(1, 100000))
        self.sink = {}  # changes to the plan's sink
        self.local_sink = None  # instead of BigQuery
        self.endpoint = None  # instead of the double, for the market host
        self.egress = {}  # beside the plan's own
        self.timeout = "2m"
        self.done = []  # symbols whose rows must be in the table
        # The window begins where no exchange is open, or its edge would move while we run.
        now = int(time.time())
        self.first = now - 2 * 86400
        self.first -= self.first % 86400 - 5 * 3600
        self.last = now - 3600
        cloud.ask("PUT", "/_admin/market/generate",
                  {"hosts": [HOST], "now": self.last, "live": False})

    def new_symbols(self, n):
        return [f"T{next(self.numbers)}" for _ in range(n)]

    def plan(self, symbols):
        path = self.directory / "plan.json"
        backfill = int(time.time()) - self.first
        sink = {"dataset": "market", "table": "bars", "max_rows": 700, **self.sink}
        path.write_text(json.dumps({
            "version": 1,
            "crawl": {
                "jobs": [{"name": "us", "recipe": "yahoo-chart", "symbols": symbols,
                          "interval": "1m", "every": "1h", "backfill": f"{backfill}s",
                          "terms": "acknowledged"}],
                "egress": {"min_delay": "0s", "nat_ports": 64, **self.egress},
                "sink": self.local_sink or {"bigquery": sink}},
            "endpoints": {HOST: self.endpoint or f"{self.cloud.base}/market/{HOST}",
                          "bigquery.googleapis.com": self.cloud.base}}))
        return path

    def start(self, symbols, crash=None):
        env = {**os.environ, "GCE_METADATA_HOST": self.cloud.base.removeprefix("http://"),
               "MERVIS_RECIPES_DIR": str(self.directory / "recipes")}
        if crash:
            env["MERVIS_CRASH_AT"] = crash
        else:
            env.pop("MERVIS_CRASH_AT", None)
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [os.path.join(os.environ["MERVIS_BUILD"], "crawlerd"), "--once", "--plan",
                 self.plan(symbols), "--state-dir", self.state, "--timeout", self.timeout],
                env=env, stdout=log, stderr=log)

    def daemon(self, symbols):
        """crawlerd as systemd runs it, with what agentd would have left for it; no bus."""
        runtime = self.directory / "run"
        runtime.mkdir(exist_ok=True)
        document = json.loads(self.plan(symbols).read_text())
        (runtime / "crawl.json").write_text(json.dumps(
            {"crawl": document["crawl"], "endpoints": document["endpoints"], "instance": "42"}))
        env = {**os.environ, "GCE_METADATA_HOST": self.cloud.base.removeprefix("http://"),
               "MERVIS_RECIPES_DIR": str(self.directory / "recipes"),
               "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.directory}/no-bus"}
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [os.path.join(os.environ["MERVIS_BUILD"], "crawlerd"), "--state-dir", self.state,
                 "--runtime-dir", runtime], env=env, stdout=log, stderr=log)

    def wait_for(self, what, seconds=20):
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"waited in vain\n{self.tail()}"
            time.sleep(0.05)

    def run(self, symbols):
        """One run: its exit status and what it said."""
        before = self.log.stat().st_size if self.log.exists() else 0
        status = self.start(symbols).wait(130)
        return status, self.log.read_bytes()[before:].decode(errors="replace")

    def finish(self, symbols):
        """Runs until a run says that all was delivered."""
        for _ in range(20):
            if self.start(symbols).wait(130) == 0:
                self.done += symbols
                return
        raise AssertionError(f"twenty runs and no end:\n{self.tail()}")

    def kill_at(self, point, symbols):
        """True when the point was reached."""
        status = self.start(symbols, crash=point).wait(130)
        self.kills += status == 137
        return status == 137

    def kill_after(self, seconds, symbols):
        process = self.start(symbols)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            self.kills += 1

    def kill_when_loading(self, symbols):
        process = self.start(symbols)
        deadline = time.monotonic() + 20
        while not any(job["status"]["state"] != "DONE" for job in self.cloud.jobs()):
            assert time.monotonic() < deadline, f"no load job was begun:\n{self.tail()}"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        self.kills += 1

    def expected(self, symbol):
        return self.cloud.expected(symbol, self.first, self.last)

    def tail(self):
        return "".join(self.log.read_text(errors="replace").splitlines(True)[-30:])

    def check(self, rows=None):
        """Each expected row is there once, with the expected values, and nothing else."""
        key = ("symbol", "interval", "kind", "ts")
        wanted = {}
        for symbol in self.done:
            for row in self.expected(symbol):
                wanted[tuple(row[k] for k in key)] = row
        rows = self.cloud.rows() if rows is None else rows
        found = {tuple(row[k] for k in key) for row in rows}
        missing, extra = set(wanted) - found, found - set(wanted)
        assert not missing, f"{len(missing)} rows lost, {sorted(missing)[:3]}\n{self.tail()}"
        assert not extra, f"{len(extra)} rows that nobody sent, {sorted(extra)[:3]}"
        assert len(rows) == len(found), f"{len(rows) - len(found)} rows doubled\n{self.tail()}"
        for row in rows:
            expected = wanted[tuple(row[k] for k in key)]
            for name in ("open", "close", "volume", "trade_date", "currency"):
                assert str(row[name]) == str(expected[name]), (row, expected)
        print(f"{self.kills} kills, {len(rows)} rows: 0 lost, 0 doubled")


@pytest.fixture
def crawl():
    with tempfile.TemporaryDirectory(prefix="mervis-crash.") as name:
        directory = Path(name)
        recipes = directory / "recipes"
        recipes.mkdir()
        # The built-in recipe without its pause between requests.
        recipe = json.loads((ROOT / "crawler/recipe/yahoo-chart.json").read_text())
        recipe["politeness"]["delay"] = "0s"
        (recipes / "yahoo-chart.json").write_text(json.dumps(recipe))
        cloud = Cloud(directory)
        try:
            cloud.make_dataset()
            yield Crawl(cloud, directory)
        finally:
            cloud.stop()
