# SPDX-License-Identifier: Apache-2.0
"""agentctl: every verb, as root and as an ordinary user, on a private bus."""

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import time
import unicodedata
from pathlib import Path

import pytest

from rig.bus import Bus
from rig.process import run, wait_for

# "daemon", whom the bus knows: neither root nor whom crawlerd runs as.
SOMEBODY = (1, 1)
READS = (("status",), ("history",), ("secrets",), ("apply", "--dry-run"), ("cleanup", "--dry-run"), ("crawl", "status"),
         ("recipe", "list"), ("recipe", "show", "yahoo-chart"), ("plan", "schema"))
CHANGES = (("apply",), ("restart", "mervis"), ("rollback", "mervis"), ("retry", "mervis"), ("cleanup",),
           ("plan", "show"), ("crawl", "run", "us-1d"),
           ("crawl", "backfill", "us-1d", "2026-01-01"), ("crawl", "dead-letters"),
           ("crawl", "replay"))
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def width(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


@pytest.fixture
def well(machine):
    """agentd and crawlerd at rest."""
    machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.cloud.make_dataset("market")
    machine.put_plan(machine.make_plan(crawl=machine.crawl()))
    machine.start(machine.agentd)
    machine.start(machine.crawlerd)
    machine.wait_settled()
    return machine


def agentctl(machine, *words, user=None, **kwargs):
    env = {**os.environ, "MERVIS_RECIPES_DIR": str(machine.recipes), **kwargs.pop("env", {})}
    who = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    return machine.agentctl(*words, env=env, **who, **kwargs)


def as_somebody(machine, *words, **kwargs):
    return agentctl(machine, *words, user=SOMEBODY, **kwargs)


def started_at(machine):
    return machine.engine.inspect("mervis")["State"]["StartedAt"]


def test_help_of_every_verb_fits_80_columns_and_wrong_words_are_refused_with_a_hint(machine):
    text = machine.agentctl("--help", check=True).stdout
    verbs = re.findall(r"(?m)^  ([a-z]+(?: [a-z-]+)?)(?= |$)", text.partition("Options:")[0])
    assert {"status", "doctor", "plan show", "crawl flush", "recipe test", "logs"} <= set(verbs) and len(verbs) > 18
    for verb in verbs:
        page = run([machine.program("agentctl"), *verb.split(), "--help"])
        assert page.stdout.startswith(f"Usage: agentctl {verb}") and not page.stderr
        assert re.search(r"(?m)^[A-Z].*\.$", page.stdout.splitlines()[2]), page.stdout
        assert max(len(line) for line in (text + page.stdout).splitlines()) <= 80, page.stdout
        wrong = run([machine.program("agentctl"), *verb.split(), "--nonsense"], check=False)
        assert wrong.returncode == 64 and f"`agentctl {verb} --help`" in wrong.stderr and not wrong.stdout
        many = run([machine.program("agentctl"), *verb.split(), *"abcdef"], check=False)
        assert many.returncode == 64 and 'takes no "' in many.stderr, (verb, many.stderr)
    for group in {verb.split()[0] for verb in verbs if " " in verb}:
        page = run([machine.program("agentctl"), group, "--help"]).stdout
        assert page.startswith(f"Usage: agentctl {group} VERB ") and max(map(len, page.splitlines())) <= 80, page
        assert re.findall(r"(?m)^  ([a-z]+ [a-z-]+)(?= |$)", page) == [v for v in verbs if v.startswith(f"{group} ")]
        assert run([machine.program("agentctl"), group, "-h"]).stdout == page
    for words in ((), ("nonsense",), ("plan",), ("crawl", "nonsense")):
        done = run([machine.program("agentctl"), *words], check=False)
        assert done.returncode == 64 and done.stderr.count("\n") == 1 and not done.stdout, words


def test_everybody_may_read_and_what_is_piped_is_plain_and_fits_80_columns(well):
    for words in READS:
        for done in (agentctl(well, *words), as_somebody(well, *words)):
            assert done.returncode in (0, 1) and done.stdout, (words, done.stderr)
            assert not CONTROL.search(done.stdout), words
            if words[0] not in ("recipe", "plan"):
                assert all(width(line) <= 80 for line in done.stdout.splitlines()), done.stdout


def test_root_alone_may_change_and_others_are_told_sudo(well):
    before = started_at(well)
    for words in CHANGES:
        done = as_somebody(well, *words)
        assert done.returncode == 1, words
        assert f"sudo agentctl {' '.join(words)}" in done.stderr
        assert not done.stdout
    assert started_at(well) == before


def test_the_shipped_bus_policy_lets_everybody_read_and_root_alone_change(machine):
    """The same again where the bus itself refuses, before agentd is asked."""
    units = Path(__file__).resolve().parent.parent.parent / "units"
    bus = Bus(machine.dir, policies=[units / "io.mervis.Agent1.conf"])
    before = os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
    bus.start()
    try:
        machine.put_plan(machine.make_plan(containers=[], secrets=[]))
        machine.start(machine.agentd)
        wait_for("well", lambda: machine.status().get("state") == "well", 15)
        for words in (("status",), ("history",), ("secrets",), ("apply", "--dry-run")):
            assert as_somebody(machine, *words).returncode == 0, words
        for words in (("apply",), ("restart", "web"), ("plan", "show"), ("cleanup",)):
            done = as_somebody(machine, *words)
            assert done.returncode == 1 and f"sudo agentctl {' '.join(words)}" in done.stderr, done.stderr
        assert agentctl(machine, "apply").returncode == 0
    finally:
        machine.agentd.kill()
        bus.kill()
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = before


def test_json_everywhere(well):
    for words in (*READS[:6], ("restart", "mervis"), ("plan", "show"), ("crawl", "run", "us-1d"),
                  ("crawl", "dead-letters"), ("crawl", "replay"), ("apply",), ("cleanup",), ("recipe", "list")):
        done = agentctl(well, *words, "--json")
        assert done.returncode in (0, 1), (words, done.stderr)
        assert json.loads(done.stdout) is not None, words
    refused = as_somebody(well, "restart", "mervis", "--json")
    verdict = json.loads(refused.stdout)
    assert refused.returncode == 1 and verdict["ok"] is False and "sudo agentctl restart" in verdict["remedy"]


def test_restart_rollback_and_retry(well):
    before = started_at(well)
    done = agentctl(well, "restart", "mervis")
    assert done.returncode == 0 and "restarting" in done.stdout
    wait_for("another start", lambda: started_at(well) != before, 20)
    well.wait_settled()

    well.publish("2")
    well.wait_page(version="2")
    well.wait_settled()
    assert agentctl(well, "rollback", "mervis").returncode == 0
    well.wait_page(version="1")
    well.wait_settled(states=("committed", "settled", "rolled-back"))
    assert agentctl(well, "retry", "mervis").returncode == 0
    well.wait_page(version="2")

    history = agentctl(well, "history").stdout
    assert "GENERATION" in history and "rolled out" in history
    unknown = agentctl(well, "restart", "nobody")
    assert unknown.returncode == 1 and 'no container "nobody"' in unknown.stderr


def test_apply_shows_first_what_it_would_do(well):
    done = agentctl(well, "apply", "--dry-run")
    assert done.returncode == 0 and "as declared" in done.stdout
    assert agentctl(well, "apply").returncode == 0


def test_secrets_shows_names_and_versions_and_never_a_value(well):
    done = agentctl(well, "secrets")
    assert done.returncode == 0 and re.search(r"app-key +1 +ok", done.stdout) and "the-key" not in done.stdout


def test_the_exit_status_says_what_is_out_of_reach(well):
    well.agentd.kill()
    well.crawlerd.kill()
    for words in (("apply",), ("history",), ("secrets",), ("restart", "mervis"), ("status",)):
        done = agentctl(well, *words)
        assert done.returncode == 2, words
        assert "systemctl start agentd" in done.stderr + done.stdout, words
    assert agentctl(well, "crawl", "status").returncode == 2
    assert agentctl(well, "restart").returncode == 64 and agentctl(well, "nonsense").returncode == 64


def test_recipe_test_is_crawlerds_own_with_its_exit_status(well, tmp_path):
    reply = tmp_path / "reply"
    reply.write_text("<html>no</html>")
    done = agentctl(well, "recipe", "test", "yahoo-chart", "--reply", reply, "--symbol", "AAPL")
    assert done.returncode == 4, done.stderr
    assert agentctl(well, "recipe", "test", "yahoo-chart").returncode == 64
    # What a plan could not ask for is no test either.
    done = agentctl(well, "recipe", "test", "upbit-candles", "--reply", reply, "--interval", "7m")
    assert done.returncode == 64 and done.stdout == "", done.stdout
    assert 'recipe upbit-candles has no interval "7m"; it has 1m, 1s, 3m,' in done.stderr, done.stderr


def test_logs_asks_the_journal_for_the_right_records(well):
    fake = well.dir / "bin"
    fake.mkdir()
    (fake / "journalctl").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    (fake / "journalctl").chmod(0o755)
    path = {"PATH": f"{fake}:{os.environ['PATH']}"}
    done = agentctl(well, "logs", "mervis", "-n5", "-f", "-x", env=path)
    words = done.stdout.split("\n")
    assert done.returncode == 7
    assert {"--lines=5", "--follow", "--catalog", "CONTAINER_NAME=mervis",
            "MERVIS_RESOURCE=container/mervis"} <= set(words)
    assert "--unit=statusd" in agentctl(well, "logs", env=path).stdout
    assert agentctl(well, "logs", "--", "--output=export", env=path).returncode == 64


def test_korean_names_stand_in_straight_columns(machine):
    files = [{"path": "/etc/설정/한글-이름.conf", "content": "x"}, {"path": "/etc/plain.conf", "content": "x"},
             {"path": "/etc/がぎぐ混在.conf", "content": "x"}]
    machine.put_plan(machine.make_plan(containers=[], secrets=[], system={"files": files}))
    machine.start(machine.agentd)
    wait_for("well", lambda: machine.status()["state"] == "well", 15)
    page = agentctl(machine, "status").stdout
    rows = [line for line in page.splitlines() if line.startswith("file ")]
    heading = next(line for line in page.splitlines() if line.startswith("ITEM"))
    assert len(rows) == 3
    assert {width(row[:row.rindex(" ok ") + 1]) for row in rows} == {heading.index("STATE")}, page


def on_terminal(argv, seconds, env=None):
    """What a command writes to a terminal of 80 columns until it ends or its time is over."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", **(env or {}))
        os.execv(argv[0], argv)
    text, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            text += os.read(fd, 65536)
        except OSError:
            break
    os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    os.close(fd)
    return text.decode()


def test_watch_redraws_in_place_and_colour_is_for_terminals(well):
    argv = [str(well.program("agentctl")), "status", "--watch"]
    text = on_terminal(argv, 5)
    assert text.startswith("\x1b[2J") and text.count("\x1b[H") >= 2 and "\x1b[32m" in text
    assert "\x1b[32m" not in on_terminal(argv[:2], 1, {"NO_COLOR": "1"})


def test_watch_as_json_is_a_document_a_line_and_ends_when_agentd_is_gone(well):
    argv = [well.program("agentctl"), "status", "--watch", "--json", "--state-dir", well.dir / "agentd" / "state"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        for _ in range(2):
            assert json.loads(watch.stdout.readline())["ready"] is True
        # Away for a moment, as in an upgrade.
        well.agentd.kill()
        assert json.loads(watch.stdout.readline())
        well.start(well.agentd)
        wait_for("agentd again", lambda: json.loads(watch.stdout.readline())["reachable"], 30)
        assert well.agentd.stop() == 0
        rest, said = watch.communicate(timeout=60)
    assert watch.returncode == 2 and said.count("systemctl start agentd") == 2, said
    assert len([json.loads(line) for line in rest.splitlines()]) >= 4


def test_it_starts_within_20_milliseconds(well):
    """Of processor time, the least of ten: other work on the machine does not count."""
    def cost():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([well.program("agentctl"), "status"], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert min(cost() for _ in range(10)) < 0.020


def complete(machine, *words):
    """What bash offers for the last of WORDS."""
    script = machine.build / "contrib/completion/agentctl"
    if not script.exists():
        pytest.skip(f"{script} is not made: make all")
    quoted = " ".join(f"'{word}'" for word in ("agentctl", *words))
    done = subprocess.run(["bash", "-c", f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _agentctl; "
                           "printf '%s\\n' \"${COMPREPLY[@]}\""], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": f"{machine.build}:{os.environ['PATH']}"})
    return done.stdout.split()


def test_bash_completes_verbs_options_and_the_names_of_containers(well):
    assert complete(well, "re") == ["restart", "retry", "recipe"]
    assert complete(well, "crawl", "b") == ["backfill"]
    assert complete(well, "apply", "--d") == ["--dry-run"]
    assert complete(well, "restart", "") == ["mervis"]
    assert complete(well, "crawl", "run", "--") == ["--json", "--help"]
