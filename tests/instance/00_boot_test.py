# SPDX-License-Identifier: Apache-2.0
"""The machine itself: a boot from nothing, one with the cloud away, and the ways down."""

import time

from rig.process import stays, wait_for

MOTD = {"path": "/etc/motd", "content": "안녕\n"}


def app(**changes):
    """A container that says in its log when it is told to stop, and takes a second for it."""
    return {"name": "app", "image": "asia-northeast3-docker.pkg.dev/demo-project/repo/app:stable", "log": "json-file",
            "health": {"stable": "1s"}, "update": {"settle": "2s"}, "stop_timeout": "5s", **changes}


def publish(world, version="one"):
    from rig import image
    script = ("#!/bin/sh\ntrap 'echo told to stop; sleep 1; echo stopped; exit 0' TERM\n"
              f"echo version {version}\nwhile :; do sleep 0.1; done\n")
    made = image.build(files={"version": version, "app": (script.encode(), 0o755)}, entrypoint=["/bin/sh", "/app"])
    return world.registry.push(made, "demo-project/repo/app", "stable")


def test_the_last_good_plan_survives_a_reboot_with_the_metadata_server_away_and_is_followed_later(world):
    world.put(timezone="Asia/Seoul", files=[MOTD])
    world.vm.boot()
    world.settle()
    assert world.vm.out("date +%Z") == "KST"
    assert world.vm.out("cat /etc/motd") == "안녕"
    instance = world.vm.status()["vm"]["id"]
    world.vm.power_off()
    world.cloud.kill()

    world.vm.path("/etc/motd").write_text("edited while it was off")
    world.vm.boot()
    world.vm.explain("the plan of before", lambda: world.vm.status()["plan"]["generation"] == 1)
    world.vm.explain("its file", lambda: world.vm.out("cat /etc/motd") == "안녕")
    said = world.vm.explain("the trouble to be told", lambda: world.vm.status()["vm"]["message"], 20)
    assert "metadata server" in said
    world.cloud.start()
    world.put(timezone="Asia/Seoul", files=[{**MOTD, "content": "new\n"}])
    world.vm.wait_generation(2)
    assert world.vm.out("cat /etc/motd") == "new"
    assert world.settle()["vm"]["id"] == instance


def test_nothing_of_an_images_plan_is_begun_before_it_is_known_whose_machine_this_is(world):
    """An image made of a running machine: its plan has a container and a script for every boot; the new machine's has
    neither, and the metadata server takes its time."""
    vm = world.vm
    publish(world)
    marks = {"name": "mark", "when": "boot", "run": "#!/bin/sh\necho run >>/var/log/mark\n"}
    world.put(containers=[app()], scripts=[marks], files=[{**MOTD, "content": "of the first\n"}])
    vm.boot()
    world.settle(60)
    assert vm.out("cat /var/log/mark") == "run" and vm.out("docker ps --format '{{.Names}}'") == "app"
    vm.power_off()
    vm.path("/etc/motd").write_text("as the image has it\n")
    world.cloud.set_metadata("instance/id", "7000000000000000007")
    world.put(timezone="Asia/Seoul")
    slow = world.cloud.fault({"service": "metadata"}, {"status": 503})
    vm.boot()
    stays("the quiet", lambda: vm.out("cat /var/log/mark") == "run" and not vm.out("docker ps -q", check=False)
          and vm.out("cat /etc/motd") == "as the image has it", 3)
    status = vm.status()
    assert status["ready"] is False and status["ready_reason"] == "no plan is in force yet"
    refused = vm.sh("agentctl apply", check=False)
    assert refused.returncode != 0 and "which machine this is" in refused.stderr
    world.cloud.clear_faults()
    world.settle(60)
    assert "a copy of another" in vm.journal("-b -u agentd")
    assert vm.out("cat /var/log/mark") == "run", "the image's script never ran here"
    assert vm.out("cat /etc/motd") == "as the image has it" and vm.out("date +%Z") == "KST"
    wait_for("the image's container to go", lambda: not vm.out("docker ps -a -q"), 20)
    assert vm.status()["ready"] is True


