# SPDX-License-Identifier: Apache-2.0
"""What the tests of the rollout share: a container that is judged quickly, and what to look at afterwards."""

import contextlib
import os
import threading
import time

import pytest

from rig import image, web
from rig.process import RigError, wait_for

FULL = bool(os.environ.get("MERVIS_FULL"))
full = pytest.mark.full

CRASHED = 137  # how a process ends at a MERVIS_CRASH_AT point

# Serves for a while, and then ends with an error, again and again.
DYING_APP = """#!/bin/sh
mkdir -p /tmp/www
printf 'version=%s\\n' "$(cat /version)" >/tmp/www/index.html
httpd -f -p 8080 -h /tmp/www &
sleep 1
exit 1
"""

# Is ready only after some seconds.
SLOW_APP = """#!/bin/sh
trap 'exit 0' TERM
mkdir -p /tmp/www
sleep 6 &
wait $!
printf 'version=%s\\n' "$(cat /version)" >/tmp/www/index.html
httpd -f -p 8080 -h /tmp/www &
wait $!
"""

# Ends with the status that its environment names, after so many seconds; SIGTERM ends it politely.
JOB_APP = """#!/bin/sh
trap 'kill $child; exit 0' TERM
echo run >>/data/runs
sleep "${SECONDS_TO_RUN:-1}" &
child=$!
wait $child
exit "${STATUS:-0}"
"""


def quick(machine, **changes):
    """A container whose health is asked for over HTTP, several times a second."""
    made = {
        "health": {"http": "http://127.0.0.1:8080/", "interval": "500ms", "timeout": "1s", "retries": 2,
                   "start_period": "2s"},
        "stop_timeout": "2s", "update": {"check": "10s", "settle": "1s"}, **changes,
    }
    return machine.container(**made)


def unpublished(machine, name="inner", **changes):
    """One without ports of the host: the new one can start beside the old one."""
    health = {"http": "http://{container}:8080/", "interval": "500ms", "timeout": "1s", "retries": 2,
              "start_period": "2s"}
    return quick(machine, **{"name": name, "ports": None, "health": health, **changes})


def boot(machine, containers=None, version="1", **plan):
    """Publish, declare, start, and wait until it is settled; returns the digest."""
    digest = machine.publish(version)
    machine.cloud.add_secret("APP_KEY", "key-1")
    machine.put_plan(machine.make_plan(containers or [quick(machine)], **plan))
    machine.start(machine.agentd)
    name = machine.plan["containers"][0]["name"]
    machine.wait_healthy(digest, name)
    machine.wait_settled(name, states=("settled",))
    return digest


def push(machine, version, **kwargs):
    """A new image behind the tag, and no waiting for the next look."""
    digest = machine.publish(version, **kwargs)
    look(machine)
    return digest


def look(machine):
    wait_for("answer of agentd", lambda: machine.agentctl("apply").returncode == 0, 10)


def shown(machine, name="mervis"):
    """That container's part of the status."""
    return next(one for one in machine.status()["containers"] if one["name"] == name)


def wait_state(machine, *states, name="mervis", timeout=40.0):
    return machine.wait_settled(name, states=states, timeout=timeout)


def wait_message(machine, *parts, name="mervis", timeout=30.0):
    """Wait until its message has all these parts; returns the status of the container."""
    def said():
        one = shown(machine, name)
        return one if all(part in (one["message"] or "") for part in parts) else None
    try:
        return wait_for(f"message with {parts}", said, timeout, 0.2)
    except RigError as err:
        raise RigError(f"{err}; it says: {shown(machine, name)['message']}") from None


def quarantined(machine, name="mervis"):
    return {one["digest"]: one for one in shown(machine, name)["quarantined"]}


def containers(machine, name="mervis"):
    """The slot as the engine shows it: {name: state}."""
    found = machine.engine.containers(label=f"io.mervis.container={name}")
    return {one["Names"][0].lstrip("/"): one["State"] for one in found}


def wait_alone(machine, name="mervis", timeout=40.0):
    """Wait until exactly one container of the slot is there, and runs."""
    return wait_for(f"{name} alone", lambda: containers(machine, name) == {name: "running"}, timeout)


def identity(machine, name="mervis"):
    found = machine.engine.inspect(name)
    return found["Id"], found["State"]["StartedAt"]


def events(machine, kind):
    return [one["text"] for one in machine.status()["events"] if one["event"] == kind]


@contextlib.contextmanager
def watched(url="http://127.0.0.1:8080/", every=0.02):
    """Ask all the time; yields a dict whose "longest" is the longest time without an answer, in seconds."""
    seen = {"longest": 0.0, "asked": 0}
    over = threading.Event()

    def ask():
        last = time.monotonic()
        while not over.is_set():
            try:
                well = web.get(url, timeout=1).status == 200
            except OSError:
                well = False
            now = time.monotonic()
            if well:
                seen["longest"] = max(seen["longest"], now - last)
                last = now
            seen["asked"] += 1
            time.sleep(every)
        seen["longest"] = max(seen["longest"], time.monotonic() - last)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def crash_at(machine, point):
    """Start agentd anew such that it ends at that point, as by a power cut; that may be before it is ready."""
    if machine.agentd.running:
        machine.agentd.kill()
    machine.agentd.env["MERVIS_CRASH_AT"] = point
    machine.agentd.notify.messages.clear()
    machine.agentd.start()
    wait_for("READY=1, or the end", lambda: machine.agentd.notify.heard("READY", "1") or not machine.agentd.running, 15)


def wait_crash(machine, point, timeout=30.0):
    status = machine.agentd.wait(timeout)
    assert status == CRASHED, f"{point}: ended with {status}"


def come_back(machine):
    machine.agentd.env["MERVIS_CRASH_AT"] = None
    machine.start(machine.agentd)


def job(machine, **changes):
    """A job that counts its runs in a directory of the machine."""
    data = machine.dir / "data"
    data.mkdir(exist_ok=True)
    env = changes.pop("env", {})
    made = {"name": "train", "mode": "job", "image": machine.image, "log": "json-file", "env": env,
            "volumes": [f"{data}:/data"], "stop_timeout": "3s", "update": {"check": "10s"}, **changes}
    return made


def publish_job(machine, version="job"):
    return machine.publish(image.app(version, check=False, files={"app": (JOB_APP.encode(), 0o755)}))


def runs(machine):
    try:
        return len((machine.dir / "data" / "runs").read_text().split())
    except OSError:
        return 0
