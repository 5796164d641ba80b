# SPDX-License-Identifier: Apache-2.0
"""A whole machine: the servers that it talks to, and the daemons under test."""

import json
import os
from pathlib import Path

from . import image, web
from .bus import Bus
from .cloud import Cloud
from .engine import Engine
from .notify import Notify
from .process import Process, RigError, run, tail, wait_for
from .registry import Registry

REGISTRY_HOST = "asia-northeast3-docker.pkg.dev"
MARKET_HOSTS = ("query1.finance.yahoo.com", "query2.finance.yahoo.com", "fchart.stock.naver.com", "finance.naver.com",
                "www.ecb.europa.eu", "api.upbit.com", "api.binance.com", "stooq.com")
NOBODY = (65534, 65534)


def rig_dir():
    """Where everything goes; set by tests/rig/enter, and nothing here is safe to run without."""
    path = os.environ.get("MERVIS_RIG_DIR")
    if not path:
        raise RigError("MERVIS_RIG_DIR is not set: run this inside tests/rig/enter")
    return Path(path)


class Servers:
    """What exists on every machine: the bus, the engine; and the registry's storage. Started once, used by many tests."""

    def __init__(self, directory=None):
        self.dir = Path(directory or rig_dir()) / "servers"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.bus = Bus(self.dir)
        self.registry = Registry(self.dir)
        self.engine = Engine(self.dir, data=rig_dir() / "engine")

    def start(self):
        for server in (self.bus, self.registry, self.engine):
            server.start()
        return self

    def stop(self):
        for server in (self.engine, self.registry, self.bus):
            server.kill()

    def forget_containers(self):
        """Remove every container, whoever made it."""
        for container in self.engine.containers():
            self.engine.remove(container["Id"])


