# SPDX-License-Identifier: Apache-2.0
"""What a person reads when a container cannot be: what happened, why, and the remedy. And boots with somebody away."""

import json
import socket
import time

from rig import image
from rig.process import stays, wait_for
from rollout_kit import (SLOW_APP, boot, containers, events, full, identity, look, push, quarantined, quick, shown, wait_alone,
                         wait_message, wait_state)


def pulled(machine):
    """The application's image, on the engine by somebody else's pull."""
    reference = f"{machine.image.rpartition(':')[0]}@{machine.publish('1')}"
    machine.engine.pull(reference, password=machine.cloud.token())
    return reference


def test_a_taken_port_names_who_has_it(machine):
    taker = machine.engine.run("squatter", pulled(machine), ports={8080: 8080})
    machine.cloud.add_secret("APP_KEY", "key-1")
    machine.put_plan(machine.make_plan([quick(machine)]))
    machine.start(machine.agentd)
    said = wait_message(machine, "port 8080 is taken by container squatter")
    assert "docker stop squatter" in said["remedy"]
    machine.engine.remove(taker)
    with socket.create_server(("0.0.0.0", 8080)):
        look(machine)
        wait_message(machine, "port 8080 is taken by", "python3")
    look(machine)
    machine.wait_page(version="1")
    wait_state(machine, "committed", "settled")
    assert shown(machine)["message"] is None


def test_commands_that_cannot_run(machine):
    good = boot(machine)
    machine.put_plan(machine.make_plan([quick(machine, entrypoint=["/no/such/program"])]))
    said = wait_message(machine, "was rolled back", "/no/such/program")
    assert said["digest"] == good and quarantined(machine)[good]["digest_is_bad"] is False
    machine.wait_page(version="1")
    # A program for another processor inside an image that claims to be for this one.
    alien = bytes.fromhex("7f454c46020101") + bytes(9) + bytes.fromhex("0200b700") + bytes(44)
    bad = image.build(files={"app": (alien, 0o755)}, entrypoint=["/app"], ports=[8080])
    machine.put_plan(machine.make_plan([quick(machine)]))
    push(machine, bad)
    wait_message(machine, "was rolled back", "exec format error")
    machine.wait_page(version="1")


@full
def test_a_container_that_uses_too_much_memory_is_told_its_limit(machine):
    boot(machine)
    # A string that doubles until the limit is met.
    eater = image.app("2", check=False, files={"app": (b"#!/bin/sh\nx=0123456789abcdef\nwhile :; do x=$x$x; done\n", 0o755)})
    push(machine, eater)
    wait_message(machine, "was rolled back", "memory limit of 64.0 MiB")
    machine.wait_page(version="1")


def test_an_image_that_sets_a_secrets_name_itself_is_reported(machine):
    machine.publish("1", env={"APP_KEY": "baked-in-4711"})
    machine.cloud.add_secret("APP_KEY", "key-1")
    machine.put_plan(machine.make_plan([quick(machine)]))
    machine.start(machine.agentd)
    machine.wait_page(version="1", key=image.key_hash("key-1"))
    said = wait_for("event", lambda: events(machine, "secret-baked"), 10)[0]
    assert "APP_KEY" in said and "app-key" in said and "rotate" in said and "baked-in-4711" not in said


def test_an_image_too_large_for_the_disk_is_refused_before_it_is_pulled(machine):
    boot(machine)
    before = identity(machine)
    # A manifest that tells of a layer larger than any disk here; nobody comes to ask for it.
    huge = image.app("2")
    media_type, manifest = huge.manifests.pop(huge.digest)
    told = json.loads(manifest)
    told["layers"][0]["size"] = 1 << 50
    huge._add_manifest(media_type, told)
    try:
        machine.publish(huge)
    except Exception as refused:  # the registry may look at sizes itself
        import pytest
        pytest.skip(f"the registry does not take a manifest with a wrong size: {refused}")
    look(machine)
    said = wait_message(machine, "needs about", "are free; nothing was pulled")
    assert "agentctl cleanup" in said["remedy"] and identity(machine) == before


def test_a_name_that_somebody_else_took_is_told(machine):
    foreign = machine.engine.run("mervis", pulled(machine))
    machine.cloud.add_secret("APP_KEY", "key-1")
    machine.put_plan(machine.make_plan([quick(machine)]))
    machine.start(machine.agentd)
    said = wait_message(machine, "the name mervis is taken by a container that mervis-agent did not make")
    assert "docker rename mervis" in said["remedy"]
    assert machine.engine.inspect(foreign)["State"]["Running"]
    machine.engine.remove(foreign)
    look(machine)
    machine.wait_page(version="1")
    wait_state(machine, "settled")
    wait_alone(machine)


def stop_all(machine):
    """As a reboot does: containers are stopped, the ramfs is empty."""
    machine.agentd.kill()
    machine.engine.request("POST", "/containers/mervis/stop?t=1")
    for value in (machine.dir / "agentd" / "run" / "secrets").rglob("*"):
        if value.is_file():
            value.unlink()


