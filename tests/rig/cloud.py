# SPDX-License-Identifier: Apache-2.0
"""localcloud, the double of Google's servers, and its admin API."""

import os
import time
from pathlib import Path
from urllib.parse import urlencode

from . import web
from .process import Process, wait_for

TESTS = Path(__file__).resolve().parent.parent


class Cloud(Process):
    """The double on PORT; inside tests/rig/enter that is port 80, where the metadata server's and the registry's real
    names lead."""

    def __init__(self, directory, registry, port=80, project="demo-project", options=()):
        self.dir = Path(directory)
        self.port = port
        self.project = project
        self.url = f"http://127.0.0.1:{port}"
        self.dir.mkdir(parents=True, exist_ok=True)
        super().__init__("localcloud", [
            "/usr/bin/python3", TESTS / "localcloud" / "localcloud", "--dir", self.dir / "double", "--bind", "0.0.0.0",
            "--port", str(port), "--registry", registry.url, "--fixtures", TESTS / "fixtures", "--project", project,
            *options,
        ], self.dir)

    def start(self):
        super().start()
        self.wait_ready("answer", lambda: web.get(self.url + "/_admin/").status == 200)
        os.environ["GCE_METADATA_HOST"] = f"127.0.0.1:{self.port}"
        return self

    def admin(self, method, path, body=None):
        return web.request(method, f"{self.url}/_admin/{path}", body=body, timeout=30).expect(200, 201, 204).json()

    # Metadata

    def token(self):
        """An access token, as a program on the VM gets it."""
        reply = web.get(f"{self.url}/computeMetadata/v1/instance/service-accounts/default/token",
                        headers={"Metadata-Flavor": "Google"}).expect(200)
        return reply.json()["access_token"]

    def set_metadata(self, path, value):
        """instance/attributes/mervis-plan, instance/preempted, …; text or bytes."""
        self.admin("PUT", f"metadata/{path}", value)

    def drop_metadata(self, path):
        self.admin("DELETE", f"metadata/{path}")

    # Secrets

    def add_secret(self, name, payload):
        """A new version; returns its number."""
        if isinstance(payload, str):
            payload = payload.encode()
        return self.admin("POST", f"secrets/{self.project}/{name}", payload)["version"]

    def set_secret_state(self, name, version, verb):
        """"enable", "disable" or "destroy"."""
        self.admin("POST", f"secrets/{self.project}/{name}/{version}:{verb}")

    # BigQuery

    def make_dataset(self, name):
        """As Terraform does once for a project; tables are crawlerd's to make."""
        web.request("POST", f"{self.url}/bigquery/v2/projects/{self.project}/datasets",
                    body={"datasetReference": {"projectId": self.project, "datasetId": name},
                          "location": "asia-northeast3"},
                    headers={"Authorization": f"Bearer {self.token()}"}).expect(200)

    # Market hosts

    def market(self, host, path, reply):
        """Answer PATH of a market host with {status, headers, body | file, …}."""
        self.admin("PUT", f"market/{host}/{path}", reply)

    def generate_charts(self, **options):
        """Computed Yahoo charts for any symbol, instead of the recorded ones."""
        self.admin("PUT", "market/generate", options)

    def options(self, **changes):
        self.admin("PUT", "options", changes)

    # Faults

    def fault(self, match, do, times=None, probability=None):
        order = {"match": match, "do": do}
        if times is not None:
            order["times"] = times
        if probability is not None:
            order["probability"] = probability
        return self.admin("POST", "faults", order)

    def clear_faults(self):
        self.admin("DELETE", "faults")

    # Ledger

    def ledger(self, **query):
        return self.admin("GET", f"ledger?{urlencode(query)}")

    def requests(self, since=0, **where):
        """Requests that the double answered, oldest first; WHERE compares keys of their entries."""
        entries = self.ledger(only="requests", since=since)["requests"]
        return [entry for entry in entries if all(entry.get(key) == value for key, value in where.items())]

    def rows(self, dataset, table):
        """Every row of a table, as it was delivered; none while there is no such table."""
        name = f"{self.project}.{dataset}.{table}"
        return self.ledger(only="tables", table=name)["tables"].get(name, [])

    def count(self, dataset, table):
        return len(self.rows(dataset, table))

    def wait_rows(self, dataset, table, at_least, timeout=30.0):
        wait_for(f"{at_least} rows in {dataset}.{table}", lambda: self.count(dataset, table) >= at_least, timeout, 0.2)
        return self.rows(dataset, table)

    def wait_quiet(self, seconds=1.0, timeout=20.0, **where):
        """Wait until no request that WHERE names came for SECONDS."""
        deadline = time.monotonic() + timeout
        last, since = len(self.requests(**where)), time.monotonic()
        while time.monotonic() - since < seconds and time.monotonic() < deadline:
            time.sleep(0.1)
            now = len(self.requests(**where))
            if now != last:
                last, since = now, time.monotonic()
        return last
