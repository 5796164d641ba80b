# SPDX-License-Identifier: Apache-2.0
"""From an empty machine to a running container: plan, secret, image, container; and what leads to a new one."""

import json
import os
import re
import signal
import time

import pytest

from rig import image, web
from rig.machine import NOBODY
from rig.process import stays, wait_for

AGENT_KEYS = {"kind", "version", "at", "started_at", "state", "ready", "ready_reason", "vm", "plan", "resources",
              "secrets", "containers", "images", "events"}


def boot(machine, plan=None, version="1", secret="the-key"):
    """Publish, put the plan, start agentd, and wait until the container serves; returns its digest."""
    digest = machine.publish(version)
    machine.cloud.add_secret("APP_KEY", secret)
    machine.put_plan(plan or machine.make_plan())
    machine.start(machine.agentd)
    machine.wait_healthy(digest)
    machine.wait_page(version=version)
    return digest


def identity(machine, name="mervis"):
    found = machine.engine.inspect(name)
    return found["Id"], found["State"]["StartedAt"]


def test_a_tag_becomes_a_healthy_container_that_runs_by_digest_with_its_secret(machine):
    digest = boot(machine, secret="the-key")
    found = machine.engine.inspect("mervis")
    assert found["Config"]["Image"].endswith("@" + digest)
    assert machine.page()["key"] == image.key_hash("the-key")
    assert machine.page()["greeting"] == "hello"
    assert found["HostConfig"]["Memory"] == 64 << 20
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    assert found["Config"]["Labels"]["io.mervis.container"] == "mervis"
    assert found["Config"]["Labels"]["io.mervis.release"]

    settled = machine.wait_settled()
    assert settled["digest"] == digest and settled["health"] == "healthy" and settled["running"] is True


def test_a_new_digest_behind_the_tag_leads_to_a_new_container(machine):
    first = boot(machine)
    before = identity(machine)
    second = machine.publish("2")
    machine.wait_page(version="2")
    machine.wait_healthy(second)
    machine.wait_settled()
    assert second != first and identity(machine)[0] != before[0]
    assert machine.page()["key"] == image.key_hash("the-key")


def test_a_changed_plan_leads_to_a_new_container(machine):
    digest = boot(machine)
    before = identity(machine)
    generation = machine.status()["plan"]["generation"]
    machine.put_plan(machine.make_plan([machine.container(env={"GREETING": "again"})]))
    machine.wait_page(greeting="again", key="none")
    machine.wait_healthy(digest)
    assert identity(machine)[0] != before[0]
    wait_for("next generation", lambda: machine.status()["plan"]["generation"] == generation + 1, 10)


def test_a_changed_secret_leads_to_a_new_container(machine):
    digest = boot(machine)
    before = identity(machine)
    version = machine.cloud.add_secret("APP_KEY", "another-key")  # found by its own refresh
    machine.wait_page(key=image.key_hash("another-key"))
    machine.wait_healthy(digest)
    assert identity(machine)[0] != before[0]
    machine.wait_settled()
    assert [one["version"] for one in machine.status()["secrets"]] == [str(version)]


def test_the_same_plan_again_changes_nothing(machine):
    boot(machine)
    machine.wait_settled()
    before = identity(machine)
    generation = machine.status()["plan"]["generation"]
    machine.put_plan(json.dumps(machine.plan, indent=4, sort_keys=True))
    stays("the same container", lambda: identity(machine) == before, 4)
    assert machine.status()["plan"]["generation"] == generation


def test_a_restart_of_agentd_leaves_the_container_alone(machine):
    boot(machine)
    machine.wait_settled()
    before = identity(machine)
    begun = time.monotonic()
    assert machine.agentd.stop() == 0
    assert time.monotonic() - begun < 3
    assert machine.agentd.notify.heard("STOPPING", "1")
    assert identity(machine) == before
    machine.start(machine.agentd)
    machine.wait_settled()
    stays("the same container", lambda: identity(machine) == before, 7)


