# SPDX-License-Identifier: Apache-2.0
"""Scripts of the plan: how they end, what of them is remembered, and what finds them again."""

import json

from rig.process import stays, wait_for

COUNT = "#!/bin/sh\necho run >>/var/log/{name}\n"


def script(name, run=None, **more):
    return {"name": name, "run": run or COUNT.format(name=name), **more}


def runs(vm, name):
    return vm.out(f"grep -c run /var/log/{name} || true")


def message(vm, name):
    return (vm.resource("script", name) or {}).get("message")


def test_exit_7_is_told_with_the_way_to_its_output_and_tried_again(shared):
    vm = shared.vm
    shared.put(scripts=[script("seven", "#!/bin/sh\necho run >>/var/log/seven\necho why it failed >&2\nexit 7\n")])
    said = vm.explain("the failure", lambda: message(vm, "seven"))
    assert "exit status 7" in said
    remedy = vm.resource("script", "seven")["remedy"]
    wait_for("its output", lambda: "why it failed" in vm.out(remedy), 5)
    assert "why it failed" in vm.journal("SYSLOG_IDENTIFIER=seven")
    wait_for("another try", lambda: int(runs(vm, "seven")) >= 2, 15)
    wait_for("the state to say so between two tries", lambda: vm.status()["state"] == "degraded", 15)
    shared.put_and_settle(scripts=[script("seven", "#!/bin/sh\ntrue\n")])


def test_one_whose_interpreter_is_missing_is_told_so(shared):
    vm = shared.vm
    shared.put(scripts=[script("alien", "#!/usr/bin/no-such-shell\ntrue\n")])
    said = vm.explain("the failure", lambda: message(vm, "alien"))
    assert "exit status 203" in said and "is the interpreter of its first line on this machine?" in said
    shared.put_and_settle(timezone="Asia/Seoul")


def test_one_that_runs_too_long_is_ended_with_all_that_it_started(shared):
    vm = shared.vm
    shared.put(scripts=[script("slow", "#!/bin/sh\nsleep 1234 &\nsleep 1234\n", timeout="1s")])
    said = vm.explain("the failure", lambda: message(vm, "slow"))
    assert "longer than its limit of 1" in said
    shared.put_and_settle(timezone="Asia/Seoul")
    vm.sh("systemctl stop mervis-script-slow || true")
    assert vm.out("ps -C sleep -o args= | grep -c 1234 || true") == "0"


def test_a_line_of_a_megabyte_and_binary_output_break_nothing(shared):
    vm = shared.vm
    shared.put_and_settle(scripts=[
        script("long", "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x\necho\nhead -c 100000 /dev/urandom\n"
                       "printf '\\n\\000\\377\\033[31m after\\n'\n")])
    assert vm.resource("script", "long")["state"] == "ok"
    assert vm.sh("agentctl status").returncode == 0
    assert "xxxx" in vm.out("journalctl -q --output=cat --all SYSLOG_IDENTIFIER=long | head -c 1000")


def test_what_it_leaves_in_the_background_ends_with_it_and_is_told(shared):
    vm = shared.vm
    shared.put_and_settle(scripts=[script("behind", "#!/bin/sh\nsetsid sleep 4321 >/dev/null 2>&1 &\nexit 0\n")])
    wait_for("the end of it", lambda: vm.out("ps -C sleep -o args= | grep -c 4321 || true") == "0", 10)
    said = vm.journal("-u agentd")
    assert "script behind: what it left running in the background (1 process) ends with it" in said
    assert vm.out("systemctl is-active mervis-script-behind || true") == "inactive"


def test_one_whose_end_cannot_be_recorded_keeps_its_unit_and_never_runs_anew(shared):
    """A directory where its stamp goes stands for a disk that takes no more."""
    vm = shared.vm
    stamp = f"/var/lib/mervis-agent/scripts/{vm.status()['vm']['id']}/unstamped"
    vm.sh(f"mkdir -p {stamp}/full")
    shared.put(scripts=[script("unstamped")])
    vm.explain("the failure", lambda: message(vm, "unstamped"))
    before = vm.out("systemctl show -p InvocationID --value mervis-script-unstamped")
    for _ in range(3):
        vm.sh("agentctl apply")
        stays("its one run", lambda: runs(vm, "unstamped") == "1", 0.5)
    assert vm.out("systemctl show -p ActiveState -p SubState --value mervis-script-unstamped").split() == ["active", "exited"]
    vm.sh(f"rm -r {stamp}; agentctl apply")
    shared.settle()
    assert runs(vm, "unstamped") == "1", "its end was found, not its text run again"
    assert json.loads(vm.out(f"cat {stamp}"))["invocation_id"] == before
    wait_for("its unit to go", lambda: vm.out("systemctl is-active mervis-script-unstamped", check=False) == "inactive", 10)


