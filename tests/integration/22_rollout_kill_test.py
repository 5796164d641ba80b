# SPDX-License-Identifier: Apache-2.0
"""kill -9 of agentd and of the engine, in every state of the rollout: one healthy container, no orphan, no lost copy.

agentd ends itself at MERVIS_CRASH_AT, as by SIGKILL: before and after each state is recorded, and after each step that
the engine took. MERVIS_FULL=1 runs all of them, else every recorded state once.
"""

import time

import pytest

from rig import image
from rig.process import wait_for
from rollout_kit import (FULL, SLOW_APP, boot, come_back, containers, crash_at, full, look, push, quarantined, quick, shown,
                         unpublished, wait_alone, wait_crash, wait_message, wait_state)

FORWARD = [f"{when}-{state}" for state in ("pulling", "staged", "switching", "proving", "committed", "settled")
           for when in (("before", "after") if FULL else ("after",))]
FORWARD += ["after-create-in-staged", "after-rename-in-switching", "after-rename-in-switching:2",
            "after-stop-in-switching", "after-start-in-switching", "after-remove-in-committed"]
BACK = [f"{when}-{state}" for state in ("rolling-back", "rolled-back")
        for when in (("before", "after") if FULL else ("after",))]
BACK += ["after-stop-in-rolling-back", "after-rename-in-rolling-back", "after-rename-in-rolling-back:2",
         "after-start-in-rolling-back", "after-remove-in-rolling-back"]
BESIDE = ["after-switching", "after-start-in-switching", "after-proving", "after-rename-in-proving",
          "after-rename-in-proving:2", "after-stop-in-proving", "before-committed"]


def parts(points, n):
    """Points in N groups, a machine each: booting one is what takes the time."""
    return [points[i::n] for i in range(n)]


def rollback_copy_is_there(machine, name="mervis"):
    """While the new one is not settled, the old one is at hand, whatever it is called."""
    return len(machine.engine.containers(label=f"io.mervis.container={name}")) == 2


def restart_engine(machine):
    machine.engine.kill()
    machine.engine.start()


@pytest.mark.parametrize("points", parts(FORWARD, 3), ids=lambda points: points[0])
def test_forward_killed_at_each_step_ends_with_the_new_one_alone(machine, points):
    boot(machine)
    for number, point in enumerate(points, 2):
        crash_at(machine, point)
        wait_state(machine, "settled")
        digest = machine.publish(str(number))
        look(machine)
        wait_crash(machine, point)
        if "in-committed" not in point and point not in ("before-pulling", "after-pulling", "before-staged",
                                                         "after-staged", "before-settled", "after-settled"):
            assert rollback_copy_is_there(machine), point
        come_back(machine)
        look(machine)
        machine.wait_page(version=str(number))
        wait_state(machine, "settled")
        assert machine.running_digest() == digest, point
        assert shown(machine)["quarantined"] == [], point
        wait_alone(machine)


@pytest.mark.parametrize("points", parts(BACK, 2), ids=lambda points: points[0])
def test_back_killed_at_each_step_ends_with_the_old_one_alone(machine, points):
    good = boot(machine)
    for number, point in enumerate(points, 2):
        crash_at(machine, point)
        bad = machine.publish(str(number), broken="crash")
        look(machine)
        wait_crash(machine, point)
        come_back(machine)
        machine.wait_page(version="1")
        # Which of its ends is seen first is a matter of when agentd came back.
        message = wait_message(machine, "was rolled back")["message"]
        assert "it exited with status 3" in message or "it exited and the engine started it again" in message, message
        assert machine.running_digest() == good and bad in quarantined(machine), point
        wait_alone(machine)


def test_side_by_side_killed_at_each_step_never_leaves_none_running(machine):
    boot(machine, [unpublished(machine)])
    for number, point in enumerate(BESIDE, 2):
        crash_at(machine, point)
        wait_state(machine, "settled", name="inner")
        digest = machine.publish(str(number))
        look(machine)
        wait_crash(machine, point)
        assert "running" in containers(machine, "inner").values(), point
        come_back(machine)
        look(machine)
        wait_for("new one", lambda: machine.running_digest("inner") == digest, 30)
        wait_state(machine, "settled", name="inner")
        assert shown(machine, "inner")["quarantined"] == [], point
        wait_alone(machine, "inner")


def test_the_first_container_killed_at_each_step(machine):
    digest = machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "key-1")
    machine.put_plan(machine.make_plan([quick(machine)]))
    for point in ("after-pulling", "after-create-in-staged", "after-switching", "after-start-in-switching",
                  "after-proving", "before-committed", "after-committed"):
        crash_at(machine, point)
        wait_crash(machine, point)
    come_back(machine)
    machine.wait_page(version="1")
    wait_state(machine, "settled")
    assert machine.running_digest() == digest
    wait_alone(machine)


@full
def test_the_verdict_of_a_release_survives_a_kill_while_it_is_proved(machine):
    """Killed with a bad one at work: it is condemned, not adopted."""
    good = boot(machine)
    crash_at(machine, "after-proving")
    push(machine, "2", broken="never-ready")
    wait_crash(machine, "after-proving")
    come_back(machine)
    wait_message(machine, "was rolled back")
    assert machine.running_digest() == good
    wait_alone(machine)


