# SPDX-License-Identifier: Apache-2.0
"""The right image, always: what each kind of new image, secret and plan leads to."""

import time

import pytest

from rig import image
from rig.process import stays, wait_for
from rollout_kit import (DYING_APP, SLOW_APP, boot, containers, events, full, identity, look, push, quarantined, quick,
                         shown, unpublished, wait_alone, wait_message, wait_state, watched)


def wait_left(machine, *digests):
    """Wait until a cleanup has left exactly these images of the repository."""
    repository = machine.image.rpartition(":")[0]

    def left():
        machine.agentctl("cleanup", timeout=60)
        return {reference.partition("@")[2] for one in machine.engine.images() for reference in one["RepoDigests"] or []
                if reference.startswith(f"{repository}@")}
    wait_for(f"only {[digest[:19] for digest in digests]}", lambda: left() == set(digests), 30, 0.5)


def restart_policy(machine, name):
    return machine.engine.inspect(name)["HostConfig"]["RestartPolicy"]["Name"]


def test_seven_images_and_what_becomes_of_each(machine):
    first = boot(machine, [quick(machine, update={"check": "10s", "settle": "12s"})],
                 images={"min_age": "0s", "keep_previous": 1})
    wait_left(machine, first)

    # v2 is healthy: it runs; the old one is kept, stopped, until it has settled.
    with watched() as seen:
        good = push(machine, "2")
        machine.wait_page(version="2")
        after = wait_state(machine, "committed")
    assert after["digest"] == good and after["quarantined"] == []
    assert containers(machine) == {"mervis": "running", "mervis.previous": "exited"}
    # At its own start the engine heals what serves, and not the copy.
    assert restart_policy(machine, "mervis") == "on-failure"
    assert restart_policy(machine, "mervis.previous") == "no"
    downtime = after["downtime_usec"] / 1e6
    assert 0 < downtime < 5 and abs(downtime - seen["longest"]) < 0.7, (downtime, seen)
    wait_left(machine, first, good)

    # v3 crashes.
    crashing = push(machine, "3", broken="crash")
    said = wait_message(machine, "rolled back", "it exited with status 3", "this digest is quarantined", crashing[:19])
    assert "agentctl retry mervis" in said["remedy"]
    assert machine.page()["version"] == "2" and machine.running_digest() == good
    assert quarantined(machine)[crashing]["digest_is_bad"] is True
    assert restart_policy(machine, "mervis") == "on-failure", "given back with its name"
    assert said["downtime_usec"] > 0
    wait_left(machine, first, good)

    # v4 runs, and is never healthy.
    never = push(machine, "4", broken="never-ready")
    wait_message(machine, "rolled back", "answered HTTP 404", never[:19])
    assert machine.page()["version"] == "2" and set(quarantined(machine)) == {crashing, never}
    wait_left(machine, first, good)

    # v5 is healthy, and falls into a crash loop afterwards.
    loops = push(machine, image.app("5", check=False, files={"app": (DYING_APP.encode(), 0o755)}))
    wait_message(machine, "rolled back", "crash loop: it ended 3 times", loops[:19])
    machine.wait_page(version="2")
    assert machine.running_digest() == good and loops in quarantined(machine)
    wait_left(machine, first, good)

    # v6 is for another processor: refused before it is pulled, and nothing to quarantine.
    before = identity(machine)
    push(machine, "6", arch="arm64")
    said = wait_message(machine, "linux/arm64", "linux/amd64")
    assert "docker buildx build --platform linux/amd64" in said["remedy"]
    assert identity(machine) == before and len(quarantined(machine)) == 3
    wait_left(machine, first, good)

    # v7's tag is gone: the nearest are named.
    gone = push(machine, "7")
    machine.wait_page(version="7")
    wait_state(machine, "committed")
    machine.registry.forget(machine.repository, gone)
    before = identity(machine)
    machine.publish("7b", tag="stable-2")
    look(machine)
    wait_message(machine, 'no tag "stable"', "stable-2")
    assert identity(machine) == before and machine.page()["version"] == "7"
    wait_left(machine, good, gone)

    # And a good one ends all that.
    last = push(machine, "8")
    machine.wait_page(version="8")
    wait_state(machine, "settled", timeout=30)
    assert shown(machine)["message"] is None and machine.running_digest() == last
    wait_alone(machine)
    wait_left(machine, gone, last)


