# SPDX-License-Identifier: Apache-2.0
"""The faults: a table of name -> what strikes, what shows that it did and, for those that last, what ends it.

A scenario names them as ["name", argument]. A fault that nobody met has tested nothing, so each returns a Struck.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

from rig.process import RigError, run, wait_for

from .world import GOOGLE, MARKET, METADATA

ADDRESSES = {"metadata": [METADATA], "google": [GOOGLE], "market": [MARKET], "all": [METADATA, GOOGLE, MARKET]}
PREEMPTED = "instance/preempted"


class Struck:
    """`proof()` is (a key of proofs.json, its figures), or None as long as nothing shows that the fault struck. `end()`
    ends one that lasts, after the last look for its proof."""

    def __init__(self, proof, end=None):
        self.proof, self.end = proof, end


def _gone(world, pid, what):
    """A process of the machine that was there is not there any more."""
    def proof():
        there = world.vm.sh(f"test -d /proc/{pid}", check=False).returncode == 0
        return None if there else ("gone", {"pid": pid, "what": what})
    return proof


def kill(world, unit):
    """kill -9 of a unit's main process; what it started is left, as after a crash."""
    pid = world.vm.pid(unit)
    if not pid:
        raise RigError(f"{unit} does not run: it cannot be killed")
    world.vm.sh(f"systemctl kill --signal=KILL --kill-who=main {unit}")
    return Struck(_gone(world, pid, unit))


def freeze(world, unit):
    pid = world.vm.pid(unit)
    world.vm.sh(f"kill -STOP {pid}")

    def proof():
        state = world.vm.out(f"sed -n 's/^State:[[:space:]]*//p' /proc/{pid}/status", check=False)
        return ("frozen", {"pid": pid, "what": unit, "state": state}) if state.startswith("T") else None
    return Struck(proof, lambda: world.vm.sh(f"kill -CONT {pid}", check=False))


def container_killed(world, _=None):
    """As a crash ends it: the engine is told nothing."""
    pid = world.vm.out("docker inspect -f '{{.State.Pid}}' mervis")
    if pid in ("", "0"):
        raise RigError("the container does not run: it cannot be killed")
    world.vm.sh(f"kill -9 {pid}")
    return Struck(_gone(world, pid, "mervis"))


def container_deleted(world, _=None):
    ident = world.vm.out("docker inspect -f '{{.Id}}' mervis")
    world.vm.sh("docker rm -f mervis")

    def proof():
        there = world.vm.out("docker ps -aq --no-trunc", check=False).split()
        return None if ident in there else ("container-deleted", {"id": ident[:12]})
    return Struck(proof)


def image_deleted(world, _=None):
    """With its containers, for the engine keeps an image that one uses; and at once, for agentd makes a new one."""
    said = world.vm.out("""image=$(docker inspect -f '{{.Image}}' mervis)
        for try in 1 2 3 4 5 6 7 8 9; do
            docker rm -f $(docker ps -aq --filter ancestor=$image) & docker rmi -f $image && exit 0
            wait; docker rmi -f $image && exit 0
        done; exit 1""")
    # The engine's own word: agentd may have pulled it again before one could look.
    deleted = re.search(r"^Deleted: sha256:([0-9a-f]{12})", said, re.MULTILINE)
    return Struck(lambda: ("image-deleted", {"id": deleted[1]}) if deleted else None)


