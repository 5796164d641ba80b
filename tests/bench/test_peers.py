# SPDX-License-Identifier: Apache-2.0
"""The Python way is a peer only as long as crawlerd's own table takes its rows: both write to localcloud here.

    MERVIS_BUILD=BUILD-DIRECTORY python3 -m pytest tests/bench/test_peers.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import documents, scene  # noqa: E402
from localcloud.testing import Cloud  # noqa: E402

SYMBOLS = 2
TABLE = "bench.bench.bars_intraday"
OURS = {"source", "ingested_at", "batch_id"}  # what differs between two writers of the same row


class Sink:
    """localcloud where the benchmarks have the sink that counts."""

    def __init__(self, directory):
        self.cloud = Cloud(str(directory / "cloud"), "--project", "bench")
        self.url = self.cloud.base
        self.host = self.url.removeprefix("http://")

    def reset(self):
        pass

    def __exit__(self, *exc):
        self.cloud.kill()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    monkeypatch.setattr(scene.servers, "Sink", lambda directory, cpus: Sink(directory))
    made = scene.Bench(tmp_path, SYMBOLS)
    try:
        answer = made.sink.cloud.api("POST", "/bigquery/v2/projects/bench/datasets",
                                     {"datasetReference": {"datasetId": "bench"}, "location": "asia-northeast3"})
        assert answer.status == 200, answer.body
        yield made
    finally:
        made.close()


def rows(bench):
    return bench.sink.cloud.admin("GET", f"ledger?only=tables&table={TABLE}")["tables"].get(TABLE, [])


def crawlerd(bench):
    argv, env = bench.crawlerd_call(SYMBOLS)
    done = subprocess.run(argv, env={**os.environ, **env}, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def python(bench, *words):
    env = {**os.environ, "MERVIS_BENCH_TOKEN": bench.sink.cloud.token()}
    return subprocess.run([scene.HERE / "way-python", bench.market.url, bench.sink.url, str(SYMBOLS), *words], env=env,
                          text=True, capture_output=True, timeout=60, check=False)


def same(row):
    return {name: value for name, value in row.items() if name not in OURS and value is not None}


def test_both_write_the_same_rows(bench):
    crawlerd(bench)
    done = python(bench)
    assert done.returncode == 0, done.stderr
    found = rows(bench)
    ours, theirs = ([same(row) for row in found if (row["source"] == "yahoo") is whose] for whose in (False, True))
    assert len(ours) == SYMBOLS * documents.BARS
    assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, theirs))


def test_the_rows_of_doubles_would_be_refused(bench):
    crawlerd(bench)
    before = len(rows(bench))
    done = python(bench, "floats")
    assert done.returncode != 0 and "rows were refused" in done.stderr
    assert len(rows(bench)) == before
