# SPDX-License-Identifier: Apache-2.0
"""A localcloud for the tests of this folder, and a plain HTTP client that hides nothing."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

HERE = os.path.dirname(os.path.realpath(__file__))
PROJECT = "demo-project"
LOCATION = "asia-northeast3"
FLAVOR = {"Metadata-Flavor": "Google"}


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


@pytest.fixture(scope="session")
def registry_url():
    """A real docker-registry; tests that need it skip where it is not installed."""
    if not shutil.which("docker-registry"):
        yield None
        return
    with tempfile.TemporaryDirectory() as work:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        config = os.path.join(work, "config.yml")
        with open(config, "w", encoding="ascii") as f:
            f.write(f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: 127.0.0.1:{port}}}\n"
                    f"storage: {{filesystem: {{rootdirectory: {work}/data}}}}\n")
        process = subprocess.Popen(["docker-registry", "serve", config], stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def shared(registry_url):
    with tempfile.TemporaryDirectory() as work:
        one = Cloud(work, *(["--registry", registry_url] if registry_url else []))
        one.defaults = one.admin("GET", "options")
        yield one
        one.kill()


@pytest.fixture
def cloud(shared):
    """The shared double, as good as new: nothing is denied, slow or broken."""
    shared.admin("DELETE", "faults")
    shared.admin("PUT", "options", shared.defaults)
    shared.admin("PUT", "iam", {"deny": []})
    shared.admin("PUT", "apis", {"disabled": []})
    shared.admin("PUT", "scopes", "https://www.googleapis.com/auth/cloud-platform\n")
    shared.admin("DELETE", "market")
    return shared


@pytest.fixture
def own():
    """A double of the test's own, for kill -9 and other rough handling."""
    with tempfile.TemporaryDirectory() as work:
        one = Cloud(work)
        yield one
        one.kill()
