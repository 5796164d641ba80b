# SPDX-License-Identifier: Apache-2.0
"""tests/chaos without a machine: its data, the figures made of samples, the report."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests"))

from chaos import report  # noqa: E402
from chaos.faults import FAULTS  # noqa: E402
from chaos.scenario import Play, read_scenarios, read_texts  # noqa: E402
from chaos.watch import availability, strips  # noqa: E402

SCENARIOS, DRAW = read_scenarios()
TEXTS = read_texts()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one["name"])
def test_a_scenario_is_whole(scenario):
    assert scenario["set"] in ("short", "long") and scenario["recovery"] > 0 and scenario["away"] > 0
    steps = [*scenario.get("prepare", []), *scenario.get("steps", []), *scenario.get("finish", [])]
    assert {step[0] for step in steps} <= set(FAULTS) and ("steps" in scenario) != ("draw" in scenario)
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
    assert {step[0] for step in DRAW} <= set(FAULTS)


def test_a_seed_draws_the_same_faults_and_another_one_others():
    def drawn(seed):
        play = Play(None, {"name": "storm", "text": "storm"}, seed)
        return [play.random.choice(DRAW) for _ in range(20)]
    assert drawn(1) == drawn(1) != drawn(2)


def test_figures_of_samples():
    samples = [(0.0, True), (1.0, True), (2.0, False), (2.5, False), (3.0, True), (4.0, True)]
    share, longest = availability(samples)
    assert share == pytest.approx(0.75) and longest == pytest.approx(1.0)
    assert availability([(0.0, False), (1.0, False)]) == (0.0, 1.0)
    assert strips(samples, 4.5) == [(0.0, 2.0, True), (2.0, 3.0, False), (3.0, 4.5, True)]


def results():
    base = {"text": "kill-agentd", "seed": 7, "struck": 0.5, "ended": 0.6, "length": 9.0, "recovery": 2.1,
            "availability": 1.0, "away": 0.0, "reaction": 0.3, "rows_after": 5.0, "lost": 0, "doubled": 0, "wrong": 0,
            "page": [(0.0, 9.0, True)], "said": [(0.0, 0.8, "well"), (0.8, 2.6, "silent"), (2.6, 9.0, "well")],
            "ok": True, "faults": []}
    return [{**base, "name": "kill-agentd"},
            {**base, "name": "storm", "text": "storm", "drawn": [["kill", "agentd"], ["cut", "all"]]},
            {"name": "kill-engine", "text": "kill-engine", "seed": 7, "ok": False, "faults": ["3 rows <lost>"], "lost": 3}]


def test_the_report_is_one_file_a_language_that_needs_nothing_else(tmp_path):
    report.write(results(), TEXTS, tmp_path)
    for language, word in (("en", "Rows lost: 3"), ("ko", "잃은 행 3개")):
        text = (tmp_path / f"chaos.{language}.html").read_text(encoding="utf-8")
        HTMLParser().feed(text)
        assert word in text and "<svg" in text and "3 rows &lt;lost&gt;" in text
        assert TEXTS["kill-engine"][language][1] in text and "cut all" in text
        assert not re.search(r'(?:src|href)="(?!#)', text) and "url(" not in text and "@import" not in text
        lines = (tmp_path / f"chaos.{language}.txt").read_text(encoding="utf-8").splitlines()
        assert max(report.width(line) for line in lines) <= 80


def test_the_machines_share_all_that_is_wanted_and_nothing_twice():
    def shares(*arguments):
        done = subprocess.run([TOP / "tests/chaos/helper", "share", *arguments], capture_output=True, text=True, check=False)
        return done.returncode, [line.split() for line in done.stdout.splitlines()]
    for arguments, wanted in (((), {one["name"] for one in SCENARIOS if one["set"] == "short"}),
                              (("--full",), {one["name"] for one in SCENARIOS}), (("storm", "storm"), {"storm"})):
        status, found = shares(*arguments)
        flat = [name for line in found for name in line]
        assert status == 0 and set(flat) == wanted and len(flat) == len(wanted)
    assert shares("nothing")[0] == 1