@full
def test_a_quarantined_release_is_not_tried_again_until_somebody_says_so(machine):
    good = boot(machine)
    bad = push(machine, "2", broken="crash")
    wait_message(machine, "rolled back")
    before = identity(machine)
    look(machine)
    wait_message(machine, "this digest is quarantined")
    machine.agentd.kill()
    machine.start(machine.agentd)
    wait_message(machine, "this digest is quarantined")
    stays("the good one", lambda: identity(machine) == before, 3)
    assert machine.agentctl("retry", "mervis").returncode == 0
    wait_for("another try", lambda: len(events(machine, "rolled-back")) == 2, 20)
    machine.wait_healthy(good)
    # A changed plan is followed with the digest that serves, and the bad one stays out.
    machine.put_plan(machine.make_plan([quick(machine, env={"GREETING": "again"})]))
    machine.wait_page(version="1", greeting="again")
    wait_message(machine, "this digest is quarantined")
    assert machine.running_digest() == good and set(quarantined(machine)) == {bad}
    # What went back settles, and waits for a better image.
    wait_for("rest", lambda: containers(machine) == {"mervis": "running"}, 20)
    better = push(machine, "3")
    machine.wait_page(version="3")
    wait_state(machine, "settled")
    assert machine.running_digest() == better and shown(machine)["message"] is None


def test_a_bad_secret_is_rolled_back_and_does_not_condemn_the_image(machine):
    picky = image.app("1", check=False, files={"app": (b"""#!/bin/sh
[ "$APP_KEY" != bad ] || { echo the key is refused; exit 4; }
mkdir -p /tmp/www
printf 'version=1 key=%s file=%s' "$APP_KEY" "$(cat /run/secrets/app-key)" >/tmp/www/index.html
exec httpd -f -p 8080 -h /tmp/www
""", 0o755)})
    digest = boot(machine, [quick(machine, secret_files=[{"secret": "app-key", "path": "/run/secrets/app-key"}])],
                  version=picky)
    machine.cloud.add_secret("APP_KEY", "bad")
    look(machine)
    said = wait_message(machine, "rolled back", "the key is refused", "not the digest, but what the plan")
    assert machine.page() == {"version": "1", "key": "key-1", "file": "key-1"}
    assert said["digest"] == digest and quarantined(machine)[digest]["digest_is_bad"] is False
    machine.cloud.add_secret("APP_KEY", "good")
    # By itself: nobody says apply.
    machine.wait_page(key="good", file="good")
    wait_state(machine, "settled")
    assert shown(machine)["digest"] == digest and shown(machine)["message"] is None


def test_all_secrets_of_a_container_change_together(machine):
    machine.cloud.add_secret("OTHER", "other-1")
    secrets = [{"name": "app-key", "secret": "APP_KEY", "refresh": "10s"},
               {"name": "other", "secret": "OTHER", "refresh": "10s"}]
    boot(machine, [quick(machine, env={"APP_KEY": {"secret": "app-key"}, "GREETING": {"secret": "other"}})],
         secrets=secrets)
    machine.cloud.add_secret("OTHER", "other-2")
    machine.cloud.add_secret("APP_KEY", "key-2")
    look(machine)
    machine.wait_page(key=image.key_hash("key-2"), greeting="other-2")
    wait_state(machine, "settled")
    assert len(events(machine, "rolled-out")) == 1


