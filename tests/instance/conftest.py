# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests on a whole machine, booted by real systemd.

    MERVIS_BUILD=BUILD-DIRECTORY tests/rig/enter -- /usr/bin/python3 -m pytest tests/instance

MERVIS_ROOT_TAR is the Debian root (tests/instance/make-root). MERVIS_FULL=1 adds the long runs.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rig import vm as rig_vm  # noqa: E402
from rig.cloud import Cloud  # noqa: E402
from rig.machine import REGISTRY_HOST, rig_dir  # noqa: E402
from rig.process import RigError, tail  # noqa: E402
from rig.registry import Registry  # noqa: E402
from rig.tls import Authority  # noqa: E402

LIMIT = 240
FULL = bool(os.environ.get("MERVIS_FULL"))
NUMBERS = itertools.count(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "full: a long run, only with MERVIS_FULL=1")
    try:
        rig_dir()
    except RigError as err:
        pytest.exit(f"{err}; see tests/instance/conftest.py", 64)


def pytest_collection_modifyitems(config, items):
    """Long runs are not part of the gate; deselected and not skipped, for nothing may be skipped there."""
    if FULL:
        return
    long = [item for item in items if item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def scratch():
    """A directory whose file system can carry an overlay."""
    path = rig_dir() / "instance"
    path.mkdir(exist_ok=True)
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=True).stdout
    if kind.strip() == "overlayfs":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def authority():
    """Made the certificate under which the registry answers to its real name."""
    return Authority(scratch() / "tls", REGISTRY_HOST)


@pytest.fixture(scope="session")
def base(authority):
    build = os.environ.get("MERVIS_BUILD")
    if not build:
        pytest.exit("MERVIS_BUILD is not set: it names the directory of the built programs", 64)
    return rig_vm.make_base(Path(build).resolve(), scratch(), authority=authority)


@pytest.fixture(scope="session")
def registry():
    directory = rig_dir() / "instance" / "registry"
    directory.mkdir(parents=True, exist_ok=True)
    made = Registry(directory).start()
    yield made
    made.kill()


class World:
    """One machine and its cloud."""

    def __init__(self, base, registry, authority):
        self.dir = rig_dir() / "instance" / f"m{next(NUMBERS)}"
        self.registry = registry
        self.cloud = Cloud(self.dir / "cloud", registry, options=authority.options)
        self.vm = rig_vm.Vm(base, self.dir / "vm", name=self.dir.name)
        self.instances = itertools.count(1)

    def plan(self, **parts):
        """A plan with these parts of `system`, or of the top level. The registry needs no endpoint: it is reached by its
        name, over TLS."""
        top = {"version": 1, "endpoints": {"secretmanager.googleapis.com": self.cloud.url}}
        system = {key: parts.pop(key) for key in ("timezone", "swap", "files", "scripts") if key in parts}
        return {**top, **({"system": system} if system else {}), **parts}

    def put(self, **parts):
        self.put_text(json.dumps(self.plan(**parts), ensure_ascii=False))

    def put_text(self, text):
        self.cloud.set_metadata("instance/attributes/mervis-plan", text)

    def settle(self, timeout=30):
        """Wait until the newest plan was applied; returns the status."""
        def well():
            status = self.vm.status()
            return status if status["plan"]["outcome"] == "applied" and status["state"] == "well" else None
        return self.vm.explain("a well machine", well, timeout)

    def put_and_settle(self, **parts):
        before = self.vm.status()["plan"]["generation"]
        self.put(**parts)
        self.vm.explain("the new plan to be in force",
                        lambda: self.vm.status()["plan"]["generation"] > before, 20)
        return self.settle()

    def changes(self):
        """What `agentctl apply --dry-run` says would change: {"KIND NAME": its line}."""
        listed = json.loads(self.vm.sh("agentctl apply --dry-run --json", check=False).stdout)
        listed = listed["changes"] if isinstance(listed, dict) else listed
        return {f"{item['kind']} {item['name']}": item for item in listed if item["action"] != "none"}

    def close(self):
        self.vm.close()
        self.cloud.kill()


def begin(base, registry, authority):
    made = World(base, registry, authority)
    made.cloud.start()
    os.environ.pop("GCE_METADATA_HOST", None)  # the machine has its own
    return made


@pytest.fixture
def world(base, registry, authority):
    """A machine that was never booted, and its running cloud."""
    made = begin(base, registry, authority)
    yield made
    made.close()


@pytest.fixture(scope="module")
def booted(base, registry, authority):
    made = begin(base, registry, authority)
    made.vm.boot()
    yield made
    made.close()


@pytest.fixture
def shared(booted):
    """A machine that is up and that the tests of one file share: each brings its own plan."""
    booted.cloud.clear_faults()
    return booted


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    given = getattr(item, "funcargs", {})
    world = given.get("world") or given.get("shared")
    if report.failed and world:
        report.sections.append(("console", tail(world.vm.log, 30)))
        if getattr(world.vm, "leader", None):
            journal = world.vm.sh("journalctl -u agentd -o short-monotonic -n 60", check=False).stdout
            report.sections.append(("journal of agentd", journal))


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
