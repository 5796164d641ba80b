# SPDX-License-Identifier: Apache-2.0
"""Jobs: run to their end once a release, however often they are interrupted."""

import time

from rig.process import stays, wait_for
from rollout_kit import (come_back, containers, crash_at, full, identity, job, look, publish_job, runs, shown,
                         wait_crash, wait_message, wait_state)


def declare(machine, **changes):
    publish_job(machine)
    machine.put_plan(machine.make_plan([job(machine, **changes)], secrets=[]))
    machine.start(machine.agentd)


def ended(machine, timeout=30):
    return wait_state(machine, "done", name="train", timeout=timeout)


def test_a_job_runs_once_a_release_and_its_exit_status_is_kept(machine):
    declare(machine)
    done = ended(machine)
    assert done["exit_status"] == 0 and done["running"] is False and runs(machine) == 1
    assert machine.agentctl("status").returncode == 0
    # Neither a look, nor a restart of agentd, nor one while it ends, runs it again.
    look(machine)
    machine.agentd.kill()
    machine.start(machine.agentd)
    stays("one run", lambda: runs(machine) == 1, 3)
    assert ended(machine)["exit_status"] == 0
    # A new release does.
    publish_job(machine, "second")
    look(machine)
    wait_for("second run", lambda: runs(machine) == 2, 20)
    ended(machine)
    wait_for("only that one", lambda: containers(machine, "train") == {"train": "exited"}, 10)
    # And a person.
    assert machine.agentctl("restart", "train").returncode == 0
    wait_for("third run", lambda: runs(machine) == 3, 20)
    ended(machine)


def test_a_job_that_fails_is_tried_as_often_as_the_plan_says(machine):
    declare(machine, retries=2, env={"STATUS": "7", "SECONDS_TO_RUN": "0"})
    wait_message(machine, "exit status 7", "3 times", name="train")
    failed = shown(machine, "train")
    assert failed["state"] == "failed" and failed["exit_status"] == 7 and runs(machine) == 3
    assert machine.agentctl("status").returncode == 1
    stays("three runs", lambda: runs(machine) == 3, 2)
    assert machine.agentctl("retry", "train").returncode == 0
    wait_for("three more", lambda: runs(machine) == 6, 30)
    wait_message(machine, "exit status 7", "3 times", name="train")


def test_a_job_that_ended_while_agentd_was_away_is_not_run_again(machine):
    declare(machine, env={"SECONDS_TO_RUN": "3"})
    wait_for("run", lambda: runs(machine) == 1, 20)
    wait_state(machine, "committed", name="train")
    machine.agentd.kill()
    wait_for("end", lambda: containers(machine, "train") == {"train": "exited"}, 20)
    machine.start(machine.agentd)
    assert ended(machine)["exit_status"] == 0 and runs(machine) == 1


def test_a_preempted_job_gets_its_signal_and_runs_again_at_the_next_start(machine):
    declare(machine, env={"SECONDS_TO_RUN": "30"})
    wait_for("run", lambda: runs(machine) == 1, 20)
    wait_state(machine, "committed", name="train")
    begun = time.monotonic()
    machine.cloud.set_metadata("instance/preempted", "TRUE")
    wait_for("end", lambda: containers(machine, "train") == {"train": "exited"}, 20)
    # By SIGTERM, which it obeys and answers with status 0: not by SIGKILL after its time-out.
    assert time.monotonic() - begun < 6 and machine.engine.inspect("train")["State"]["ExitCode"] == 0
    assert shown(machine, "train")["state"] != "done"
    machine.agentd.stop()
    machine.cloud.set_metadata("instance/preempted", "FALSE")
    machine.start(machine.agentd)
    wait_for("second run", lambda: runs(machine) == 2, 20)
    assert shown(machine, "train")["state"] == "committed"


def test_a_running_job_is_not_broken_off_for_a_newer_image_but_for_another_plan(machine):
    declare(machine, env={"SECONDS_TO_RUN": "8"})
    wait_for("run", lambda: runs(machine) == 1, 20)
    wait_state(machine, "committed", name="train")
    before = identity(machine, "train")
    publish_job(machine, "newer")
    look(machine)
    stays("the same run", lambda: identity(machine, "train") == before and
          containers(machine, "train") == {"train": "running"}, 2)
    machine.put_plan(machine.make_plan([job(machine, env={"SECONDS_TO_RUN": "1", "OTHER": "yes"})], secrets=[]))
    wait_for("another run", lambda: runs(machine) == 2, 20)
    ended(machine)


@full
def test_a_job_killed_with_agentd_at_each_step_runs_once(machine):
    publish_job(machine)
    machine.put_plan(machine.make_plan([job(machine, env={"SECONDS_TO_RUN": "1"})], secrets=[]))
    for point in ("after-create-in-staged", "after-start-in-switching", "after-proving", "before-committed",
                  "before-done", "after-done"):
        crash_at(machine, point)
        wait_crash(machine, point)
    come_back(machine)
    assert ended(machine)["exit_status"] == 0 and runs(machine) == 1