def test_kill_9_of_agentd_at_rest_leaves_the_container_alone(machine):
    boot(machine)
    machine.wait_settled()
    before = identity(machine)
    machine.agentd.kill()
    assert machine.page()["version"] == "1"
    machine.start(machine.agentd)
    machine.wait_settled()
    stays("the same container", lambda: identity(machine) == before, 7)


def test_what_happened_while_agentd_was_away_is_caught_up_with(machine):
    boot(machine)
    machine.wait_settled()
    machine.agentd.kill()
    digest = machine.publish("2")
    machine.cloud.add_secret("APP_KEY", "newer")
    machine.start(machine.agentd)
    machine.wait_page(version="2", key=image.key_hash("newer"))
    machine.wait_healthy(digest)


@pytest.mark.parametrize("state", ["resolving", "pulling", "staged", "switching", "proving"])
def test_kill_9_of_agentd_in_the_middle_of_a_rollout_is_resumed(machine, state):
    """Killed as soon as a look from outside shows that state or a later one."""
    order = ["resolving", "pulling", "staged", "switching", "proving", "committed"]
    boot(machine)
    machine.wait_settled()
    digest = machine.publish("2", ballast=8 << 20)
    assert machine.agentctl("apply").returncode == 0

    def reached():
        found = machine.status()["containers"][0]
        return found["state"] in order[order.index(state):-1]
    wait_for(f"state {state}", reached, 20, 0.01)
    machine.agentd.kill()
    machine.start(machine.agentd)
    machine.wait_page(version="2")
    machine.wait_healthy(digest)
    machine.wait_settled()
    names = sorted(name for one in machine.engine.containers() for name in one["Names"])
    assert "/mervis" in names and "/mervis.next" not in names


def test_an_invalid_plan_changes_nothing_and_lists_every_fault_with_its_path(machine):
    boot(machine)
    machine.wait_settled()
    before = identity(machine)
    generation = machine.status()["plan"]["generation"]
    broken = machine.make_plan([machine.container(memory="lots", imge="typo")])
    machine.put_plan(broken)
    wait_for("refusal", lambda: machine.status()["plan"]["refused"], 10)
    refused = machine.status()["plan"]["refused"]
    text = "\n".join(refused["errors"])
    assert "containers[0].memory" in text and "imge" in text
    assert machine.status()["plan"]["generation"] == generation and identity(machine) == before
    assert machine.agentctl("status").returncode == 1

    machine.put_plan(machine.make_plan())
    wait_for("end of the refusal", lambda: machine.status()["plan"]["refused"] is None, 10)
    assert identity(machine) == before


def test_an_image_for_another_platform_is_refused_before_a_layer_is_pulled(machine):
    digest = boot(machine)
    machine.wait_settled()
    before = identity(machine)
    machine.publish(image.app("arm", arch="arm64"))
    machine.agentctl("apply")
    said = wait_for("message", lambda: machine.status()["containers"][0]["message"], 20)
    assert "arm64" in said and "amd64" in said
    assert identity(machine) == before and machine.running_digest() == digest
    blobs = [one for one in machine.cloud.requests(service="registry") if "/blobs/" in one["path"]]
    arm = next(iter(image.app("arm", arch="arm64").blobs))
    assert not [one for one in blobs if arm in one["path"]]


