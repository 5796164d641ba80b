# SPDX-License-Identifier: Apache-2.0
"""Secrets: each refusal with its remedy, rotation, and where their values may not be."""

import base64
import json
import os
import re
from pathlib import Path

import pytest

from rig.process import RigError, stays, wait_for

SECRETS = {"service": "secretmanager"}
SCOPE = "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
IAM = "IAM_PERMISSION_DENIED"
OFF = "SERVICE_DISABLED"


def secrets(world):
    return {item["name"]: item for item in world.vm.status()["secrets"]}


def parts(name, **more):
    """A plan with one secret, and a file of it."""
    return {"secrets": [{"name": name, "secret": name.upper(), "refresh": "10s", **more}],
            "files": [{"path": f"/etc/{name}", "secret": name}]}


def wait_state(world, name, state, text=""):
    def there():
        item = secrets(world).get(name)
        return item if item and item["state"] == state and text in (item["message"] or "") else None
    return world.vm.explain(f"secret {name} to be {state}", there, 20)


REFUSALS = {
    "scope": ({"status": 403, "reason": SCOPE, "message": "Request had insufficient authentication scopes."},
              "scope", "set-service-account"),
    "iam": ({"status": 403, "reason": IAM, "message": "Permission 'secretmanager.versions.access' denied for resource"},
            "secretmanager.versions.access", "add-iam-policy-binding"),
    "off": ({"status": 403, "reason": OFF, "message": "Secret Manager API has not been used in project"},
            "not enabled", "gcloud services enable secretmanager.googleapis.com"),
    "crc": ({"wrong_crc": True}, "CRC32C", ""),
}


@pytest.mark.parametrize("cause", REFUSALS)
def test_each_refusal_is_told_apart_and_the_last_good_value_stays(shared, cause):
    do, expected, remedy = REFUSALS[cause]
    name = f"key-{cause}"
    shared.cloud.add_secret(name.upper(), b"good")
    shared.put_and_settle(**parts(name))
    fault = {"match": SECRETS, "do": do}
    shared.cloud.admin("POST", "faults", fault)
    shared.cloud.add_secret(name.upper(), b"better")
    shared.vm.sh("agentctl apply")
    item = wait_state(shared, name, "stale", expected)
    assert remedy in (item["remedy"] or ""), item
    assert item["version"] == "1" and shared.vm.out(f"cat /etc/{name}") == "good"
    shared.cloud.clear_faults()
    shared.vm.sh("agentctl apply")
    wait_state(shared, name, "ok")
    wait_for("the new value", lambda: shared.vm.out(f"cat /etc/{name}") == "better", 10)


def test_one_that_is_missing_and_one_that_is_disabled_or_destroyed(shared):
    cloud, vm = shared.cloud, shared.vm
    shared.put(**parts("absent"))
    item = wait_state(shared, "absent", "failed", "does not exist")
    assert "gcloud secrets" in item["remedy"]
    assert vm.sh("test -e /etc/absent", check=False).returncode == 1
    cloud.add_secret("ABSENT", b"here")
    vm.sh("agentctl apply")
    shared.settle()
    assert vm.out("cat /etc/absent") == "here"
    second = cloud.add_secret("ABSENT", b"bad one")
    cloud.set_secret_state("ABSENT", second, "disable")
    vm.sh("agentctl apply")
    item = wait_state(shared, "absent", "stale", "disabled")
    assert item["version"] == "1" and vm.out("cat /etc/absent") == "here"
    cloud.set_secret_state("ABSENT", second, "destroy")
    vm.sh("agentctl apply")
    wait_state(shared, "absent", "stale", "destroyed")
    assert vm.out("cat /etc/absent") == "here"


def test_a_refresh_follows_latest_and_never_reads_a_pinned_one_again(shared):
    cloud = shared.cloud
    cloud.add_secret("PINNED", b"one")
    cloud.add_secret("MOVING", b"one")
    shared.put_and_settle(secrets=[{"name": "pinned", "secret": "PINNED", "version": "1", "refresh": "10s"},
                                   {"name": "moving", "secret": "MOVING", "refresh": "10s"}])
    since = len(cloud.requests())
    cloud.add_secret("MOVING", b"two")
    shared.vm.explain("the refresh", lambda: secrets(shared)["moving"]["version"] == "2", 20)
    assert not [one for one in cloud.requests()[since:] if "PINNED" in one["path"]]


