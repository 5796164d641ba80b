# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests: a machine each, on servers that all share.

    MERVIS_BUILD=BUILD-DIRECTORY tests/rig/enter -- /usr/bin/python3 -m pytest tests/integration
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rig.machine import Machine, Servers, rig_dir  # noqa: E402
from rig.process import RigError, tail  # noqa: E402

LIMIT = 3600 if os.environ.get("MERVIS_FULL") else 180
NUMBERS = itertools.count(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "full: a long run, only with MERVIS_FULL=1")
    try:
        rig_dir()
    except RigError as err:
        pytest.exit(f"{err}; see tests/integration/conftest.py", 64)


def pytest_collection_modifyitems(config, items):
    """Long runs are not part of the gate; deselected and not skipped, for nothing may be skipped there."""
    if os.environ.get("MERVIS_FULL"):
        return
    long = [item for item in items if item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def build():
    path = os.environ.get("MERVIS_BUILD")
    if not path:
        pytest.exit("MERVIS_BUILD is not set: it names the directory of the built programs", 64)
    return Path(path).resolve()


@pytest.fixture(scope="session")
def servers():
    made = Servers().start()
    yield made
    made.stop()


@pytest.fixture
def machine(servers, build):
    """A machine that nothing has happened on yet; only its double of the cloud runs."""
    # A short name: sockets live there, and a socket's path holds 107 bytes.
    made = Machine(servers, build, rig_dir() / f"m{next(NUMBERS)}")
    made.cloud.start()
    yield made
    made.stop()
    servers.forget_containers()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the ends of the logs of the machine that it happened on."""
    outcome = yield
    report = outcome.get_result()
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and machine:
        for process in (machine.agentd, machine.crawlerd, machine.statusd, machine.cloud):
            if process.log.exists():
                report.sections.append((process.log.name, tail(process.log, 40)))


@pytest.fixture(autouse=True)
def limited():
    """No test may hang the suite."""
    def expire(number, frame):
        raise RigError(f"the test took longer than {LIMIT} s")
    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
