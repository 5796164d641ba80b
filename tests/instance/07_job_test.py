# SPDX-License-Identifier: Apache-2.0
"""A job that powers its machine off when it is done, and where that is refused."""

import json

from rig import image
from rig.machine import REGISTRY_HOST
from rig.process import stays, wait_for

REPOSITORY = "demo-project/repo/train"
GROUP = "projects/123/zones/asia-northeast3-a/instanceGroupManagers/train"


def job(**changes):
    return {"name": "train", "mode": "job", "image": f"{REGISTRY_HOST}/{REPOSITORY}:stable", "log": "json-file",
            "volumes": ["/var/log/train:/data"], "on_success": "poweroff", **changes}


def publish(world, status=0, version="one"):
    script = f"#!/bin/sh\n# {version}\necho run >>/data/runs\nsleep 1\nexit {status}\n"
    made = image.build(files={"app": (script.encode(), 0o755)}, entrypoint=["/bin/sh", "/app"])
    return world.registry.push(made, REPOSITORY, "stable")


def runs(world):
    path = world.vm.path("/var/log/train/runs")
    return len(path.read_text().split()) if path.exists() else 0


def test_a_job_that_is_done_powers_the_machine_off_once(world):
    publish(world)
    world.put(containers=[job()])
    world.vm.boot()
    wait_for("power-off", lambda: world.vm.nspawn.poll() is not None, 90)
    assert world.vm.nspawn.returncode == 0 and runs(world) == 1
    world.vm._gone()

    # Somebody starts the machine again: it stays up for him, and the job has had its run.
    world.vm.boot()
    world.vm.explain("the job as done", lambda: [one["state"] for one in world.vm.status()["containers"]] == ["done"], 60)
    stays("the machine", lambda: world.vm.nspawn.poll() is None, 5)
    assert runs(world) == 1 and "job-done" in json.dumps(world.vm.status()["events"])
    # A newer image is a new run, and the machine goes off after it.
    publish(world, version="two")
    world.vm.sh("agentctl apply")
    wait_for("power-off", lambda: world.vm.nspawn.poll() is not None, 90)
    assert runs(world) == 2


def test_a_job_that_failed_leaves_the_machine_up_to_be_looked_at(world):
    publish(world, status=3)
    world.put(containers=[job(retries=1)])
    world.vm.boot()
    world.vm.explain("the failure", lambda: [one["state"] for one in world.vm.status()["containers"]] == ["failed"], 90)
    stays("the machine", lambda: world.vm.nspawn.poll() is None, 3)
    assert runs(world) == 2


def test_where_an_instance_group_would_make_the_machine_anew_it_is_refused(world):
    publish(world)
    world.cloud.set_metadata("instance/attributes/created-by", GROUP)
    world.put(containers=[job()])
    world.vm.boot()
    said = world.vm.explain("the refusal", lambda: world.vm.status()["plan"]["refused"], 30)
    assert "instance group" in json.dumps(said), said
    assert runs(world) == 0 and world.vm.nspawn.poll() is None
