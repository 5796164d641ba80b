# SPDX-License-Identifier: Apache-2.0
"""The story that contrib/demo tells, run inside tests/rig/enter. A line is printed when what it says has been checked."""

import argparse
import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

TABLE = ("market", "bars_daily")
SECRETS = ["first-value-of-the-key", "second-value-of-the-key"]
IDENTITY = ("source", "symbol", "interval", "kind", "ts", "revision")

BEGUN = time.monotonic()
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def say(text, mark=" ", colour=""):
    mark = f"\033[{colour}m{mark}\033[0m" if COLOUR and colour else mark
    print(f"{time.monotonic() - BEGUN:6.1f} s  {mark} {text}", flush=True)


def kept(text):
    """A promise that was checked."""
    say(text, "+", "32")


def short(digest):
    return digest[:19] + "…"


class Visitor(threading.Thread):
    """Somebody who loads the application's page all the time, and remembers when it was not there."""

    def __init__(self, machine):
        super().__init__(daemon=True)
        self.machine = machine
        self.seen = self.missed = 0
        self.longest = 0.0

    def run(self):
        gone_since = None
        while True:
            now = time.monotonic()
            if self.machine.page():
                self.seen += 1
                gone_since = None
            else:
                self.missed += 1
                gone_since = gone_since or now
                self.longest = max(self.longest, time.monotonic() - gone_since)
            time.sleep(0.05)

    def begin(self):
        self.seen = self.missed = 0
        self.longest = 0.0


def expect(condition, what):
    if not condition:
        raise RigError(what)


def rows_once(rows):
    keys = [tuple(json.dumps(row.get(name)) for name in IDENTITY) for row in rows]
    expect(len(set(keys)) == len(keys), f"{len(keys) - len(set(keys))} rows were delivered twice")


def start_servers(directory, build):
    servers = Servers(directory).start()
    machine = Machine(servers, build, directory / "machine")
    machine.cloud.start()
    machine.cloud.make_dataset(TABLE[0])
    version = servers.engine.request("GET", "/version").expect(200).json()["Version"]
    say(f"A double of Google's servers, a registry, a bus and Docker Engine {version} are up")
    return machine


def first_boot(machine):
    first = machine.publish("1")
    say(f"Somebody pushed mervis:stable, version 1, {short(first)}")
    machine.cloud.add_secret("APP_KEY", SECRETS[0])
    say("Somebody put a key into Secret Manager: APP_KEY, version 1")
    update = {"check": "10s", "settle": "2m"}
    machine.put_plan(machine.make_plan([machine.container(update=update)], crawl=machine.crawl()))
    say("The plan lies in the metadata server. The VM boots: agentd, crawlerd, statusd")
    machine.start_daemons()

    machine.wait_healthy(first)
    machine.wait_page(version="1", key=image.key_hash(SECRETS[0]))
    page = web.get("http://127.0.0.1:8080/").text.strip()
    kept(f"The container is healthy and runs by digest, {short(first)}")
    say(f"curl http://127.0.0.1:8080/  →  {page}")
    kept("It has its secret: the hash that it shows is that of the key's value")
    return first


def delivery(machine):
    rows = machine.cloud.wait_rows(*TABLE, 1, timeout=40)
    rows_once(rows)
    kept(f"Rows arrive in BigQuery's table {'.'.join(TABLE)}: {len(rows)}, each once")
    return rows


def roll_out(machine, visitor, first):
    visitor.begin()
    second = machine.publish("2")
    say(f"Somebody pushes version 2 behind the same tag, {short(second)}")
    machine.wait_page(version="2")
    machine.wait_healthy(second)
    expect(second != first, "both versions have the same digest")
    kept(f"It is rolled out; the page was away for {visitor.longest:.1f} s")
    return second


def killed(machine, visitor, rows):
    machine.wait_settled()
    before = machine.engine.inspect("mervis")
    visitor.begin()
    machine.agentd.kill()
    machine.crawlerd.kill()
    say("kill -9 of agentd and crawlerd, and both are started again")
    time.sleep(1)
    machine.start_daemons()
    machine.wait_settled()
    time.sleep(2)
    after = machine.engine.inspect("mervis")
    expect(after["Id"] == before["Id"], "the container was replaced")
    expect(after["State"]["StartedAt"] == before["State"]["StartedAt"], "the container was restarted")
    expect(visitor.seen > 10 and visitor.missed == 0, f"the page was away {visitor.missed} times")
    kept(f"The container never noticed: same id, same start, {visitor.seen} of {visitor.seen} page loads answered")
    now = machine.cloud.rows(*TABLE)
    rows_once(now)
    expect(len(now) >= len(rows), f"{len(rows)} rows became {len(now)}")
    kept(f"No row was lost or doubled: {len(now)} in the table, each once")


