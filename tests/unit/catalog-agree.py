#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The events in the code and both catalogs of the journal agree, every entry explains and names a remedy, and
journalctl takes them. Prints TAP."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(os.environ.get("srcdir", "."))
CATALOGS = {"mervis-agent.catalog": "Remedy: ", "mervis-agent.ko.catalog": "해결 방법: "}
EVENT = re.compile(r'\{"([a-z-]+)", "([0-9a-f]{32})"')
TABLES = [path for path in (SOURCE / "agent/agentd/events.c", SOURCE / "crawler/crawlerd/events.c") if path.exists()]


def events():
    return [row for path in TABLES for row in EVENT.findall(path.read_text())]


def entries(name):
    """{id: (headers, paragraphs)} of a catalog."""
    found = {}
    text = re.sub(r"(?m)^#.*\n", "", (SOURCE / "contrib/catalog" / name).read_text())
    for block in re.split(r"(?m)^-- ", text)[1:]:
        head, _, body = block.partition("\n\n")
        number, *headers = head.split("\n")
        assert number not in found, f"{name}: {number} is there twice"
        found[number] = (dict(line.split(": ", 1) for line in headers),
                         [paragraph for paragraph in body.strip().split("\n\n") if paragraph])
    return found


def ids_are_unique():
    rows = events()
    assert len({name for name, _ in rows}) == len(rows) and len({number for _, number in rows}) == len(rows)


def every_event_is_in_both_catalogs_and_nothing_else():
    numbers = {number for _, number in events()}
    for name in CATALOGS:
        assert set(entries(name)) == numbers, f"{name}: {set(entries(name)) ^ numbers}"


def a_plan_can_name_every_event_and_no_other():
    names = (SOURCE / "agent/plan/plan-names.c").read_text().partition("plan_event_names[] = {")[2].partition("}")[0]
    assert re.findall(r'"([a-z-]+)"', names) == [name for name, _ in events()]


def every_entry_explains_and_names_a_remedy():
    for name, remedy in CATALOGS.items():
        for number, (headers, paragraphs) in entries(name).items():
            where = f"{name}: {number}"
            assert headers.get("Subject") and headers.get("Defined-By") == "mervis-agent", where
            assert headers.get("Documentation", "").startswith("man:"), where
            assert len(paragraphs) >= 2 and paragraphs[-1].startswith(remedy), where
            assert name == "mervis-agent.catalog" or re.search("[가-힣]", headers["Subject"]), where


def every_event_is_one_that_the_code_can_send():
    code = "".join(path.read_text() for folder in ("agent", "crawler")
                   for path in sorted((SOURCE / folder).rglob("*.c"))
                   if path not in TABLES and path.name != "plan-names.c")
    unsent = [name for name, _ in events() if f'"{name}"' not in code]
    assert not unsent, unsent


def journalctl_takes_them():
    with tempfile.TemporaryDirectory() as root:
        where = Path(root, "usr/lib/systemd/catalog")
        where.mkdir(parents=True)
        for name in CATALOGS:
            shutil.copy(SOURCE / "contrib/catalog" / name, where)
        done = subprocess.run(["journalctl", f"--root={root}", "--update-catalog"], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        dump = subprocess.run(["journalctl", f"--root={root}", "--dump-catalog"], capture_output=True, text=True).stdout
        for _, number in events():
            assert f"-- {number}\n" in dump, number


def main():
    if not shutil.which("journalctl"):
        print("1..0 # SKIP there is no journalctl")
        return 0
    tests = [ids_are_unique, every_event_is_in_both_catalogs_and_nothing_else, every_entry_explains_and_names_a_remedy,
             every_event_is_one_that_the_code_can_send, journalctl_takes_them]
    print(f"1..{len(tests)}")
    failed = 0
    for number, test in enumerate(tests, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}")
        except AssertionError as err:
            failed += 1
            print(f"not ok {number} - {test.__name__}\n# {err}")
    return 1 if failed else 0


sys.exit(main())
