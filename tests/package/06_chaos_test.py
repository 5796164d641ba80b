# SPDX-License-Identifier: Apache-2.0
"""tests/chaos without a machine: its data, the figures made of samples, the report."""

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests"))

from chaos import report  # noqa: E402
from chaos import faults, scenario as playing  # noqa: E402
from chaos.faults import FAULTS, OTHERS, Struck  # noqa: E402
from chaos.scenario import Play, read_scenarios, read_texts, window_of  # noqa: E402
from chaos.watch import availability, strips  # noqa: E402
from chaos.world import compare, doubled  # noqa: E402

SCENARIOS, DRAW = read_scenarios()
TEXTS = read_texts()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one["name"])
def test_a_scenario_is_whole(scenario):
    assert scenario["set"] in ("short", "long") and scenario["recovery"] > 0 and scenario["away"] > 0
    steps = [*scenario.get("prepare", []), *scenario.get("steps", []), *scenario.get("finish", [])]
    assert {step[0] for step in steps} <= {*FAULTS, *OTHERS} and ("steps" in scenario) != ("draw" in scenario)
    assert "draw" in scenario or {step[0] for step in scenario["steps"]} & set(FAULTS)
    assert scenario.get("noticed", 1) > 0
    text = TEXTS[scenario["text"]]
    for language in report.LANGUAGES:
        assert len(text[language]) == 4 and all(text[language])
    assert all(re.search("[가-힣]", part) for part in text["ko"][:3]) and text["ko"][3] == text["en"][3]
    assert text["vm"] or scenario["text"] == "storm"


def test_every_fault_that_is_asked_for_is_there():
    """What must be broken, and for how long."""
    names = {one["name"] for one in SCENARIOS}
    assert {"kill-agentd", "kill-crawlerd", "kill-statusd", "kill-container", "kill-engine", "delete-container",
            "delete-image", "loss-30", "latency-2s", "disk-full", "memory", "clock-forward", "clock-back", "preempt-30s",
            "preempt-120s", "outage-registry-10m", "outage-secrets-10m", "outage-bigquery-10m", "power-cut",
            "recreate"} <= names
    assert {f"cut-{what}-{length}" for what in ("all", "market", "google", "metadata") for length in ("5s", "5m")} <= names
    assert {step[0] for step in DRAW} <= {*FAULTS, *OTHERS} and not set(FAULTS) & set(OTHERS)


def test_what_a_text_promises_to_be_noticed_is_measured():
    """Where the symptom names status, /healthz or /readyz, for faults that last long enough to be seen."""
    for one in SCENARIOS:
        promised = re.search("[Ss]tatus|healthz|readyz|agentctl says|secret's line", TEXTS[one["text"]]["en"][1])
        if promised and "draw" not in one and not one["name"].endswith("-5s"):
            assert "noticed" in one, one["name"]


def test_a_seed_draws_the_same_faults_and_another_one_others():
    def drawn(seed):
        play = Play(None, {"name": "storm", "text": "storm"}, seed)
        return [play.random.choice(DRAW) for _ in range(20)]
    assert drawn(1) == drawn(1) != drawn(2)


def test_figures_of_samples():
    samples = [(0.0, True), (1.0, True), (2.0, False), (2.5, False), (3.0, True), (4.0, True)]
    assert availability(samples, 0.0, 4.0) == (0.75, 1.0)
    # However long one looks on, the window is the scenario's; what was before it does not count, and "away" goes on.
    longer = [*samples, *((at, True) for at in (5.0, 50.0, 500.0))]
    assert availability(longer, 0.0, 4.0) == (0.75, 1.0)
    assert availability(longer, 2.5, 1.0) == (0.5, 0.5)
    assert availability([*samples, (9.0, False), (10.0, True)], 0.0, 4.0) == (0.75, 2.0)
    assert availability([(0.0, False), (1.0, False)], 0.0, 30.0) == (0.0, 1.0)
    assert strips(samples, 4.5) == [(0.0, 2.0, True), (2.0, 3.0, False), (3.0, 4.5, True)]


def test_the_window_is_the_scenarios_own():
    known = {one["name"]: window_of(one) for one in SCENARIOS}
    assert known["kill-agentd"] == 30 and known["cut-all-5s"] == 35 and known["preempt-120s"] == 150
    assert known["storm"] == 36