def packets(world, addresses, verdict):
    text = ", ".join(addresses)
    rules = f"""table ip chaos {{
        chain out {{ type filter hook output priority -200
            ip daddr {{ {text} }} {verdict}
            ip saddr {{ {text} }} {verdict}
        }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, timeout=20)

    def proof():
        listed = run(["nft", "list", "table", "ip", "chaos"]).stdout
        dropped = sum(int(count) for count in re.findall(r"counter packets (\d+)", listed))
        return ("packets", {"n": dropped}) if dropped else None
    return Struck(proof, lambda: run(["nft", "delete", "table", "ip", "chaos"]))


def cut(world, what):
    """With something to say to whom it hits: a connection on which nobody speaks is not cut."""
    struck = packets(world, ADDRESSES[what], "counter drop")
    if what in ("metadata", "all"):
        world.stir()
    if what in ("google", "all"):
        world.flush()
    return struck


def loss(world, percent):
    return packets(world, ADDRESSES["all"], f"numgen random mod 100 < {percent} counter drop")


def _by_the_double(world, match, do, key, **figures):
    """A fault that the double orders; it counts the requests that met it."""
    ident = world.cloud.fault(match, do)["id"]

    def proof():
        hits = next((one["hits"] for one in world.cloud.admin("GET", "faults")["faults"] if one["id"] == ident), 0)
        return (key, {"n": hits, **figures}) if hits else None
    return Struck(proof, lambda: world.cloud.admin("DELETE", f"faults/{ident}"))


def latency(world, seconds):
    """Each answer of every server comes so much later."""
    return _by_the_double(world, {}, {"delay": seconds}, "delayed", seconds=seconds)


def outage(world, service):
    return _by_the_double(world, {"service": service}, {"status": 503, "html": True}, "refused", service=service)


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
    # At once: later the agent may have made room.
    left = max(os.statvfs(path.parent).f_bavail for path in files)
    sizes = [path.stat().st_size >> 20 for path in files]

    def free():
        for path in files:
            path.unlink()
    return Struck(lambda: None if left else ("full", {"state": sizes[0], "engine": sizes[1]}), free)


def memory(world, limit_mib):
    """A memory limit for the whole machine, and a program in it that takes what it can: the kernel kills."""
    group = _memory_group(world)
    for pid in _tree(world.vm.nspawn.pid):
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            pass
    before = _killed(group)
    limit = "memory.limit_in_bytes" if (group / "memory.limit_in_bytes").exists() else "memory.max"
    (group / limit).write_text(str(limit_mib << 20))
    eater = f"dd if=/dev/zero of=/dev/null bs={limit_mib * 2}M count=1"
    # By the machine's own init: what comes in by nsenter is none of its group.
    world.vm.sh(f"systemd-run --quiet --collect --unit=eater sh -c 'while :; do {eater}; sleep 0.2; done'")

    def proof():
        killed = _killed(group) - before
        return ("killed", {"n": killed, "limit": limit_mib}) if killed > 0 else None

    def give_back():
        world.vm.sh("systemctl stop eater")
        (group / limit).write_text("-1" if limit != "memory.max" else "max")
    return Struck(proof, give_back)


def _memory_group(world):
    name = f"{os.environ.get('MERVIS_RIG_CGROUP', 'mervis-rig')}/{world.vm.name}-memory"
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        if (top / "cgroup.procs").exists():
            (top / name).mkdir(parents=True, exist_ok=True)
            return top / name
    raise RigError("no cgroups are mounted")


def _killed(group):
    """How many processes of it the kernel has killed for want of memory."""
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).exists():
            for line in (group / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


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
SHIFTED = "/usr/lib/libfaketime-chaos.so"
SHIFT = f"FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1"
CLOCK_SLACK = 60  # how old a document may be whose time is looked at


def clock_ready(world, _=None):
    """Let agentd and crawlerd read their wall clock through a library that can shift it: a machine that shares its
    kernel has no clock of its own."""
    shutil.copy(FAKETIME, world.vm.path(SHIFTED))
    world.vm.write(CLOCK, "+0")
    for unit in ("agentd", "crawlerd"):
        world.vm.sh(f"""mkdir -p /run/systemd/system/{unit}.service.d
            printf '[Service]\\nEnvironment=LD_PRELOAD={SHIFTED}\\n' \
                >/run/systemd/system/{unit}.service.d/clock.conf
            printf 'Environment={SHIFT}\\n' \
                >>/run/systemd/system/{unit}.service.d/clock.conf""")
    world.vm.sh("systemctl daemon-reload; systemctl restart agentd crawlerd")


def clock_normal(world, _=None):
    world.vm.sh("rm -f /run/systemd/system/*.service.d/clock.conf; systemctl daemon-reload; "
                "systemctl restart agentd crawlerd")


def _off(said):
    """By how many seconds a daemon's clock is ahead of ours, as what it says of itself shows."""
    return round(datetime.fromisoformat(said["at"].replace("Z", "+00:00")).timestamp() - time.time())


