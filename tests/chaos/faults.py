# SPDX-License-Identifier: Apache-2.0
"""The faults: a table of name -> what strikes and, for those that last, what ends it.

A scenario names them as ["name", argument]. What a fault returns is called when it shall end.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from rig.process import RigError, run, wait_for

from .world import GOOGLE, MARKET, METADATA

ADDRESSES = {"metadata": [METADATA], "google": [GOOGLE], "market": [MARKET], "all": [METADATA, GOOGLE, MARKET]}
PREEMPTED = "instance/preempted"


def kill(world, unit):
    """kill -9 of every process of a unit's own."""
    world.vm.sh(f"systemctl kill --signal=KILL --kill-who=main {unit}")


def freeze(world, unit):
    pid = world.vm.pid(unit)
    world.vm.sh(f"kill -STOP {pid}")
    return lambda: world.vm.sh(f"kill -CONT {pid}", check=False)


def container_killed(world, _=None):
    """As a crash ends it: the engine is told nothing."""
    world.vm.sh("kill -9 $(docker inspect -f '{{.State.Pid}}' mervis)")


def container_deleted(world, _=None):
    world.vm.sh("docker rm -f mervis")


def image_deleted(world, _=None):
    """With its containers, for the engine keeps an image that one uses; and at once, for agentd makes a new one."""
    world.vm.sh("""image=$(docker inspect -f '{{.Image}}' mervis)
        for try in 1 2 3 4 5 6 7 8 9; do
            docker rm -f $(docker ps -aq --filter ancestor=$image) & docker rmi -f $image && exit 0
            wait; docker rmi -f $image && exit 0
        done; exit 1""")


def packets(world, addresses, verdict):
    text = ", ".join(addresses)
    rules = f"""table ip chaos {{
        chain out {{ type filter hook output priority -200
            ip daddr {{ {text} }} {verdict}
            ip saddr {{ {text} }} {verdict}
        }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, timeout=20)
    return lambda: run(["nft", "delete", "table", "ip", "chaos"])


def cut(world, what):
    return packets(world, ADDRESSES[what], "drop")


def loss(world, percent):
    return packets(world, ADDRESSES["all"], f"numgen random mod 100 < {percent} drop")


def latency(world, seconds):
    """Each answer of every server comes so much later."""
    ident = world.cloud.fault({}, {"delay": seconds})["id"]
    return lambda: world.cloud.admin("DELETE", f"faults/{ident}")


def outage(world, service):
    ident = world.cloud.fault({"service": service}, {"status": 503, "html": True})["id"]
    return lambda: world.cloud.admin("DELETE", f"faults/{ident}")


def disk_full(world, _=None):
    """The disk of the state and the engine's one, to the last byte."""
    files = [world.state / "ballast", world.engine / "ballast"]
    for path in files:
        with open(path, "wb", buffering=0) as file:
            chunk = b"\0" * (1 << 20)
            while len(chunk) >= 512:
                try:
                    file.write(chunk)
                except OSError:
                    chunk = chunk[:len(chunk) // 2]

    def free():
        for path in files:
            path.unlink()
    return free


def memory(world, limit_mib):
    """A memory limit for the whole machine, and a program in it that takes what it can: the kernel kills."""
    group = _memory_group(world)
    for pid in _tree(world.vm.nspawn.pid):
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            pass
    limit = "memory.limit_in_bytes" if (group / "memory.limit_in_bytes").exists() else "memory.max"
    (group / limit).write_text(str(limit_mib << 20))
    eater = f"dd if=/dev/zero of=/dev/null bs={limit_mib * 2}M count=1"
    # By the machine's own init: what comes in by nsenter is none of its group.
    world.vm.sh(f"systemd-run --quiet --collect --unit=eater sh -c 'while :; do {eater}; sleep 0.2; done'")
    wait_for("the kernel to kill", lambda: _killed(group), 20)

    def give_back():
        world.vm.sh("systemctl stop eater")
        (group / limit).write_text("-1" if limit != "memory.max" else "max")
    return give_back


def _memory_group(world):
    name = f"{os.environ.get('MERVIS_RIG_CGROUP', 'mervis-rig')}/{world.vm.name}-memory"
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        if (top / "cgroup.procs").exists():
            (top / name).mkdir(parents=True, exist_ok=True)
            return top / name
    raise RigError("no cgroups are mounted")


def _killed(group):
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).exists():
            for line in (group / name).read_text().splitlines():
                if line.startswith("oom_kill ") and int(line.split()[1]):
                    return True
    return False