def test_a_second_row_a_revision_and_any_other_value_are_found():
    wanted = {"symbol": "A", "ts": "t1", "interval": "1m", "kind": "bar", "trade_date": "2026-11-20", "tz": "UTC",
              "currency": "USD", "open": "1.5", "high": "2", "low": "1", "close": "2", "volume": None}
    row = {**wanted, "source": "yahoo", "revision": "0", "is_final": True}
    assert compare([wanted], [row]) == ([], []) and doubled([row]) == 0
    for name in [*wanted, "is_final"]:
        if name in ("symbol", "ts"):
            continue
        missing, wrong = compare([wanted], [{**row, name: "other"}])
        assert not missing and len(wrong) == 1 and name in wrong[0]
    assert compare([wanted], [{**row, "ts": "t2"}]) == (["A t1"], [])
    assert doubled([row, dict(row)]) == 1 and doubled([row, {**row, "revision": "1"}]) == 1
    assert doubled([row, {**row, "ts": "t2"}]) == 0


class Machine:
    """Enough of one to strike."""

    def __init__(self):
        self.ended = []

    def fault(self, proofs):
        given = iter(proofs)
        return lambda world, argument: Struck(lambda: next(given, None), lambda: self.ended.append(argument))


def played(monkeypatch, scenario, proofs):
    world = Machine()
    monkeypatch.setattr(playing, "PROOF_LIMIT", 0.5)
    monkeypatch.setitem(faults.FAULTS, "cut", world.fault(proofs))
    play = Play(world, {"name": "x", "text": "cut-all", **scenario}, 1)
    play.begun = 0
    play._strike()
    play.result["reaction"] = scenario.get("reaction")
    play._judge_the_fault()
    return play, world


def test_a_fault_that_nothing_met_is_not_struck(monkeypatch):
    steps = {"steps": [["cut", "all"]]}
    play, world = played(monkeypatch, steps, [])
    assert play.faults == ["not struck: nothing shows that cut all met anybody"] and world.ended == ["all"]
    # It may take a moment until something meets it.
    play, world = played(monkeypatch, steps, [None, ("packets", {"n": 3})])
    assert not play.faults and world.ended == ["all"]
    assert report.proofs(play.result, "en") == ["cut all: 3 packets dropped by the packet filter"]
    assert "패킷 3개" in report.proofs(play.result, "ko")[0]
    play, _ = played(monkeypatch, {"steps": [["wait", 0]]}, [])
    assert play.faults == ["not struck: no fault among the steps"]


def test_a_storm_of_which_half_met_nobody_is_not_struck(monkeypatch):
    monkeypatch.setattr(playing, "read_scenarios", lambda: ([], [["cut", "all"]]))
    met = ("packets", {"n": 1})
    assert not played(monkeypatch, {"draw": 3}, [met, met])[0].faults
    play, _ = played(monkeypatch, {"draw": 2}, [met])
    assert play.faults == ["not struck: 1 of 2 faults met nobody"] and play.result["drawn"][-1][-1] == "missed"


def test_what_shall_be_noticed_is_noticed_in_time(monkeypatch):
    def said(reaction):
        scenario = {"steps": [["cut", "all"]], "noticed": 10, "reaction": reaction}
        return played(monkeypatch, scenario, [("packets", {"n": 1})])[0].faults
    assert said(9.0) == [] and "noticed after 11.0 s" in said(11.0)[0] and said(None) == ["not noticed within 10 s"]


def test_recovery_waits_for_a_question_that_has_no_answer_yet(monkeypatch):
    """Struck at 1 s; the question of 1 s fails at 3.3 s, after two seconds in which nothing bad was heard."""
    now = [1.0]
    page, said = (SimpleNamespace(samples=[(0.9, good)]) for good in ("version=1", (True, True)))

    def pass_time(seconds):
        now[0] = round(now[0] + seconds, 3)
        page.samples.append((now[0], "version=1"))
        if now[0] >= 3.3:
            said.samples.append((now[0], (True, True) if now[0] > 3.35 else None))
    monkeypatch.setattr(playing.time, "sleep", pass_time)
    world = SimpleNamespace(page_is_the_newest=lambda: True)
    play = Play(world, {"name": "x", "text": "kill-statusd", "recovery": 15}, 1)
    monkeypatch.setattr(play, "_now", lambda: now[0])
    assert play._wait_recovered(page, said, 1.0) == 2.3 and now[0] >= 5.3