def _doctor_on_the_clock(world):
    """What agentctl doctor says of it, by the same shifted clock: (whether it is right, the message)."""
    said = world.vm.sh(f"GCE_METADATA_HOST={METADATA} LD_PRELOAD={SHIFTED} {SHIFT} agentctl doctor --json", check=False)
    found = next(check for check in json.loads(said.stdout)["checks"] if check["id"] == "clock")
    return found["ok"], found["message"]


def clock(world, seconds):
    before = int(world.vm.out(f"cat {CLOCK}"))
    world.vm.write(CLOCK, f"{seconds:+d}")

    def proof():
        status = world.status()
        if not status or not status.get("at") or not status.get("crawler"):
            return None
        agent, crawler = _off(status), _off(status["crawler"])
        jumped = all(abs(off - seconds) < CLOCK_SLACK < abs(off - before) for off in (agent, crawler))
        right, doctor = _doctor_on_the_clock(world)
        if not jumped or right != (seconds == 0):
            return None
        return "clock", {"before": before, "agentd": agent, "crawlerd": crawler, "doctor": doctor}
    return Struck(proof, lambda: world.vm.write(CLOCK, "+0"))


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
    took = round(time.monotonic() - begun, 1)
    world.vm.leader = world.vm.nspawn = None

    def start_again():
        world.cloud.set_metadata(PREEMPTED, "FALSE")
        world.vm.boot()
    return Struck(lambda: ("off", {"seconds": took, "notice": notice}), start_again)


def power_cut(world, _=None):
    """Processes and memory are gone, and what the kernel had not written yet is not: the QEMU test cuts that, too."""
    init = world.vm.leader
    world.vm.reset()
    return Struck(lambda: None if Path(f"/proc/{init}").exists() else ("cut-off", {"pid": init}), world.vm.boot)


def recreate(world, _=None):
    """What an instance group does with a Spot VM that went away: another instance, with an empty disk."""
    init = world.vm.leader
    world.vm.reset()
    world.new_machine()

    def proof():
        held = [path for path in world.state.rglob("*") if path.is_file()] + list(world.engine.iterdir())
        return None if held or Path(f"/proc/{init}").exists() else ("empty", {"pid": init})
    return Struck(proof, world.vm.boot)


def wait(world, seconds):
    time.sleep(seconds)


def table_of(*functions):
    return {function.__name__.replace("_", "-"): function for function in functions}


FAULTS = table_of(kill, freeze, container_killed, container_deleted, image_deleted, cut, loss, latency, outage,
                  disk_full, memory, clock, preempt, power_cut, recreate)
# Steps that break nothing: what must be there before, and what happens at the worst time.
OTHERS = table_of(clock_ready, clock_normal, publish, secret, wait)


def strike(world, steps):
    """Each of them in turn; returns (step, Struck) of the faults among them."""
    struck = []
    for step in steps:
        name, *argument = step
        if name in OTHERS:
            OTHERS[name](world, *argument)
        else:
            struck.append((step, FAULTS[name](world, *argument)))
    return struck


def settle_machine(world, timeout=90):
    """The machine as it should be: well by its own word, and the page of the newest version with the newest secret."""
    wait_for("a well machine", lambda: world.said() == (True, True) and world.page_is_the_newest(), timeout, 0.2)