def test_64_kib_of_any_bytes_arrive_intact_0400_on_a_ramfs(shared):
    value = bytes(range(256)) * 256
    shared.cloud.add_secret("LARGE", value)
    shared.put_and_settle(**parts("large"))
    assert shared.vm.path("/etc/large").read_bytes() == value
    vm = shared.vm
    assert vm.out("stat -f -c %T /run/mervis-agent/secrets") == "ramfs"
    assert vm.out("stat -c %a /run/mervis-agent/secrets") == "700"
    assert vm.out("stat -c %a /run/mervis-agent/secrets/.store/large/1") == "400"


def test_a_401_renews_the_token_once(shared):
    shared.cloud.add_secret("TOKEN", b"x")
    shared.cloud.fault(SECRETS, {"status": 401}, times=1)
    since = len(shared.cloud.requests())
    shared.put_and_settle(**parts("token"))
    tokens = [one for one in shared.cloud.requests()[since:] if one["path"].endswith("/token")]
    assert len(tokens) == 1


def test_the_secrets_of_a_container_change_together_and_its_own_user_can_read_them(world):
    from rig import image
    vm, cloud = world.vm, world.cloud
    made = image.build(files={"app": (b"#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.1; done\n", 0o755)},
                       entrypoint=["/bin/sh", "/app"])
    world.registry.push(made, "demo-project/repo/app", "stable")
    for name in ("USER", "PASSWORD"):
        cloud.add_secret(name, "one")
    world.put(secrets=[{"name": "user", "secret": "USER", "refresh": "10s"},
                       {"name": "password", "secret": "PASSWORD", "refresh": "10s"}],
              containers=[{"name": "app", "image": "asia-northeast3-docker.pkg.dev/demo-project/repo/app:stable",
                           "user": "1000:1000", "log": "json-file", "env": {"LOGIN": {"secret": "user"}},
                           "secret_files": [{"secret": "password", "path": "/run/secrets/password"}],
                           "health": {"stable": "1s"}, "update": {"settle": "1m"}, "stop_timeout": "2s"}])
    vm.boot()
    world.settle(60)

    def pair():
        return vm.out("docker exec app sh -c 'echo $LOGIN; cat /run/secrets/password'", check=False).split()

    assert pair() == ["one", "one"]
    assert vm.out("docker exec app stat -c '%a %u' /run/secrets/password") == "400 1000"
    was = vm.out("docker ps -q --no-trunc")
    assert world.changes() == {}
    vm.sh("systemctl restart agentd")
    world.settle()
    assert world.changes() == {} and vm.out("docker ps -q --no-trunc") == was
    cloud.fault({"service": "secretmanager", "path": ".*PASSWORD.*"}, {"status": 403, "reason": IAM})
    cloud.add_secret("USER", "two")
    cloud.add_secret("PASSWORD", "two")
    vm.sh("agentctl apply")
    wait_state(world, "password", "stale")
    vm.explain("the other to be read", lambda: secrets(world)["user"]["version"] == "2")
    stays("the pair", lambda: pair() == ["one", "one"] and vm.out("docker ps -q --no-trunc") == was, 3)
    cloud.clear_faults()
    vm.sh("agentctl apply")
    wait_for("the new pair", lambda: pair() == ["two", "two"], 30)


KEYED = "/usr/local/etc/mervis-agent/recipes/keyed.json"  # these programs are built for /usr/local


def crawl_with(world, *names):
    """A plan whose jobs each need a key."""
    return {"secrets": [{"name": name, "secret": name.upper(), "refresh": "10s"} for name in ("first", "second")],
            "endpoints": {**world.plan()["endpoints"], "api.upbit.com": f"{world.cloud.url}/market/api.upbit.com"},
            "crawl": {"contact": "ops@example.com",
                      "jobs": [{"name": f"job-{name}", "recipe": "keyed", "symbols": ["KRW-BTC"], "interval": "1d",
                                "every": "1h", "secret": name} for name in names],
                      "sink": {"ndjson": {"path": "/var/lib/mervis-crawler/rows.ndjson"}}}}


def put_crawl(world, *names):
    """Put it, and wait until it is handed to crawlerd; how the market host of the double likes that is another matter."""
    before = world.vm.status()["plan"]["generation"]
    world.put(**crawl_with(world, *names))
    wait_handed(world, before + 1)


