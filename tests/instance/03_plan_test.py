# SPDX-License-Identifier: Apache-2.0
"""Which plan is in force, whatever the metadata server and the people do."""

import json
import os
import time

import pytest

from rig.process import stays

FULL = bool(os.environ.get("MERVIS_FULL"))
METADATA = {"service": "metadata"}


def generation(world):
    return world.vm.status()["plan"]["generation"]


def motd(text):
    return [{"path": "/etc/motd", "content": text + "\n"}]


def refused(world):
    return world.vm.status()["plan"]["refused"]


def wait_refused(world, text=None):
    return world.vm.explain("the refusal", lambda: next(
        (one for one in [refused(world)] if one and (text is None or text in str(one["errors"]))), None), 15)


@pytest.mark.parametrize("seconds", [125 if FULL else 12])
def test_503_at_boot_is_waited_out_and_told_after_ten_seconds(world, seconds):
    world.put(files=motd("late"))
    world.cloud.fault(METADATA, {"status": 503})
    world.vm.boot()
    began = time.monotonic()
    said = world.vm.explain("the trouble to be told", lambda: world.vm.status()["vm"]["message"], 20)
    assert "503" in said and "no answer from the metadata server for 1" in world.vm.journal("-u agentd")
    assert world.vm.out("systemctl is-active agentd") == "active"
    time.sleep(max(0, seconds - (time.monotonic() - began)))
    world.cloud.clear_faults()
    world.settle()
    assert world.vm.out("cat /etc/motd") == "late"
    assert "the metadata server answers again" in world.vm.journal("-u agentd")


def test_a_hang_at_boot_is_cut_and_asked_again(world):
    world.put(files=motd("late"))
    world.cloud.fault(METADATA, {"hang": True}, times=1)
    world.vm.boot()
    world.settle(40)
    assert world.vm.out("cat /etc/motd") == "late"


def test_truncated_json_is_no_plan_and_no_end(shared):
    shared.put_and_settle(files=motd("whole"))
    before = generation(shared)
    shared.cloud.fault(METADATA, {"truncate": 300}, times=3)
    shared.put(files=motd("after"))
    shared.vm.wait_generation(before + 1)
    shared.settle()
    assert shared.vm.out("cat /etc/motd") == "after"


def test_a_plan_with_forty_faults_lists_all_forty_and_changes_nothing(shared):
    shared.put_and_settle(files=motd("good"))
    before = shared.vm.status()["plan"]
    shared.put(files=[{"path": f"/etc/f{i}", "content": "x", "mode": "nonsense"} for i in range(40)])
    wait_refused(shared)
    listed = json.loads(shared.vm.out("agentctl plan show --json"))["refused"]["errors"]
    assert len(listed) == 40 and all(f"files[{i}].mode" in listed[i] for i in range(40))
    after = shared.vm.status()["plan"]
    assert (after["generation"], after["sha256"]) == (before["generation"], before["sha256"])
    assert shared.vm.status()["state"] == "degraded"
    assert shared.vm.sh("agentctl status", check=False).returncode == 1
    # Back to what is in force: nothing to do, and nothing is wrong.
    shared.put(files=motd("good"))
    shared.vm.explain("the end of the refusal", lambda: refused(shared) is None)
    assert generation(shared) == before["generation"]


BAD = {
    "no JSON": ("{", "line"),
    "no UTF-8": (b'{"version": 1, "role": "\xff\xfe"}', "UTF-8"),
    "nested too deep": ('{"version": 1, "x": ' + "[" * 2000 + "]" * 2000 + "}", "deep"),
    "a key twice": ('{"version": 1, "version": 1}', "version"),
    "too big": (json.dumps({"version": 1, "system": {"files": [{"path": "/x", "content": "y" * (257 << 10)}]}}), "at most"),
    "empty": ("", ""),
    "unknown secret": (json.dumps({"version": 1, "containers": [
        {"name": "a", "image": "x.io/a:b", "env": {"K": {"secret": "nope"}}}]}), 'no secret of "secrets"'),
}


def test_documents_that_are_no_plan_are_refused_each_with_its_reason(shared):
    shared.put_and_settle(files=motd("better"))
    before = generation(shared)
    for name, (text, expected) in BAD.items():
        shared.put(files=motd("better"))
        shared.vm.explain(f"quiet before {name}", lambda: refused(shared) is None)
        shared.put_text(text)
        one = wait_refused(shared)
        assert expected in str(one["errors"]), (name, one["errors"])
        assert generation(shared) == before
    assert shared.vm.out("cat /etc/motd") == "better"
    shared.put(files=motd("better"))