def test_a_boot_with_everybody_away_starts_what_ran(machine):
    boot(machine)
    before = identity(machine)[0]
    stop_all(machine)
    machine.cloud.kill()
    machine.start(machine.agentd)
    machine.wait_page(version="1", key=image.key_hash("key-1"))
    assert identity(machine)[0] == before
    machine.cloud.start()
    wait_for("rest", lambda: shown(machine)["message"] is None, 60)
    assert identity(machine)[0] == before


def test_it_is_ready_when_it_answers_after_a_boot_as_in_a_rollout(machine):
    slow = {"check": False, "files": {"app": (SLOW_APP.encode(), 0o755)}}
    boot(machine, [quick(machine, health={"http": "http://127.0.0.1:8080/", "interval": "500ms",
                                          "start_period": "20s"})], version=image.app("1", **slow))
    assert machine.status()["ready"] is True
    stop_all(machine)
    machine.start(machine.agentd)
    wait_for("start", lambda: containers(machine) == {"mervis": "running"}, 20)
    wait_for("its look", lambda: shown(machine)["running"], 10)
    status = machine.status()
    assert status["ready"] is False and status["ready_reason"] == "container mervis does not serve"
    assert shown(machine)["health"] == "starting"
    wait_for("answer", lambda: machine.status()["ready"], 30)
    assert machine.page()["version"] == "1" and shown(machine)["health"] == "healthy"
    # The old one is stopped first: from then on nothing serves, until the new one does.
    push(machine, image.app("2", **slow))
    wait_for("proof", lambda: shown(machine)["state"] == "proving", 30)
    assert machine.status()["ready"] is False
    wait_for("answer", lambda: machine.status()["ready"], 30)
    assert machine.page()["version"] == "2"


def test_a_boot_with_secret_files_waits_for_them_and_says_so(machine):
    boot(machine, [quick(machine, secret_files=[{"secret": "app-key", "path": "/run/secrets/app-key"}])])
    before = identity(machine)[0]
    stop_all(machine)
    machine.cloud.fault({"service": "secretmanager"}, {"status": 503})
    machine.start(machine.agentd)
    wait_message(machine, "waits for its secret files")
    assert shown(machine)["state"] == "waiting" and containers(machine) == {"mervis": "exited"}
    machine.cloud.clear_faults()
    machine.wait_page(file=image.key_hash("key-1"), timeout=90)
    assert identity(machine)[0] == before


def test_a_boot_after_the_secret_moved_on_brings_the_new_one_in(machine):
    boot(machine, [quick(machine, secret_files=[{"secret": "app-key", "path": "/run/secrets/app-key"}])])
    stop_all(machine)
    machine.cloud.add_secret("APP_KEY", "key-2")
    machine.cloud.set_secret_state("APP_KEY", 1, "destroy")
    machine.start(machine.agentd)
    machine.wait_page(file=image.key_hash("key-2"))
    wait_state(machine, "settled")
    assert shown(machine)["quarantined"] == []


@full
def test_a_service_that_ends_well_is_started_again_but_not_as_fast_as_it_ends(machine):
    shy = image.app("2", check=False, files={"app": (b"""#!/bin/sh
mkdir -p /tmp/www
echo version=2 >/tmp/www/index.html
httpd -f -p 8080 -h /tmp/www &
[ -e /data/stay ] && wait $!
sleep 2
exit 0
""", 0o755)})
    data = machine.dir / "data"
    data.mkdir()
    (data / "stay").touch()
    boot(machine, [quick(machine, volumes=[f"{data}:/data"])], version=shy)
    (data / "stay").unlink()
    machine.engine.request("POST", "/containers/mervis/stop?t=1")
    begun, starts = time.monotonic(), set()
    while time.monotonic() - begun < 25:
        starts.add(machine.engine.inspect("mervis")["State"]["StartedAt"])
        time.sleep(0.2)
    assert 2 <= len(starts) <= 5, starts
    wait_message(machine, "it ended right after it was started")
    (data / "stay").touch()
    machine.wait_page(version="2")
    wait_for("rest", lambda: shown(machine)["message"] is None, 60)


@full
def test_with_the_registry_away_what_runs_goes_on_and_is_restarted(machine):
    boot(machine)
    before = identity(machine)
    machine.registry.kill()
    try:
        look(machine)
        wait_for("message", lambda: shown(machine)["message"], 60)
        stays("the same one", lambda: identity(machine) == before, 2)
        machine.engine.request("POST", "/containers/mervis/kill").expect(204)
        wait_for("another start", lambda: identity(machine)[1] != before[1], 20)
        machine.wait_page(version="1")
    finally:
        machine.registry.start()
    look(machine)
    wait_for("rest", lambda: shown(machine)["message"] is None, 60)
    assert identity(machine)[0] == before[0]