def test_every_proof_that_a_fault_gives_has_its_words():
    source = (TOP / "tests/chaos/faults.py").read_text()
    keys = set(re.findall(r'[( ]"([a-z-]+)", \{', source)) | set(re.findall(r'"(delayed|refused)"', source))
    assert keys == set(report.PROOFS)
    for words in report.PROOFS.values():
        assert set(words) == set(report.LANGUAGES) and re.search("[가-힣]", words["ko"])
        assert set(re.findall(r"\{(\w+)\}", words["en"])) == set(re.findall(r"\{(\w+)\}", words["ko"]))


def results():
    base = {"text": "kill-agentd", "seed": 7, "struck": 0.5, "ended": 0.6, "length": 9.0, "recovery": 2.1,
            "availability": 1.0, "away": 0.0, "window": 30.0, "reaction": 0.3, "rows_after": 5.0, "lost": 0,
            "doubled": 0, "wrong": 0,
            "page": [(0.0, 9.0, True)], "said": [(0.0, 0.8, "well"), (0.8, 2.6, "silent"), (2.6, 9.0, "well")],
            "proofs": [{"step": ["kill", "agentd"], "proof": "gone", "figures": {"pid": 7, "what": "agentd"}},
                       {"step": ["cut", "all"], "proof": None, "figures": {}}],
            "ok": True, "faults": []}
    return [{**base, "name": "kill-agentd"},
            {**base, "name": "storm", "text": "storm", "drawn": [["kill", "agentd"], ["cut", "all"]]},
            {"name": "kill-engine", "text": "kill-engine", "seed": 7, "ok": False, "faults": ["3 rows <lost>"],
             "lost": 3}]


def test_the_report_is_one_file_a_language_that_needs_nothing_else(tmp_path):
    report.write(results(), TEXTS, tmp_path)
    for language, word in (("en", "Rows lost: 3"), ("ko", "유실된 행 3개")):
        text = (tmp_path / f"chaos.{language}.html").read_text(encoding="utf-8")
        HTMLParser().feed(text)
        for proof in report.proofs(results()[0], language):
            assert proof in text
        assert word in text and "<svg" in text and "3 rows &lt;lost&gt;" in text
        assert TEXTS["kill-engine"][language][1] in text and "cut all" in text
        assert not re.search(r'(?:src|href)="(?!#)', text) and "url(" not in text and "@import" not in text
        lines = (tmp_path / f"chaos.{language}.txt").read_text(encoding="utf-8").splitlines()
        assert max(report.width(line) for line in lines) <= 80


def test_the_machines_share_all_that_is_wanted_and_nothing_twice():
    def shares(*arguments):
        done = subprocess.run([TOP / "tests/chaos/helper", "share", *arguments], capture_output=True, text=True,
                              check=False)
        return done.returncode, [line.split() for line in done.stdout.splitlines()]
    for arguments, wanted in (((), {one["name"] for one in SCENARIOS if one["set"] == "short"}),
                              (("--full",), {one["name"] for one in SCENARIOS}), (("storm", "storm"), {"storm"})):
        status, found = shares(*arguments)
        flat = [name for line in found for name in line]
        assert status == 0 and set(flat) == wanted and len(flat) == len(wanted)
    assert shares("nothing")[0] == 1


# What is printed for a VM of one's own

def printed(*names, zone="asia-northeast3-a"):
    """{scenarios: [command]} of --vm, the scripts for the VM freed from what carries them there."""
    text = subprocess.run([TOP / "contrib/chaos", "--vm", "VM", "--zone", zone, *names],
                          capture_output=True, text=True, check=True).stdout
    entries = {}
    for entry in text.strip().split("\n\n"):
        lines = entry.splitlines()
        commands = [line for line in lines if line.startswith("gcloud ")]
        entries[lines[0].lstrip("# ").partition(":")[0]] = [
            shlex.split(line)[-1].removeprefix("--command=") if "--command=" in line else line for line in commands]
    return text, entries


