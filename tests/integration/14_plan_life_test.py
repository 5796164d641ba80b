# SPDX-License-Identifier: Apache-2.0
"""Which plan is in force while its crawl part is judged by another program, and while the machine goes down."""

import json
import os
import shutil

import pytest

from rig.process import run, stays, wait_for


def file_of(machine):
    return machine.root / "etc" / "said"


def plan(machine, text, **more):
    """A plan whose one effect is a file."""
    return machine.make_plan(containers=[], secrets=[], system={"files": [
        {"path": "/etc/said", "content": text}]}, **more)


def generation(machine):
    return machine.status()["plan"]["generation"]


def events(machine):
    return " | ".join(event["text"] for event in machine.status()["events"])


def wait_said(machine, text):
    wait_for(f"the plan that says {text}", lambda: file_of(machine).read_text() == text, 40)


def wait_refused(machine, text):
    refused = wait_for("the refusal", lambda: machine.status()["plan"]["refused"], 30)
    assert text in str(refused["errors"])


@pytest.fixture
def judged(machine):
    """A machine whose crawlerd validate does what a file of ours says; agentd runs what is beside it."""
    programs = machine.dir / "bin"
    programs.mkdir()
    shutil.copy2(machine.program("agentd"), programs / "agentd")
    judge = programs / "crawlerd"
    judge.write_text(f"#!/bin/sh\ncat >/dev/null\n. {programs}/judge\n")
    judge.chmod(0o755)
    machine.agentd.argv[0] = str(programs / "agentd")

    def says(line):
        (programs / "judge.new").write_text(line + "\n")
        os.rename(programs / "judge.new", programs / "judge")
    machine.judge = says
    return machine


def test_a_machine_without_a_plan_says_where_one_was_looked_for_and_is_not_ready(machine):
    machine.start(machine.agentd)
    status = wait_for("what is missing", lambda: next(
        (one for one in [machine.status()] if one["plan"]["message"]), None), 15)
    assert "no plan is set: looked for instance attribute mervis-plan" in status["plan"]["message"]
    assert "gcloud compute instances add-metadata mervis-1" in status["plan"]["remedy"]
    assert status["ready"] is False and status["ready_reason"] == "no plan is in force yet"
    machine.put_plan(plan(machine, "at last"))
    wait_said(machine, "at last")
    wait_for("ready", lambda: machine.status()["ready"] and machine.status()["plan"]["message"] is None, 10)


def test_a_refused_crawl_then_a_good_one_then_another_plan(machine):
    """Each candidate goes as it came: nothing of a refused one is left, and nothing is used after it was freed."""
    machine.put_plan(plan(machine, "first"))
    machine.start(machine.agentd)
    wait_said(machine, "first")
    bad = machine.crawl(jobs=[{"name": "x", "recipe": "no-such-recipe", "symbols": ["A"], "interval": "1d", "every": "1m"}])
    machine.put_plan(plan(machine, "bad", crawl=bad))
    wait_refused(machine, "no-such-recipe")
    assert generation(machine) == 1 and file_of(machine).read_text() == "first"
    machine.put_plan(plan(machine, "good", crawl=machine.crawl()))
    wait_said(machine, "good")
    wait_for("the end of the refusal", lambda: machine.status()["plan"]["refused"] is None, 10)
    assert generation(machine) == 2
    machine.put_plan(plan(machine, "bad", crawl=bad))
    wait_refused(machine, "no-such-recipe")
    # Of very many faults the first are told, and that there are more; here as agentctl judges it beforehand.
    many = plan(machine, "bad", crawl=machine.crawl(jobs=[{"wrong": 1}] * 250))
    machine.put_plan(many)
    more = "and 181 more: agentctl plan show"
    wait_for("that there are more", lambda: machine.status()["plan"]["refused"]["errors"][20:] == [more], 30)
    assert "more faults follow; these are the first 200" in machine.agentctl("plan", "show").stdout
    (machine.dir / "many.json").write_text(json.dumps(many))
    done = machine.agentctl("plan", "validate", str(machine.dir / "many.json"))
    assert done.returncode == 1 and done.stdout.endswith("200 faults and more\n"), done.stdout[-200:]
    # Replaced while it is judged: the last one counts.
    for number in range(6):
        machine.put_plan(plan(machine, f"number {number}", crawl=machine.crawl()))
    machine.put_plan(plan(machine, "last"))
    wait_said(machine, "last")
    wait_for("nothing refused", lambda: machine.status()["plan"]["refused"] is None, 10)
    assert machine.agentd.stop() == 0


def test_a_judge_that_was_killed_is_asked_again_and_nothing_is_refused(judged):
    judged.put_plan(plan(judged, "first"))
    judged.start(judged.agentd)
    wait_said(judged, "first")
    judged.judge("kill -9 $$")
    judged.put_plan(plan(judged, "second", crawl=judged.crawl()))
    wait_for("the trouble to be told", lambda: "validate was killed" in events(judged), 20)
    assert judged.status()["plan"]["refused"] is None and generation(judged) == 1
    assert file_of(judged).read_text() == "first"
    # What replaces it is not held up by it.
    judged.put_plan(plan(judged, "third"))
    wait_said(judged, "third")
    judged.put_plan(plan(judged, "second", crawl=judged.crawl()))
    wait_for("another try", lambda: events(judged).count("validate was killed") == 2, 20)
    judged.judge("echo '{\"errors\": []}'")
    wait_said(judged, "second")
    assert generation(judged) == 3


