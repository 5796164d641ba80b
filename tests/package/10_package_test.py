# SPDX-License-Identifier: Apache-2.0
"""The Debian package on a fresh, minimal Debian that real systemd booted: installed, upgraded, removed, purged. One
machine, one story: the tests run in this order."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from rig import image, vm as rig_vm, web
from rig.cloud import Cloud
from rig.machine import MARKET_HOSTS, REGISTRY_HOST, rig_dir
from rig.process import run, wait_for
from rig.registry import Registry

TOP = Path(__file__).resolve().parent.parent.parent
ENABLED = ("agentd.service", "statusd.service", "statusd.socket", "statusd-local.socket")
STATE = "/var/lib/mervis-agent/state.db"
REPOSITORY = "demo-project/repo/mervis"


@pytest.fixture(scope="session")
def deb(tmp_path_factory):
    """The package; MERVIS_DEB names one that is already built."""
    if os.environ.get("MERVIS_DEB"):
        return Path(os.environ["MERVIS_DEB"]).resolve()
    out = tmp_path_factory.mktemp("deb")
    return Path(run([TOP / "contrib/build-deb", out], timeout=1200).stdout.split()[-1])


def numbered(deb, work, suffix):
    """The same package with a higher number."""
    run(["dpkg-deb", "-R", deb, work / "tree"])
    control = work / "tree/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", rf"Version: \1{suffix}", control.read_text()))
    run(["dpkg-deb", "--root-owner-group", "-b", work / "tree", work / f"{suffix[1:]}.deb"])
    return work / f"{suffix[1:]}.deb"


@pytest.fixture(scope="session")
def next_deb(deb, tmp_path_factory):
    return numbered(deb, tmp_path_factory.mktemp("next"), "+next1")


def make_base(directory):
    """Debian as mmdebstrap makes it, and what this test's network needs; nothing of ours."""
    debian, settings = directory / "debian", directory / "settings"
    debian.mkdir(parents=True)
    run(["tar", "-xf", rig_vm.root_archive(), "-C", debian], timeout=300)
    for name, text in {
        "docker/daemon.json": json.dumps({"insecure-registries": [REGISTRY_HOST], "log-driver": "json-file",
                                          "exec-opts": ["native.cgroupdriver=cgroupfs"]}),
        "hosts": f"127.0.0.1 localhost {REGISTRY_HOST}\n169.254.169.254 metadata.google.internal\n",
        # This machine's firmware does not say Google.
        **{f"systemd/system/{unit}.service.d/cloud.conf": "[Service]\nEnvironment=GCE_METADATA_HOST=169.254.169.254\n"
           for unit in ("agentd", "crawlerd")},
    }.items():
        path = settings / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for unit in rig_vm.SLOW_UNITS:
        (settings / "etc/systemd/system" / unit).symlink_to("/dev/null")
    return [settings, debian]


class World:
    def __init__(self, directory):
        self.registry = Registry(directory).start()
        self.cloud = Cloud(directory / "cloud", self.registry).start()
        os.environ.pop("GCE_METADATA_HOST", None)
        self.vm = rig_vm.Vm(make_base(directory), directory / "vm", name="package")

    def put(self, path):
        shutil.copy(path, self.vm.path("/root"))
        return f"/root/{path.name}"

    def plan(self, **parts):
        google = ("secretmanager.googleapis.com", "bigquery.googleapis.com", REGISTRY_HOST)
        market = {host: f"{self.cloud.url}/market/{host}" for host in MARKET_HOSTS}
        return json.dumps({
            "version": 1, "endpoints": {host: self.cloud.url for host in google} | market,
            "system": {"timezone": "Asia/Seoul"},
            "containers": [{"name": "mervis", "image": f"{REGISTRY_HOST}/{REPOSITORY}:stable", "ports": ["8080:8080"],
                            "log": "json-file", "health": {"interval": "1s", "stable": "1s"},
                            "update": {"check": "10s", "settle": "10s"}}], **parts})

    def container(self):
        """(id, when it started, whether it runs)"""
        return self.vm.out("docker inspect -f '{{.Id}} {{.State.StartedAt}} {{.State.Running}}' mervis").split()

    def sql(self, statement):
        return self.vm.out(f"sqlite3 {STATE} {json.dumps(statement)}")

    def wait_serving(self, timeout=60):
        def serving():
            found = self.vm.status()
            return found if found.get("ready") and any(
                one["name"] == "mervis" and one["state"] == "settled" for one in found.get("containers") or []) else None
        return self.vm.explain("a settled container", serving, timeout)

    def close(self):
        self.vm.close()
        self.cloud.kill()
        self.registry.kill()