def wait_handed(world, generation):
    def handed():
        status = world.vm.status()
        crawler = next((one for one in status["resources"] if one["kind"] == "crawler"), None)
        return status["plan"]["generation"] >= generation and crawler and crawler["state"] == "ok"
    world.vm.explain("crawlerd to have its plan", handed, 30)


def test_the_keys_of_the_crawler_are_on_a_ramfs_and_go_when_they_leave_the_plan(shared):
    vm, place = shared.vm, "/run/mervis-crawler/secrets"
    recipe = json.loads((Path(__file__).resolve().parents[2] / "crawler/recipe/upbit-candles.json").read_text())
    recipe["name"] = "keyed"
    recipe["request"]["secret_header"] = "X-Api-Key"
    vm.sh(f"mkdir -p $(dirname {KEYED})")
    vm.write(KEYED, json.dumps(recipe))
    shared.cloud.add_secret("FIRST", "one-1")
    shared.cloud.add_secret("SECOND", "two-1")
    # What an earlier version of ours left on the tmpfs.
    vm.sh(f"mkdir -p {place} && echo old >{place}/stale && chown -R mervis-crawler: {place}")
    put_crawl(shared, "first", "second")
    assert vm.out(f"stat -f -c %T {place}; stat -c '%a %U' {place}").split() == ["ramfs", "700", "mervis-crawler"]
    assert vm.out(f"cd {place} && stat -c '%n %a %U' *").splitlines() == [
        "first 400 mervis-crawler", "second 400 mervis-crawler"]
    pid = wait_for("crawlerd", lambda: vm.pid("crawlerd"), 30)
    assert vm.out(f"cat /proc/{pid}/root{place}/first") == "one-1", "crawlerd sees it from its own mount namespace"
    assert vm.out("grep -r -l -E 'one-1|two-1' /var/lib/mervis-crawler /var/lib/mervis-agent /etc || true") == ""
    shared.cloud.add_secret("FIRST", "one-2")
    wait_for("the rotation", lambda: vm.out(f"cat {place}/first") == "one-2", 25)
    generation = vm.status()["plan"]["generation"]
    vm.sh("systemctl restart agentd crawlerd")
    wait_handed(shared, generation)
    assert vm.out(f"ls -A {place}").split() == ["first", "second"]
    assert vm.out(f"grep -c {place} /proc/mounts") == "1"
    put_crawl(shared, "second")
    assert vm.out(f"ls -A {place}") == "second"
    shared.put_and_settle(timezone="Asia/Seoul")
    wait_for("nothing to be left", lambda: vm.sh(f"test -e {place}", check=False).returncode == 1, 10)
    assert vm.out(f"grep -c {place} /proc/mounts || true") == "0"


def test_a_crawler_that_moves_its_directory_gets_no_keys_elsewhere(shared):
    """crawlerd's user owns the directory above: a link there leads nobody to mount or write where it points."""
    vm, place = shared.vm, "/run/mervis-crawler/secrets"
    vm.sh(f"mkdir -p /srv/trap && ln -sfn /srv/trap {place}")
    shared.put(**crawl_with(shared, "first"))
    said = vm.explain("the refusal", lambda: (vm.resource("crawler") or {}).get("message"))
    assert "secrets" in said
    assert vm.out("ls -A /srv/trap; grep -c /srv/trap /proc/mounts || true") == "0"
    generation = vm.status()["plan"]["generation"]
    vm.sh(f"rm {place}; agentctl apply")
    wait_handed(shared, generation)
    assert vm.out(f"stat -f -c %T {place}") == "ramfs"
    shared.put_and_settle(timezone="Asia/Seoul")


def in_memory(vm, pid, needles):
    """Which of the needles the process has in memory that it can write to."""
    found = set()
    pid = host_pid(vm, pid)
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            words = line.split()
            if "w" not in words[1] or words[-1] in ("[vvar]", "[vsyscall]"):
                continue
            begin, end = (int(text, 16) for text in words[0].split("-"))
            mem.seek(begin)
            content = mem.read(end - begin)
            found |= {needle for needle in needles if needle in content}
    return found


