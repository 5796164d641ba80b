# SPDX-License-Identifier: Apache-2.0
"""The rig itself: what the other tests stand on is what they take it for."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rig import image, web
from rig.machine import NOBODY, rig_dir
from rig.notify import Notify
from rig.process import Process, RigError, run, wait_for


def test_an_image_made_without_an_engine_is_pulled_by_digest_and_becomes_healthy(servers):
    digest = servers.registry.push(image.app("7"), "rig/app", "stable")
    reference = f"127.0.0.1:5000/rig/app@{digest}"
    servers.engine.pull(reference)
    try:
        servers.engine.run("rig-app", reference, env={"APP_KEY": "s3cret", "GREETING": "hi"}, ports={8080: 8080})
        wait_for("health", lambda: servers.engine.health("rig-app") == "healthy", 15)
        text = web.get("http://127.0.0.1:8080/").text
        assert text == f"version=7 key={image.key_hash('s3cret')} file=none greeting=hi\n"
        assert servers.engine.exec("rig-app", ["cat", "/version"]) == (0, "7")
    finally:
        servers.engine.remove("rig-app")


def test_the_same_image_twice_has_the_same_digest_and_another_version_another():
    assert image.app("1").digest == image.app("1").digest
    assert image.app("1").digest != image.app("2").digest


@pytest.mark.parametrize("oci", [False, True])
def test_of_an_index_the_engine_takes_its_own_platform(servers, oci):
    made = image.index([image.app("arm", arch="arm64", oci=oci), image.app("amd", arch="amd64", oci=oci)], oci=oci)
    digest = servers.registry.push(made, "rig/index", "stable")
    servers.engine.pull(f"127.0.0.1:5000/rig/index@{digest}")
    assert servers.engine.image(f"127.0.0.1:5000/rig/index@{digest}")["Architecture"] == "amd64"


def test_an_image_for_another_platform_alone_is_refused_by_the_engine(servers):
    made = image.index([image.app("arm", arch="arm64")])
    digest = servers.registry.push(made, "rig/arm", "stable")
    with pytest.raises(RigError, match="no matching manifest"):
        servers.engine.pull(f"127.0.0.1:5000/rig/arm@{digest}")


def test_an_image_that_crashes_and_one_that_is_never_ready_do_so(servers):
    for broken in ("crash", "never-ready"):
        digest = servers.registry.push(image.app("x", broken=broken), "rig/broken", broken)
        servers.engine.pull(f"127.0.0.1:5000/rig/broken@{digest}")
        servers.engine.run(f"rig-{broken}", f"127.0.0.1:5000/rig/broken@{digest}")
    try:
        wait_for("crash", lambda: servers.engine.inspect("rig-crash")["State"]["ExitCode"] == 3, 10)
        wait_for("verdict", lambda: servers.engine.health("rig-never-ready") == "unhealthy", 20)
    finally:
        servers.engine.remove("rig-crash")
        servers.engine.remove("rig-never-ready")


def test_a_ballast_makes_the_download_that_large():
    made = image.app("1", ballast=1 << 20)
    assert sum(len(blob) for blob in made.blobs.values()) > 1 << 20


def test_behind_its_real_name_the_registry_wants_a_token_of_the_vm(machine):
    digest = machine.publish("1")
    reference = f"{machine.image.rpartition(':')[0]}@{digest}"
    with pytest.raises(RigError):
        machine.engine.pull(reference)
    with pytest.raises(RigError):
        machine.engine.pull(reference, "not-a-token")
    machine.engine.pull(reference, machine.cloud.token())
    assert machine.engine.image(reference)["Architecture"] == "amd64"


def test_the_metadata_server_answers_at_its_address_and_by_its_name(machine):
    for host in ("169.254.169.254", "metadata.google.internal"):
        where = f"http://{host}/computeMetadata/v1/instance/name"
        assert web.get(where, headers={"Metadata-Flavor": "Google"}).text == "mervis-1"
        assert web.get(where).status == 403


def test_an_unprivileged_user_may_speak_on_the_bus(servers):
    call = ["dbus-send", f"--bus={servers.bus.address}", "--print-reply", "--dest=org.freedesktop.DBus", "/",
            "org.freedesktop.DBus.GetId"]
    for identity in ({}, {"user": NOBODY[0], "group": NOBODY[1]}):
        assert "string" in run(call, **identity).stdout


def test_a_process_is_killed_for_good_and_its_log_goes_on_when_it_is_started_again():
    process = Process("rig-sleeper", ["sh", "-c", "echo up; exec sleep 60"], rig_dir()).start()
    wait_for("line", lambda: process.log.read_text().count("up") == 1)
    first = process.pid
    process.kill()
    assert not process.running and process.child.returncode == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{first}")
    process.start()
    wait_for("line", lambda: process.log.read_text().count("up") == 2)
    assert process.stop() == -signal.SIGTERM


def test_waiting_fails_in_time_and_says_what_was_awaited():
    begun = time.monotonic()
    with pytest.raises(RigError, match="no miracle within 0.3 s"):
        wait_for("miracle", lambda: False, 0.3)
    assert time.monotonic() - begun < 2


def test_a_process_that_ends_instead_of_answering_is_reported_at_once():
    process = Process("rig-ends", ["sh", "-c", "echo why; exit 7"], rig_dir()).start()
    begun = time.monotonic()
    with pytest.raises(RigError, match="ended with status 7 before its answer\nwhy"):
        process.wait_ready("answer", lambda: False, 20)
    assert time.monotonic() - begun < 5


def test_notifications_are_heard():
    notify = Notify(rig_dir(), "notify-test")
    subprocess.run(["/usr/bin/python3", "-c", "import os, socket\n"
                    "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
                    "s.sendto(b'READY=1\\nSTATUS=up', os.environ['NOTIFY_SOCKET'])"],
                   env={**os.environ, **notify.env}, check=True)
    notify.wait("READY", "1", 5)
    assert notify.last("STATUS") == "up"
    notify.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_machine_that_is_killed_leaves_nothing(number):
    """A machine in this machine, with a process that would stay and a cgroup that it stays in."""
    where = rig_dir() / f"nested-{number}"
    enter = Path(__file__).resolve().parent.parent / "rig" / "enter"
    script = ("group=$(find /sys/fs/cgroup -maxdepth 1 -type d -name memory); group=${group:-/sys/fs/cgroup}\n"
              "mkdir -p $group/$MERVIS_RIG_CGROUP/inner && echo $$ >$group/$MERVIS_RIG_CGROUP/inner/cgroup.procs\n"
              "echo $group/$MERVIS_RIG_CGROUP >$MERVIS_RIG_DIR/up.new && mv $MERVIS_RIG_DIR/up.new $MERVIS_RIG_DIR/up\n"
              "setsid sleep 1000")
    machine = subprocess.Popen([enter, "--dir", where, "--", "bash", "-c", script], stdin=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    wait_for("machine", (where / "up").exists)
    group = Path((where / "up").read_text().strip())
    assert group.exists()
    machine.send_signal(number)
    machine.wait(20)
    wait_for("end of its directory", lambda: not where.exists(), 20)
    assert not group.exists()
    assert "sleep 1000" not in run(["ps", "-eo", "args"]).stdout


def test_nothing_is_reachable_but_this_machine():
    with pytest.raises(OSError):
        web.get("http://192.0.2.1/", timeout=2)
