# SPDX-License-Identifier: Apache-2.0
"""Fixtures: one double that all tests share, cleaned before each, or one of a test's own."""

import os
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

from localcloud.testing import Cloud


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