def test_a_cached_latest_cannot_win_over_the_pushed_one(machine):
    repository = machine.image.rpartition(":")[0]
    stale = machine.publish("1", tag="latest")
    machine.cloud.add_secret("APP_KEY", "key-1")
    machine.engine.pull(f"{repository}:latest", password=machine.cloud.token())
    assert machine.engine.image(f"{repository}:latest")["RepoDigests"] == [f"{repository}@{stale}"]
    fresh = machine.publish("2", tag="latest")
    machine.put_plan(machine.make_plan([quick(machine, image=f"{repository}:latest")]))
    machine.start(machine.agentd)
    machine.wait_page(version="2")
    assert machine.running_digest() == fresh != stale


def test_without_ports_there_is_no_gap_at_all(machine):
    boot(machine, [unpublished(machine)])

    def address(name):
        return machine.engine.inspect(name)["NetworkSettings"]["IPAddress"]
    old = address("inner")
    wait_for("ready", lambda: machine.status()["ready"], 10)
    machine.put_plan(machine.make_plan([unpublished(machine, env={"GREETING": "new"})]))
    # The old one answers until the new one did: both were up side by side.
    wait_for("both", lambda: list(containers(machine, "inner").values()).count("running") == 2, 20)
    assert machine.status()["ready"] is True
    with watched(f"http://{old}:8080/"):
        after = wait_state(machine, "committed", "settled", name="inner")
    assert after["downtime_usec"] == 0
    wait_alone(machine, "inner")
    assert address("inner") != old

    # One that is never ready leaves the old one as it is: not even restarted.
    before = identity(machine, "inner")
    push(machine, "2", broken="never-ready")
    wait_message(machine, "rolled back", name="inner")
    assert identity(machine, "inner") == before
    assert shown(machine, "inner")["downtime_usec"] == 0
    wait_alone(machine, "inner")


@full
def test_by_the_images_own_healthcheck_and_by_staying_up(machine):
    boot(machine, [quick(machine, health={"interval": "500ms", "retries": 2, "start_period": "2s"})])
    push(machine, "2", broken="never-ready")
    wait_message(machine, "rolled back", "HEALTHCHECK fails")
    machine.put_plan(machine.make_plan([quick(machine, health={"stable": "3s", "interval": "1s"})]))
    plain = push(machine, "3", check=False)
    machine.wait_page(version="3")
    assert shown(machine)["state"] == "proving"
    wait_state(machine, "committed", "settled")
    assert machine.running_digest() == plain


def test_rollback_by_hand_also_after_the_old_container_image_and_secret_are_gone(machine):
    first = boot(machine, [quick(machine, secret_files=[{"secret": "app-key", "path": "/run/secrets/app-key"}])])
    machine.cloud.add_secret("APP_KEY", "key-2")
    second = push(machine, "2")
    machine.wait_page(version="2", key=image.key_hash("key-2"))
    wait_state(machine, "settled")
    wait_alone(machine)
    # Cleanup took the image, a reboot the value.
    machine.engine.request("DELETE", f"/images/{machine.image.rpartition(':')[0]}@{first}").expect(200)
    old_value = machine.dir / "agentd" / "run" / "secrets" / ".store" / "app-key" / "1"
    if old_value.exists():
        old_value.unlink()
    done = machine.agentctl("rollback", "mervis")
    assert done.returncode == 0, done.stderr
    machine.wait_page(version="1", key=image.key_hash("key-1"), file=image.key_hash("key-1"))
    wait_state(machine, "rolled-back")
    wait_message(machine, "rolled back by hand", "this digest")
    assert machine.running_digest() == first and quarantined(machine)[second]["digest_is_bad"] is True
    wait_alone(machine)
    # And forward again, when somebody says so.
    assert machine.agentctl("retry", "mervis").returncode == 0
    machine.wait_page(version="2", file=image.key_hash("key-2"))
    wait_state(machine, "settled")


