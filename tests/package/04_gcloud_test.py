# SPDX-License-Identifier: Apache-2.0
"""Every gcloud command that documents, remedies and programs name is one that gcloud takes, with flags that it knows."""

import re
import shlex
import subprocess

import pytest

import gcloud

TABLE = gcloud.known()
COMMANDS = sorted({(where, " ".join(words)) for where, words in gcloud.commands()})


def test_the_commands_are_found_where_they_are_written():
    places = {where for where, _ in COMMANDS}
    assert {"README.md", "contrib/README.ko.md", "contrib/migration.md", "contrib/chaos --vm"} <= places
    assert any(where.startswith("agent/agentctl/doctor") for where in places) and len(COMMANDS) > 50


@pytest.mark.parametrize("where, command", COMMANDS, ids=lambda value: value[:60])
def test_gcloud_knows_it(where, command):
    words = command.split()
    name, flags, names = gcloud.split(words, TABLE)
    if flags is None:
        # A group of commands, named in a sentence.
        assert any(entry.startswith(name + " ") for entry in TABLE), f"gcloud has no {name}"
        assert not [word for word in words if word.startswith("--")], command
        return
    assert set(flags) <= set(TABLE[name]["flags"]), set(flags) - set(TABLE[name]["flags"])


@pytest.mark.parametrize("command, fault", [
    ("compute instances create VM --image-familly=debian-12", "--image-familly"),
    ("secrets version add X", None),
])
def test_a_slip_of_the_pen_is_found(command, fault):
    name, flags, _ = gcloud.split(command.split(), TABLE)
    assert (fault in flags and fault not in TABLE[name]["flags"]) if fault else not any(
        entry.startswith(name + " ") or entry == name for entry in TABLE)


def test_what_chaos_prints_for_a_vm_is_shell_and_rules_that_the_packet_filter_takes():
    """Up to the VM itself: the quoting survives the way through gcloud's --command."""
    text = "\n".join(text for where, text in gcloud.texts() if where == "contrib/chaos --vm")
    scripts = [shlex.split(line)[-1].removeprefix("--command=") for line in text.splitlines() if "--command=" in line]
    assert len(scripts) > 20
    rules = 0
    for script in scripts:
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0, script
        # Addresses of names are the VM's own to find; here one stands for them.
        fixed = re.sub(r"^a=\$\(.*?\)\)?; ", "a=192.0.2.1; ", script)
        for rule in re.findall(r"sudo nft ('.*)$", fixed):
            done = subprocess.run(["bash", "-c", f"a=192.0.2.1; nft -c {rule}"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{rule}\n{done.stderr}"
            rules += 1
    assert rules > 8