def test_one_that_leaves_the_plan_while_it_runs_ends_and_leaves_no_unit(shared):
    vm = shared.vm
    shared.put(scripts=[script("leaver", "#!/bin/sh\necho run >>/var/log/leaver\nsleep 5\necho run >>/var/log/leaver\n")])
    wait_for("its start", lambda: runs(vm, "leaver") == "1", 10)
    shared.put_and_settle(timezone="Asia/Seoul")
    assert runs(vm, "leaver") == "1", "nobody waits for it"
    assert "script leaver left the plan: what the script did stays" in vm.journal("-u agentd")
    vm.sh("systemctl restart agentd")  # who comes up puts it away
    wait_for("its end", lambda: runs(vm, "leaver") == "2", 15)
    wait_for("its unit to go", lambda: vm.out("systemctl is-active mervis-script-leaver", check=False) == "inactive", 10)
    wait_for("its text to go", lambda: vm.sh("test -e /var/lib/mervis-agent/scripts/leaver.script",
                                             check=False).returncode == 1, 10)
    # One that failed leaves no unit either.
    shared.put(scripts=[script("failer", "#!/bin/sh\nexit 3\n")])
    vm.explain("the failure", lambda: message(vm, "failer"))
    shared.put_and_settle(timezone="Asia/Seoul")
    assert vm.out("systemctl list-units --all --no-legend 'mervis-script-*'") == ""


def test_one_runs_again_when_its_text_changed_and_only_where_the_plan_says_change(shared):
    vm = shared.vm
    shared.put_and_settle(scripts=[script("a-once"), script("a-change", when="change")])
    more = "# another text\n"
    shared.put_and_settle(scripts=[script("a-once", COUNT.format(name="a-once") + more),
                                   script("a-change", COUNT.format(name="a-change") + more, when="change")])
    assert (runs(vm, "a-once"), runs(vm, "a-change")) == ("1", "2")
    shared.put_and_settle(scripts=[script("a-once"), script("a-change", when="change")])
    assert (runs(vm, "a-once"), runs(vm, "a-change")) == ("1", "3"), "back to the first text is a change, too"


def test_one_that_runs_while_agentd_is_restarted_and_killed_is_found_again(shared):
    vm = shared.vm
    shared.put(scripts=[script("long-run", "#!/bin/sh\necho run >>/var/log/long-run\nsleep 4\n")])
    wait_for("its start", lambda: runs(vm, "long-run") == "1", 10)
    vm.sh("systemctl restart agentd")
    vm.sh(f"kill -9 {vm.pid()}")
    shared.settle()
    assert runs(vm, "long-run") == "1"
    vm.sh("systemctl restart agentd")
    shared.settle()
    assert runs(vm, "long-run") == "1"


def test_a_required_one_that_fails_holds_secrets_and_containers_of_a_first_boot_and_the_order_is_kept(world):
    vm = world.vm
    world.cloud.add_secret("APP_KEY", b"value")
    world.put(secrets=[{"name": "app-key", "secret": "APP_KEY"}], scripts=[
        script("one", "#!/bin/sh\necho one >>/var/log/order\n[ -e /ready ]\n", required=True),
        script("two", "#!/bin/sh\necho two >>/var/log/order\n")])
    vm.boot()
    vm.explain("the failure", lambda: message(vm, "one"))
    stays("the hold", lambda: vm.status()["secrets"][0]["state"] == "pending", 1)
    assert "two" not in vm.out("cat /var/log/order")
    vm.sh("touch /ready; agentctl apply")
    world.settle()
    order = vm.out("cat /var/log/order").split()
    assert order[-2:] == ["one", "two"] and order.count("two") == 1
    assert vm.status()["secrets"][0]["state"] == "ok"


def test_a_reboot_a_power_cut_a_lost_state_and_a_cloned_image(world):
    vm = world.vm
    scripts = [script("once"), script("boot", when="boot"), script("change", when="change"),
               script("cut", "#!/bin/sh\necho run >>/var/log/cut\n[ -e /second ] || { touch /second; sync; sleep 60; }\n")]
    world.put(scripts=scripts)
    vm.boot()
    wait_for("the one that is cut", lambda: runs(vm, "cut") == "1", 15)
    vm.reset()
    vm.boot()
    world.settle()
    assert [runs(vm, name) for name in ("once", "boot", "change", "cut")] == ["1", "2", "1", "2"], \
        "killed half-way: again; ended well: only what is for every boot"
    vm.power_off()
    vm.boot()
    world.settle()
    assert [runs(vm, name) for name in ("once", "boot", "change", "cut")] == ["1", "3", "1", "2"]
    stamp = json.loads(vm.out("cat /var/lib/mervis-agent/scripts/*/once"))
    assert stamp["exit_status"] == 0 and len(stamp["invocation_id"]) == 32

    vm.sh("systemctl stop agentd; rm /var/lib/mervis-agent/state.db*; systemctl start agentd")
    world.settle()
    assert [runs(vm, name) for name in ("once", "boot", "change", "cut")] == ["1", "3", "1", "2"], "stamps are apart"

    vm.power_off()
    world.cloud.set_metadata("instance/id", "7000000000000000007")
    vm.boot()
    world.vm.explain("the new instance", lambda: vm.status()["vm"]["id"] == "7000000000000000007")
    world.settle()
    assert [runs(vm, name) for name in ("once", "boot", "change", "cut")] == ["2", "4", "2", "3"], \
        "an image of a running machine in another one runs them again"
    assert "a copy of another" in vm.journal("-b -u agentd")
