# SPDX-License-Identifier: Apache-2.0
"""cloud-init/: what installs the package at first boot, against a metadata server and a bucket of our own."""

import hashlib
import http.server
import os
import re
import stat
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parent.parent.parent
CLOUD_INIT = TOP / "cloud-init"
SCRIPT = CLOUD_INIT / "startup-script.sh"
TOKEN = "ya29.a-token-of-the-vm"
PACKAGE = b"not really a package, but these bytes\n"
DIGEST = hashlib.sha256(PACKAGE).hexdigest()
OBJECT = "/bucket/dir/mervis-agent_0.1.0+git~1_amd64.deb"

# Each fake writes down how it was called. dpkg-query says "installed" once apt-get has installed.
FAKES = {
    "apt-get": 'echo "apt-get $*" >>"$FAKE/calls"; case $* in *install*) cp "$FAKE/cache/mervis-agent.deb" "$FAKE/got"; '
               'stat -c %a "$FAKE/cache" >"$FAKE/mode"; touch "$FAKE/installed";; esac',
    "dpkg-query": '[ -e "$FAKE/installed" ] || exit 1; case $* in *Status*) printf installed;; *) printf 0.1.0;; esac',
    "id": "echo 0",
    "sleep": ":",
}


class Google(http.server.BaseHTTPRequestHandler):
    """The metadata server and the bucket in one."""

    def do_GET(self):  # noqa: N802
        world = self.server.world
        status, body = world.answer(self)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class World:
    def __init__(self, directory):
        self.dir = directory
        self.instance = {"mervis-package": "gs:/" + OBJECT, "mervis-package-sha256": DIGEST}
        self.project = {}
        self.bucket_status = 200
        self.metadata_failures = 0
        self.account = True
        for name, text in FAKES.items():
            path = self.dir / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Google)
        self.server.world = self
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        path = request.path.removeprefix("/computeMetadata/v1/")
        if path == request.path:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return 401, b"no token"
            if request.path != OBJECT:
                return 404, b"no such object"
            return self.bucket_status, PACKAGE if self.bucket_status == 200 else b"refused"
        if request.headers.get("Metadata-Flavor") != "Google":
            return 403, b""
        if self.metadata_failures:
            self.metadata_failures -= 1
            return 503, b"<html>later</html>"
        if path == "instance/id":
            return 200, b"1"
        if path == "instance/service-accounts/default/token" and self.account:
            return 200, b'{"access_token":"%s","expires_in":3599,"token_type":"Bearer"}' % TOKEN.encode()
        for prefix, values in (("instance/attributes/", self.instance), ("project/attributes/", self.project)):
            if path.startswith(prefix) and path.removeprefix(prefix) in values:
                return 200, values[path.removeprefix(prefix)].encode()
        return 404, b"<html>not found</html>"

    def run(self):
        base = f"127.0.0.1:{self.server.server_port}"
        env = {"PATH": f"{self.dir / 'bin'}:{os.environ['PATH']}", "FAKE": str(self.dir), "GCE_METADATA_HOST": base,
               "MERVIS_STORAGE": f"http://{base}", "MERVIS_BOOTSTRAP_DIR": str(self.dir / "cache"), "LC_ALL": "C.UTF-8"}
        return subprocess.run(["sh", str(SCRIPT)], env=env, capture_output=True, text=True, timeout=60, check=False)

    def calls(self):
        path = self.dir / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_package_is_fetched_with_the_token_of_the_vm_and_installed(world):
    done = world.run()
    assert done.returncode == 0, done.stderr
    assert (world.dir / "got").read_bytes() == PACKAGE
    assert (world.dir / "mode").read_text().strip() == "755"
    assert sum(" install " in call for call in world.calls()) == 1
    assert "0.1.0 is installed" in done.stdout
    assert TOKEN not in done.stdout + done.stderr + "".join(world.calls())
    assert not (world.dir / "cache" / "mervis-agent.deb").exists()


def test_a_second_run_does_nothing(world):
    world.run()
    calls = world.calls()
    done = world.run()
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert world.calls() == calls


