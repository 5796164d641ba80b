# SPDX-License-Identifier: Apache-2.0
"""Hostile peers: on the bus, and on the health port. What is watched meanwhile is somebody else's question."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from rig import web
from rig.process import run, wait_for

SOMEBODY = {"user": 1, "group": 1, "extra_groups": []}
METRICS = "http://127.0.0.1:9320/metrics"


@pytest.fixture
def well(machine):
    machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.cloud.make_dataset("market")
    machine.put_plan(machine.make_plan(crawl=machine.crawl()))
    for daemon in (machine.agentd, machine.crawlerd, machine.statusd):
        machine.start(daemon)
    machine.wait_settled()
    return machine


def memory_kib(process):
    text = open(f"/proc/{process.child.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))


def describe_seconds(machine, name="io.mervis.Agent1"):
    """How long a daemon takes to say how it is: the latency of its loop, as a neighbour sees it."""
    begun = time.monotonic()
    run(["busctl", f"--address={machine.servers.bus.address}", "call", name, path_of(name), name, "Describe"], timeout=10)
    return time.monotonic() - begun


def worst(machine, times=10, name="io.mervis.Agent1"):
    return max(describe_seconds(machine, name) for _ in range(times))


# The bus

def busctl(machine, *words, **kwargs):
    return run(["busctl", f"--address={machine.servers.bus.address}", *words], check=False, timeout=30, **kwargs)


def test_both_daemons_are_introspectable_with_properties_that_announce_changes(well):
    for name in ("Agent1", "Crawler1"):
        done = busctl(well, "introspect", f"io.mervis.{name}", f"/io/mervis/{name}", f"io.mervis.{name}", **SOMEBODY)
        assert done.returncode == 0 and re.search(r"\.Describe +method +- +s", done.stdout), done.stderr
    agent = busctl(well, "introspect", "io.mervis.Agent1", "/io/mervis/Agent1", "io.mervis.Agent1").stdout
    for name in ("State", "Generation", "Ready"):
        assert re.search(rf"\.{name} +property .*emits-change", agent), agent


def test_a_changed_property_is_a_signal(well):
    watch = subprocess.Popen(["busctl", f"--address={well.servers.bus.address}", "monitor", "--json=short",
                              "--match=type='signal',member='PropertiesChanged'"], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        well.put_plan(well.make_plan([well.container(env={"GREETING": "again"})]))
        wait_for("generation 2", lambda: well.status()["plan"]["generation"] == 2, 10)
        time.sleep(1)
    finally:
        watch.kill()
    signals = [json.loads(line) for line in watch.stdout if line.startswith("{")]
    values = [one["payload"]["data"][1] for one in signals if one["payload"]["data"][0] == "io.mervis.Agent1"]
    assert any(value.get("Generation", {}).get("data") == 2 for value in values), signals


DAEMONS = {"agentd": "io.mervis.Agent1", "crawlerd": "io.mervis.Crawler1"}


def path_of(name):
    return "/" + name.replace(".", "/")


def call(machine, name, *words, **kwargs):
    return busctl(machine, "call", name, path_of(name), name, *words, **kwargs)


def test_the_crawlers_state_is_a_property_that_announces_its_changes(well):
    name = DAEMONS["crawlerd"]
    shown = busctl(well, "introspect", name, path_of(name), name).stdout
    assert re.search(r"\.State +property +s .*emits-change", shown) and re.search(r"\.Event +signal +ssus", shown), shown

    def state():
        return busctl(well, "get-property", name, path_of(name), name, "State").stdout.strip()
    wait_for("a well crawler", lambda: state() == 's "well"', 20)
    log = well.dir / "signals"
    with open(log, "wb") as out:
        watch = subprocess.Popen(["busctl", f"--address={well.servers.bus.address}", "monitor", "--json=short",
                                  f"--match=type='signal',member='PropertiesChanged',path='{path_of(name)}'"], stdout=out)

    def announced():
        signals = [json.loads(line)["payload"]["data"][1] for line in log.read_text().splitlines() if line.endswith("}")]
        return any(value.get("State", {}).get("data") == "degraded" for value in signals)
    try:
        time.sleep(0.5)
        well.cloud.fault({"service": "market"}, {"status": 503})
        well.agentctl("crawl", "run", "us-1d", check=True)
        wait_for("a degraded crawler", lambda: state() == 's "degraded"', 20)
        wait_for("the signal of it", announced, 20)
    finally:
        watch.kill()
        watch.wait()


CHANGES = {
    "agentd": [("Apply",), ("Cleanup",), ("Restart", "mervis"), ("Rollback", "mervis"), ("Retry", "mervis"), ("Plan",)],
    "crawlerd": [("Reload",), ("RunJob", "us-1d"), ("Backfill", "us-1d", "2026-01-01", ""), ("Flush",), ("DeadLetters",),
                 ("Replay",)],
}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_changing_method_refuses_others_than_root_and_names_a_verb_that_exists(well, daemon):
    """This bus lets everybody call: the refusal is the daemon's own, by the sender's uid."""
    name = DAEMONS[daemon]
    shown = busctl(well, "introspect", name, path_of(name), name).stdout
    methods = set(re.findall(r"\.(\w+) +method", shown))
    assert methods - {"Describe", "History", "DryRun", "CleanupDryRun"} == {words[0] for words in CHANGES[daemon]}
    verbs = well.agentctl("--help").stdout
    for method, *words in CHANGES[daemon]:
        # Unlike busctl it shows the text of a refusal.
        done = run(["dbus-send", f"--bus={well.servers.bus.address}", "--print-reply", f"--dest={name}", path_of(name),
                    f"{name}.{method}", *(f"string:{word}" for word in words)], check=False, **SOMEBODY)
        assert done.returncode != 0 and "sudo agentctl" in done.stderr, (method, done.stderr)
        verb = re.search(r"sudo agentctl ((?:crawl |plan )?[a-z-]+)", done.stderr)[1]
        assert re.search(rf"(?m)^  {verb}\b", verbs), verb


@pytest.mark.parametrize("daemon", DAEMONS)
def test_oversized_and_wrong_arguments_are_refused_and_change_nothing(well, daemon):
    name = DAEMONS[daemon]
    big = "x" * 100_000
    wrong = {"agentd": (("Restart", "s", big), ("Restart", "i", "7"), ("Restart",)),
             "crawlerd": (("RunJob", "s", big), ("RunJob", "i", "7"), ("RunJob",), ("Backfill", "sss", "us-1d", big, ""),
                          ("Backfill", "sss", big, "2026-01-01", ""), ("Backfill", "sss", "us-1d", "yesterday", ""))}
    process = getattr(well, daemon)
    before = memory_kib(process)
    for words in (*wrong[daemon], ("Nothing",)):
        done = call(well, name, *words)
        assert done.returncode != 0, words
        assert len(done.stderr) < 200_000
    assert describe_seconds(well, name) < 2
    assert memory_kib(process) < before + 4096


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_flood_of_calls_leaves_it_answering(well, daemon):
    name, process = DAEMONS[daemon], getattr(well, daemon)
    before = memory_kib(process)
    flood = [subprocess.Popen(["sh", "-c", f"while :; do busctl --address={well.servers.bus.address} call "
                               f"{name} {path_of(name)} {name} Describe >/dev/null; done"],
                              stderr=subprocess.DEVNULL, start_new_session=True, **SOMEBODY) for _ in range(4)]
    try:
        time.sleep(2)
        assert worst(well, name=name) < 2
    finally:
        for one in flood:
            os.killpg(one.pid, 9)
            one.wait()
    assert memory_kib(process) < before + 4096


def align(data, to):
    return data + bytes(-len(data) % to)


def call_message(serial, destination, path, member):
    """A method call without arguments, by hand: no library would leave its answers unread."""
    def field(code, kind, value):
        raw = value.encode()
        return bytes([code, 1]) + kind + b"\0" + len(raw).to_bytes(4, "little") + raw + b"\0"
    fields = b""
    for code, kind, value in ((1, b"o", path), (2, b"s", destination), (3, b"s", member), (6, b"s", destination)):
        fields = align(fields, 8) + field(code, kind, value)
    head = b"l\1\0\1" + (0).to_bytes(4, "little") + serial.to_bytes(4, "little") + len(fields).to_bytes(4, "little")
    return align(head + fields, 8)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_client_that_never_reads_holds_nobody(well, daemon):
    name, process = DAEMONS[daemon], getattr(well, daemon)
    before = memory_kib(process)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(str(well.servers.bus.socket))
        deaf.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        assert deaf.recv(100).startswith(b"OK ")
        deaf.sendall(b"BEGIN\r\n" + call_message(1, "org.freedesktop.DBus", "/org/freedesktop/DBus", "Hello"))
        deaf.setblocking(False)
        sent = 0
        for serial in range(2, 5000):
            try:
                deaf.send(call_message(serial, name, path_of(name), "Describe"))
                sent += 1
            except OSError:
                time.sleep(0.001)
        assert sent > 100
        assert worst(well, name=name) < 2
    assert process.running
    assert memory_kib(process) < before + 8192


# The health port

def get_status(url, timeout=2):
    try:
        return web.get(url, timeout=timeout).status
    except OSError as err:
        return err


def test_healthz_is_agentds_life_and_readyz_its_containers(well):
    wait_for("ready", lambda: get_status("http://127.0.0.1:9320/readyz") == 200, 10)
    assert get_status("http://127.0.0.1:9320/healthz") == 200
    assert json.loads(web.get("http://127.0.0.1:9321/status.json").text)["reachable"] is True
    well.agentd.kill()
    wait_for("not alive", lambda: get_status("http://127.0.0.1:9320/healthz") == 503, 10)


def test_readyz_turns_503_at_the_preemption_notice_and_healthz_does_not(well):
    wait_for("ready", lambda: get_status("http://127.0.0.1:9320/readyz") == 200, 10)
    well.cloud.set_metadata("instance/preempted", "TRUE")
    wait_for("not ready", lambda: get_status("http://127.0.0.1:9320/readyz") == 503, 3)
    assert get_status("http://127.0.0.1:9320/healthz") == 200


def test_metrics_pass_promtool(well):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool (Debian's prometheus) is not there")
    well.publish("2")
    well.wait_page(version="2")
    wait_for("downtime", lambda: "downtime" in web.get(METRICS).text, 20)
    text = web.get(METRICS).text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    for name in ("memory", "restarts", "rows", "bytes", "downtime", "freed"):
        assert re.search(rf"(?m)^# TYPE mervis_\w*{name}", text), (name, text)


def test_a_peer_that_drips_or_floods_leaves_others_served(well):
    before = memory_kib(well.statusd)
    dripping = []
    for _ in range(40):
        one = socket.socket()
        one.bind(("127.0.0.2", 0))
        one.settimeout(2)
        try:
            one.connect(("127.0.0.1", 9320))
            one.send(b"GET /healthz HTTP/1.1\r\n")
            dripping.append(one)
        except OSError:
            one.close()
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", 9320), 1, ("127.0.0.3", 0)) as one:
                    one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    one.recv(65536)
            except OSError:
                pass

    threads = [threading.Thread(target=flood, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        deadline, slowest = time.monotonic() + 12, 0.0
        while time.monotonic() < deadline:
            for one in dripping:
                try:
                    one.send(b"X")
                except OSError:
                    pass
            begun = time.monotonic()
            assert get_status("http://127.0.0.1:9320/healthz") == 200
            slowest = max(slowest, time.monotonic() - begun)
            assert describe_seconds(well) < 2
            time.sleep(0.3)
    finally:
        stop.set()
        for one in dripping:
            one.close()
    assert slowest < 2
    assert memory_kib(well.statusd) < before + 2048


def test_under_wrk_memory_is_flat_and_agentd_answers(well):
    wrk = shutil.which("wrk")
    if not wrk:
        pytest.skip("wrk is not there")
    run([wrk, "-t1", "-c8", "-d2s", "http://127.0.0.1:9320/healthz"])
    before = memory_kib(well.statusd)
    load = subprocess.Popen([wrk, "-t1", "-c8", "-d6s", METRICS], stdout=subprocess.DEVNULL)
    try:
        assert worst(well, 15) < 2
    finally:
        load.wait()
    assert memory_kib(well.statusd) < before + 1024
    # wrk's last connections still count against its address for a moment
    wait_for("answer", lambda: get_status("http://127.0.0.1:9320/healthz") == 200, 5)


# The guest attribute

def guest_attribute(machine):
    reply = web.get(f"{machine.cloud.url}/computeMetadata/v1/instance/guest-attributes/mervis/status",
                    headers={"Metadata-Flavor": "Google"})
    return reply.text if reply.status == 200 else None


def test_the_guest_attribute_tells_the_state_and_what_is_wrong(machine):
    machine.cloud.set_metadata("instance/attributes/enable-guest-attributes", "TRUE")
    machine.put_plan(machine.make_plan(containers=[], secrets=[]))
    machine.start(machine.agentd)
    wait_for("the attribute", lambda: guest_attribute(machine) == "well, generation 1", 40)
    machine.put_plan(machine.make_plan(containers=[], secrets=[{"name": "lost", "secret": "LOST"}]))
    wait_for("what is wrong", lambda: (guest_attribute(machine) or "").startswith("degraded, generation 2: "), 60)
    assert "LOST" in guest_attribute(machine)


def test_guest_attributes_that_are_off_are_no_error(machine):
    machine.put_plan(machine.make_plan(containers=[], secrets=[]))
    machine.start(machine.agentd)
    wait_for("well", lambda: machine.status()["state"] == "well", 15)
    assert wait_for("a try", lambda: machine.cloud.requests(method="PUT"), 20)[0]["status"] == 403
    assert "guest" not in machine.agentd.log.read_text() and machine.status()["state"] == "well"