class Machine:
    """One VM in one cloud: its metadata, its disk, its daemons.

    BUILD is the directory of the built programs, DIRECTORY the one for this machine's state and logs.
    """

    def __init__(self, servers, build, directory, cloud_options=()):
        self.servers = servers
        self.engine = servers.engine
        self.registry = servers.registry
        self.build = Path(build)
        self.dir = Path(directory)
        self.root = self.dir / "root"
        for path in (self.root, self.dir / "agentd", self.dir / "statusd"):
            path.mkdir(parents=True, exist_ok=True)
        # The crawler runs as nobody, as it does in its unit.
        for path in (self.dir / "crawlerd", self.dir / "crawlerd" / "state", self.dir / "crawlerd" / "run"):
            path.mkdir(exist_ok=True)
            os.chown(path, *NOBODY)
        self.cloud = Cloud(self.dir / "cloud", servers.registry, options=cloud_options)
        self.project = self.cloud.project
        self.repository = f"{self.project}/repo/mervis"
        self.image = f"{REGISTRY_HOST}/{self.repository}:stable"
        self.plan = None

        self.agentd = self.daemon("agentd", "--root", self.root, "--engine", self.engine.socket,
                                  "--crawler-dir", self.dir / "crawlerd" / "run")
        self.crawlerd = self.daemon("crawlerd", user=NOBODY)
        self.statusd = self.daemon("statusd", user=NOBODY)

    def program(self, name):
        path = self.build / name
        if not path.exists():
            raise RigError(f"{path} is not built")
        return path

    def daemon(self, name, *arguments, user=None, env=None, log_name=None):
        state, run_dir = self.dir / name / "state", self.dir / name / "run"
        made = Process(log_name or name, [
            self.build / name, "--state-dir", state, "--runtime-dir", run_dir, *arguments,
        ], self.dir, env={"MERVIS_RECIPES_DIR": str(self.recipes), **(env or {})}, user=user)
        made.notify = Notify(self.dir, f"{made.name}.notify")
        made.env.update(made.notify.env)
        return made

    def start(self, daemon, timeout=15.0):
        """Start a daemon as systemd does: it is up when it says READY=1."""
        daemon.notify.messages.clear()
        daemon.start()
        daemon.wait_ready("READY=1", lambda: daemon.notify.heard("READY", "1"), timeout)
        return daemon

    def start_daemons(self):
        # Without systemd agentd cannot start crawlerd, and would say so.
        for daemon in (self.crawlerd, self.statusd, self.agentd):
            if not daemon.running:
                self.start(daemon)

    @property
    def recipes(self):
        return Path(__file__).resolve().parent.parent.parent / "crawler" / "recipe"

    # What the outside does

    def publish(self, version, tag="stable", **kwargs):
        """Push the demo's application, or an Image, behind a tag; returns the digest."""
        made = version if isinstance(version, image.Image) else image.app(version, **kwargs)
        return self.registry.push(made, self.repository, tag)

    def container(self, **changes):
        """A container of the plan; a change to None leaves the key out."""
        made = {
            "name": "mervis", "image": self.image, "ports": ["8080:8080"], "log": "json-file", "memory": "64MiB",
            "env": {"GREETING": "hello", "APP_KEY": {"secret": "app-key"}},
            "health": {"interval": "1s", "timeout": "2s", "retries": 3, "start_period": "20s", "stable": "2s"},
            "stop_timeout": "3s", "update": {"check": "10s", "settle": "10s"}, **changes,
        }
        return {key: value for key, value in made.items() if value is not None}

    def make_plan(self, containers=None, secrets=None, crawl=None, **more):
        """A plan of this machine; the default is the demo's application with one secret."""
        plan = {
            "version": 1, "role": "serving",
            "secrets": [{"name": "app-key", "secret": "APP_KEY", "version": "latest", "refresh": "10s"}]
            if secrets is None else secrets,
            "containers": [self.container()] if containers is None else containers,
            "endpoints": self.endpoints(),
        }
        if crawl:
            plan["crawl"] = crawl
        return {**plan, **more}

    def endpoints(self):
        """Every host that a client here would speak to, on the double."""
        base = self.cloud.url
        google = {host: base for host in ("secretmanager.googleapis.com", "bigquery.googleapis.com", REGISTRY_HOST)}
        return google | {host: f"{base}/market/{host}" for host in MARKET_HOSTS}

    def crawl(self, **changes):
        return {
            "contact": "ops@example.com",
            "jobs": [{"name": "us-1d", "recipe": "yahoo-chart", "symbols": ["AAPL"], "interval": "1d", "every": "1m",
                      "terms": "acknowledged"}],
            "sink": {"bigquery": {"dataset": "market", "table": "bars", "flush": "90s"}}, **changes,
        }

    def put_plan(self, plan):
        self.plan = plan
        text = plan if isinstance(plan, (str, bytes)) else json.dumps(plan, ensure_ascii=False)
        self.cloud.set_metadata("instance/attributes/mervis-plan", text)

    # What a user sees

    def agentctl(self, verb, *arguments, check=False, timeout=20, **kwargs):
        where = ["--state-dir", self.dir / "agentd" / "state"] if verb == "status" else []
        return run([self.program("agentctl"), verb, *where, *arguments], check=check, timeout=timeout, **kwargs)

    def status(self):
        """`agentctl status --json`, whatever its exit status."""
        done = self.agentctl("status", "--json")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise RigError(f"agentctl status --json: status {done.returncode}\n{done.stdout}{done.stderr}") from None

    def page(self, port=8080):
        """What the application says: {"version": …, "key": …, …}; None while it does not answer."""
        try:
            reply = web.get(f"http://127.0.0.1:{port}/", timeout=2)
        except OSError:
            return None
        if reply.status != 200:
            return None
        return dict(pair.partition("=")[::2] for pair in reply.text.split())

    def running_digest(self, name="mervis"):
        """The digest that the running container of that name was created from; None while none runs."""
        found = self.engine.inspect(name)
        if not found or not found["State"]["Running"]:
            return None
        _, _, digest = found["Config"]["Image"].partition("@")
        if digest:
            return digest
        made_of = self.engine.image(found["Image"]) or {}
        return next((ref.partition("@")[2] for ref in made_of.get("RepoDigests") or []), None)

    def wait_page(self, timeout=40.0, **expected):
        """Wait until the application shows these values."""
        def shown():
            page = self.page()
            return page if page and all(page.get(key) == value for key, value in expected.items()) else None
        return self._explained(f"page with {expected}", shown, timeout)

    def wait_healthy(self, digest=None, name="mervis", timeout=40.0):
        """Wait until the container is up, healthy and of this digest; returns the engine's view of it."""
        def up():
            found = self.engine.inspect(name)
            if not found or self.engine.health(name) not in ("healthy", "none"):
                return None
            return found if digest in (None, self.running_digest(name)) else None
        return self._explained(f"healthy {name}" + (f" of {digest[:19]}" if digest else ""), up, timeout)

    def wait_settled(self, name="mervis", states=("committed", "settled"), timeout=40.0):
        """Wait until agentd itself says that a container's rollout is over; returns that part of the status."""
        def settled():
            for container in self.status().get("containers") or []:
                if container["name"] == name and container["state"] in states:
                    return container
            return None
        return self._explained(f"{name} in {' or '.join(states)}", settled, timeout)

    def _explained(self, what, question, timeout):
        try:
            return wait_for(what, question, timeout, 0.1)
        except RigError as err:
            raise RigError(f"{err}\n--- end of agentd.log\n{tail(self.agentd.log, 40)}") from None

    def stop(self):
        for process in (self.crawlerd, self.statusd, self.agentd, self.cloud):
            process.kill()