@full
def test_rollback_by_hand_within_the_settle_time_swaps_the_two(machine):
    boot(machine, [quick(machine, update={"check": "10s", "settle": "1h"})])
    push(machine, "2")
    machine.wait_page(version="2")
    wait_state(machine, "committed")
    assert machine.agentctl("rollback", "mervis").returncode == 0
    machine.wait_page(version="1")
    wait_state(machine, "rolled-back", "committed")
    assert set(containers(machine)) == {"mervis", "mervis.previous"}


@full
def test_rollback_by_hand_while_the_new_one_is_still_being_proved(machine):
    good = boot(machine, [quick(machine, health={"http": "http://127.0.0.1:8080/", "interval": "500ms",
                                                 "start_period": "1h"})])
    bad = push(machine, "2", broken="never-ready")
    wait_for("proving", lambda: shown(machine)["state"] == "proving", 20)
    wait_for("rollback", lambda: machine.agentctl("rollback", "mervis").returncode == 0, 5)
    wait_message(machine, "rolled back", "by hand")
    assert machine.running_digest() == good and bad in quarantined(machine)
    wait_alone(machine)


@full
def test_restart_by_hand(machine):
    boot(machine)
    before = identity(machine)
    assert machine.agentctl("restart", "mervis").returncode == 0
    wait_for("another start", lambda: identity(machine)[1] != before[1], 20)
    machine.wait_page(version="1")
    assert identity(machine)[0] == before[0] and shown(machine)["quarantined"] == []
    refused = machine.agentctl("rollback", "mervis")
    assert refused.returncode == 1 and "no earlier release" in refused.stderr


@full
def test_policy_manual_holds_a_digest_until_apply_and_only_that_one(machine):
    update = {"check": "10s", "settle": "1s", "policy": "manual"}
    first = boot(machine, [quick(machine, update=update)])
    held = machine.publish("2")
    wait_for("held", lambda: shown(machine)["held_digest"] == held, 20)
    assert machine.running_digest() == first and events(machine, "update-held")
    # The rest of the plan is followed meanwhile, with the digest that runs.
    machine.put_plan(machine.make_plan([quick(machine, update=update, env={"GREETING": "held"})]))
    machine.wait_page(version="1", greeting="held")
    wait_state(machine, "settled")
    look(machine)
    machine.wait_page(version="2", greeting="held")
    wait_state(machine, "settled")
    third = machine.publish("3")
    wait_for("held again", lambda: shown(machine)["held_digest"] == third, 20)
    assert machine.page()["version"] == "2"


@full
def test_on_failure_keep_leaves_it_as_it_is(machine):
    boot(machine, [quick(machine, update={"check": "10s", "settle": "1h", "on_failure": "keep"})])
    bad = push(machine, "2", broken="never-ready")
    wait_message(machine, "it is left as it is")
    stays("the bad one", lambda: machine.running_digest() == bad, 3)
    wait_for("rollback", lambda: machine.agentctl("rollback", "mervis").returncode == 0, 20)
    machine.wait_page(version="1")


def test_two_rollouts_at_once(machine):
    second = quick(machine, name="other", ports=["8081:8080"],
                   health={"http": "http://127.0.0.1:8081/", "interval": "500ms", "start_period": "5s"})
    boot(machine, [quick(machine), second])
    machine.wait_healthy(name="other")
    push(machine, "2")
    wait_for("both", lambda: (machine.page() or {}).get("version") == "2" ==
             (machine.page(8081) or {}).get("version"), 30)
    for name in ("mervis", "other"):
        wait_state(machine, "settled", name=name)
        wait_alone(machine, name)


def test_a_plan_change_in_the_middle_of_a_rollout_takes_its_place(machine):
    boot(machine, [quick(machine, health={"http": "http://127.0.0.1:8080/", "interval": "500ms",
                                          "start_period": "1h"})])
    # Never ready, and with all the time of the world: without the next plan this would go on.
    push(machine, "2", broken="never-ready")
    wait_for("proving", lambda: shown(machine)["state"] == "proving", 20)
    machine.publish("3")
    machine.put_plan(machine.make_plan([quick(machine, env={"GREETING": "newer"})]))
    machine.wait_page(version="3", greeting="newer")
    wait_state(machine, "settled")
    assert shown(machine)["quarantined"] == []
    wait_alone(machine)