def test_the_status_has_its_keys_and_its_exit_status(machine):
    digest = boot(machine)
    machine.wait_settled()
    wait_for("the whole plan", lambda: machine.status()["state"] == "well", 20)
    done = machine.agentctl("status", "--json")
    status = json.loads(done.stdout)
    assert AGENT_KEYS <= set(status)
    assert status["state"] == "well" and status["ready"] is True
    assert status["vm"]["cloud"] == "gce" and status["vm"]["spot"] is True
    assert status["plan"]["generation"] == 1 and re.fullmatch("[0-9a-f]{64}", status["plan"]["sha256"])
    assert done.returncode == 0, done.stderr

    screen = machine.agentctl("status")
    assert screen.returncode == 0
    assert digest[7:15] in screen.stdout and "healthy" in screen.stdout and "app-key" in screen.stdout
    assert max(len(line) for line in screen.stdout.splitlines()) <= 80

    as_nobody = machine.agentctl("status", "--json", user=NOBODY[0], group=NOBODY[1])
    assert as_nobody.returncode == 0, as_nobody.stderr


def test_the_status_says_2_when_agentd_is_down_and_shows_what_was_last_recorded(machine):
    boot(machine)
    machine.wait_settled()
    machine.agentd.stop()
    done = machine.agentctl("status")
    assert done.returncode == 2
    assert "mervis" in done.stdout + done.stderr


def test_the_secret_is_nowhere_but_where_it_belongs(machine):
    value = "do-not-tell-4711"
    boot(machine, secret=value)
    machine.wait_settled()
    shown = machine.agentctl("status", "--json").stdout + machine.agentctl("status").stdout
    assert value not in shown
    for folder, _, names in os.walk(machine.dir):
        if "cloud" in folder or "secrets" in folder:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    assert value.encode() not in file.read(), path
    with open(f"/proc/{machine.agentd.pid}/cmdline", "rb") as file:
        assert value.encode() not in file.read()


def test_the_watchdog_is_fed_and_readiness_and_stopping_are_told(machine):
    machine.agentd.env["WATCHDOG_USEC"] = "2000000"
    boot(machine)
    wait_for("three feeds", lambda: machine.agentd.notify.heard("WATCHDOG", "1") >= 3, 10)
    assert machine.agentd.notify.heard("READY", "1") == 1
    machine.agentd.signal(signal.SIGTERM)
    assert machine.agentd.wait(5) == 0
    assert machine.agentd.notify.heard("STOPPING", "1") == 1


def test_the_metadata_server_may_come_late(machine):
    digest = machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "late")
    machine.put_plan(machine.make_plan())
    machine.cloud.kill()
    machine.start(machine.agentd)
    stays("agentd", lambda: machine.agentd.running, 3)
    machine.cloud.start()
    machine.wait_healthy(digest)


def test_without_a_cloud_the_plan_is_a_file(machine):
    plan = {"version": 1, "system": {"files": [{"path": "/etc/here", "content": "yes\n"}]}}
    (machine.root / "etc" / "mervis-agent").mkdir(parents=True)
    (machine.root / "etc" / "mervis-agent" / "plan.json").write_text(json.dumps(plan))
    machine.agentd.env["GCE_METADATA_HOST"] = None
    machine.start(machine.agentd)
    wait_for("file", lambda: (machine.root / "etc" / "here").read_text() == "yes\n", 15)
    assert machine.status()["vm"]["cloud"] == "local"
    # One that cannot be read is not the silence of somebody who is not there.
    path = machine.root / "etc" / "mervis-agent" / "plan.json"
    path.unlink()
    path.mkdir()
    wait_for("what is wrong", lambda: "plan.json" in (machine.status()["vm"]["message"] or ""), 15)
    said = [event["text"] for event in machine.status()["events"]]
    assert "the plan cannot be read" in said[0] + said[-1] and "metadata server" not in str(said), said
    path.rmdir()
    path.write_text(json.dumps(plan))
    wait_for("the end of it", lambda: machine.status()["vm"]["message"] is None, 15)
    assert "the plan can be read again" in str(machine.status()["events"]), machine.status()["events"]


def test_statusd_answers_health_checks(machine):
    boot(machine)
    machine.wait_settled()
    machine.start(machine.statusd)
    assert web.get("http://127.0.0.1:9320/healthz").status == 200
    assert machine.statusd.stop() == 0