def _tree(pid):
    """A process and all below it."""
    found, wanted = [], [pid]
    while wanted:
        pid = wanted.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                wanted += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            pass
    return found


CLOCK = "/etc/mervis-clock"
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


def clock_ready(world, _=None):
    """Let agentd and crawlerd read their wall clock through a library that can shift it: a machine that shares its
    kernel has no clock of its own."""
    shutil.copy(FAKETIME, world.vm.path("/usr/lib/libfaketime-chaos.so"))
    world.vm.write(CLOCK, "+0")
    for unit in ("agentd", "crawlerd"):
        world.vm.sh(f"""mkdir -p /run/systemd/system/{unit}.service.d
            printf '[Service]\\nEnvironment=LD_PRELOAD=/usr/lib/libfaketime-chaos.so\\n' \
                >/run/systemd/system/{unit}.service.d/clock.conf
            printf 'Environment=FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1\\n' \
                >>/run/systemd/system/{unit}.service.d/clock.conf""")
    world.vm.sh("systemctl daemon-reload; systemctl restart agentd crawlerd")


def clock_normal(world, _=None):
    world.vm.sh("rm -f /run/systemd/system/*.service.d/clock.conf; systemctl daemon-reload; "
                "systemctl restart agentd crawlerd")


def clock(world, seconds):
    world.vm.write(CLOCK, f"{seconds:+d}")
    return lambda: world.vm.write(CLOCK, "+0")


def publish(world, _=None):
    world.publish()


def secret(world, _=None):
    world.new_secret()


def preempt(world, notice):
    """The notice, and the end of the machine so many seconds later, orderly if it is quicker than that. 30 s: the
    power button comes with the notice. 120 s: it comes 30 s before the end."""
    world.cloud.set_metadata(PREEMPTED, "TRUE")
    begun = time.monotonic()
    time.sleep(max(0, notice - 30))
    os.kill(world.vm.leader, signal.SIGRTMIN + 4)
    try:
        world.vm.nspawn.wait(notice - (time.monotonic() - begun))
    except subprocess.TimeoutExpired:
        world.vm.reset()
        raise RigError(f"the machine was not off after {notice} s") from None
    world.vm.leader = world.vm.nspawn = None

    def start_again():
        world.cloud.set_metadata(PREEMPTED, "FALSE")
        world.vm.boot()
    return start_again


def power_cut(world, _=None):
    world.vm.reset()
    return world.vm.boot


def recreate(world, _=None):
    """What an instance group does with a Spot VM that went away: another instance, with an empty disk."""
    world.vm.reset()

    def another():
        world.new_machine()
        world.vm.boot()
    return another


def wait(world, seconds):
    time.sleep(seconds)


FAULTS = {function.__name__.replace("_", "-"): function for function in (
    kill, freeze, container_killed, container_deleted, image_deleted, cut, loss, latency, outage, disk_full, memory,
    clock_ready, clock_normal, clock, publish, secret, preempt, power_cut, recreate, wait)}


def strike(world, steps):
    """Each of them in turn; returns what ends them, the last first."""
    ends = []
    for name, *argument in steps:
        end = FAULTS[name](world, *argument)
        if end:
            ends.insert(0, end)
    return ends


def settle_machine(world, timeout=90):
    """The machine as it should be: well by its own word, and the page of the newest version with the newest secret."""
    wait_for("a well machine", lambda: world.said() == (True, True) and world.page_is_the_newest(), timeout, 0.2)