@pytest.mark.parametrize("points", parts(FORWARD, 5) if FULL else [["after-stop-in-switching"], ["after-proving"]],
                         ids=lambda points: points[0])
def test_agentd_and_engine_killed_at_the_same_time(machine, points):
    boot(machine)
    for number, point in enumerate(points, 2):
        crash_at(machine, point)
        wait_state(machine, "settled")
        digest = push(machine, str(number))
        wait_crash(machine, point)
        restart_engine(machine)
        come_back(machine)
        look(machine)
        machine.wait_page(version=str(number))
        wait_state(machine, "settled")
        assert machine.running_digest() == digest and shown(machine)["quarantined"] == [], point
        wait_alone(machine)


@full
@pytest.mark.parametrize("points", parts(BACK, 3), ids=lambda points: points[0])
def test_agentd_and_engine_killed_at_the_same_time_on_the_way_back(machine, points):
    good = boot(machine)
    for number, point in enumerate(points, 2):
        crash_at(machine, point)
        bad = push(machine, str(number), broken="crash")
        wait_crash(machine, point)
        restart_engine(machine)
        come_back(machine)
        machine.wait_page(version="1")
        wait_message(machine, "was rolled back", "it exited with status 3")
        assert machine.running_digest() == good and bad in quarantined(machine), point
        wait_alone(machine)


@full
def test_the_engine_killed_at_rest(machine):
    boot(machine)
    restart_engine(machine)
    machine.wait_page(version="1")
    wait_state(machine, "settled")
    assert shown(machine)["quarantined"] == []
    wait_alone(machine)


def test_the_engine_killed_while_a_release_is_proved_condemns_nobody(machine):
    boot(machine, [quick(machine, health={"http": "http://127.0.0.1:8080/", "interval": "500ms",
                                          "start_period": "20s"})])
    digest = push(machine, image.app("2", check=False, files={"app": (SLOW_APP.encode(), 0o755)}))
    wait_for("proving", lambda: shown(machine)["state"] == "proving", 20)
    time.sleep(1)
    restart_engine(machine)
    machine.wait_page(version="2")
    wait_state(machine, "settled")
    assert machine.running_digest() == digest and shown(machine)["quarantined"] == []
    wait_alone(machine)


# Takes SIGTERM for a suggestion, so that whatever stops it takes its time.
STUBBORN = """#!/bin/sh
trap '' TERM
mkdir -p /tmp/www
printf 'version=%s\\n' "$(cat /version)" >/tmp/www/index.html
httpd -f -p 8080 -h /tmp/www &
while :; do sleep 1; done
"""


def stubborn(version):
    return image.app(version, check=False, files={"app": (STUBBORN.encode(), 0o755)})


@full
def test_the_engine_killed_while_it_stops_what_ran(machine):
    boot(machine, [quick(machine, stop_timeout="6s")], version=stubborn("1"))
    digest = push(machine, "2")
    wait_for("switch", lambda: shown(machine)["state"] == "switching", 20, 0.01)
    time.sleep(1)
    restart_engine(machine)
    machine.wait_page(version="2")
    wait_state(machine, "settled")
    assert machine.running_digest() == digest and shown(machine)["quarantined"] == []
    wait_alone(machine)


@full
def test_the_engine_killed_on_the_way_back(machine):
    good = boot(machine, [quick(machine, stop_timeout="6s", health={
        "http": "http://127.0.0.1:8080/sub", "interval": "500ms", "retries": 2, "start_period": "2s"})],
        version=image.app("1", check=False, files={"app": (STUBBORN.replace("/tmp/www\n", "/tmp/www; touch /tmp/www/sub\n")
                                                           .encode(), 0o755)}))
    bad = push(machine, stubborn("2"))
    wait_for("way back", lambda: shown(machine)["state"] == "rolling-back", 30, 0.01)
    time.sleep(1)
    restart_engine(machine)
    machine.wait_page(version="1")
    wait_message(machine, "was rolled back", "answered HTTP 404")
    assert machine.running_digest() == good and bad in quarantined(machine)
    wait_alone(machine)


@full
def test_the_engine_killed_in_the_middle_of_a_pull(machine):
    boot(machine)
    digest = push(machine, "2", ballast=96 << 20)
    wait_for("pull", lambda: shown(machine)["state"] == "pulling", 20, 0.01)
    restart_engine(machine)
    machine.wait_page(version="2")
    wait_state(machine, "settled")
    assert machine.running_digest() == digest
    wait_alone(machine)


@full
def test_the_engine_killed_within_the_settle_time(machine):
    boot(machine, [quick(machine, update={"check": "10s", "settle": "15s"})])
    digest = push(machine, "2")
    wait_state(machine, "committed")
    restart_engine(machine)
    machine.wait_page(version="2")
    assert rollback_copy_is_there(machine)
    wait_state(machine, "settled")
    assert machine.running_digest() == digest and shown(machine)["quarantined"] == []
    wait_alone(machine)
