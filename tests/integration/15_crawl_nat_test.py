# SPDX-License-Identifier: Apache-2.0
"""2,000 symbols through a Cloud NAT of 64 ports, each held 120 s after its connection: what thrift with connections is for,
and how it is named when there is none left."""

import json
import os
import time

import pytest

from rig.nat import Nat
from rig.process import RigError, tail, wait_for

PORTS = 64
SYMBOLS = [f"S{i:04d}" for i in range(2000)]
# Three days of one symbol, as Yahoo sends them.
DOCUMENT = '''
import json, time, urllib.parse
DAY = 86400
def answer(path):
    symbol = urllib.parse.unquote(path.partition("?")[0].rpartition("/")[2])
    noon = int(time.time()) // DAY * DAY + 52200
    stamps = [noon - DAY * days for days in (5, 4, 3)]
    return json.dumps({"chart": {"error": None, "result": [{
        "meta": {"currency": "USD", "symbol": symbol, "exchangeName": "NMS", "exchangeTimezoneName": "America/New_York",
                 "dataGranularity": "1d"}, "timestamp": stamps,
        "indicators": {"quote": [{name: [1.5, 2.5, 3.5] for name in ("open", "high", "low", "close")} |
                                 {"volume": [1, 2, 3]}]}}]}}).encode()
'''


@pytest.fixture
def nat(machine):
    made = Nat(machine.dir, PORTS)
    yield made
    made.stop()


def crawl(machine, nat, symbols, nat_ports=PORTS, closing=False):
    """The machine crawls these symbols by a recipe that is in no hurry for politeness."""
    recipes = machine.dir / "recipes"
    recipes.mkdir()
    for recipe in machine.recipes.glob("*.json"):
        (recipes / recipe.name).write_text(recipe.read_text())
    fast = json.loads((machine.recipes / "yahoo-chart.json").read_text())
    fast.update(name="fast", politeness={"robots": "api", "delay": "0s", "connections": 1}, terms={})
    (recipes / "fast.json").write_text(json.dumps(fast))
    for daemon in (machine.agentd, machine.crawlerd):
        daemon.env["MERVIS_RECIPES_DIR"] = str(recipes)

    nat.start(DOCUMENT, closing)
    machine.cloud.make_dataset("market")
    plan = machine.make_plan(containers=[], secrets=[], crawl=machine.crawl(
        jobs=[{"name": "many", "recipe": "fast", "symbols": symbols, "interval": "1d", "every": "1h", "backfill": "10d"}],
        egress={"nat_ports": nat_ports, "min_delay": "0s"}))
    plan["endpoints"].update({f"query{i}.finance.yahoo.com": f"https://{nat.outside}" for i in (1, 2)})
    machine.put_plan(plan)
    machine.start_daemons()


def crawler(machine):
    found = machine.status().get("crawler") or {}
    return found if found.get("jobs") else None


def host(machine):
    hosts = (crawler(machine) or {}).get("hosts") or [{}]
    return hosts[0]


def explained(machine, what, question, timeout):
    try:
        return wait_for(what, question, timeout, 0.2)
    except RigError as err:
        raise RigError(f"{err}\n{json.dumps(crawler(machine))[:2000]}\n{tail(machine.crawlerd.log, 20)}") from None


def test_two_thousand_symbols_pass_on_single_digit_connections(machine, nat):
    crawl(machine, nat, SYMBOLS)
    most = 0

    def all_delivered():
        nonlocal most
        found = crawler(machine)
        most = max([most, nat.used])
        return found and found["delivery"]["rows_delivered"] >= 3 * len(SYMBOLS) and found
    began = time.monotonic()
    found = explained(machine, "2,000 symbols in the table", all_delivered, 150)
    job, market = found["jobs"][0], found["hosts"][0]
    print(f"2,000 symbols in {time.monotonic() - began:.0f} s over {market['connections']} connections, "
          f"{most} NAT ports at most, {nat.dropped} packets dropped")
    assert (job["rows"], job["failures"], job["state"]) == (3 * len(SYMBOLS), 0, "ok"), job
    assert job["requests"] == len(SYMBOLS)
    assert nat.dropped == 0
    assert market["connections"] < 10 and most < 10, (market, most)


def test_a_host_that_ends_each_connection_does_not_get_beyond_the_budget(machine, nat):
    budget = PORTS - 4
    crawl(machine, nat, SYMBOLS, nat_ports=budget, closing=True)
    explained(machine, "use of the whole budget", lambda: host(machine).get("connections_120s", 0) >= budget, 60)
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        assert host(machine)["connections_120s"] <= budget and nat.used <= budget, (host(machine), nat.used)
        time.sleep(0.2)
    assert nat.dropped == 0
    assert crawler(machine)["jobs"][0]["failures"] == 0
    assert host(machine)["waits"] == "new connections are kept under nat_ports", host(machine)
    assert crawler(machine)["egress"]["nat_ports"] == budget
    shown = " ".join(machine.agentctl("crawl", "status").stdout.split())
    assert "new connections are kept under nat_ports" in shown and f"query1.finance.yahoo.com {budget}" in shown, shown


@pytest.mark.full  # connects that time out, and the doctor's own
def test_without_reuse_and_budget_the_exhaustion_is_named_by_status_and_doctor(machine, nat):
    crawl(machine, nat, SYMBOLS, nat_ports=1000, closing=True)
    explained(machine, "word of Cloud NAT", lambda: "Cloud NAT" in str((crawler(machine) or {}).get("message")), 90)
    assert nat.dropped > 0
    assert nat.used <= PORTS
    found = crawler(machine)
    assert "min-ports-per-vm" in found["remedy"], found
    shown = machine.agentctl("status")
    assert "Cloud NAT has no port left" in " ".join(shown.stdout.split()), shown.stdout
    checked = machine.agentctl("doctor", "--json", "--root", machine.root, "--engine", machine.engine.socket, "--state-dir",
                               machine.dir / "agentd" / "state", timeout=60,
                               env={**os.environ, "MERVIS_RECIPES_DIR": str(machine.dir / "recipes")})
    egress = next(one for one in json.loads(checked.stdout)["checks"] if one["id"] == "egress")
    assert egress["ok"] is False and "Cloud NAT" in egress["message"], egress
    assert "min-ports-per-vm" in egress["remedy"], egress