@pytest.fixture(scope="module")
def world():
    directory = rig_dir() / "package"
    directory.mkdir()
    kind = run(["stat", "-f", "-c", "%T", directory]).stdout.strip()
    if kind == "overlayfs":  # which cannot carry another one
        run(["mount", "-t", "tmpfs", "tmpfs", directory])
    made = World(directory)
    yield made
    made.close()


def test_lintian_has_nothing_to_say_that_is_not_argued(deb):
    done = subprocess.run(["lintian", "--allow-root", "--display-info", "--show-overrides", str(deb)], capture_output=True,
                          text=True, check=False, timeout=300)
    said = [line for line in done.stdout.splitlines() if re.match(r"[A-Z]: ", line) and line[0] not in "NO"]
    assert said == [] and "O: mervis-agent: systemd-service-file-missing-install-key" in done.stdout, done.stdout + done.stderr


def test_it_holds_all_that_was_made(deb):
    names = [line.split()[5] for line in run(["dpkg-deb", "-c", deb]).stdout.splitlines()]
    for name in ("usr/sbin/agentd", "usr/sbin/statusd", "usr/bin/agentctl", "usr/bin/crawlerd",
                 "usr/libexec/mervis-agent/restart-pause",
                 "lib/systemd/system/agentd.service", "lib/systemd/system/crawlerd.service",
                 "usr/lib/sysusers.d/mervis-agent.conf", "usr/lib/tmpfiles.d/mervis-agent.conf",
                 "usr/share/dbus-1/system.d/io.mervis.Agent1.conf", "usr/share/dbus-1/system.d/io.mervis.Crawler1.conf",
                 "usr/lib/systemd/catalog/mervis-agent.catalog", "usr/lib/systemd/catalog/mervis-agent.ko.catalog",
                 "usr/share/man/man1/agentctl.1.gz", "usr/share/man/man5/mervis-plan.5.gz", "usr/share/man/man8/agentd.8.gz",
                 "usr/share/bash-completion/completions/agentctl", "etc/cloud/cloud.cfg.d/90-mervis-agent.cfg"):
        assert f"./{name}" in names
    recipes = {f"./usr/share/mervis-agent/recipes/{path.name}" for path in (TOP / "crawler/recipe").glob("*.json")}
    assert recipes and recipes <= set(names)
    assert not [name for name in names if "/usr/local" in name or name.endswith((".a", ".o"))]


def test_dpkg_installs_it_on_a_minimal_debian_and_its_units_run(world, deb):
    vm = world.vm
    vm.boot()
    assert vm.sh("command -v agentd agentctl", check=False).stdout == ""
    vm.sh(f"dpkg -i {world.put(deb)}", timeout=120)
    for unit in ENABLED:
        assert vm.out(f"systemctl is-enabled {unit}") == "enabled"
        assert vm.out(f"systemctl is-active {unit}") == "active"
    assert vm.sh("systemctl is-enabled crawlerd", check=False).stdout.strip() == "static"
    assert vm.sh("systemctl is-active crawlerd", check=False).stdout.strip() == "inactive"
    assert vm.out("id -un mervis-crawler; id -un mervis-status").split() == ["mervis-crawler", "mervis-status"]
    assert vm.out("stat -c '%U %a' /run/mervis-crawler") == "mervis-crawler 750"
    assert vm.out("stat -c '%U %a' /var/lib/mervis-agent") == "root 700"
    assert "mervis" in vm.out("journalctl --list-catalog | grep -i mervis || true")


