# SPDX-License-Identifier: Apache-2.0
"""The machine that faults strike, its cloud, and the steady load: an application that is asked all the time, and a
crawler that always has rows on their way.

It is tests/rig's machine, booted by real systemd. Everything that it speaks to is one localcloud behind three
addresses, so that a rule of the packet filter cuts off one of them and not the others.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from rig import image, vm as rig_vm, web
from rig.cloud import Cloud
from rig.machine import MARKET_HOSTS, REGISTRY_HOST
from rig.process import RigError, run, wait_for
from rig.registry import Registry

METADATA, MARKET, GOOGLE = "169.254.169.254", "127.0.0.2", "127.0.0.3"
REPOSITORY = "demo-project/repo/mervis"
CHART_HOST = "query1.finance.yahoo.com"
TABLE = "demo-project.market.bars_intraday"
KEY = ("source", "symbol", "interval", "kind", "ts")
STATE_MIB, ENGINE_MIB = 64, 512
SYMBOLS, HOURS = 16, 3
RECIPE = "usr/local/share/mervis-agent/recipes/yahoo-chart.json"


def compare(wanted, rows):
    """([row that is not there], [row of other values: column, value, expected value]), as texts. Every column that the
    double expects is looked at, and that the row is final, for it expects final ones only."""
    found = {(row["symbol"], row["ts"]): row for row in rows}
    missing, wrong = [], []
    for row in wanted:
        have = found.get((row["symbol"], row["ts"]))
        if have is None:
            missing.append(f"{row['symbol']} {row['ts']}")
            continue
        wrong += [f"{row['symbol']} {row['ts']}: {name} is {have.get(name)}, not {value}"
                  for name, value in {**row, "is_final": True}.items()
                  if str(have.get(name)).lower() != str(value).lower()][:1]
    return missing, wrong


def doubled(rows):
    """What the source said once and the table has again. It never changes what it said: a revision is a double, too."""
    firsts = [row for row in rows if int(row["revision"]) == 0]
    return len(rows) - len({tuple(row[name] for name in KEY) for row in firsts})


class World:
    def __init__(self, build, directory):
        self.dir = Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        if run(["stat", "-f", "-c", "%T", self.dir]).stdout.strip() == "overlayfs":  # which carries no other one
            run(["mount", "-t", "tmpfs", "tmpfs", self.dir])
        self.base = rig_vm.make_base(Path(build).resolve(), self.dir / "base")
        self.registry = Registry(self.dir).start()
        self.cloud = Cloud(self.dir / "cloud", self.registry).start()
        os.environ.pop("GCE_METADATA_HOST", None)  # the machine has its own
        self.cloud.make_dataset("market")
        self.cloud.generate_charts(hosts=[CHART_HOST], live=False)
        self.vms = 0
        self.vm = None
        self.version, self.secret, self.round = 1, 1, 0
        self.symbols, self.since = [], 0
        self.lost = None  # the last row that was not there
        self.odd = None  # the last one of other values
        self.stirred = 0
        self.edge = 0  # how much later the look-back may begin: it is counted from when a source answers
        self.cloud.add_secret("APP_KEY", self.secret_value)
        self.registry.push(image.app("1", check=False), REPOSITORY, "stable")
        self.new_machine()

    # The machine

    def new_machine(self):
        """One that was never booted, with an empty disk; the one before is gone."""
        if self.vm:
            self._unplug()
        self.vms += 1
        directory = self.dir / f"vm{self.vms}"
        self.state, self.engine = directory / "state", directory / "docker"
        for path, mib in ((self.state, STATE_MIB), (self.engine, ENGINE_MIB)):
            path.mkdir(parents=True)
            run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={mib}m", "tmpfs", path])
        binds = []
        for name in ("mervis-agent", "mervis-crawler"):
            (self.state / name).mkdir()
            binds.append(f"{self.state / name}:/var/lib/{name}")
        self.vm = rig_vm.Vm(self.base, directory, name=f"chaos{self.vms}", binds=binds)
        self._furnish(self.vm.root)
        self.cloud.set_metadata("instance/id", str(7_000_000_000_000_000_000 + self.vms))

    def _furnish(self, root):
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{METADATA} metadata.google.internal\n"
                                        f"{GOOGLE} {REGISTRY_HOST}\n")
        wants = root / "etc/systemd/system/sockets.target.wants"
        wants.mkdir(exist_ok=True)
        for name in ("statusd.socket", "statusd-local.socket"):
            (wants / name).symlink_to(f"/usr/local/lib/systemd/system/{name}")
        service = root / "etc/systemd/system/multi-user.target.wants/statusd.service"
        service.symlink_to("/usr/local/lib/systemd/system/statusd.service")
        recipe = json.loads((root / RECIPE).read_text())
        recipe["politeness"]["delay"] = "0s"  # the plan's own delay counts
        (root / RECIPE).write_text(json.dumps(recipe))

    def _unplug(self):
        self.vm.close()
        for path in (self.engine, self.state):
            subprocess.run(["umount", "-l", str(path)], check=False)
        shutil.rmtree(self.vm.dir, ignore_errors=True)
        self.vm = None

    def close(self):
        if self.vm:
            self._unplug()
        self.cloud.kill()
        self.registry.kill()

    def start_over(self):
        """A machine that no earlier fault has touched, and no fault is left outside of it."""
        subprocess.run(["nft", "delete", "table", "ip", "chaos"], check=False, stderr=subprocess.DEVNULL)
        self.cloud.clear_faults()
        self.cloud.set_metadata("instance/preempted", "FALSE")
        self.new_machine()
        self.vm.boot()

    # The load

    @property
    def secret_value(self):
        return f"the-key-number-{self.secret}-of-the-application"

    def publish(self):
        self.version += 1
        self.registry.push(image.app(str(self.version), check=False), REPOSITORY, "stable")

    def new_secret(self):
        self.secret += 1
        self.cloud.add_secret("APP_KEY", self.secret_value)

    def load(self):
        """New symbols for the crawler, some thousand rows: returns when the first ones are asked for."""
        self.round += 1
        self.symbols = [f"R{self.round}S{number}-USD" for number in range(SYMBOLS)]
        seen = len(self.cloud.requests(service="market"))
        self.since = time.time()
        self.put_plan()
        wait_for("the crawler to ask for the new symbols",
                 lambda: any(f"/R{self.round}S" in one["path"] for one in
                             self.cloud.requests(service="market")[seen:]), 60, 0.1)

    def put_plan_of_no_symbols(self):
        """The first plan of a machine: the application alone."""
        self.symbols = []
        self.put_plan()

    def put_plan(self):
        google = {host: f"http://{GOOGLE}" for host in
                  ("secretmanager.googleapis.com", "bigquery.googleapis.com", REGISTRY_HOST)}
        market = {host: f"http://{MARKET}/market/{host}" for host in MARKET_HOSTS}
        plan = {
            "version": 1, "role": "serving", "endpoints": google | market,
            "secrets": [{"name": "app-key", "secret": "APP_KEY", "refresh": "10s"}],
            "containers": [{
                "name": "mervis", "image": f"{REGISTRY_HOST}/{REPOSITORY}:stable", "ports": ["8080:8080"],
                "log": "json-file", "env": {"APP_KEY": {"secret": "app-key"}}, "stop_timeout": "3s",
                "health": {"http": "http://{container}:8080/", "interval": "1s", "timeout": "2s", "retries": 3,
                           "start_period": "20s", "stable": "1s"},
                "update": {"check": "10s", "settle": "2s"}}],
            "crawl": {
                "contact": "ops@example.com",
                "jobs": [{"name": f"round-{self.round}", "recipe": "yahoo-chart", "symbols": self.symbols,
                          "interval": "1m", "every": "30s", "backfill": f"{HOURS}h", "terms": "acknowledged"}],
                "egress": {"min_delay": "200ms"},
                "sink": {"bigquery": {"dataset": "market", "table": "bars", "flush": "90s", "max_rows": 1000}}},
        }
        if not self.symbols:
            del plan["crawl"]
        self.cloud.set_metadata("instance/attributes/mervis-plan", json.dumps(plan))

    # What there is to see

    def page(self):
        """Whether the application answers, in the version and with the secret that it should have."""
        try:
            reply = web.get("http://127.0.0.1:8080/", timeout=2)
        except OSError:
            return None
        return reply.text if reply.status == 200 else None

    def page_is_the_newest(self):
        text = self.page() or ""
        return f"version={self.version} key={image.key_hash(self.secret_value)} " in text

    def status(self):
        """The joined document of agentd and crawlerd, by statusd; None while nothing answers."""
        try:
            return web.get("http://127.0.0.1:9321/status.json", timeout=2).json()
        except (OSError, ValueError):
            return None

    def said(self):
        """(well, ready) as the machine itself says; None while nothing answers."""
        told = self.status()
        try:
            ready = web.get("http://127.0.0.1:9320/readyz", timeout=2)
        except OSError:
            return None
        return None if told is None else (told.get("state") == "well", ready.status == 200)

    def container(self):
        """(id, when it was started) of the running one."""
        return tuple(self.vm.out("docker inspect -f '{{.Id}} {{.State.StartedAt}}' mervis", check=False).split())

    def stir(self):
        """A change of metadata that is none of agentd's business: the answer to its long poll, no more."""
        self.stirred += 1
        self.cloud.set_metadata("instance/attributes/stirred", str(self.stirred))

    def flush(self):
        """Ask the crawler not to wait for the next load."""
        self.vm.sh("agentctl crawl flush", check=False)

    def rows(self, until):
        """(missing, doubled, wrong) rows of this round's symbols up to that instant."""
        rows = self.cloud.rows("market", TABLE.rpartition(".")[2])
        first = int(self.since) - HOURS * 3600 + 180 + self.edge
        wanted = [row for symbol in self.symbols for row in self.cloud.admin(
            "GET", f"market/expected?symbol={symbol}&interval=1m&from={first}&to={int(until)}")["rows"]]
        missing, wrong = compare(wanted, rows)
        self.lost = missing[-1] if missing else self.lost
        self.odd = wrong[-1] if wrong else self.odd
        return len(missing), doubled(rows), len(wrong)

    def journal_tail(self):
        if not self.vm or not self.vm.leader:
            return ""
        try:
            return self.vm.sh("journalctl -u agentd -u crawlerd -u docker -o short-precise -n 60", check=False).stdout
        except (subprocess.TimeoutExpired, RigError) as err:
            return str(err)