@full
def test_a_plan_change_elsewhere_lets_a_rollout_go_on(machine):
    boot(machine)
    digest = push(machine, image.app("2", check=False, files={"app": (SLOW_APP.encode(), 0o755)}))
    machine.put_plan(machine.make_plan([quick(machine, health={
        "http": "http://127.0.0.1:8080/", "interval": "500ms", "start_period": "20s"})]))
    wait_for("proving", lambda: shown(machine)["state"] == "proving", 20)
    before = identity(machine)
    machine.put_plan(machine.make_plan([machine.plan["containers"][0]], images={"keep_previous": 2}))
    wait_state(machine, "settled")
    assert identity(machine) == before and machine.running_digest() == digest


def test_an_upgrade_of_agentd_in_the_middle_of_a_rollout(machine):
    boot(machine, [quick(machine, health={"http": "http://127.0.0.1:8080/", "interval": "500ms",
                                          "start_period": "20s"})])
    digest = push(machine, image.app("2", check=False, files={"app": (SLOW_APP.encode(), 0o755)}))
    wait_for("proving", lambda: shown(machine)["state"] == "proving", 20)
    before = identity(machine)
    assert machine.agentd.stop() == 0
    machine.start(machine.agentd)
    wait_state(machine, "settled")
    assert identity(machine) == before and machine.running_digest() == digest
    wait_alone(machine)


def test_what_leaves_the_plan_is_stopped_and_removed_also_when_killed_in_it(machine):
    second = quick(machine, name="other", ports=["8081:8080"],
                   health={"http": "http://127.0.0.1:8081/", "interval": "500ms", "start_period": "5s"})
    boot(machine, [quick(machine), second])
    machine.wait_healthy(name="other")
    wait_state(machine, "settled", name="other")
    before = identity(machine)
    machine.agentd.kill()
    machine.agentd.env["MERVIS_CRASH_AT"] = "before-removal"
    machine.start(machine.agentd)
    machine.put_plan(machine.make_plan([quick(machine)]))
    assert machine.agentd.wait(20) == 137
    machine.agentd.env["MERVIS_CRASH_AT"] = None
    machine.start(machine.agentd)
    wait_for("the other one gone", lambda: containers(machine, "other") == {}, 30)
    assert identity(machine) == before


@pytest.mark.parametrize("running", [True, False])
def test_a_lost_state_adopts_what_serves(machine, running):
    digest = boot(machine)
    before = identity(machine)
    machine.agentd.kill()
    if not running:
        machine.engine.request("POST", "/containers/mervis/stop").expect(204)
    for path in (machine.dir / "agentd" / "state").glob("state.db*"):
        path.unlink()
    machine.start(machine.agentd)
    wait_state(machine, "settled")
    machine.wait_page(version="1")
    assert identity(machine)[0] == before[0] and (identity(machine) == before) == running
    assert shown(machine)["digest"] == digest
    stays("the same one", lambda: identity(machine)[0] == before[0], 2)


@full
def test_measured_downtime_is_told_of_a_crash_loop_that_was_seen_only_after_a_restart(machine):
    """agentd is away while the new one begins to die."""
    boot(machine, [quick(machine, update={"check": "10s", "settle": "30s"})])
    loops = image.app("2", check=False, files={"app": (DYING_APP.encode(), 0o755)})
    bad = push(machine, loops)
    wait_state(machine, "committed")
    machine.agentd.kill()
    time.sleep(6)
    machine.start(machine.agentd)
    wait_message(machine, "rolled back", "crash loop", bad[:19])
    machine.wait_page(version="1")
    assert isinstance(shown(machine)["downtime_usec"], int)
