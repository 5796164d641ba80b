# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: a running double, a plain HTTP client, a table to load."""

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.realpath(__file__))
PROJECT = "demo-project"
LOCATION = "asia-northeast3"
FLAVOR = {"Metadata-Flavor": "Google"}
SCHEMA = [
    {"name": "source", "type": "STRING", "mode": "REQUIRED"},
    {"name": "symbol", "type": "STRING", "mode": "REQUIRED"},
    {"name": "ts", "type": "TIMESTAMP", "mode": "REQUIRED"},
    {"name": "trade_date", "type": "DATE"},
    {"name": "close", "type": "NUMERIC"},
    {"name": "volume", "type": "BIGNUMERIC"},
    {"name": "is_final", "type": "BOOL"},
    {"name": "revision", "type": "INT64"},
]
COUNTER = itertools.count(1)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def reason(self):
        return self.json["error"]["errors"][0]["reason"]

    @property
    def message(self):
        return self.json["error"]["message"]


class Cloud:
    def __init__(self, directory, *arguments):
        self.directory = directory
        self.arguments = arguments
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [os.path.join(HERE, "localcloud"), "--dir", self.directory, "--port", "0",
             *self.arguments], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        self.base = f"http://127.0.0.1:{self.port}"
        self._token = None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def call(self, method, path, body=None, headers=None, port=None, timeout=15):
        """One request on a connection of its own. Paths may be whole URLs of this double."""
        link = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        try:
            link.request(method, path.removeprefix(self.base), body, headers or {})
            reply = link.getresponse()
            return Answer(reply.status, reply.headers, reply.read())
        finally:
            link.close()

    def get(self, path, **headers):
        return self.call("GET", path, headers=headers)

    def meta(self, path, method="GET", body=None):
        return self.call(method, "/computeMetadata/v1/" + path, body, FLAVOR)

    def admin(self, method, path, body=None):
        answer = self.call(method, "/_admin/" + path, body)
        assert answer.status == 200, answer.body
        return answer.json

    def token(self):
        return self.meta("instance/service-accounts/default/token").json["access_token"]

    @property
    def auth(self):
        self._token = self._token or self.token()
        return {"Authorization": f"Bearer {self._token}"}

    def api(self, method, path, body=None, headers=None):
        """A Google API with a token; `path` after /bigquery/v2/projects/PROJECT unless absolute."""
        if not path.startswith("/"):
            path = f"/bigquery/v2/projects/{PROJECT}/{path}"
        return self.call(method, path, body, {**self.auth, **(headers or {})})

    def fault(self, do, times=None, **match):
        order = {"match": match, "do": do}
        if times is not None:
            order["times"] = times
        return self.admin("POST", "faults", order)["id"]

    def options(self, **changes):
        return self.admin("PUT", "options", changes)

    def raw(self, data, port=None):
        """Everything that comes back for these bytes, until the connection ends."""
        with socket.create_connection(("127.0.0.1", port or self.port), 10) as sock:
            sock.sendall(data)
            out = b""
            try:
                while True:
                    got = sock.recv(65536)
                    if not got:
                        return out, "closed"
                    out += got
            except ConnectionResetError:
                return out, "reset"


def row(n, **changes):
    out = {"source": "y", "symbol": f"S{n % 7}", "ts": f"2026-10-07T06:{n % 60:02d}:00Z",
           "trade_date": "2026-10-07", "close": f"{n}.5", "volume": str(n), "is_final": True,
           "revision": 0}
    out.update(changes)
    return {k: v for k, v in out.items() if v is not None}


def lines(rows):
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


class Table:
    def __init__(self, cloud, **extra):
        self.cloud = cloud
        self.dataset = f"d{next(COUNTER)}"
        made = cloud.api("POST", "datasets", {"datasetReference": {"datasetId": self.dataset},
                                              "location": LOCATION})
        assert made.status == 200, made.body
        self.path = f"datasets/{self.dataset}/tables"
        made = cloud.api("POST", self.path, {"tableReference": {"tableId": "bars"},
                                             "schema": {"fields": SCHEMA}, **extra})
        assert made.status == 200, made.body
        self.path += "/bars"
        self.key = f"{PROJECT}.{self.dataset}.bars"

    def job(self, job_id=None, labels=None, **load):
        return {"jobReference": {"projectId": PROJECT, "location": LOCATION,
                                 "jobId": job_id or f"job{next(COUNTER)}-{self.dataset}"},
                "configuration": {"labels": labels or {}, "load": {
                    "destinationTable": {"projectId": PROJECT, "datasetId": self.dataset,
                                         "tableId": "bars"},
                    "sourceFormat": "NEWLINE_DELIMITED_JSON", "createDisposition": "CREATE_NEVER",
                    **load}}}

    def multipart(self, data, job=None):
        job = job or self.job()
        body = (b"--B\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
                + json.dumps(job).encode() + b"\r\n--B\r\nContent-Type: application/octet-stream"
                b"\r\n\r\n" + data + b"\r\n--B--\r\n")
        return self.cloud.api("POST", f"/upload/bigquery/v2/projects/{PROJECT}/jobs"
                              "?uploadType=multipart", body,
                              {"Content-Type": "multipart/related; boundary=B"})

    def begin(self, job=None, size=None):
        headers = {"X-Upload-Content-Length": str(size)} if size is not None else {}
        return self.cloud.api("POST", f"/upload/bigquery/v2/projects/{PROJECT}/jobs"
                              "?uploadType=resumable", job or self.job(), headers)

    def put(self, url, data, content_range):
        return self.cloud.call("PUT", url, data, {"Content-Range": content_range})

    def done(self, answer, seconds=5):
        assert answer.status == 200, answer.body
        reference = answer.json["jobReference"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.cloud.api("GET", f"jobs/{reference['jobId']}?location={LOCATION}").json
            if job["status"]["state"] == "DONE":
                return job
            time.sleep(0.01)
        raise AssertionError("the job is not DONE")

    def load(self, rows, **load):
        return self.done(self.multipart(lines(rows), self.job(**load)))

    def insert(self, rows, **extra):
        return self.cloud.api("POST", f"{self.path}/insertAll", {"rows": rows, **extra})

    def rows(self):
        return self.cloud.admin("GET", f"ledger?only=tables&table={self.key}")["tables"][self.key]

    def query(self, sql, **extra):
        return self.cloud.api("POST", "queries", {
            "query": sql.replace("BARS", f"`{self.key}`"), "useLegacySql": False, **extra})
