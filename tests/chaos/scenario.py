# SPDX-License-Identifier: Apache-2.0
"""Scenarios are data, scenarios.json; this reads them and plays one: load, fault, measured recovery, invariants."""

import json
import random
import time
from pathlib import Path

from rig.process import RigError

from .faults import OTHERS, settle_machine, strike
from .watch import Watch, availability, strips

HERE = Path(__file__).resolve().parent
CALM = 2.0  # seconds in which all must be well before it counts as recovered
ROWS_LIMIT = 240.0  # beyond the recovery, for the rows to arrive
PROOF_LIMIT = 15.0  # a fault that lasts goes on so much longer, at most, until something met it
WINDOW = 30.0  # of availability, beyond the time that the fault is made to last


def read_scenarios():
    """(scenarios in their order, faults that a storm draws from)"""
    data = json.loads((HERE / "scenarios.json").read_text(encoding="utf-8"))
    return data["scenarios"], data["draw"]


def read_texts():
    return json.loads((HERE / "texts.json").read_text(encoding="utf-8"))


def window_of(scenario):
    """The seconds from the strike over which availability is computed: the same in every run of a scenario."""
    notice = sum(step[1] for step in scenario.get("steps", []) if step[0] == "preempt")
    return WINDOW + scenario.get("hold", 0) * scenario.get("draw", 1) + notice