@pytest.mark.full  # its limit is 10 s
def test_a_judge_that_is_slow_is_asked_again_and_nothing_is_refused(judged):
    judged.put_plan(plan(judged, "first"))
    judged.start(judged.agentd)
    wait_said(judged, "first")
    judged.judge("sleep 100")
    judged.put_plan(plan(judged, "second", crawl=judged.crawl()))
    wait_for("the trouble to be told", lambda: "validate took too long" in events(judged), 30)
    assert judged.status()["plan"]["refused"] is None and generation(judged) == 1
    judged.judge("exit 0")
    wait_said(judged, "second")


def test_a_plan_with_a_name_that_no_secret_can_have_is_refused_and_told_which(machine):
    machine.put_plan(plan(machine, "first"))
    machine.start(machine.agentd)
    wait_said(machine, "first")
    machine.put_plan(machine.make_plan(containers=[], secrets=[
        {"name": "good", "secret": "KEY"}, {"name": "bad", "secret": "projects/p/KEY"}, {"name": "worse", "secret": "a.b"}]))
    wait_refused(machine, "secrets[1].secret: projects/p/KEY is no name of a secret; write KEY, projects/PROJECT/secrets/KEY or ")
    refused = machine.status()["plan"]["refused"]["errors"]
    assert len(refused) == 2 and refused[1].startswith("secrets[2].secret: 3 bytes that are not shown"), refused
    assert generation(machine) == 1


def test_no_plan_is_taken_while_the_machine_drains_and_the_next_start_takes_it(machine):
    machine.put_plan(plan(machine, "first"))
    machine.start(machine.agentd)
    wait_said(machine, "first")
    machine.cloud.set_metadata("instance/preempted", "TRUE")
    wait_for("the drain", lambda: machine.status()["state"] == "stopping", 20)
    for verb in ["apply"], ["restart", "web"]:
        said = machine.agentctl(*verb)
        assert said.returncode == 1 and "this machine is going down" in said.stderr, said
    machine.put_plan(plan(machine, "second"))
    machine.put_plan("{ this is no plan")
    machine.put_plan(plan(machine, "third"))
    stays("the first plan", lambda: generation(machine) == 1 and file_of(machine).read_text() == "first" and
          machine.status()["plan"]["refused"] is None, 3)
    assert machine.agentd.stop() == 0
    machine.cloud.set_metadata("instance/preempted", "FALSE")
    machine.start(machine.agentd)
    wait_said(machine, "third")


def test_a_bus_that_is_not_there_yet_is_served_when_it_is(machine):
    machine.put_plan(plan(machine, "first"))
    real = os.environ["DBUS_SYSTEM_BUS_ADDRESS"].removeprefix("unix:path=")
    late = machine.dir / "late-bus"
    machine.agentd.env["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={late}"
    machine.start(machine.agentd)
    wait_said(machine, "first")
    assert machine.agentctl("status", "--json").returncode == 2
    late.symlink_to(real)
    wait_for("agentctl to reach it", lambda: machine.agentctl("status", "--json").returncode == 0, 60)
    assert generation(machine) == 1


def test_a_copy_whose_state_cannot_be_begun_anew_has_no_plan_in_force_until_it_can(machine):
    state = machine.dir / "agentd" / "state"
    state.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", state])
    machine.put_plan(plan(machine, "of the first"))
    machine.start(machine.agentd)
    wait_said(machine, "of the first")
    with open(state / "filler", "wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(bytes(1024))
    machine.cloud.set_metadata("instance/id", "8000000000000000008")
    message = wait_for("the trouble to be told", lambda: (machine.status()["plan"]["message"] or ""), 20)
    assert "another machine's" in message
    assert machine.status()["resources"] == [] and machine.status()["ready"] is False
    machine.put_plan(plan(machine, "of the second"))
    stays("the wait", lambda: file_of(machine).read_text() == "of the first", 2)
    (state / "filler").unlink()
    wait_said(machine, "of the second")
    assert "a copy of another" in events(machine) and generation(machine) >= 1


def test_half_an_answer_about_who_we_are_forgets_nothing(machine):
    machine.put_plan(plan(machine, "first"))
    machine.start(machine.agentd)
    wait_said(machine, "first")
    machine.agentd.stop()
    machine.cloud.drop_metadata("instance/id")
    machine.start(machine.agentd)
    trouble = wait_for("the trouble to be told", lambda: machine.status()["vm"]["message"], 30)
    assert "no instance id" in trouble
    assert generation(machine) == 1
    machine.cloud.set_metadata("instance/id", "8000000000000000008")
    wait_for("another machine", lambda: "a copy of another" in events(machine), 30)
    machine.cloud.drop_metadata("instance/id")
    machine.put_plan(plan(machine, "second"))
    stays("what is known", lambda: events(machine).count("a copy of another") == 1, 2)