def new_secret(machine, visitor, digest):
    visitor.begin()
    version = machine.cloud.add_secret("APP_KEY", SECRETS[1])
    say(f"Somebody adds version {version} of the key")
    machine.wait_page(version="2", key=image.key_hash(SECRETS[1]))
    machine.wait_healthy(digest)
    kept(f"A container with the new key has replaced the old one; the page was away for {visitor.longest:.1f} s")
    return str(version)


def faces(machine):
    for path, what in (("/healthz", "alive"), ("/readyz", "serving")):
        wait_for(f"200 from {path}", lambda at=path: web.get(f"http://127.0.0.1:9320{at}").status == 200, 10)
        kept(f"statusd answers a health check: {path} says {what}")


def last_screen(machine, digest, version):
    def well():
        return machine.agentctl("status").returncode == 0
    machine.wait_settled()
    wait_for("exit status 0 of agentctl status", well, 20, 0.3)
    status = machine.status()
    container = next(one for one in status["containers"] if one["name"] == "mervis")
    secret = next(one for one in status["secrets"] if one["name"] == "app-key")
    expect(container["health"] == "healthy" and container["digest"] == digest, f"status shows {container}")
    expect(secret["version"] == version, f"status shows {secret}")
    expect(status["crawler"]["delivery"]["rows_delivered"] > 0, f"status shows {status['crawler']}")
    screen = machine.agentctl("status").stdout
    for part in (digest.removeprefix("sha256:")[:8], "healthy", "app-key", "rows delivered"):
        expect(part in screen, f"the screen does not show {part}:\n{screen}")
    say(f"Each line with a + was checked. The story took {time.monotonic() - BEGUN:.0f} s. The last word has")
    print("\n$ agentctl status", flush=True)
    print(screen, end="", flush=True)


def write_environment(directory, machine, build):
    """For tests/rig/enter --join: what a shell in the machine should know."""
    # While agentd is down, status shows what it last recorded: here that lies elsewhere than on a real machine.
    wrapper = directory / "bin" / "agentctl"
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(f"""#!/bin/sh
[ "$1" != status ] || {{ shift; set -- status --state-dir {shlex.quote(str(machine.dir / "agentd" / "state"))} "$@"; }}
exec {shlex.quote(str(build / "agentctl"))} "$@"
""")
    wrapper.chmod(0o755)
    names = {
        "PATH": f"{wrapper.parent}:{build}:{os.environ['PATH']}", "DBUS_SYSTEM_BUS_ADDRESS": machine.servers.bus.address,
        "GCE_METADATA_HOST": f"127.0.0.1:{machine.cloud.port}", "DOCKER_HOST": f"unix://{machine.engine.socket}",
        "MERVIS_RECIPES_DIR": str(machine.recipes), "PS1": "mervis-demo# ",
    }
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in names.items()]
    (directory / "env").write_text("".join(lines))


def stay(directory, machine, build, enter):
    write_environment(directory, machine, build)
    print(f"""
It stays up. In another terminal, as root:

    {enter} --join {directory}

opens a shell in this machine, with agentctl, curl and docker (if its client is installed) ready. For instance

    agentctl status --watch
    curl http://127.0.0.1:8080/
    curl -X POST --data-binary another-key http://127.0.0.1/_admin/secrets/{machine.project}/APP_KEY
    curl http://127.0.0.1/_admin/ledger
    tail -f {directory}/machine/*.log

Ctrl-C here ends it and removes everything.""", flush=True)
    while True:
        time.sleep(3600)


def show_logs(machine):
    for process in (machine.agentd, machine.crawlerd, machine.statusd, machine.cloud):
        if process.log.exists():
            print(f"\n--- end of {process.log.name}\n{tail(process.log, 25)}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    for name in ("--build", "--source", "--enter"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    directory = rig_dir()
    machine = None
    print()
    try:
        machine = start_servers(directory, args.build)
        visitor = Visitor(machine)
        visitor.start()
        first = first_boot(machine)
        rows = delivery(machine)
        second = roll_out(machine, visitor, first)
        killed(machine, visitor, rows)
        version = new_secret(machine, visitor, second)
        faces(machine)
        last_screen(machine, second, version)
        if args.keep:
            stay(directory, machine, args.build, args.enter)
        return 0
    except KeyboardInterrupt:
        print("\nInterrupted; everything is being removed.", flush=True)
        return 130
    except (RigError, OSError, KeyError, StopIteration) as err:
        say(f"This did not hold: {err!s}", "x", "31")
        if machine:
            show_logs(machine)
        return 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
    from rig import image, web
    from rig.machine import Machine, Servers, rig_dir
    from rig.process import RigError, tail, wait_for
    sys.exit(main())