def test_systemd_analyze_has_nothing_to_say(world):
    done = world.vm.sh("systemd-analyze --man=no verify " + " ".join(
        f"/lib/systemd/system/{unit}" for unit in (*ENABLED, "crawlerd.service")), check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_brings_up_the_plan_and_then_complains_of_nothing(world):
    vm = world.vm
    world.registry.push(image.app("1"), REPOSITORY, "stable")
    since = vm.out("date '+%F %T'")
    world.cloud.set_metadata("instance/attributes/mervis-plan", world.plan())
    world.wait_serving()
    assert web.get("http://127.0.0.1:9320/readyz").status == 200
    assert vm.out("date +%Z") == "KST"
    assert vm.out("systemctl --failed --no-legend --plain") == ""
    time.sleep(3)
    ours = " ".join(f"-u {unit}" for unit in (*ENABLED, "crawlerd.service"))
    assert vm.out(f"journalctl -q -p warning --since '{since}' {ours}") == ""


def test_journalctl_explains_the_events_in_both_languages(world):
    """`journalctl -x -u agentd` as an operator types it, on the journal of this machine."""
    vm = world.vm
    said = vm.out("journalctl -x -u agentd --no-pager")
    for text in ("Subject: A new plan was accepted", "Subject: A container runs for the first time", "Remedy: ", "Defined-By: mervis-agent"):
        assert text in said, said
    # The locale itself is Debian's `locales`, which a minimal machine lacks.
    locale = vm.path("/usr/lib/locale/ko_KR.utf8")
    run(["localedef", "--no-archive", "-i", "ko_KR", "-f", "UTF-8", locale])
    said = vm.out("LC_ALL=ko_KR.UTF-8 journalctl -x -u agentd --no-pager")
    assert "새 플랜" in said and "해결 방법: " in said, said


def test_statusd_answers_from_a_sandbox_that_holds(world):
    """Not what the unit asks for, but what the process has: looked at from within, while it serves."""
    vm = world.vm
    assert web.get("http://127.0.0.1:9320/healthz").status == 200
    pid = vm.pid("statusd")
    assert vm.out(f"ps -o user:20= -p {pid}") == "mervis-status"
    status = vm.out(f"cat /proc/{pid}/status")
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status, status
    # A network of its own with nothing in it; its sockets came from outside.
    assert vm.out(f"readlink /proc/{pid}/ns/net") != vm.out("readlink /proc/self/ns/net")
    assert vm.out(f"nsenter -t {pid} -n ip -o link | wc -l") == "1"
    inside = f"nsenter -t {pid} -m --"
    assert vm.sh(f"{inside} touch /usr/x", check=False).returncode != 0
    assert vm.sh(f"{inside} touch /etc/x", check=False).returncode != 0
    for path in ("/var/lib/mervis-agent", "/run/mervis-agent", "/run/docker.sock"):
        assert vm.out(f"{inside} stat -c %a {path}") in ("0", "000"), path
    assert vm.out(f"{inside} ls -A /home /root /tmp") .split() in (["/home:", "/root:", "/tmp:"],)


def test_crawlerd_is_started_by_agentd_when_there_is_something_to_crawl(world):
    vm = world.vm
    world.cloud.make_dataset("market")
    world.cloud.set_metadata("instance/attributes/mervis-plan", world.plan(crawl={
        "contact": "ops@example.com", "sink": {"bigquery": {"dataset": "market", "table": "bars", "flush": "90s"}},
        "jobs": [{"name": "us-1d", "recipe": "yahoo-chart", "symbols": ["AAPL"], "interval": "1d", "every": "1m",
                  "terms": "acknowledged"}]}))
    rows = vm.explain("rows in BigQuery", lambda: world.cloud.wait_rows("market", "bars_daily", 1, timeout=20), 60)
    assert len({row["ts"] for row in rows}) == len(rows)
    assert vm.out("systemctl is-active crawlerd") == "active"
    assert vm.out(f"ps -o user= -p {vm.pid('crawlerd')}").startswith("mervis-")
    world.wait_serving()


class Probe(threading.Thread):
    """A load balancer's health check: asks all the time, counts what it did not get."""

    def __init__(self):
        super().__init__(daemon=True)
        self.asked = 0
        self.failures = []
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.05):
            self.asked += 1
            try:
                web.get("http://127.0.0.1:9320/healthz", timeout=10)
            except OSError as err:
                self.failures.append(err)


