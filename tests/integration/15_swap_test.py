# SPDX-License-Identifier: Apache-2.0
"""Swap files on file systems that want them made in their own way."""

import fcntl
import json
import os
import struct
import subprocess

import pytest

from rig.process import run, wait_for

SIZE = 17 << 20
FS_IOC_GETFLAGS = 0x80086601
FS_NOCOW_FL = 0x00800000


def flags_of(path):
    with open(path, "rb") as file:
        return struct.unpack("l", fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(8)))[0]


def is_on(path):
    listed = str(path).replace(" ", "\\040")
    return any(line.split()[0] == listed for line in open("/proc/swaps", encoding="utf-8"))


@pytest.fixture(params=["btrfs", "ext4"])
def rooted(machine, request):
    """A machine whose root is on a disk of that kind, and whose swappiness is its own."""
    disk = machine.dir / "disk"
    with open(disk, "wb") as file:
        file.truncate(1 << 30)
    run([f"mkfs.{request.param}", "-q", disk])
    run(["mount", "-o", "loop", disk, machine.root])
    fake = machine.dir / "swappiness"
    fake.write_text("60\n")
    run(["mount", "--bind", fake, "/proc/sys/vm/swappiness"])
    machine.kind = request.param
    yield machine
    machine.agentd.kill()
    subprocess.run(["swapoff", str(machine.root / "swap file")], check=False, capture_output=True)
    run(["umount", "/proc/sys/vm/swappiness"])
    run(["umount", "-l", machine.root])


def test_a_dry_run_names_what_an_apply_refuses(machine):
    (machine.root / "swapfile").write_text("somebody's")
    machine.put_plan(machine.make_plan(containers=[], secrets=[], system={"swap": {"size": "17MiB", "path": "/swapfile"}}))
    machine.start(machine.agentd)
    wait_for("the refusal", lambda: "is no swap file" in str(machine.status()["resources"]), 20)
    shown = [one for one in json.loads(machine.agentctl("apply", "--dry-run", "--json").stdout) if one["kind"] == "swap"]
    assert shown[0]["action"] == "unknown" and "exists and is no swap file" in shown[0]["what"], shown
    assert (machine.root / "swapfile").read_text() == "somebody's"


@pytest.mark.full  # a loop device, and a kernel that lets us swap
def test_a_swap_file_is_made_resized_and_removed_without_copy_on_write(rooted):
    machine, path = rooted, rooted.root / "swap file"
    system = {"swap": {"size": "17MiB", "path": "/swap file", "swappiness": 10}}
    machine.put_plan(machine.make_plan(containers=[], secrets=[], system=system))
    machine.start(machine.agentd)
    wait_for("the swap", lambda: is_on(path), 30)
    wait_for("the end of it", lambda: machine.status()["resources"][0]["state"] == "ok", 10)
    assert [one["action"] for one in json.loads(machine.agentctl("apply", "--dry-run", "--json").stdout)
            if one["kind"] == "swap"] == ["none"]
    made = os.stat(path)
    assert (made.st_mode & 0o7777, made.st_size, made.st_uid) == (0o600, SIZE, 0)
    assert made.st_blocks * 512 >= SIZE, "no holes"
    assert bool(flags_of(path) & FS_NOCOW_FL) == (machine.kind == "btrfs")
    assert open("/proc/sys/vm/swappiness", encoding="utf-8").read() == "10\n"

    system["swap"]["size"] = "24MiB"
    machine.put_plan(machine.make_plan(containers=[], secrets=[], system=system))
    wait_for("the larger one", lambda: path.stat().st_size == 24 << 20 and is_on(path), 30)
    assert bool(flags_of(path) & FS_NOCOW_FL) == (machine.kind == "btrfs")
    run(["swapoff", path])
    machine.agentctl("apply")
    wait_for("somebody's swapoff to be put right", lambda: is_on(path), 20)

    machine.put_plan(machine.make_plan(containers=[], secrets=[]))
    wait_for("the swap to go", lambda: not is_on(path) and not path.exists(), 20)
    assert [entry for entry in os.listdir(machine.root) if "swap" in entry] == []
