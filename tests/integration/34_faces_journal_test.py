# SPDX-License-Identifier: Apache-2.0
"""What the daemons log: nothing while nothing happens, a failure once, and its end with how often it happened."""

import re
import time

from rig.process import stays, wait_for


def lines(daemon):
    return daemon.log.read_text().splitlines()


def test_a_steady_state_logs_nothing(machine):
    machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.cloud.make_dataset("market")
    machine.put_plan(machine.make_plan(
        crawl=machine.crawl(jobs=[{"name": "us-1d", "recipe": "yahoo-chart", "symbols": ["AAPL", "MSFT"],
                                   "interval": "1d", "every": "10s", "terms": "acknowledged"}])))
    for daemon in (machine.agentd, machine.crawlerd, machine.statusd):
        machine.start(daemon)
    machine.wait_settled()
    # Past the settling of the release, and the first deliveries.
    wait_for("rows", lambda: machine.cloud.count("market", "bars_daily") > 0, 30)
    time.sleep(12)
    before = {daemon.name: lines(daemon) for daemon in (machine.agentd, machine.crawlerd, machine.statusd)}
    # Tags, secrets and sources are looked at every ten seconds meanwhile.
    time.sleep(25)
    for daemon in (machine.agentd, machine.crawlerd, machine.statusd):
        assert lines(daemon) == before[daemon.name]


def test_no_event_is_logged_twice(machine):
    machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.put_plan(machine.make_plan())
    machine.start(machine.agentd)
    machine.wait_settled()
    wait_for("applied", lambda: any("is applied" in line for line in lines(machine.agentd)), 20)
    said = lines(machine.agentd)
    assert len(said) == len(set(said)), said


def test_a_failure_is_told_once_and_its_end_says_how_often(machine):
    machine.put_plan(machine.make_plan(containers=[]))
    machine.start(machine.agentd)

    def about():
        return [line for line in lines(machine.agentd) if "secret app-key" in line]

    wait_for("the failure", about, 20)
    wait_for("tries", lambda: len(machine.cloud.requests(service="secretmanager")) >= 4, 40)
    assert len(about()) == 1 and "remedy" in about()[0], about()
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.agentctl("apply")
    wait_for("its end", lambda: any("well again" in line for line in about()), 30)
    end = next(line for line in about() if "well again" in line)
    assert re.search(r"well again after \d+ failures", end), end
    stays("silence", lambda: len([line for line in about() if "retrying" in line or "waiting" in line]) == 1, 3)


def test_a_rollback_is_one_event_with_its_remedy(machine):
    machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.put_plan(machine.make_plan())
    machine.start(machine.agentd)
    machine.wait_settled()
    machine.publish("2", broken="crash")
    machine.agentctl("apply", check=True)
    wait_for("the rollback", lambda: any("was rolled back" in line for line in lines(machine.agentd)), 60)
    time.sleep(3)
    said = [line for line in lines(machine.agentd) if "was rolled back" in line]
    assert len(said) == 1 and "downtime" in said[0] and "remedy: push a corrected image" in said[0], said
    assert "sudo agentctl retry mervis" in machine.agentctl("status").stdout