def test_an_upgrade_restarts_the_daemons_and_leaves_the_container_and_the_state(world, next_deb):
    vm = world.vm
    daemons = ("agentd", "statusd", "crawlerd")
    container, pids = world.container(), {name: vm.pid(name) for name in daemons}
    before = vm.status()["plan"]["generation"]
    version = int(world.sql("PRAGMA user_version"))
    probe = Probe()
    probe.start()
    vm.sh(f"dpkg -i {world.put(next_deb)}", timeout=120)
    world.wait_serving()
    probe.over.set()
    probe.join()
    assert vm.out("dpkg-query -W -f '${Version}' mervis-agent").endswith("+next1")
    assert all(vm.pid(name) not in (0, pids[name]) for name in daemons)
    assert world.container() == container and container[2] == "true"
    assert vm.status()["plan"]["generation"] == before
    assert int(world.sql("PRAGMA user_version")) == version
    # A connection that the old statusd held when it went is reset; none is refused, and a load balancer asks twice.
    assert probe.asked > 10 and len(probe.failures) <= 1
    assert not any(isinstance(err, ConnectionRefusedError) for err in probe.failures)


# Is ready only after a while; in the meantime its health check fails.
SLOW_APP = """#!/bin/sh
trap 'exit 0' TERM
mkdir -p /tmp/www
sleep 15 &
wait $!
printf 'version=slow' >/tmp/www/index.html
httpd -f -p 8080 -h /tmp/www &
wait $!
"""


def test_an_upgrade_in_the_middle_of_a_rollout_ends_with_the_new_release_alone(world, deb, tmp_path):
    vm, before = world.vm, world.container()

    def shown():
        return vm.status()["containers"][0]
    world.registry.push(image.app("slow", files={"app": (SLOW_APP.encode(), 0o755)}), REPOSITORY, "stable")
    vm.sh("agentctl apply")
    vm.explain("a release that is proved", lambda: shown()["state"] == "proving", 60)
    proved = world.container()
    vm.sh(f"dpkg -i {world.put(numbered(deb, tmp_path, '+next2'))}", timeout=120)
    assert vm.out("dpkg-query -W -f '${Version}' mervis-agent").endswith("+next2")
    # What ran before is at hand until the new one has proved itself, whoever looks after it now.
    assert vm.out("docker ps -a --format '{{.Names}}'").split() == ["mervis", "mervis.previous"]
    world.wait_serving(90)
    assert world.container() == proved and proved[0] != before[0] and shown()["quarantined"] == []
    assert web.get("http://127.0.0.1:8080/").text == "version=slow"
    assert vm.out("docker ps -a --format '{{.Names}}'") == "mervis"


def test_state_of_an_older_version_is_taken_over(world, deb):
    """The tables of the last migration were not there before it: take them away, as the version before left it."""
    vm = world.vm
    container, before = world.container(), vm.status()["plan"]["generation"]
    version = int(world.sql("PRAGMA user_version"))
    vm.sh("systemctl stop agentd")
    source = (TOP / "agent/resource/images-state.c").read_text()
    tables = re.findall(r"CREATE TABLE (\w+)", source)
    assert tables
    world.sql("".join(f"DROP TABLE {name};" for name in tables) + f"PRAGMA user_version = {version - 1}")
    vm.sh(f"dpkg --force-downgrade -i /root/{deb.name}", timeout=120)
    wait_for("agentd", lambda: vm.sh("systemctl is-active agentd", check=False).stdout.strip() == "active", 20)
    world.wait_serving()
    assert int(world.sql("PRAGMA user_version")) == version
    assert vm.status()["plan"]["generation"] == before
    assert world.container() == container
    assert vm.out("ls /var/lib/mervis-agent | grep -c 'state.db.' || true") in ("0", "1", "2")
    assert vm.out("find /var/lib/mervis-agent -name '*corrupt*' -o -name '*.bad*'") == ""