def test_two_at_the_same_time_install_once(world):
    runs = []
    threads = [threading.Thread(target=lambda: runs.append(world.run())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.returncode for done in runs] == [0, 0, 0]
    assert sum(" install " in call for call in world.calls()) == 1


def test_a_package_with_another_digest_is_not_installed(world):
    world.instance["mervis-package-sha256"] = "0" * 64
    done = world.run()
    assert done.returncode == 1 and DIGEST in done.stderr
    assert world.calls() == [] and not (world.dir / "cache" / "mervis-agent.deb").exists()


def test_attributes_of_the_project_will_do(world):
    world.project, world.instance = world.instance, {}
    assert world.run().returncode == 0


def test_the_metadata_server_may_be_late(world):
    world.metadata_failures = 5
    assert world.run().returncode == 0


@pytest.mark.parametrize("change, says", [
    ({"instance": {}}, "no attribute mervis-package,"),
    ({"instance": {"mervis-package": "gs:/" + OBJECT}}, "unchecked code is not run"),
    ({"instance": {"mervis-package": "https://x/a.deb", "mervis-package-sha256": DIGEST}}, "gs://BUCKET/FILE.deb"),
    ({"instance": {"mervis-package": "gs://b/$(id).deb", "mervis-package-sha256": DIGEST}}, "gs://BUCKET/FILE.deb"),
    ({"instance": {"mervis-package": "gs:/" + OBJECT, "mervis-package-sha256": "abc"}}, "3 digits"),
    ({"instance": {"mervis-package": "gs://bucket/none.deb", "mervis-package-sha256": DIGEST}}, "does not exist"),
    ({"bucket_status": 403}, "roles/storage.objectViewer"),
    ({"account": False}, "no service account"),
])
def test_what_is_wrong_is_said_with_its_remedy(world, change, says):
    vars(world).update(change)
    done = world.run()
    assert done.returncode == 1 and says in done.stderr, done.stderr
    assert not (world.dir / "installed").exists()


def test_user_data_runs_the_very_same_script():
    data = yaml.safe_load((CLOUD_INIT / "user-data.yaml").read_text())
    written = data["write_files"][0]
    assert written["content"] == SCRIPT.read_text()
    assert data["runcmd"] == [["sh", written["path"]]]


def schema(path):
    return subprocess.run(["cloud-init", "schema", "--config-file", str(path)], capture_output=True, text=True, check=False)


def test_cloud_init_finds_user_data_valid(tmp_path):
    done = schema(CLOUD_INIT / "user-data.yaml")
    assert done.returncode == 0 and "Valid cloud-config" in done.stdout, done.stdout + done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text("#cloud-config\nruncmd: 7\n")
    assert schema(broken).returncode != 0


def test_the_settings_for_cloud_init_leave_out_what_agentd_does(tmp_path):
    settings = CLOUD_INIT / "cloud.cfg.d" / "90-mervis-agent.cfg"
    copy = tmp_path / "settings.yaml"
    copy.write_text("#cloud-config\n" + settings.read_text())
    done = schema(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    lists = yaml.safe_load(settings.read_text())
    assert set(lists) == {"cloud_config_modules", "cloud_final_modules"}
    modules = sum(lists.values(), [])
    # What is off is what the comment says is off: Debian's own lists without ours.
    usual = yaml.safe_load(Path("/etc/cloud/cloud.cfg").read_text())
    off = {name.replace("_", "-") for key in lists for name in usual[key]} - set(modules)
    assert {"timezone", "runcmd", "scripts-user", "package-update-upgrade-install"} <= off
    assert not {"scripts-per-boot", "phone-home", "power-state-change", "write-files-deferred"} & off
    said = re.sub(r"\n# +", " ", settings.read_text().partition("it is off:")[2].partition("The first list")[0])
    assert {name for name in off if not re.search(rf"(?<![\w-]){name}(?![\w-])", said)} == set()
    assert {name for name in modules if re.search(rf"(?<![\w-]){name}(?![\w-])", said)} == set()
    # A name that cloud-init does not know would be a warning at every boot.
    known = {path.stem.removeprefix("cc_") for path in
             Path("/usr/lib/python3/dist-packages/cloudinit/config").glob("cc_*.py")}
    assert {module.replace("-", "_") for module in modules} <= known
