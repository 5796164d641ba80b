# SPDX-License-Identifier: Apache-2.0
"""Every kind of resource: applied, unchanged the second time, put right when somebody changed it, undone."""

import time

import pytest

from rig.process import wait_for

SWAP = "/var/lib/docker/swapfile"  # this machine's / is an overlay, on which no kernel swaps
WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT", "rename", "unlink", "mkdir", "symlink", "pwrite64", "ftruncate", "fsync",
          "fdatasync", "fchmod", "fchown", "chmod", "chown", "utimens", "fallocate")


def can_swap(vm):
    """Whether this host lets its containers switch swap on, by hand."""
    done = vm.sh("cd /var/lib/docker && dd if=/dev/zero of=probe bs=1M count=17 status=none && chmod 600 probe &&"
                 "mkswap probe >/dev/null && swapon probe && swapoff probe; s=$?; rm -f probe; exit $s", check=False)
    return done.returncode == 0


@pytest.fixture
def swappy(shared):
    shared.vm.fake_sysctl("vm.swappiness", 60)
    yield shared
    shared.vm.sh(f"swapoff {SWAP}; umount /proc/sys/vm/swappiness; true")


def everything():
    return {
        "timezone": "Asia/Seoul",
        "files": [
            {"path": "/etc/motd", "content": "hello\n"},
            {"path": "/srv/deep/er/app.conf", "content": "x=1\n", "mode": "0640", "owner": "daemon", "group": "adm"},
            {"path": "/etc/app.key", "secret": "app-key", "mode": "0400"},
        ],
        "scripts": [
            {"name": "first", "run": "#!/bin/sh\necho first >>/var/log/order\n"},
            {"name": "second", "run": "#!/bin/sh\ncat $CREDENTIALS_DIRECTORY/app-key >/root/key\n"
                                      "echo second >>/var/log/order\n", "when": "boot", "secrets": ["app-key"]},
            {"name": "third", "run": "#!/bin/sh\necho third >>/var/log/order\n", "when": "change"},
        ],
        "secrets": [{"name": "app-key", "secret": "APP_KEY"}],
    }


def apply(world):
    """`agentctl apply`, and wait until it is done."""
    world.vm.sh("agentctl apply")
    world.vm.explain("nothing to be left to do", lambda: world.changes() == {})
    return world.settle()


def test_a_plan_with_every_resource_is_applied(shared):
    shared.cloud.add_secret("APP_KEY", b"s3cr3t\0with\nnewline\n")
    shared.put(**everything())
    shared.settle()
    vm = shared.vm
    assert vm.out("readlink /etc/localtime") == "../usr/share/zoneinfo/Asia/Seoul"
    assert vm.out("cat /etc/motd") == "hello"
    assert vm.out("stat -c '%a %U %G' /srv/deep/er/app.conf") == "640 daemon adm"
    assert vm.out("stat -c '%a %U %s' /etc/app.key") == f"400 root {len(b's3cr3t0with0newline0')}"
    assert vm.path("/root/key").read_bytes() == b"s3cr3t\0with\nnewline\n"
    assert vm.out("cat /var/log/order").split() == ["first", "second", "third"]
    assert {item["state"] for item in vm.status()["resources"]} == {"ok"}


def test_a_second_pass_reports_all_unchanged_and_makes_no_write(shared):
    assert shared.changes() == {}
    time.sleep(1)  # the status of the first pass is written half a second after it
    with shared.vm.traced() as calls:
        shared.vm.sh("agentctl apply")
        wait_for("the secret to be looked at", lambda: shared.cloud.wait_quiet(1.0, service="secretmanager"), 15)
    assert any("secretmanager" in request["service"] for request in shared.cloud.requests(service="secretmanager"))
    assert len(calls) > 20, "the tracer saw the pass"
    # A mkdir of what is there already fails, and fails to write.
    assert [line for line in calls if any(word in line for word in WRITES) and " = -1 " not in line] == []
    assert shared.vm.out("cat /var/log/order").split() == ["first", "second", "third"]