# In a network of its own: an interface of each kind, and what leaves by each with the rules in force. A packet that the
# filter drops on its way out is an EPERM for who sends it.
REACH = """
import socket, subprocess, sys
def ip(*words): subprocess.run(["ip", *words], check=True)
ip("link", "set", "lo", "up")
for name, address in (("ens4", "10.128.0.2/24"), ("docker0", "172.17.0.1/16"), ("br-1a2b3c", "172.18.0.1/16")):
    ip("link", "add", name, "type", "veth", "peer", "name", "p-" + name)
    ip("addr", "add", address, "dev", name)
    ip("link", "set", "p-" + name, "up")
    ip("link", "set", name, "up")
ip("route", "add", "default", "via", "10.128.0.1", "dev", "ens4")
def leaves(address):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found = set()
    for number in range(200):
        try:
            sender.sendto(b"x", (address, 9))
            found.add("passes")
        except PermissionError:
            found.add("dropped")
    return "+".join(sorted(found))
names = ("172.17.0.2", "172.18.0.2", "35.191.0.7", "130.211.0.7", "35.235.240.7", "10.128.0.9", "192.0.2.1",
         "169.254.169.254")
assert {leaves(name) for name in names} == {"passes"}
subprocess.run(["nft", "-f", "-"], input=sys.argv[1], text=True, check=True)
served = socket.create_server(("127.0.0.1", 0))
socket.create_connection(served.getsockname(), timeout=5).sendall(b"x")
assert served.accept()[0].recv(1) == b"x"
print(*(leaves(name) for name in names))
"""


@pytest.mark.parametrize("name, others", [
    ("cut-all-5m", "dropped dropped dropped"), ("cut-metadata-5m", "passes passes dropped"),
    ("loss-30", "dropped+passes dropped+passes dropped+passes"),
])
def test_a_cut_of_ones_own_vm_leaves_loopback_containers_and_health_checks(name, others):
    """Else agentd's own looks at its containers fail, and the group re-creates the VM."""
    _, entries = printed(name)
    rules = re.search(r"sudo nft '(.*)'$", entries[name][0])[1]
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", REACH, rules], capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.stdout.strip() == "passes passes passes passes passes " + others, done.stderr


def test_a_cut_says_what_is_missing_and_ends_by_itself():
    for name, seconds in (("cut-all-5s", 5), ("cut-market-5m", 300), ("loss-30", 60)):
        script = printed(name)[1][name][0]
        words = "[ -x /usr/sbin/nft ]", f"--on-active={seconds} ", "sudo nft"
        check, timer, cut = (script.index(word) for word in words)
        assert check < timer < cut and "apt-get install nftables" in script and " && sudo nft" in script


def test_the_commands_for_a_vm_carry_what_their_scenario_says():
    text, entries = printed()
    assert "--clear-autohealing" in text and "--health-check=GROUP-alive --initial-delay=300" in text
    assert "'+3600 seconds'" in entries["clock-forward"][0] and "'-3600 seconds'" in entries["clock-back"][0]
    assert entries["preempt-30s, preempt-120s"] == ["gcloud compute instances simulate-maintenance-event VM "
                                                    "--zone=asia-northeast3-a"]
    assert entries["recreate"][0].endswith("recreate-instances GROUP --instances=VM --region=asia-northeast3")
    assert len([line for line in text.splitlines() if "simulate-maintenance-event" in line]) == 1
    assert not re.search(r"\{(?:vm|zone|region|hold|jump|argument|rule|path)\}", text)
    # The region that the module's group is in, and the name of its health check.
    group = (TOP / "contrib/terraform/group.tf").read_text()
    assert "google_compute_region_instance_group_manager" in group and '"${var.name}-alive"' in group
    assert "--region=REGION" in printed("recreate", zone="ZONE")[0]


def test_the_disk_of_a_vm_is_filled_to_the_last_byte_and_emptied_again(tmp_path):
    """What systemd-run is asked to run, on a small disk."""
    disk, programs = tmp_path / "disk", tmp_path / "programs"
    script = printed("disk-full")[1]["disk-full"][0].replace("/var/lib/docker", str(disk))
    words = shlex.split(script)
    assert words[:2] == ["sudo", "systemd-run"] and words[2] == f"--property=ExecStopPost=/bin/rm -f {disk}/ballast"
    assert words[3:5] == ["sh", "-c"] and words[5].endswith("sleep 30")
    for path in (disk, programs):
        path.mkdir()
    (programs / "sleep").write_text(f"#!/bin/sh\nstat -f -c %f {disk} >&3; stat -c %s {disk}/ballast >&3\n")
    (programs / "sleep").chmod(0o755)
    # Where / is no mount point its propagation cannot be set.
    settable = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private" if settable else "unchanged", "sh", "-c",
         f'exec 3>&1; mount -t tmpfs -o size=96m tmpfs {disk}; sh -c "$1"; umount {disk}', "sh", words[5]],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}, capture_output=True, text=True, check=False,
        timeout=60)
    assert done.stdout.split() == ["0", str(96 << 20)], done.stderr
