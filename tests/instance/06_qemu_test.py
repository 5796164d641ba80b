# SPDX-License-Identifier: Apache-2.0
"""What needs a kernel of its own: the power button as the notice, a power cut that loses what was not synced, limits of
memory and CPU, netem, the clock. Emulated in software: booted once, and then every test begins from the snapshot."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from conftest import scratch

from rig import image, qemu, web
from rig.cloud import Cloud
from rig.machine import MARKET_HOSTS, REGISTRY_HOST, rig_dir
from rig.process import wait_for

pytestmark = pytest.mark.full
REPOSITORY = "demo-project/repo/mervis"
PAGE = "http://127.0.0.1:18080/"


class World:
    """The machine and its cloud; `version` is what the page should show."""

    def __init__(self, registry):
        self.registry = registry
        self.cloud = Cloud(rig_dir() / "qemu-cloud", registry).start()
        os.environ.pop("GCE_METADATA_HOST", None)
        self.cloud.make_dataset("market")
        self.cloud.add_secret("APP_KEY", "the-key")
        self.cloud.generate_charts(live=False)
        self.version = 0
        self.publish()
        self.cloud.set_metadata("instance/attributes/mervis-plan", json.dumps(self.plan()))
        made = qemu.make_disk(Path(os.environ["MERVIS_BUILD"]).resolve(), scratch() / "qemu")
        self.vm = qemu.Qemu(made, scratch() / "machine")

    def publish(self):
        self.version += 1
        self.registry.push(image.app(str(self.version), check=False), REPOSITORY, "stable")

    @staticmethod
    def plan():
        google = {host: f"http://{qemu.LOCAL[qemu.GOOGLE]}" for host in
                  ("secretmanager.googleapis.com", "bigquery.googleapis.com", REGISTRY_HOST)}
        market = {host: f"http://{qemu.LOCAL[qemu.MARKET]}/market/{host}" for host in MARKET_HOSTS}
        return {
            "version": 1, "role": "serving", "endpoints": google | market,
            "system": {"timezone": "Asia/Seoul", "swap": {"size": "64MiB"}},
            "secrets": [{"name": "app-key", "secret": "APP_KEY"}],
            "containers": [{
                "name": "mervis", "image": f"{REGISTRY_HOST}/{REPOSITORY}:stable", "ports": ["8080:8080"], "log": "json-file",
                "env": {"APP_KEY": {"secret": "app-key"}}, "memory": "48MiB", "cpus": 0.5, "stop_timeout": "5s",
                "health": {"http": "http://{container}:8080/", "interval": "2s", "timeout": "10s", "start_period": "1m",
                           "stable": "2s"},
                "update": {"check": "10s", "settle": "5s"}}],
            "crawl": {"contact": "ops@example.com", "egress": {"min_delay": "0s"},
                      "jobs": [{"name": "coins", "recipe": "yahoo-chart", "symbols": ["BTC-USD", "ETH-USD"],
                                "interval": "1m", "every": "30s", "backfill": "2h", "terms": "acknowledged"}],
                      "sink": {"bigquery": {"dataset": "market", "table": "bars", "flush": "90s"}}}}

    def page(self):
        try:
            return web.get(PAGE, timeout=5).text
        except OSError:
            return ""

    def wait_serving(self, timeout=600):
        def serving():
            status = self.vm.status()
            return status["state"] == "well" and status["ready"] and f"version={self.version} " in self.page()
        begun = time.monotonic()
        try:
            wait_for("a well machine that serves", serving, timeout, 1)
        except Exception as err:
            raise AssertionError(f"{err}\n{self.vm.out('agentctl status; journalctl -u agentd -n 30 -o cat', check=False)}") \
                from None
        return time.monotonic() - begun

    def rows_once(self):
        rows = self.cloud.rows("market", "bars_intraday")
        keys = {(row["symbol"], row["ts"], row["revision"]) for row in rows}
        assert len(keys) == len(rows), f"{len(rows) - len(keys)} rows are doubled"
        return keys


@pytest.fixture(scope="module")
def world(registry):
    made = World(registry)
    took = made.vm.boot()
    serving = made.wait_serving()
    made.cloud.wait_rows("market", "bars_intraday", 100, timeout=300)
    print(f"\ncold boot {took:.0f} s, then {serving:.0f} s until the container served and all was well")
    made.vm.save("booted")
    made.snapshot_at = time.time()
    made.vm.cut_power()
    yield made
    made.vm.close()
    made.cloud.kill()


@pytest.fixture
def vm(world):
    """From the snapshot, with the cloud as it was then."""
    world.cloud.set_metadata("instance/preempted", "FALSE")
    took = world.vm.boot("booted")
    print(f"\nup from the snapshot after {took:.1f} s")
    world.wait_serving()
    yield world.vm
    world.vm.close()


@pytest.fixture(autouse=True, scope="module")
def patience():
    """Emulated, everything takes its time."""
    import conftest
    before, conftest.LIMIT = conftest.LIMIT, 1800
    yield
    conftest.LIMIT = before


def test_limits_of_memory_and_cpu_are_the_kernels(world, vm):
    group = vm.out("cat /proc/$(docker inspect -f '{{.State.Pid}}' mervis)/cgroup").rpartition("::")[2]
    assert vm.out(f"cat /sys/fs/cgroup{group}/memory.max") == str(48 << 20)
    assert vm.out(f"cat /sys/fs/cgroup{group}/cpu.max") == "50000 100000"
    assert vm.out("cat /sys/fs/cgroup/system.slice/agentd.service/memory.max") == str(128 << 20)
    assert vm.out("cat /sys/fs/cgroup/system.slice/crawlerd.service/memory.max") == str(96 << 20)
    assert vm.out("cat /sys/fs/cgroup/system.slice/agentd.service/memory.swap.max") == "0"
    assert int(vm.out("swapon --show=SIZE --bytes --noheadings")) >= (64 << 20) - 4096
    def counted(name, key):
        return int(re.search(rf"(?m)^{key} (\d+)", vm.out(f"cat /sys/fs/cgroup{group}/{name}"))[1])
    # One that takes more than it may is killed, one that runs all the time is held back, and the container serves on.
    killed, held = counted("memory.events", "oom_kill"), counted("cpu.stat", "nr_throttled")
    assert vm.sh("docker exec mervis sh -c 'x=x; while :; do x=$x$x; done'", check=False)[0] == 137
    assert counted("memory.events", "oom_kill") > killed
    vm.sh("docker exec mervis timeout 3 sh -c 'while :; do :; done'", check=False)
    assert counted("cpu.stat", "nr_throttled") > held
    world.wait_serving()


def test_what_the_units_forbid_is_forbidden(world, vm):
    """The sandbox as a real kernel enforces it, looked at from within."""
    for unit, user in (("crawlerd", "mervis-crawler"), ("statusd", "mervis-status")):
        pid = vm.out(f"systemctl show --value -p MainPID {unit}")
        assert vm.out(f"ps -o user:20= -p {pid}") == user
        status = vm.out(f"cat /proc/{pid}/status")
        assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
        inside = f"nsenter -t {pid} -m -n -S $(id -u {user}) --"
        assert vm.sh(f"{inside} touch /usr/bin/x", check=False)[0] != 0
        assert vm.sh(f"{inside} ls /var/lib/mervis-agent", check=False)[0] != 0
    pid = vm.out("systemctl show --value -p MainPID statusd")
    assert vm.out(f"nsenter -t {pid} -n ip -o link | cut -d: -f2 | tr -d ' \\n'") == "lo"
    assert vm.out("busybox wget -q -O - http://127.0.0.1:9320/healthz") == "ok"
    # The link-local network but the metadata server is shut for the crawler, and for nobody else.
    there = "timeout 5 bash -c 'exec 3<>/dev/tcp/{}/80'"
    as_crawler = "echo $BASHPID >/sys/fs/cgroup/system.slice/crawlerd.service/cgroup.procs; "
    assert vm.sh(there.format(qemu.GOOGLE), check=False)[0] == 0
    assert vm.sh(as_crawler + there.format(qemu.GOOGLE), check=False)[0] != 0
    assert vm.sh(as_crawler + there.format(qemu.METADATA), check=False)[0] == 0


def test_the_power_button_is_the_notice(world, vm):
    assert vm.out("systemctl is-active systemd-logind") == "active", "nobody listens to the button"
    # The long poll's other end is not in the snapshot.
    vm.sh("systemctl restart agentd")
    world.wait_serving()
    world.cloud.set_metadata("instance/preempted", "TRUE")
    vm.press_power_button()
    took = vm.wait_off(90)
    print(f"off {took:.1f} s after the notice and the button")
    world.cloud.set_metadata("instance/preempted", "FALSE")
    vm.boot()
    said = vm.out("journalctl -b -1 -u agentd -u crawlerd -o short-monotonic --no-hostname")
    print("\n".join(said.splitlines()[-16:]))
    for event in ("preempted", "draining", "drained"):
        assert vm.out(f"journalctl -q -b -1 -u agentd MERVIS_EVENT={event}"), said
    assert "containers are stopped" in said and "all rows are delivered" in said, said
    assert "stay in its spool" not in said and "degraded" not in said, said
    world.wait_serving()
    world.rows_once()


def test_a_power_cut_loses_nothing_that_was_said(world, vm):
    before = world.rows_once()
    world.publish()
    wait_for("the rollout to begin", lambda: world.vm.status()["containers"][0]["state"] in
             ("pulling", "staged", "switching", "proving"), 60, 0.3)
    vm.cut_power()
    took = vm.boot()
    serving = world.wait_serving()
    print(f"boot {took:.0f} s, serving after {serving:.0f} s more")
    assert "moved aside" not in vm.out("journalctl -b -o cat -u agentd -u crawlerd")
    vm.sh("agentctl crawl flush", check=False)
    assert before <= world.rows_once()


def test_delay_and_loss_on_the_wire(world, vm):
    link = vm.out("ip -o route get 169.254.169.254").partition(" dev ")[2].split()[0]
    vm.sh(f"modprobe sch_netem; tc qdisc add dev {link} root netem delay 200ms loss 10%")
    world.publish()
    took = world.wait_serving()
    print(f"rolled out over a bad wire in {took:.0f} s")


def test_a_jump_of_the_clock(world, vm):
    first = int(vm.out("systemctl show --value -p MainPID agentd"))
    doctor = f"GCE_METADATA_HOST={qemu.METADATA} agentctl doctor || true"  # as agentd's unit has it: this is no cloud's firmware
    for jump in ("+1 hour", "-2 hours"):
        vm.sh(f"date -s '{jump}'")
        time.sleep(5)
        found = vm.out(doctor)
        assert "clock" in found.lower() and "makestep" in found, found
    vm.sh(f"date -s @{int(time.time())}")
    world.wait_serving()
    assert int(vm.out("systemctl show --value -p MainPID agentd")) == first
    world.rows_once()
