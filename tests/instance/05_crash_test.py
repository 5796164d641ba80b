# SPDX-License-Identifier: Apache-2.0
"""kill -9 between any two steps of a pass: agentd ends at its n-th crash point, for every n that a pass reaches."""

from rig.process import RigError, wait_for

SWAP = "/var/lib/docker/swapfile"
CRASHED = 137


def before():
    """What the machine has when the new plan comes."""
    return {
        "timezone": "UTC", "swap": {"size": "16MiB", "path": SWAP},
        "files": [{"path": "/etc/one", "content": "old\n"}, {"path": "/etc/old.key", "secret": "old"}],
        "scripts": [{"name": "change", "run": "#!/bin/sh\necho old >/var/log/change\n", "when": "change"}],
        "secrets": [{"name": "old", "secret": "OLD"}, {"name": "both", "secret": "BOTH"}],
    }


def after():
    return {
        "timezone": "Asia/Seoul",
        "files": [{"path": "/etc/one", "content": "new\n"}, {"path": "/srv/d/two", "secret": "both", "mode": "0440"}],
        "scripts": [
            {"name": "change", "run": "#!/bin/sh\necho new >/var/log/change\n", "when": "change"},
            {"name": "once", "run": "#!/bin/sh\ncat $CREDENTIALS_DIRECTORY/new >/var/log/once\n", "secrets": ["new"]}],
        "secrets": [{"name": "both", "secret": "BOTH"}, {"name": "new", "secret": "NEW"}],
    }


def looks(vm):
    """All that the plan declares, as it is on the machine."""
    return vm.out(f"""
        readlink /etc/localtime; cat /etc/one /var/log/change /var/log/once; stat -c '%a %s' /srv/d/two
        cat /srv/d/two; echo; grep -c {SWAP} /proc/swaps; ls -A /var/lib/docker | grep swapfile
        ls -A /run/mervis-agent/secrets/.store; ls -A /etc /srv/d /var/lib/mervis-agent | grep '^\\..*[0-9a-f]\\{{16\\}}$'
        systemctl list-units --all --no-legend 'mervis-script-*'
        """, check=False)


WANTED = """../usr/share/zoneinfo/Asia/Seoul
new
new
n440 1
b
0
both
new"""


def crash_at(vm, n):
    """agentd with a crash at its N-th point, until it ended or said that all is well. Whether it crashed."""
    vm.sh(f"""mkdir -p /run/systemd/system/agentd.service.d
        printf '[Service]\\nEnvironment=MERVIS_CRASH_COUNT={n}\\nRestart=no\\n' >/run/systemd/system/agentd.service.d/crash.conf
        systemctl daemon-reload; systemctl start agentd || true""")

    def over():
        if vm.out("systemctl is-active agentd", check=False) in ("failed", "inactive"):
            return "crashed"
        try:
            status = vm.status()
        except RigError:
            return None  # it ended in the middle of our question
        return "well" if status["state"] == "well" and status["plan"]["generation"] > 1 else None

    ended = vm.explain(f"the end of try {n}", over, 30, 0.05)
    if ended == "crashed":
        assert vm.out("systemctl show -p ExecMainStatus --value agentd") == str(CRASHED)
    vm.sh("""systemctl stop agentd; rm /run/systemd/system/agentd.service.d/crash.conf; systemctl daemon-reload
        systemctl reset-failed agentd || true""")
    return ended == "crashed"


def rewind(world):
    """Back to the plan before, as a machine that never saw the new one."""
    vm = world.vm
    world.put(**before())
    vm.sh("""systemctl start agentd""")
    wait_for("the plan of before", lambda: vm.out("cat /etc/one", check=False) == "old", 20)
    world.settle()
    vm.sh("systemctl stop agentd; rm -rf /srv/d /var/log/once /var/lib/mervis-agent/scripts/*/once")


def swaps(vm):
    done = vm.sh("cd /var/lib/docker && dd if=/dev/zero of=probe bs=1M count=17 status=none && chmod 600 probe &&"
                 "mkswap probe >/dev/null && swapon probe && swapoff probe; s=$?; rm -f probe; exit $s", check=False)
    return done.returncode == 0


def test_a_kill_between_any_two_steps_is_healed_by_the_next_start(shared):
    vm, old = shared.vm, before()
    vm.fake_sysctl("vm.swappiness", 10)
    for name, value in (("OLD", "o"), ("BOTH", "b"), ("NEW", "n")):
        shared.cloud.add_secret(name, value)
    if not swaps(vm):  # this host lets no container swap: the rest of the pass is the same
        old.pop("swap")
        globals()["before"] = lambda: old
    n = 1
    while n < 500:
        rewind(shared)
        shared.put(**after())
        if not crash_at(vm, n):
            break
        vm.sh("systemctl start agentd")
        shared.settle()
        try:
            wait_for(f"convergence after a kill at point {n}", lambda: looks(vm) == WANTED, 20)
        except RigError as err:
            raise RigError(f"{err}\n{looks(vm)}\n--- journal\n{vm.journal('-u agentd -n 30')}") from None
        assert shared.changes() == {}, n
        n += 1
    assert 25 < n < 500, f"{n - 1} points were reached"
    vm.sh("umount /proc/sys/vm/swappiness")