class Play:
    """One scenario on a machine that is well; `result` holds what was measured, `faults` what did not hold."""

    def __init__(self, world, scenario, seed):
        self.world, self.scenario = world, scenario
        self.random = random.Random(f"{seed} {scenario['name']}")
        self.result = {"name": scenario["name"], "text": scenario["text"], "seed": seed, "proofs": []}
        self.faults = []

    def run(self):
        world, scenario = self.world, self.scenario
        strike(world, scenario.get("prepare", []))
        settle_machine(world)
        world.edge = scenario.get("edge", 0) + scenario.get("hold", 0)
        before = world.container()
        world.load()
        page, said = Watch(world.page, 0.05), Watch(world.said, 0.2)
        said.begun = page.begun
        self.begun = page.begun
        page.start()
        said.start()
        try:
            time.sleep(0.5)  # the picture begins with a machine that is well
            struck = self._now()
            ended = self._strike()
            recovered = self._wait_recovered(page, said, ended)
            caught_up, missing, doubled, wrong = self._wait_rows(ended)
            time.sleep(max(0, struck + window_of(scenario) - self._now()))
        finally:
            end = self._now()
            pages, states = page.stop(), said.stop()
        self._measure(pages, states, struck, ended, recovered, end)
        self.result.update(rows_after=caught_up, lost=missing, doubled=doubled, wrong=wrong)
        self._judge(before)
        strike(world, scenario.get("finish", []))
        self.result["ok"] = not self.faults
        self.result["faults"] = self.faults
        return self.result

    def _now(self):
        return time.monotonic() - self.begun

    def _strike(self):
        """Returns when it ended: a boot that ends a power cut is part of the recovery."""
        hold = self.scenario.get("hold", 0)
        if "draw" not in self.scenario:
            struck = strike(self.world, self.scenario["steps"])
            time.sleep(hold)
            return self._end(struck)
        faults = read_scenarios()[1]
        self.result["drawn"] = []
        for _ in range(self.scenario["draw"]):
            step = self.random.choice(faults)
            self.result["drawn"].append(step)
            pause = hold * self.random.random()
            try:
                struck = strike(self.world, [step])
            except RigError as err:
                # What an earlier one took away cannot be hit: a container that is not back yet, say.
                self.result["drawn"][-1] = [*step, "missed"]
                if not any(word in step[0] for word in ("container", "image", "kill")):
                    raise err
                struck = []
            time.sleep(pause)
            self._end(struck)
            if struck and self.result["proofs"][-1]["proof"] is None:
                self.result["drawn"][-1] = [*step, "missed"]
        return self._now()

    def _end(self, struck):
        """Look for what shows that each of them struck, and end it. Returns when the last one ended."""
        ended = self._now()
        deadline = time.monotonic() + PROOF_LIMIT
        for step, fault in struck:
            proof = fault.proof()
            while proof is None and time.monotonic() < deadline:
                time.sleep(0.2)
                proof = fault.proof()
            key, figures = proof or (None, {})
            self.result["proofs"].append({"step": step, "proof": key, "figures": figures})
        for _, fault in reversed(struck):
            if fault.end:
                ended = self._now()
                fault.end()
        return ended

    def _wait_recovered(self, page, said, since):
        """Seconds since then until all was well and stayed so for a while; None if it never was."""
        limit = self.scenario["recovery"]
        newest_at = None
        while self._now() - since < limit + CALM + 5:
            if newest_at is None and self.world.page_is_the_newest():
                newest_at = self._now()
            last_bad = max([at for at, ok in page.samples[-4000:] if not ok] +
                           [at for at, told in said.samples[-1000:] if told != (True, True)] + [since])
            last_bad = max(last_bad, newest_at if newest_at is not None and newest_at - since > 0.5 else since)
            # Both must have asked and been answered since: a question that still waits may be the one that fails.
            if newest_at is not None and all(
                    watch.samples and watch.samples[-1][0] - last_bad >= CALM for watch in (page, said)):
                return round(last_bad - since, 1)
            time.sleep(0.1)
        return None

    def _wait_rows(self, ended):
        """Until every row that there was to fetch is in the table: (seconds since the fault's end, missing, doubled,
        wrong)."""
        until = time.time() - (self._now() - ended) if self.scenario.get("hold", 0) >= 60 else self.world.since
        while True:
            if not self.scenario.get("patient"):  # the crawler's own waits are what is looked at
                self.world.flush()
            missing, doubled, wrong = self.world.rows(until)
            after = self._now() - ended
            if missing == 0 or after > ROWS_LIMIT + self.scenario["recovery"]:
                return round(after, 1), missing, doubled, wrong
            time.sleep(0.5)

    def _measure(self, pages, states, struck, ended, recovered, end):
        window = window_of(self.scenario)
        share, away = availability([(at, bool(text)) for at, text in pages], struck, window)
        reacted = next((at for at, told in states if at >= struck and told != (True, True)), None)
        self.result.update(
            struck=round(struck, 2), ended=round(ended, 2), length=round(end, 1), recovery=recovered,
            availability=round(share, 5), away=round(away, 2), window=window,
            reaction=None if reacted is None else round(reacted - struck, 2),
            page=strips([(at, bool(text)) for at, text in pages], end),
            said=strips([(at, "silent" if told is None else "well" if told == (True, True) else "degraded")
                         for at, told in states], end))

    def _expect(self, holds, what):
        if not holds:
            self.faults.append(what)

    def _judge_the_fault(self):
        """That it struck, and that the machine said so where its text promises that."""
        found, proofs = self.result, self.result["proofs"]
        if "drawn" in found:
            wanted = [step for step in found["drawn"] if step[0] not in OTHERS]
            missed = [step for step in wanted if step[-1] == "missed"]
            self._expect(2 * len(missed) < len(wanted), f"not struck: {len(missed)} of {len(wanted)} faults met nobody")
        else:
            self._expect(proofs, "not struck: no fault among the steps")
            for one in proofs:
                name = " ".join(map(str, one["step"]))
                self._expect(one["proof"], f"not struck: nothing shows that {name} met anybody")
        limit = self.scenario.get("noticed")
        self._expect(limit is None or (found["reaction"] is not None and found["reaction"] <= limit),
                     f"noticed after {found['reaction']} s, {limit} s are allowed" if found["reaction"] is not None else
                     f"not noticed within {limit} s")

    def _judge(self, before):
        """What must hold after every fault, whatever it was."""
        world, scenario, found = self.world, self.scenario, self.result
        self._judge_the_fault()
        self._expect(found["recovery"] is not None, f"not well again {scenario['recovery']} s after its end")
        self._expect(found["lost"] == 0, f"{found['lost']} rows lost, like {world.lost}")
        self._expect(found["doubled"] == 0, f"{found['doubled']} rows doubled")
        self._expect(found["wrong"] == 0, f"{found['wrong']} rows with other values, like {world.odd}")
        self._expect(found["away"] <= scenario["away"],
                     f"the page was away for {found['away']} s, at most {scenario['away']} s are allowed")
        if scenario.get("container") == "same":
            self._expect(world.container() == before, f"the container is another one: {before} -> {world.container()}")
        names = world.vm.out("docker ps -a --format '{{.Names}}'", check=False).split()
        self._expect(set(names) <= {"mervis", "mervis.previous"} and "mervis" in names, f"containers: {names}")
        failed = world.vm.out("systemctl --failed --no-legend --plain", check=False)
        self._expect(not failed, f"failed units: {failed}")
        aside = world.vm.out("ls /var/lib/mervis-agent /var/lib/mervis-crawler | grep -i 'corrupt\\|broken' || true",
                             check=False)
        self._expect(not aside, f"a database was moved aside: {aside}")
        leaked = world.vm.sh(f"journalctl -q --no-pager | grep -c {world.secret_value}", check=False).stdout.strip()
        self._expect(leaked == "0", f"the secret is in the journal {leaked} times")