def test_after_a_boot_all_is_there_again(world):
    vm = world.vm
    vm.power_off()
    vm.boot()
    world.wait_serving()
    wait_for("crawlerd", lambda: vm.sh("systemctl is-active crawlerd", check=False).stdout.strip() == "active", 30)
    assert vm.out("systemctl --failed --no-legend --plain") == ""
    assert vm.out("systemctl is-system-running") == "running"
    # The steady state, whoever speaks: two looks at the tag, a round of the crawler, some health checks.
    # Ready is what serves: this one takes its time, and its HEALTHCHECK begins anew.
    wait_for("readiness", lambda: web.get("http://127.0.0.1:9320/readyz").status == 200, 40, 0.1)
    assert web.get("http://127.0.0.1:8080/").text == "version=slow"
    since = vm.out("date '+%F %T'")
    for _ in range(25):
        assert web.get("http://127.0.0.1:9320/readyz").status == 200
        time.sleep(1)
    vm.sh("agentctl status; agentctl doctor; agentctl crawl run us-1d", check=False)
    assert vm.out(f"journalctl -q -p warning --since '{since}'") == ""
    assert vm.out("systemctl --failed --no-legend --plain") == ""


def test_removing_stops_ours_and_nothing_else(world):
    vm = world.vm
    container = world.container()
    vm.sh("dpkg -r mervis-agent", timeout=120)
    for unit in (*ENABLED, "crawlerd.service"):
        assert vm.sh(f"systemctl is-active {unit}", check=False).stdout.strip() == "inactive"
    assert vm.sh("pgrep -x 'agentd|statusd|crawlerd'", check=False).stdout == ""
    assert world.container() == container and container[2] == "true"
    assert vm.out(f"ls {STATE}") == STATE


def test_purging_takes_the_state_away(world):
    vm = world.vm
    container = world.container()
    vm.sh("mkdir -p /etc/mervis-agent/recipes; echo mine >/etc/mervis-agent/recipes/mine.json")
    vm.sh("dpkg -P mervis-agent", timeout=120)
    assert vm.out("ls -d /var/lib/mervis-* /run/mervis-* /lib/systemd/system/agentd.service 2>/dev/null", check=False) == ""
    assert vm.out("find /etc/systemd -name '*agentd.service' -o -name 'statusd*' | grep -v cloud.conf", check=False) == ""
    assert vm.out("cat /etc/mervis-agent/recipes/mine.json") == "mine"
    assert world.container() == container and container[2] == "true"
    assert vm.out("systemctl --failed --no-legend --plain") == ""


def test_the_first_plan_of_the_readme_by_hand(world, deb):
    """On a machine that is no cloud VM: install, write the plan, look."""
    vm = world.vm
    vm.sh("rm -r /etc/systemd/system/*.service.d; systemctl daemon-reload; echo UTC >/etc/timezone")
    vm.sh(f"dpkg -i /root/{deb.name}", timeout=120)
    plan = re.search(r"```json\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)[1]
    vm.sh("mkdir -p /etc/mervis-agent; cat >/etc/mervis-agent/plan.json", input=plan)
    assert vm.sh("agentctl plan validate /etc/mervis-agent/plan.json").returncode == 0
    vm.explain("the plan to be applied", lambda: (vm.status().get("plan") or {}).get("outcome") == "applied", 30)
    assert vm.out("cat /etc/motd") == "Kept by mervis-agent: agentctl status"
    assert "well" in vm.out("agentctl status | head -n 1")
    assert "Nothing is wrong." in vm.out("agentctl doctor")
