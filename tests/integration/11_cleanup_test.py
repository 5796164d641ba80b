# SPDX-License-Identifier: Apache-2.0
"""Images that nobody needs go, the others stay: as a dry run said, and by as many bytes as reported."""

import io
import json
import os
import tarfile
import time

from rig import image
from rig.process import wait_for

MIN_AGE = 3


# Versions are this file's own: the engine is everybody's, and an image that another test named, too, is shared.
def boot(machine, **images):
    digest = machine.publish("cleanup-1")
    machine.put_plan(machine.make_plan([machine.container(env={"GREETING": "hello"},
                                                          update={"check": "10s", "settle": "1s"})], secrets=[],
                                       images={"min_age": f"{MIN_AGE}s", **images}))
    machine.start(machine.agentd)
    machine.wait_healthy(digest)
    machine.wait_settled(states=("settled",))
    return digest


def cleanup(machine, *options):
    done = machine.agentctl("cleanup", "--json", *options, check=True, timeout=60)
    return json.loads(done.stdout)


def aged(machine):
    """What is there was seen, and is old enough."""
    cleanup(machine, "--dry-run")
    time.sleep(MIN_AGE + 0.5)


def pull(machine, repository, made, tag):
    digest = machine.registry.push(made, repository, tag)
    reference = f"127.0.0.1:5000/{repository}@{digest}"
    machine.engine.pull(reference)
    return machine.engine.image(reference)["Id"]


def pull_ours(machine, version, **kwargs):
    digest = machine.publish(version, tag=f"old-{version}", **kwargs)
    reference = f"{machine.image.rpartition(':')[0]}@{digest}"
    machine.engine.pull(reference, machine.cloud.token())
    return machine.engine.image(reference)["Id"]


def dangling(machine, name):
    """An image without a name, as a build leaves it behind."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 1 << 20
        tar.addfile(entry, io.BytesIO(os.urandom(1 << 20)))
    reply = machine.engine.request("POST", "/images/create?fromSrc=-", body=layer.getvalue()).expect(200)
    return json.loads(reply.text.splitlines()[-1])["status"]


def zombie(machine, name, of, release="0123456789abcdef0123"):
    """A stopped container of ours that no slot knows."""
    machine.engine.request("POST", f"/containers/create?name={name}", body={
        "Image": of, "Labels": {"io.mervis.container": "mervis", "io.mervis.release": release}}).expect(201)


def free_bytes(machine):
    st = os.statvfs(machine.engine.dir.parent / "engine")
    return st.f_bfree * st.f_frsize


def ids(machine):
    return {one["Id"] for one in machine.engine.images()}


def test_a_machine_full_of_zombies_is_cleaned_as_predicted(machine):
    boot(machine)
    keep = ids(machine)
    old = [pull_ours(machine, f"z{n}", ballast=512 << 10) for n in range(50)]
    used = [pull(machine, f"foreign/used{n}", image.app(f"u{n}"), "v1") for n in range(10)]
    unused = [pull(machine, f"foreign/app{n}", image.app(f"f{n}"), "v1") for n in range(10)]
    lost = [dangling(machine, f"lost{n}") for n in range(5)]
    # Half of the foreign ones are used by what runs, the others by what is stopped.
    for n, one in enumerate(used):
        if n % 2:
            machine.engine.run(f"theirs-{n}", one)
        else:
            machine.engine.request("POST", f"/containers/create?name=theirs-{n}", body={"Image": one}).expect(201)
    machine.engine.request("POST", "/containers/create?name=theirs-of-ours", body={"Image": old[0]}).expect(201)
    for n in range(3):
        zombie(machine, f"mervis.stale{n}", old[n + 1])
    aged(machine)

    predicted = cleanup(machine, "--dry-run")
    assert predicted["dry_run"] and predicted["removed"] == 0 and predicted["freed_bytes"] == 0
    to_go = [one["id"] for one in predicted["images"] if one["action"] == "remove"]
    assert set(to_go) == set(old[1:] + lost), predicted
    assert sorted(one["name"] for one in predicted["containers"]) == [f"mervis.stale{n}" for n in range(3)]
    why = {one["id"]: one["why"] for one in predicted["images"]}
    assert {why[one] for one in [old[0], *used]} == {"in use"} and {why[one] for one in unused} == {"foreign"}
    before, free_before = ids(machine), free_bytes(machine)
    assert before == keep | set(old + used + unused + lost), "a dry run removes nothing"

    shown = machine.agentctl("cleanup", "--dry-run").stdout
    assert f"{len(to_go)} images would be removed, with 3 stopped containers" in shown and "foreign" in shown, shown
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
    done = cleanup(machine)
    assert done["removed"] == len(to_go), done
    assert ids(machine) == before - set(to_go)
    assert ids(machine) == keep | {old[0]} | set(used + unused)
    names = {one["Names"][0].lstrip("/") for one in machine.engine.containers()}
    assert names == {"mervis", "theirs-of-ours"} | {f"theirs-{n}" for n in range(10)}
    gained = free_bytes(machine) - free_before
    assert done["freed_bytes"] > 20 << 20 and abs(gained - done["freed_bytes"]) < 8 << 20, (gained, done)
    images = machine.status()["images"]
    assert images["removed"] >= len(to_go) and images["freed_bytes"] >= done["freed_bytes"]
    assert images["last_run_at"] and 0 < images["disk_used_percent"] <= 100
    assert machine.page()["version"] == "cleanup-1"
    again = cleanup(machine)
    assert again["removed"] == 0 and not again["containers"]
    again = " ".join(machine.agentctl("cleanup").stdout.split())  # it wraps at 80 columns, wherever the path ends
    assert again.startswith("0 images removed, 0 B freed; the disk under ")


def test_the_previous_release_is_kept_and_the_one_before_goes_by_itself(machine):
    digests = [boot(machine, keep_previous=1)]
    for version in ("cleanup-2", "cleanup-3"):
        time.sleep(MIN_AGE)
        digests.append(machine.publish(version))
        machine.wait_healthy(digests[-1])
        machine.wait_settled(states=("settled",))

    def here():
        return {ref.partition("@")[2] for one in machine.engine.images() for ref in one["RepoDigests"] or []}
    aged(machine)
    cleanup(machine)
    wait_for("removal of the first", lambda: digests[0] not in here(), 20)
    assert digests[1] in here() and digests[2] in here()
    events = machine.status()["events"]
    assert any(event["event"] == "images-removed" for event in events), events


def test_a_cleanup_of_an_engine_that_is_away_fails_and_is_tried_again(machine):
    boot(machine)
    machine.engine.kill()
    try:
        done = machine.agentctl("cleanup", "--dry-run")
        assert done.returncode and "container engine" in done.stderr, done
    finally:
        machine.engine.start()
    wait_for("an answer", lambda: cleanup(machine, "--dry-run")["images"], 30)