def test_a_to_b_to_a_between_two_polls_is_no_change(shared):
    shared.put_and_settle(files=motd("A"))
    before, inode = generation(shared), shared.vm.out("stat -c %i /etc/motd")
    shared.vm.sh("systemctl stop agentd")
    shared.put(files=motd("B"))
    shared.put(files=motd("A"))
    shared.vm.sh("systemctl start agentd")
    shared.settle()
    assert (generation(shared), shared.vm.out("stat -c %i /etc/motd")) == (before, inode)
    # Seen in between, it is two generations.
    shared.put_and_settle(files=motd("B"))
    shared.put_and_settle(files=motd("A"))
    assert generation(shared) == before + 2


def test_a_plan_that_is_removed_changes_nothing_but_status(shared):
    shared.put_and_settle(files=motd("kept"))
    before = generation(shared)
    shared.cloud.drop_metadata("instance/attributes/mervis-plan")
    shared.vm.explain("the removal to be told", lambda: "gone" in (shared.vm.status()["plan"]["message"] or ""))
    assert generation(shared) == before and shared.vm.out("cat /etc/motd") == "kept"
    shared.put(files=motd("kept"))
    shared.settle()
    assert generation(shared) == before


def test_the_instance_wins_over_the_project_and_a_role_names_the_projects_plan(shared):
    cloud = shared.cloud
    shared.put_and_settle(files=motd("instance"))
    cloud.set_metadata("project/attributes/mervis-plan", json.dumps(shared.plan(files=motd("project"))))
    cloud.set_metadata("project/attributes/mervis-plan-training", json.dumps(shared.plan(files=motd("training"))))
    stays("the instance's plan", lambda: shared.vm.out("cat /etc/motd") == "instance", 1)
    cloud.drop_metadata("instance/attributes/mervis-plan")
    shared.vm.explain("the project's plan", lambda: shared.vm.out("cat /etc/motd") == "project")
    cloud.set_metadata("instance/attributes/mervis-role", "training")
    shared.vm.explain("the role's plan", lambda: shared.vm.out("cat /etc/motd") == "training")
    assert "mervis-plan-training" in shared.vm.status()["plan"]["source"]
    cloud.drop_metadata("instance/attributes/mervis-role")
    cloud.drop_metadata("project/attributes/mervis-plan")
    shared.put(files=motd("instance"))
    shared.vm.explain("the instance's again", lambda: shared.vm.out("cat /etc/motd") == "instance")


def test_a_broken_state_an_older_a_newer_a_full_and_a_read_only_one_keep_the_machine_serving(shared):
    vm, state = shared.vm, "/var/lib/mervis-agent"
    shared.put_and_settle(files=motd("state"), scripts=[
        {"name": "st", "run": "#!/bin/sh\necho run >>/var/log/st\n"}])

    def restart_with(spoil, cure="true", expected=None):
        vm.sh(f"systemctl stop agentd; {spoil}; systemctl start agentd")
        vm.sh("rm -f /etc/motd; agentctl apply")
        vm.explain("the file to come back", lambda: vm.out("cat /etc/motd", check=False) == "state", 20)
        if expected:
            vm.explain(f"{expected!r} to be told", lambda: expected in vm.journal("-u agentd -n 30"), 10)
        status = vm.status()
        vm.sh(f"systemctl stop agentd; {cure}; systemctl start agentd")
        shared.settle()
        assert vm.out("grep -c run /var/log/st") == "1"
        return status

    version = vm.out(f"sqlite3 {state}/state.db 'PRAGMA user_version'")
    restart_with(f"echo garbage >{state}/state.db; rm -f {state}/state.db-*", expected="moved aside")
    assert vm.out(f"ls {state} | grep -c 'broken-.*Z$'") == "1"
    was = restart_with(f"sqlite3 {state}/state.db 'PRAGMA user_version = 99'",
                       f"sqlite3 {state}/state.db 'PRAGMA user_version = {version}'", "written by a newer version")
    assert "install that version" in was["plan"]["remedy"] and was["state"] == "degraded"
    was = restart_with(f"mount --bind {state} {state} && mount -o remount,bind,ro {state}", f"umount {state}",
                       "going on with a copy")
    assert was["plan"]["generation"] > 0 and was["state"] == "degraded"
    restart_with(f"cp -a {state} /root/kept && mount -t tmpfs -o size=512k tmpfs {state} && cp -a /root/kept/. {state}/ &&"
                 f"{{ cat /dev/zero >{state}/full 2>/dev/null; true; }}", f"umount {state}")
    # An older one: without the newest migration.
    restart_with(f"sqlite3 {state}/state.db 'ALTER TABLE generation DROP COLUMN retired; DROP TABLE image;"
                 " DROP TABLE repository; DROP TABLE cleanup; PRAGMA user_version = 2'")
    assert vm.out(f"sqlite3 {state}/state.db 'SELECT count(*) <= 500 FROM event'") == "1"
