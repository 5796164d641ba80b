# SPDX-License-Identifier: Apache-2.0
"""How long a machine takes: from power-on to a healthy container and the first rows, by phase; and the same again after a
reboot and after a power cut."""

import time

import pytest

from rig import image, web
from rig.machine import MARKET_HOSTS, REGISTRY_HOST
from rig.process import wait_for

REPOSITORY = "demo-project/repo/mervis"
PAGE = "http://127.0.0.1:8080/"
# What a slow day on two crowded cores still keeps; a user's machine is looked at with `agentctl history`.
LIMITS = {"container healthy": 90, "first rows": 120}


def wanted(world):
    return {
        "role": "serving", "timezone": "Asia/Seoul",
        "endpoints": {**world.plan()["endpoints"], "bigquery.googleapis.com": world.cloud.url,
                      **{host: f"{world.cloud.url}/market/{host}" for host in MARKET_HOSTS}},
        "secrets": [{"name": "app-key", "secret": "APP_KEY"}],
        "containers": [{"name": "mervis", "image": f"{REGISTRY_HOST}/{REPOSITORY}:stable", "ports": ["8080:8080"],
                        "log": "json-file", "env": {"APP_KEY": {"secret": "app-key"}}, "stop_timeout": "5s",
                        "health": {"http": "http://{container}:8080/", "interval": "1s", "stable": "1s"},
                        "update": {"check": "10s", "settle": "5s"}}],
        "crawl": {"contact": "ops@example.com", "egress": {"min_delay": "0s"},
                  "jobs": [{"name": "us-1d", "recipe": "yahoo-chart", "symbols": ["AAPL"], "interval": "1d", "every": "1m",
                            "terms": "acknowledged"}],
                  "sink": {"bigquery": {"dataset": "market", "table": "bars", "flush": "90s"}}}}


def page():
    try:
        return web.get(PAGE, timeout=2).text
    except OSError:
        return ""


class Phases:
    """Seconds since power-on, phase by phase."""

    def __init__(self, vm):
        self.vm, self.begun, self.took = vm, time.time(), {}

    def reached(self, name):
        self.took[name] = time.time() - self.begun

    def event(self, name, event):
        """When the journal of this boot first said so."""
        stamp = self.vm.explain(event, lambda: self.vm.out(
            f"journalctl -b -q -o short-unix MERVIS_EVENT={event} | head -n 1").partition(" ")[0], 60)
        self.took[name] = float(stamp) - self.begun

    def wait(self, name, question, timeout):
        self.vm.explain(name, question, timeout, 0.2)
        self.reached(name)

    def __str__(self):
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in sorted(self.took.items(), key=lambda one: one[1]))


def boot(world, version):
    vm = world.vm
    phases = Phases(vm)
    vm.boot()
    phases.reached("systemd up")
    phases.event("agentd up", "agentd-started")
    phases.wait("container healthy", lambda: vm.status().get("ready") and f"version={version}" in page(), 120)
    return phases


def stopped_side_by_side(vm):
    """crawlerd sends its rows while the containers stop, and nobody is woken up because a machine was switched off."""
    def first(unit, text):
        lines = vm.out(f"journalctl -b -1 -q -o short-unix -u {unit} | grep -F '{text}'").splitlines()
        return float(lines[0].split()[0])
    assert abs(first("agentd", "draining: the machine goes down") - first("crawlerd", "stopping: sending what is spooled")) < 2
    said = vm.journal("-b -1 -u agentd")
    assert "containers are stopped" in said
    for wrong in ("degraded", "could not be started", "stay in its spool"):
        assert wrong not in said, said


