# SPDX-License-Identifier: Apache-2.0
"""A private Docker Engine, and a small client of its API for what tests ask of it."""

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

from . import web
from .process import Process, RigError, wait_for

# Names that an engine in the rig may pull from without TLS. 127.0.0.0/8 is always among them.
INSECURE = ["asia-northeast3-docker.pkg.dev"]


class Engine(Process):
    """dockerd with all that it owns in DIR; inside tests/rig/enter its bridge and rules are private, too."""

    def __init__(self, directory, data=None, insecure=INSECURE):
        self.dir = Path(directory)
        self.socket = self.dir / "docker.sock"
        data = Path(data or self.dir / "data")
        config = self.dir / "daemon.json"
        config.write_text(json.dumps({
            "insecure-registries": list(insecure),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": "/" + os.environ.get("MERVIS_RIG_CGROUP", "mervis-rig"),
            "log-driver": "json-file",
            "log-opts": {"max-size": "1m"},
            # Its default is in /etc, which is not ours.
            "deprecated-key-path": str(self.dir / "key.json"),
        }))
        super().__init__("dockerd", [
            "dockerd", "--config-file", config, "--data-root", data, "--exec-root", self.dir / "exec",
            "--pidfile", self.dir / "dockerd.pid", "-H", f"unix://{self.socket}", "--bip", "172.30.0.1/16",
        ], self.dir)

    def start(self):
        (self.dir / "dockerd.pid").unlink(missing_ok=True)
        super().start()
        self.wait_ready("answer", lambda: self.request("GET", "/_ping").status == 200, timeout=60)
        return self

    def request(self, method, path, body=None, headers=None, timeout=30.0):
        return web.request(method, path, body=body, headers=headers, timeout=timeout, unix=self.socket)

    def containers(self, all=True, label=None):
        """The list as the engine gives it, all states by default."""
        filters = json.dumps({"label": [label]} if label else {})
        return self.request("GET", f"/containers/json?all={int(all)}&filters={quote(filters)}").expect(200).json()

    def inspect(self, name):
        """A container by name or id; None if there is none."""
        reply = self.request("GET", f"/containers/{quote(name)}/json")
        return None if reply.status == 404 else reply.expect(200).json()

    def health(self, name):
        """starting, healthy, unhealthy, none, or None for no such container or not running."""
        found = self.inspect(name)
        if not found or not found["State"]["Running"]:
            return None
        return found["State"].get("Health", {}).get("Status", "none")

    def images(self):
        return self.request("GET", "/images/json?all=1").expect(200).json()

    def image(self, reference):
        reply = self.request("GET", f"/images/{quote(reference, safe='/')}/json")
        return None if reply.status == 404 else reply.expect(200).json()

    def pull(self, reference, password=None):
        """Pull, with an access token as the password if there is one; an error inside the stream is a failure here."""
        headers = {}
        if password:
            login = {"username": "oauth2accesstoken", "password": password, "serveraddress": reference.split("/")[0]}
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
        name, _, digest = reference.partition("@")
        if not digest:
            name, _, digest = reference.rpartition(":")
        reply = self.request("POST", f"/images/create?fromImage={quote(name, safe='')}&tag={quote(digest, safe='')}",
                             headers=headers, timeout=120).expect(200)
        for line in reply.text.splitlines():
            message = json.loads(line) if line.strip() else {}
            if "error" in message:
                raise RigError(f"pull {reference}: {message['error']}")

    def run(self, name, image, env=None, ports=None, health=None):
        """Create and start a container, as somebody other than agentd would; returns its id."""
        host = {"PortBindings": {f"{inner}/tcp": [{"HostPort": str(outer)}] for outer, inner in (ports or {}).items()}}
        body = {"Image": image, "Env": [f"{key}={value}" for key, value in (env or {}).items()], "HostConfig": host,
                "ExposedPorts": {f"{inner}/tcp": {} for inner in (ports or {}).values()}}
        if health:
            body["Healthcheck"] = health
        created = self.request("POST", f"/containers/create?name={quote(name)}", body=body).expect(201).json()
        self.request("POST", f"/containers/{created['Id']}/start").expect(204)
        return created["Id"]

    def exec(self, name, argv):
        """Run a command in a container; returns (status, output)."""
        made = self.request("POST", f"/containers/{quote(name)}/exec", body={
            "Cmd": argv, "AttachStdout": True, "AttachStderr": True, "Tty": True}).expect(201).json()
        output = self.request("POST", f"/exec/{made['Id']}/start", body={"Detach": False, "Tty": True}).expect(200)
        wait_for("end of the command", lambda: not self._exec(made["Id"])["Running"], timeout=10)
        return self._exec(made["Id"])["ExitCode"], output.text

    def _exec(self, ident):
        return self.request("GET", f"/exec/{ident}/json").expect(200).json()

    def remove(self, name):
        self.request("DELETE", f"/containers/{quote(name)}?force=1&v=1").expect(204, 404)

    def logs(self, name):
        """What a container wrote, without the frame headers."""
        body = self.request("GET", f"/containers/{quote(name)}/logs?stdout=1&stderr=1").expect(200).body
        text = b""
        while len(body) >= 8:
            size = int.from_bytes(body[4:8], "big")
            text += body[8:8 + size]
            body = body[8 + size:]
        return text.decode("utf-8", "replace")