DRIFTS = {
    "timezone": ("ln -sf ../usr/share/zoneinfo/UTC /etc/localtime", "date +%Z", "KST"),
    "edited file": ("echo edited >/etc/motd", "cat /etc/motd", "hello"),
    "deleted file": ("rm -r /srv/deep", "cat /srv/deep/er/app.conf", "x=1"),
    "mode": ("chmod 644 /etc/app.key", "stat -c %a /etc/app.key", "400"),
    "owner": ("chown nobody /srv/deep/er/app.conf", "stat -c %U /srv/deep/er/app.conf", "daemon"),
    "link": ("ln -sf /etc/shadow /etc/motd", "stat -c %F /etc/motd", "regular file"),
    "secret file": ("echo no >/etc/app.key", "wc -c </etc/app.key", "20"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_somebody_changed_comes_back(shared, drift):
    spoil, look, expected = DRIFTS[drift]
    shared.vm.sh(spoil)
    assert len(shared.changes()) == 1
    assert shared.vm.out(look, check=False) != expected, "a dry run changes nothing"
    apply(shared)
    assert shared.vm.out(look) == expected
    assert shared.changes() == {}


def test_a_symbolic_link_in_the_path_of_a_file_is_refused(shared):
    shared.vm.sh("mkdir -p /srv/theirs && ln -sfn /etc /srv/link")
    shared.put(files=[{"path": "/srv/link/passwd", "content": "gone\n"}])
    said = shared.vm.explain("the refusal", lambda: (shared.vm.resource("file") or {}).get("message"))
    assert "symbolic link" in said
    assert "root:" in shared.vm.out("cat /etc/passwd")


def test_what_leaves_the_plan_is_left_alone_and_said(shared):
    shared.cloud.add_secret("APP_KEY", b"to leave")
    shared.put_and_settle(files=[{"path": "/etc/motd", "content": "hello\n"}, {"path": "/etc/left.key", "secret": "app-key"}],
                          secrets=[{"name": "app-key", "secret": "APP_KEY"}])
    assert shared.vm.out("stat -c %a /etc/left.key") == "400"
    shared.put_and_settle(timezone="Asia/Seoul")
    assert shared.vm.out("cat /etc/motd") == "hello"
    assert shared.vm.sh("test -e /etc/left.key", check=False).returncode == 1, "the value of a secret stays nowhere"
    assert "file /etc/motd left the plan: the file stays as it is" in shared.vm.journal("-u agentd")
    assert not shared.vm.out("ls /run/mervis-agent/secrets/.store"), "the values of secrets go"


def test_what_cannot_be_undone_is_shown_until_it_is(shared):
    vm = shared.vm
    shared.cloud.add_secret("APP_KEY", b"to undo")
    shared.put_and_settle(files=[{"path": "/srv/undo/key", "secret": "app-key"}],
                          secrets=[{"name": "app-key", "secret": "APP_KEY"}])
    vm.sh("mv /srv/undo /srv/undone && ln -s /srv/undone /srv/undo")
    shared.put(timezone="Asia/Seoul")
    said = vm.explain("what stays", lambda: (vm.resource("file", "/srv/undo/key") or {}).get("message"))
    assert "it left the plan, and is not undone yet" in said and "symbolic link" in said
    assert vm.status()["state"] == "degraded"
    vm.sh("rm /srv/undo && mv /srv/undone /srv/undo && agentctl apply")
    shared.settle()
    assert vm.sh("test -e /srv/undo/key", check=False).returncode == 1 and vm.resource("file") is None


def test_swap_is_made_switched_on_resized_and_removed(swappy):
    vm = swappy.vm
    if not can_swap(vm):
        swappy.put(swap={"size": "17MiB", "path": SWAP})
        said = vm.explain("the kernel's refusal", lambda: vm.resource("swap")["message"])
        assert "switch on" in said
        assert vm.out(f"stat -c '%a %s' {SWAP}") == f"600 {17 << 20}"
        return
    swappy.put_and_settle(swap={"size": "17MiB", "path": SWAP, "swappiness": 5})
    assert SWAP in vm.out("cat /proc/swaps") and vm.out("cat /proc/sys/vm/swappiness") == "5"
    assert vm.out(f"stat -c '%a %s' {SWAP}") == f"600 {17 << 20}"
    vm.sh(f"swapoff {SWAP}")
    assert swappy.changes()[f"swap {SWAP}"]["action"] == "change"
    apply(swappy)
    assert SWAP in vm.out("cat /proc/swaps"), "somebody switched it off"
    assert swappy.changes() == {}
    swappy.put_and_settle(swap={"size": "24MiB", "path": SWAP, "swappiness": 5})
    assert vm.out(f"stat -c %s {SWAP}") == str(24 << 20) and SWAP in vm.out("cat /proc/swaps")
    assert vm.out(f"ls -A /var/lib/docker | grep -c swapfile") == "1"
    swappy.put_and_settle(timezone="Asia/Seoul")
    wait_for("the swap to go", lambda: SWAP not in vm.out("cat /proc/swaps"), 10)
    wait_for("its file to go", lambda: vm.sh(f"test -e {SWAP}", check=False).returncode == 1, 10)


def test_a_slow_disk_does_not_stop_the_loop(swappy):
    """mkswap takes its time; agentd answers meanwhile, and gives the work up when the plan does."""
    vm = swappy.vm
    vm.write("/usr/local/sbin/mkswap", "#!/bin/sh\necho $$ >/run/mkswap.pid\nsleep 60\n")
    vm.sh("chmod 755 /usr/local/sbin/mkswap")
    swappy.put(swap={"size": "17MiB", "path": SWAP})
    wait_for("mkswap", lambda: vm.sh("test -s /run/mkswap.pid", check=False).returncode == 0, 15)
    for _ in range(5):
        began = time.monotonic()
        assert vm.resource("swap")["state"] == "applying"
        assert time.monotonic() - began < 2
    vm.sh("rm /usr/local/sbin/mkswap")
    swappy.put_and_settle(timezone="Asia/Seoul")
    wait_for("the end of mkswap", lambda: vm.sh("kill -0 $(cat /run/mkswap.pid)", check=False).returncode != 0, 10)
    assert vm.out("ls -A /var/lib/docker | grep -c swapfile || true") == "0"
    vm.sh("rm /run/mkswap.pid")


def test_a_file_that_is_no_swap_is_never_overwritten(swappy):
    swappy.vm.sh(f"echo precious >{SWAP}")
    swappy.put(swap={"size": "17MiB", "path": SWAP})
    item = swappy.vm.explain("the refusal", lambda: next(
        (item for item in [swappy.vm.resource("swap")] if item and item["message"]), None))
    assert "no swap file" in item["message"] and item["remedy"]
    assert swappy.vm.out(f"cat {SWAP}") == "precious"
    swappy.put_and_settle(timezone="Asia/Seoul")
    assert swappy.vm.out(f"cat {SWAP}") == "precious"
    swappy.vm.sh(f"rm {SWAP}")


def test_a_swap_that_does_not_fit_is_refused_before_a_byte_is_written(swappy):
    swappy.put(swap={"size": "1TiB", "path": SWAP})
    item = swappy.vm.explain("the refusal", lambda: next(
        (item for item in [swappy.vm.resource("swap")] if item and item["message"]), None))
    assert "does not fit" in item["message"] and "smaller" in item["remedy"]
    assert swappy.vm.sh(f"test -e {SWAP}", check=False).returncode == 1
