# SPDX-License-Identifier: Apache-2.0
"""crawlerd and its peers between nginx and the sink that counts."""

import json

from . import documents, measure, servers
from .measure import BenchError, program, run_measured
from .servers import HERE


class Bench:
    def __init__(self, directory, symbols):
        self.dir = directory
        self.here, there = measure.two_sides()
        self.documents = directory / "documents"
        self.bytes = documents.write(self.documents, symbols)
        self.market = servers.Nginx(directory, self.documents, there)
        self.sink = servers.Sink(directory, there)
        self.recipes = directory / "recipes"
        self.recipes.mkdir()
        built_in = measure.TOP / "crawler" / "recipe"
        made = documents.recipe(json.loads((built_in / "yahoo-chart.json").read_text()))
        (self.recipes / "bench-chart.json").write_text(json.dumps(made))
        self.serial = 0

    def close(self):
        for server in (self.market, self.sink):
            server.__exit__()

    def plan(self, count):
        path = self.dir / f"plan-{count}.json"
        path.write_text(json.dumps({
            "crawl": {
                "jobs": [{"name": "bench", "recipe": "bench-chart", "interval": "1m", "every": "1h", "backfill": "5d",
                          "symbols": [documents.symbol(i) for i in range(count)]}],
                "egress": {"nat_ports": 64512, "connections_per_host": 8, "min_delay": "0s", "daily_bytes": "0"},
                "sink": {"bigquery": {"project": "bench", "dataset": "bench", "table": "bars"}},
            },
            "endpoints": {documents.HOST: self.market.url, "bigquery.googleapis.com": self.sink.url},
            "identity": {"instance_id": "4242", "project": "bench"},
        }))
        return path

    def measured(self, name, argv, count, env=None, counted=True, waiting=0):
        """One run; the sink must have every row, once."""
        self.sink.reset()
        self.serial += 1
        cost = run_measured(argv, self.dir / f"{name}-{self.serial}.log", env, self.here)
        rows = count * documents.BARS + waiting
        if counted and self.sink.counts()["rows"] != rows:
            raise BenchError(f"{name}: {self.sink.counts()['rows']} rows came where {rows} were expected")
        return cost.per_rows(rows)

    def state(self):
        state = self.dir / f"state-{self.serial}"
        for path in (state, state / "run"):
            path.mkdir()
        return state

    def crawlerd_call(self, count, state=None):
        """What starts crawlerd over COUNT symbols, and its environment."""
        state = state or self.state()
        return ([program("crawlerd"), "--once", "--plan", self.plan(count), "--state-dir", state, "--runtime-dir",
                 state / "run"], {"MERVIS_RECIPES_DIR": str(self.recipes), "GCE_METADATA_HOST": self.sink.host})

    def crawlerd(self, count, state=None, waiting=0):
        """WAITING rows are in the spool of STATE before it starts."""
        argv, env = self.crawlerd_call(count, state)
        return self.measured("crawlerd", argv, count, env, waiting=waiting)

    def python(self, count, *rows):
        return self.measured("python", [HERE / "way-python", self.market.url, self.sink.url, count, *rows], count)

    def python_floats(self, count):
        return self.python(count, "floats")

    def node(self, count):
        return self.measured("node", ["node", HERE / "way-node.mjs", self.market.url, self.sink.url, count], count)

    def floor(self, count, verb="crawl"):
        return self.measured("floor", [program("tests/bench/floor"), verb, self.market.url, count,
                                       self.dir / "floor.ndjson"], count, counted=False)

    def copying_floor(self, count):
        return self.floor(count, "copy")