def test_the_bus_comes_back_and_agentd_with_it(world):
    vm = world.vm
    publish(world)
    world.put(containers=[app()])
    vm.boot()
    world.settle(60)
    before, running = vm.pid(), vm.out("docker ps --no-trunc -q")
    vm.sh("systemctl restart dbus.service")
    wait_for("agentd to answer again", lambda: vm.sh("agentctl status --json", check=False).returncode == 0
             and vm.pid() != before, 30)
    world.settle()
    assert vm.out("docker ps --no-trunc -q") == running


def test_a_stop_and_an_upgrade_of_the_package_touch_no_container_a_power_off_drains_them(world):
    publish(world)
    world.put(containers=[app()])
    world.vm.boot()
    world.settle(60)
    running = world.vm.out("docker ps --no-trunc --format '{{.ID}} {{.Status}}'").split()[0]
    world.vm.sh("systemctl stop agentd")
    assert world.vm.out("docker ps --no-trunc -q") == running
    world.vm.sh("systemctl start agentd; systemctl restart agentd")
    world.settle()
    assert world.vm.out("docker ps --no-trunc -q") == running
    assert "told to stop" not in world.vm.out("docker logs app")

    took = world.vm.power_off()
    assert took < 20
    log = next(world.vm.docker.glob("containers/*/*-json.log")).read_text()
    assert "told to stop" in log and "stopped" in log
    world.vm.boot()
    world.settle(60)
    said = world.vm.journal("-b -1 -u agentd")
    assert "draining: the machine goes down" in said and "containers are stopped" in said
    assert world.vm.out("docker ps --no-trunc -q") == running, "it runs again, the same one"


def test_a_preemption_that_was_told_while_agentd_was_not_there_is_seen_at_its_start(world):
    publish(world)
    world.put(containers=[app()])
    world.vm.boot()
    world.settle(60)
    world.cloud.set_metadata("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    wait_for("the maintenance to be told", lambda: "moved while it runs" in world.vm.journal("-u agentd"), 10)
    world.cloud.set_metadata("instance/maintenance-event", "NONE")
    wait_for("its end", lambda: "host maintenance is over" in world.vm.journal("-u agentd"), 10)
    assert world.vm.status()["ready"] is True

    world.vm.sh("systemctl stop agentd")
    world.cloud.set_metadata("instance/preempted", "TRUE")
    began = time.monotonic()
    world.vm.sh("systemctl start agentd")
    wait_for("the container to be drained", lambda: not world.vm.out("docker ps -q"), 15)
    assert time.monotonic() - began < 15
    status = world.vm.status()
    assert status["vm"]["preempted"] is True and status["ready"] is False and status["ready_reason"] == "preempted"
    assert world.vm.power_off() < 10


def test_a_crash_loop_slows_down_and_a_start_by_hand_is_at_once(world):
    vm = world.vm
    vm.boot()
    vm.sh("""mkdir -p /run/systemd/system/agentd.service.d
        printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >/run/systemd/system/agentd.service.d/loop.conf
        systemctl daemon-reload; systemctl restart agentd || true""")
    # The fourth restart and the fifth wait 2 s and 4 s on top of the unit's own 2 s.
    wait_for("a pause", lambda: "starting in 4 s" in vm.journal("-u agentd"), 40)
    tries = [float(line.split()[0]) for line in vm.out("journalctl -u agentd -o short-unix").splitlines()
             if "Scheduled restart job" in line]
    gaps = [after - before for before, after in zip(tries, tries[1:])]
    assert len(gaps) >= 4 and max(gaps[:3]) < 3.5 < gaps[-1], gaps

    vm.sh("rm /run/systemd/system/agentd.service.d/loop.conf; systemctl daemon-reload")
    began = time.monotonic()
    vm.sh("systemctl restart agentd")
    assert time.monotonic() - began < 3
    assert vm.out("systemctl is-active agentd") == "active"