def host_pid(vm, pid):
    """The same process as the host's kernel calls it."""
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if re.search(rf"^NSpid:.*\t{pid}$", text, re.M) and os.stat(f"/proc/{vm.leader}/ns/pid").st_ino == \
                os.stat(path.parent / "ns/pid").st_ino:
            return int(path.parent.name)
    raise RigError(f"process {pid} of the machine is not there")


def test_a_crash_leaves_no_core_and_there_would_be_nothing_in_it(world):
    """Not because of the limit alone: a core that is piped to a program has none."""
    vm, value = world.vm, b"Zt7-remarkable-value-0b5e"
    world.cloud.add_secret("CORE", value)
    world.put(**parts("core"), containers=[])
    vm.boot()
    vm.sh("""mkdir -p /run/systemd/system/agentd.service.d
        printf '[Service]\\nLimitCORE=infinity\\n' >/run/systemd/system/agentd.service.d/core.conf
        systemctl daemon-reload; systemctl restart agentd""")
    world.settle()
    for version in range(3):
        value = b"Zt7-remarkable-value-%d" % version
        world.cloud.add_secret("CORE", value)
        vm.sh("agentctl apply")
        wait_for("the rotation", lambda: vm.out("cat /etc/core") == value.decode(), 20)
    needles = {b"Zt7-remarkable-value", base64.b64encode(b"Zt7-remarkable-val").rstrip(b"=")[:20]}
    assert in_memory(vm, vm.pid(), {b"/etc/core"}), "the probe finds what is there"
    assert in_memory(vm, vm.pid(), needles) == set()
    vm.sh("systemctl kill --signal=SEGV agentd")
    wait_for("its end", lambda: "status=11/SEGV" in vm.journal("-u agentd"), 10)
    assert "code=killed, status=11/SEGV" in vm.journal("-u agentd")
    world.settle()
    assert vm.out("find / -xdev -name 'core*' -type f -size +16k -newer /run/systemd/system/agentd.service.d/core.conf "
                  "2>/dev/null || true") == ""


def test_a_value_is_nowhere_but_in_its_files(world):
    vm, value = world.vm, "Xq9-unmistakable-value-8f1c"
    world.cloud.add_secret("HIDDEN", value)
    world.put(**parts("hidden"), scripts=[{"name": "user", "when": "boot", "secrets": ["hidden"],
                                           "run": "#!/bin/sh\nwc -c <$CREDENTIALS_DIRECTORY/hidden\n"}])
    vm.boot()
    vm.sh("dbus-monitor --system >/run/bus.log 2>&1 & sleep 0.5", check=False)
    vm.sh("systemctl restart agentd")
    world.settle()
    world.cloud.add_secret("HIDDEN", value + "-2")
    vm.sh("agentctl apply; agentctl status; agentctl status --json; agentctl plan show")
    wait_for("the rotation", lambda: vm.out("cat /etc/hidden") == value + "-2", 20)
    world.cloud.fault(SECRETS, {"wrong_crc": True})
    world.cloud.add_secret("HIDDEN", value + "-3")
    vm.sh("agentctl apply")
    wait_state(world, "hidden", "stale")
    pid = vm.pid()
    places = [
        "journalctl --no-pager --all -o export", "cat /var/lib/mervis-agent/state.db*", "cat /run/bus.log",
        "cat /var/lib/mervis-agent/status.json", "cat /proc/[0-9]*/cmdline", f"cat /proc/{pid}/environ",
        "cat /var/lib/mervis-agent/scripts/* 2>/dev/null", "agentctl status --json", "agentctl plan show --json",
        "ls -R /var/lib/systemd/coredump 2>/dev/null",
    ]
    vm.write("/run/needle", value + "\n")  # not an argument: those are looked at, too
    for place in places:
        found = vm.out(f"{{ {place}; }} 2>/dev/null | tr -d '\\0' | grep -a -c -F -f /run/needle || true")
        assert found == "0", place
    assert vm.out("grep -a -l -F -f /run/needle -r /var /etc /root /tmp 2>/dev/null || true") == "/etc/hidden"
    # The probe finds what is there.
    assert vm.out("grep -a -l -F -f /run/needle -r /run/mervis-agent | head -c 30")
    limits = vm.out(f"cat /proc/{pid}/limits")
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    assert vm.out("systemctl show -p MemorySwapMax --value agentd") == "0"