@pytest.mark.parametrize("down", ("a reboot", "a power cut"))
def test_from_power_on_to_a_healthy_container_and_the_first_rows(world, down, capsys):
    vm, cloud = world.vm, world.cloud
    cloud.make_dataset("market")
    cloud.add_secret("APP_KEY", "the-key")
    world.registry.push(image.app("1"), REPOSITORY, "stable")
    world.put(**wanted(world))

    first = boot(world, 1)
    first.event("plan accepted", "plan-accepted")
    first.event("container started", "container-started")
    first.wait("first rows", lambda: cloud.rows("market", "bars_daily"), 150)
    for name, limit in LIMITS.items():
        assert first.took[name] < limit, str(first)
    was = vm.out("docker ps --no-trunc -q")
    world.settle(60)
    before = {(row["symbol"], row["ts"], row["revision"]) for row in cloud.rows("market", "bars_daily")}

    vm.power_off() if down == "a reboot" else vm.reset()
    again = boot(world, 1)
    if down == "a reboot":
        stopped_side_by_side(vm)
    world.settle(60)
    assert vm.out("docker ps --no-trunc -q") == was, "the same container, started again"
    assert again.took["container healthy"] < LIMITS["container healthy"], str(again)
    wait_for("crawlerd", lambda: vm.sh("systemctl is-active crawlerd", check=False).stdout.strip() == "active", 30)
    assert vm.out("systemctl --failed --no-legend --plain") == ""
    vm.sh("agentctl crawl flush", check=False)
    rows = cloud.rows("market", "bars_daily")
    keys = {(row["symbol"], row["ts"], row["revision"]) for row in rows}
    assert len(keys) == len(rows) and before <= keys
    with capsys.disabled():
        print(f"\nfirst boot: {first}\nafter {down}: {again}")


@pytest.mark.full
def test_without_a_notice_the_crawler_and_the_containers_are_drained_side_by_side(world):
    """One after the other they could need 36 s, and a preempted machine has 30."""
    vm, cloud = world.vm, world.cloud
    cloud.make_dataset("market")
    cloud.add_secret("APP_KEY", "the-key")
    slow = "trap 'echo told to stop; sleep 12; echo stopped; exit 0' TERM; while :; do sleep 1 & wait $!; done"
    world.registry.push(image.build(entrypoint=["/bin/sh", "-c", slow]), REPOSITORY, "stable")
    plan = wanted(world)
    plan["containers"][0].update(stop_timeout="15s")
    del plan["containers"][0]["health"]
    world.put(**plan)
    cloud.fault({"service": "bigquery", "path": "^/upload/"}, {"job_delay": 8}, times=9)
    vm.boot()
    world.settle(60)
    wait_for("a load on its way", lambda: [one for one in cloud.requests(service="bigquery")
                                           if one["path"].startswith("/upload/")], 60)

    assert vm.power_off(30) < 30
    log = next(vm.docker.glob("containers/*/*-json.log")).read_text()
    assert "told to stop" in log and "stopped" in log
    delivered = cloud.rows("market", "bars_daily")
    vm.boot()
    assert delivered, vm.journal("-b -1 -u crawlerd")
    told = {line: float(stamp) for stamp, _, line in (
        entry.partition(" ") for entry in vm.out("journalctl -b -1 -q -o short-unix -t systemd").splitlines())}
    begin, end = (next(at for line, at in told.items() if words in line)
                  for words in ("Stopping agentd.service", "Stopped crawlerd.service"))
    assert begin < end, told


def test_a_plan_without_containers_does_not_miss_an_engine(world):
    vm = world.vm
    vm.path("/etc/systemd/system/docker.service").symlink_to("/dev/null")
    vm.path("/etc/systemd/system/docker.socket").symlink_to("/dev/null")
    world.put(timezone="Asia/Seoul")
    vm.boot()
    assert world.settle()["state"] == "well"
    line = next(one for one in vm.out("agentctl doctor || true").splitlines() if one.split()[1:2] == ["engine"])
    assert "not needed: the plan names no container" in line
    assert "docker.service" not in vm.out("agentctl doctor || true")

    # With one it does, and says what to install.
    world.put(containers=[{"name": "app", "image": f"{REGISTRY_HOST}/{REPOSITORY}:stable"}])
    status = vm.explain("the engine to be missed", lambda: vm.status() if vm.status()["state"] == "degraded" else None, 30)
    assert status["ready"] is False
    assert "sudo apt-get install docker.io" in vm.out("agentctl doctor || true")
