# SPDX-License-Identifier: Apache-2.0
"""agent/engine against Debian's engine and registry: every call, and the failures that people meet."""

import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from rig import image
from rig.process import RigError, wait_for

REGISTRY = "127.0.0.1:5000"


class Probe:
    """engine-probe, one call at a time."""

    def __init__(self, build, engine):
        self.program = build / "tests/integration/engine-probe"
        self.socket = engine.socket

    def argv(self, verb, *operands, **options):
        options.setdefault("engine", self.socket)
        named = [f"{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
        return [str(arg) for arg in (self.program, *named, verb, *operands)]

    def lines(self, verb, *operands, **options):
        done = subprocess.run(self.argv(verb, *operands, **options), capture_output=True, text=True, timeout=120)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if not lines:
            raise RigError(f"{verb}: no answer; status {done.returncode}; {done.stderr}")
        return lines

    def __call__(self, verb, *operands, **options):
        """The outcome; a failure is an outcome, too."""
        return self.lines(verb, *operands, **options)[-1]

    def ok(self, verb, *operands, **options):
        outcome = self(verb, *operands, **options)
        assert outcome["ok"], outcome
        return outcome


@pytest.fixture
def probe(build, servers):
    yield Probe(build, servers.engine)
    servers.forget_containers()


@pytest.fixture(scope="module")
def app(servers):
    """A healthy application, in the registry: repository and digest."""
    return "engine/app", servers.registry.push(image.app("1"), "engine/app", "stable")


@pytest.fixture
def pulled(probe, app):
    reference = f"{REGISTRY}/{app[0]}@{app[1]}"
    probe.ok("pull", reference)
    return reference


def test_the_version_is_negotiated_and_info_is_read(probe, servers):
    info = probe.ok("info")
    theirs = servers.engine.request("GET", "/_ping").headers["Api-Version"]
    assert f"1.{info['api']}" == min(theirs, "1.52", key=lambda text: int(text.split(".")[1]))
    assert info["info"]["root"] == str(servers.engine.dir.parent / "engine")
    assert info["info"]["machine"] == os.uname().machine


def test_a_tag_is_resolved_to_the_digest_that_the_registry_stores(probe, app):
    found = probe.ok("resolve", f"{REGISTRY}/{app[0]}:stable")
    assert found["digest"] == found["manifest"] == app[1]
    assert found["platform"] == "linux/amd64" and found["layers"] == 1 and found["bytes"] > 100000
    assert found["asked"] == 0 and not found["unchanged"]
    again = probe.ok("resolve", f"{REGISTRY}/{app[0]}:stable", known=app[1])
    assert again["unchanged"] and again["digest"] == app[1]


@pytest.mark.parametrize("oci", [False, True])
def test_of_an_index_the_entry_of_the_platform_is_chosen(probe, servers, oci):
    arm, amd = image.app("arm", arch="arm64", oci=oci), image.app("amd", oci=oci)
    digest = servers.registry.push(image.index([arm, amd], oci=oci), "engine/index", "stable")
    found = probe.ok("resolve", f"{REGISTRY}/engine/index:stable")
    assert (found["digest"], found["manifest"]) == (digest, amd.digest)
    found = probe.ok("resolve", f"{REGISTRY}/engine/index@{digest}", arch="arm64")
    assert found["manifest"] == arm.digest


@pytest.mark.parametrize("as_index", [False, True])
def test_a_missing_platform_is_refused_before_a_layer_is_pulled(probe, servers, as_index):
    made = image.app("arm", arch="arm64")
    servers.registry.push(image.index([made]) if as_index else made, "engine/arm", "v6")
    refused = probe("resolve", f"{REGISTRY}/engine/arm:v6")
    assert refused["kind"] == "invalid"
    assert "is not built for linux/amd64" in refused["message"] and "linux/arm64" in refused["message"]
    assert refused["remedy"] == f"docker buildx build --platform linux/amd64 --push -t {REGISTRY}/engine/arm:v6 ."


def test_a_missing_tag_names_the_nearest_and_a_missing_repository_is_told_apart(probe, servers):
    for tag in ("stable", "stable-2", "nightly", "v1", "v2", "v3", "v4"):
        servers.registry.push(image.app("1"), "engine/tags", tag)
    refused = probe("resolve", f"{REGISTRY}/engine/tags:stabel")
    assert "has no tag \"stabel\"; the nearest that exist: stable, stable-2" in refused["message"]
    assert "docker push" in refused["remedy"]
    refused = probe("resolve", f"{REGISTRY}/engine/nothing:stable")
    assert "has no repository engine/nothing" in refused["message"]
    refused = probe("resolve", f"{REGISTRY}/engine/tags@sha256:{'0' * 64}")
    assert "was it deleted" in refused["message"]


def test_behind_its_real_name_the_registry_is_met_with_a_token(probe, machine):
    digest = machine.publish("1")
    endpoint = {"endpoint": "asia-northeast3-docker.pkg.dev", "base": machine.cloud.url}
    refused = probe("resolve", machine.image, **endpoint)
    assert refused["kind"] == "denied" and "there are no credentials" in refused["message"], refused
    refused = probe("resolve", machine.image, user="oauth2accesstoken", password="wrong", **endpoint)
    assert refused["kind"] == "denied" and "refuses" in refused["message"], refused
    found = probe.ok("resolve", machine.image, user="oauth2accesstoken", password=machine.cloud.token(), **endpoint)
    assert found["digest"] == digest and found["asked"] == 1
    reference = f"{machine.image.rpartition(':')[0]}@{digest}"
    refused = probe("pull", reference)
    assert not refused["ok"]
    refused = probe("pull", reference, user="oauth2accesstoken", password="?>~wrong")
    assert refused["kind"] == "denied", refused
    probe.ok("pull", reference, user="oauth2accesstoken", password=machine.cloud.token())


def test_a_pull_by_digest_is_confirmed_and_progress_is_told(probe, servers):
    digest = servers.registry.push(image.app("2", ballast=30 << 20), "engine/large", "stable")
    *progress, done = probe.lines("pull", f"{REGISTRY}/engine/large@{digest}")
    assert done["ok"] and done["images"][0]["digests"] == [f"{REGISTRY}/engine/large@{digest}"]
    assert done["images"][0]["platform"] == "linux/amd64" and not done["pulling"]
    assert progress and progress[-1]["layers"] == 2 and 0 < progress[-1]["current"] <= progress[-1]["total"]
    again = probe.ok("pull", f"{REGISTRY}/engine/large@{digest}")
    assert again["id"] == done["id"]


def test_a_pull_that_fails_in_band_fails(probe, servers):
    refused = probe("pull", f"{REGISTRY}/engine/app@sha256:{'0' * 64}")
    assert not refused["ok"] and refused["message"].startswith(f"pull {REGISTRY}/engine/app@sha256:000")
    made = image.app("3", ballast=1 << 20)
    digest = servers.registry.push(made, "engine/torn", "stable")
    lost = next(blob for blob in made.blobs if len(made.blobs[blob]) > 1 << 20)
    os.unlink(servers.dir / f"registry/docker/registry/v2/blobs/sha256/{lost[7:9]}/{lost[7:]}/data")
    torn = probe("pull", f"{REGISTRY}/engine/torn@{digest}")
    assert not torn["ok"], "the failure is inside a 200"
    assert servers.engine.image(f"{REGISTRY}/engine/torn@{digest}") is None


class StallingRegistry(threading.Thread):
    """Accepts, and is silent for ever."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = []
        self.start()

    def run(self):
        while True:
            try:
                self.connections.append(self.listener.accept()[0])
            except OSError:
                return

    def stop(self):
        self.listener.close()
        for connection in self.connections:
            connection.close()


def test_a_pull_that_does_not_move_is_cut(probe):
    silent = StallingRegistry()
    begun = time.monotonic()
    try:
        cut = probe("pull", f"127.0.0.1:{silent.port}/engine/app:stable", first_timeout="1s", stall_timeout="1s")
    finally:
        silent.stop()
    assert not cut["ok"] and cut["kind"] == "temporary" and time.monotonic() - begun < 10
    assert "did not begin to pull" in cut["message"] or "stood still" in cut["message"], cut


def test_a_container_gets_all_that_it_is_given(probe, servers, pulled, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("s3cret")
    probe.ok("create", "web", pulled, env="hello", port=8088, memory="64MiB", cpus="0.5", secret=secret,
             bind=tmp_path / "made", read_only=None, init="yes", drop="yes", stop_timeout="3s", restart="yes")
    assert probe.ok("start", "web")["changed"] and not probe.ok("start", "web")["changed"]
    made = servers.engine.inspect("web")
    host = made["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500000000, 100)
    assert (host["ShmSize"], host["Init"], host["CapDrop"]) == (1 << 20, True, ["ALL"])
    assert host["Tmpfs"] == {"/scratch": "size=1048576"} and host["ExtraHosts"] == ["db:10.0.0.5"]
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1000, "Hard": 2000}]
    assert host["RestartPolicy"]["Name"] == "on-failure" and host["LogConfig"]["Type"] == "json-file"
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "", "HostPort": "8088"}]}
    assert "GREETING=hello" in made["Config"]["Env"] and made["Config"]["StopTimeout"] == 3
    mounts = {mount["Destination"]: mount for mount in made["Mounts"]}
    assert not mounts["/run/secrets/app-key"]["RW"] and mounts["/cache"]["Type"] == "volume"
    assert (tmp_path / "made").is_dir()
    seen = probe.ok("inspect", "web")["containers"][0]
    assert seen["state"] == "running" and seen["memory"] == 64 << 20 and seen["address"].startswith("172.30.")
    assert seen["ports"] == [{"host": 8088, "inner": 8080}]
    listed = probe.ok("containers", "io.mervis.container=web")["containers"]
    assert [one["name"] for one in listed] == ["web"] and listed[0]["labels"]["io.mervis.container"] == "web"
    assert probe.ok("containers", "io.mervis.container=other")["containers"] == []


def test_a_secret_that_is_missing_stops_the_creation(probe, pulled, tmp_path):
    refused = probe("create", "web", pulled, secret=tmp_path / "nothing")
    assert not refused["ok"] and "does not exist" in refused["message"], refused
    assert not (tmp_path / "nothing").exists()


def test_stop_rename_remove_and_their_repetition(probe, servers, pulled):
    probe.ok("create", "web", pulled)
    probe.ok("start", "web")
    wait_for("a trap in the shell", lambda: servers.engine.health("web") == "healthy", 15)
    refused = probe("remove", "web")
    assert refused["code"] == -16, "running: in use"
    begun = time.monotonic()
    assert probe.ok("stop", "web", timeout="5s")["changed"] and time.monotonic() - begun < 4
    assert not probe.ok("stop", "web")["changed"]
    probe.ok("create", "web.next", pulled)
    assert probe("rename", "web.next", "web")["code"] == -17, "the name is taken"
    probe.ok("rename", "web", "web.previous")
    probe.ok("rename", "web.next", "web")
    assert probe("create", "web", pulled)["code"] == -17
    for name in ("web", "web.previous"):
        assert probe.ok("remove", name)["changed"] and not probe.ok("remove", name)["changed"]
    assert probe("inspect", "web")["code"] == -2


def test_a_port_that_is_taken_names_who_has_it(probe, pulled):
    for name in ("first", "second"):
        probe.ok("create", name, pulled, port=8089)
    probe.ok("start", "first")
    refused = probe("start", "second")
    assert refused["code"] == -98 and "port 8089 is taken by container first" in refused["message"], refused
    with socket.create_server(("0.0.0.0", 8090)):
        probe.ok("create", "third", pulled, port=8090)
        refused = probe("start", "third")
    assert refused["code"] == -98 and f"(pid {os.getpid()})" in refused["message"], refused


def test_a_command_that_cannot_run_is_explained(probe, servers, pulled):
    probe.ok("create", "bad", pulled, entrypoint="/nothing")
    refused = probe("start", "bad")
    assert refused["code"] == -8 and "entrypoint" in refused["remedy"], refused
    digest = servers.registry.push(image.build(files={"prog": (b"\x7fELF" + b"\0" * 60, 0o755)}, entrypoint=["/prog"]),
                                   "engine/foreign", "v1")
    probe.ok("pull", f"{REGISTRY}/engine/foreign@{digest}")
    probe.ok("create", "foreign", f"{REGISTRY}/engine/foreign@{digest}")
    started = probe("start", "foreign")
    if started["ok"]:
        verdict = probe.ok("health", "foreign")
        assert not verdict["healthy"] and "another processor" in verdict["reason"], verdict
    else:
        assert started["code"] == -8 and "processor" in started["remedy"], started


def test_wait_and_logs(probe, pulled):
    probe.ok("create", "job", pulled, "-c", "echo one; echo two >&2; exit 7", entrypoint="/bin/sh")
    probe.ok("start", "job")
    assert probe.ok("wait", "job")["exit_code"] == 7
    assert sorted(probe.ok("logs", "job")["text"].split()) == ["one", "two"]
    seen = probe.ok("inspect", "job")["containers"][0]
    assert seen["state"] == "exited" and seen["exit"] == "it exited with status 7"


def test_out_of_memory_names_the_limit(probe, pulled):
    probe.ok("create", "fat", pulled, "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo $x | wc -c",
             entrypoint="/bin/sh", memory="16MiB")
    probe.ok("start", "fat")
    assert probe.ok("wait", "fat")["exit_code"] != 0
    seen = probe.ok("inspect", "fat")["containers"][0]
    assert seen["oom_killed"] and "memory limit of 16.0 MiB" in seen["exit"], seen


def test_images_are_listed_tagged_untagged_and_never_taken_from_a_container(probe, servers):
    digest = servers.registry.push(image.app("one-name-only"), "engine/listed", "stable")
    pulled = f"{REGISTRY}/engine/listed@{digest}"
    probe.ok("pull", pulled)
    probe.ok("create", "web", pulled)
    refused = probe("remove-image", pulled)
    assert refused["code"] == -16, refused
    probe.ok("tag-image", pulled, "mervis-keep/web", "current")
    listed = {one["id"]: one for one in probe.ok("images")["images"]}
    ident = probe.ok("image", pulled)["id"]
    assert "mervis-keep/web:current" in listed[ident]["tags"]
    removed = probe.ok("remove-image", "mervis-keep/web:current")
    assert removed["untagged"] == ["mervis-keep/web:current"] and removed["deleted"] == []
    probe.ok("remove", "web")
    assert probe.ok("remove-image", pulled)["deleted"]
    assert probe("image", pulled)["code"] == -2


def test_health_by_http_by_engine_and_by_stability(probe, pulled):
    probe.ok("create", "web", pulled)
    probe.ok("start", "web")
    by_http = probe.ok("health", "web", http="http://{container}:8080/", interval="1s")
    assert by_http["healthy"] and "answered well" in by_http["reason"], by_http
    assert by_http["elapsed_ms"] < 3000
    missing = probe.ok("health", "web", http="http://{container}:8080/missing", interval="300ms")
    assert not missing["healthy"] and "HTTP 404 (3 times)" in missing["reason"]
    closed = probe.ok("health", "web", http="http://{container}:81/", interval="300ms")
    assert not closed["healthy"] and "(3 times)" in closed["reason"]
    assert probe.ok("health", "web", by_engine="yes")["healthy"]
    begun = time.monotonic()
    assert probe.ok("health", "web", stable="2s")["healthy"] and time.monotonic() - begun >= 2


def test_what_crashes_or_never_answers_is_not_well(probe, servers):
    for broken in ("crash", "never-ready"):
        digest = servers.registry.push(image.app("x", broken=broken), "engine/broken", broken)
        probe.ok("pull", f"{REGISTRY}/engine/broken@{digest}")
        probe.ok("create", broken, f"{REGISTRY}/engine/broken@{digest}")
        probe.ok("start", broken)
    verdict = probe.ok("health", "crash", stable="5s")
    assert not verdict["healthy"] and verdict["exit_code"] == 3 and "exited with status 3" in verdict["reason"]
    verdict = probe.ok("health", "never-ready", by_engine="yes")
    assert not verdict["healthy"] and "HEALTHCHECK fails" in verdict["reason"], verdict
    probe.ok("create", "loop", f"{REGISTRY}/engine/broken@{digest}", "-c", "sleep 0.4; exit 4", entrypoint="/bin/sh",
             restart="yes")
    probe.ok("start", "loop")
    verdict = probe.ok("health", "loop", stable="20s", interval="200ms")
    assert not verdict["healthy"], "a look between two crashes sees it run"


class Listener:
    """engine-probe events, read as it goes."""

    def __init__(self, probe, *operands):
        self.process = subprocess.Popen(probe.argv("events", *operands), stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait(self, what, **fields):
        return wait_for(what, lambda: next((line for line in self.lines
                                            if all(line.get(key) == value for key, value in fields.items())), None), 30)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


def test_events_arrive_and_survive_a_restart_of_the_engine(probe, servers, pulled):
    events = Listener(probe, "io.mervis.container")
    try:
        events.wait("stream", up=True)
        servers.engine.run("foreign", pulled)
        probe.ok("create", "web", pulled, "-c", "sleep 0.2; exit 5", entrypoint="/bin/sh")
        probe.ok("start", "web")
        assert events.wait("death", action="die")["exit_code"] == 5
        assert not [line for line in events.lines if line.get("name") == "foreign"]
        servers.engine.remove("foreign")
        servers.engine.kill()
        assert events.wait("outage", up=False)["code"] == -107
        servers.engine.start()
        wait_for("second stream", lambda: len([line for line in events.lines if line.get("up")]) == 2, 30)
        probe.ok("remove", "web")
        events.wait("removal", action="destroy")
    finally:
        events.stop()


def test_an_engine_that_is_missing_or_hangs_is_told_apart(probe, servers, tmp_path):
    gone = probe("info", engine=tmp_path / "nothing.sock")
    assert gone["code"] == -107 and "does not exist" in gone["message"] and "docker.io" in gone["remedy"]
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    dead_answer = probe("info", engine=dead)
    assert dead_answer["code"] == -107 and "systemctl start docker" in dead_answer["remedy"]
    servers.engine.signal(signal.SIGSTOP)
    try:
        hangs = probe("info", call_timeout="1s")
    finally:
        servers.engine.signal(signal.SIGCONT)
    assert hangs["code"] == -110 and hangs["kind"] == "temporary" and "it hangs" in hangs["message"]
    probe.ok("info")
