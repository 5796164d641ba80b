# SPDX-License-Identifier: Apache-2.0
"""agent/cloud against the double: identity, plan, notices, tokens, secrets and what a refusal says."""

import hashlib
import json
import subprocess
import time
from types import SimpleNamespace

import pytest

from rig.cloud import Cloud
from rig.machine import rig_dir
from rig.process import RigError, wait_for

NOBODY = SimpleNamespace(url="http://127.0.0.1:9")
ATTRIBUTES = "instance/attributes/"
NARROW = "https://www.googleapis.com/auth/devstorage.read_only"
ALL = "https://www.googleapis.com/auth/cloud-platform"


class Probe:
    """cloud-probe on one double."""

    def __init__(self, build, cloud):
        self.program = build / "tests/integration/cloud-probe"
        self.cloud = cloud

    def argv(self, *operands):
        return [str(self.program), f"secretmanager.googleapis.com={self.cloud.url}", *map(str, operands)]

    def __call__(self, *operands):
        """The outcome; a failure is an outcome, too."""
        done = subprocess.run(self.argv(*operands), capture_output=True, text=True, timeout=90)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if not lines:
            raise RigError(f"{operands}: no answer; status {done.returncode}; {done.stderr}")
        return lines[-1]

    def ok(self, *operands):
        outcome = self(*operands)
        assert outcome["ok"], outcome
        return outcome

    def watch(self):
        return Watch(self.argv("watch", 120))


class Watch:
    def __init__(self, argv):
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def next(self):
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def double():
    made = Cloud(rig_dir() / "cloud-test", NOBODY, port=8093)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def cloud(double):
    double.clear_faults()
    double.admin("PUT", "scopes", ALL)
    double.admin("PUT", "iam", {"deny": []})
    double.admin("PUT", "apis", {"disabled": []})
    return double


@pytest.fixture
def probe(build, cloud):
    return Probe(build, cloud)


@pytest.fixture
def watch(probe):
    made = probe.watch()
    yield made
    made.stop()


def test_the_machine_is_who_the_metadata_server_says(probe, cloud):
    who = probe.ok("read")
    assert (who["cloud"], who["id"], who["name"]) == ("gce", "7723260132568912421", "mervis-1")
    assert (who["project"], who["zone"], who["spot"]) == (cloud.project, "asia-northeast3-a", True)


def test_a_plan_comes_at_once_and_each_change_within_a_second(watch, cloud):
    first = watch.next()
    assert first["plan"] is None
    for text in ('{"version": 1}', '{"version": 2, "이름": "한국어"}', '{"version": 1}'):
        began = time.monotonic()
        cloud.set_metadata(ATTRIBUTES + "mervis-plan", text)
        seen = watch.next()
        assert seen["plan"] == text and seen["changes"] == 2
        assert seen["hash"] == hashlib.sha256(text.encode()).hexdigest()
        assert time.monotonic() - began < 1
    cloud.drop_metadata(ATTRIBUTES + "mervis-plan")
    assert watch.next()["plan"] is None


def test_a_preemption_is_noticed_within_a_second(watch, cloud):
    watch.next()
    began = time.monotonic()
    cloud.set_metadata("instance/preempted", "TRUE")
    assert watch.next()["preempted"]
    assert time.monotonic() - began < 1
    cloud.set_metadata("instance/preempted", "FALSE")
    assert not watch.next()["preempted"]


@pytest.mark.parametrize("do", [{"status": 503}, {"status": 429}, {"reset": True}, {"truncate": 100}, {"html": True}])
def test_an_outage_of_the_metadata_server_is_ridden_out(probe, cloud, do):
    cloud.fault({"service": "metadata"}, do, times=3)
    watch = probe.watch()
    try:
        assert watch.next()["name"] == "mervis-1"
    finally:
        watch.stop()


def test_a_plan_with_bytes_that_are_no_text_arrives_all_the_same(watch, cloud):
    watch.next()
    cloud.set_metadata(ATTRIBUTES + "mervis-plan", b'{"version":\xff}')
    seen = watch.next()
    assert seen["hash"] == hashlib.sha256(b'{"version":\xff}').hexdigest()
    cloud.drop_metadata(ATTRIBUTES + "mervis-plan")


def test_secrets_come_by_version(probe, cloud):
    one = cloud.add_secret("BY_VERSION", "first\n")
    two = cloud.add_secret("BY_VERSION", "둘째")
    assert probe.ok("secret", "BY_VERSION")["value"] == "둘째"
    assert probe.ok("secret", "BY_VERSION", one)["value"] == "first\n"
    found = probe.ok("resolve", "BY_VERSION")
    assert found["version"] == str(two) and "value" not in found
    assert found["resource"].endswith(f"/secrets/BY_VERSION/versions/{two}")


def test_a_rotated_token_is_renewed_once(probe, cloud):
    cloud.add_secret("RENEWED", "x")
    cloud.fault({"service": "secretmanager"}, {"status": 401}, times=1)
    assert probe.ok("secret", "RENEWED")["value"] == "x"


def test_a_damaged_value_is_never_given_out(probe, cloud):
    cloud.add_secret("DAMAGED", "x")
    cloud.fault({"service": "secretmanager"}, {"wrong_crc": True}, times=1)
    assert probe.ok("secret", "DAMAGED")["value"] == "x"
    cloud.fault({"service": "secretmanager"}, {"wrong_crc": True})
    outcome = probe("secret", "DAMAGED")
    assert not outcome["ok"] and outcome["kind"] == "corrupt"


def test_each_cause_of_a_refusal_has_its_own_remedy(probe, cloud):
    cloud.add_secret("REFUSED", "x")
    cloud.admin("PUT", "iam", {"deny": ["secretmanager.versions.access"]})
    iam = probe("secret", "REFUSED")
    assert iam["kind"] == "denied"
    assert iam["remedy"].startswith(f"gcloud secrets add-iam-policy-binding REFUSED --project={cloud.project} "
                                    "--member=serviceAccount:")
    cloud.admin("PUT", "iam", {"deny": []})

    cloud.admin("PUT", "scopes", NARROW)
    scope = probe("secret", "REFUSED")
    assert "scopes are too narrow" in scope["message"] and "set-service-account mervis-1" in scope["remedy"]
    cloud.admin("PUT", "scopes", ALL)

    cloud.admin("PUT", "apis", {"disabled": ["secretmanager.googleapis.com"]})
    off = probe("secret", "REFUSED")
    assert off["remedy"].startswith("gcloud services enable secretmanager.googleapis.com --project=")
    cloud.admin("PUT", "apis", {"disabled": []})

    version = cloud.add_secret("REFUSED", "y")
    cloud.set_secret_state("REFUSED", version, "disable")
    disabled = probe("secret", "REFUSED")
    assert disabled["remedy"] == f"gcloud secrets versions enable {version} --secret=REFUSED --project={cloud.project}"
    cloud.set_secret_state("REFUSED", version, "destroy")
    assert "is destroyed" in probe("secret", "REFUSED")["message"]

    missing = probe("secret", "NO_SUCH_SECRET")
    assert missing["kind"] == "invalid" and missing["remedy"].startswith("gcloud secrets create NO_SUCH_SECRET ")


def test_status_is_published_where_it_is_switched_on(probe, cloud):
    def published():
        return [r for r in cloud.requests() if r.get("method") == "PUT" and "guest-attributes/mervis/status" in str(r)]

    before = len(published())
    subprocess.run(probe.argv("publish", "status", "well", 1), check=True, timeout=30)
    assert published()[before]["status"] == 403
    cloud.set_metadata(ATTRIBUTES + "enable-guest-attributes", "TRUE")
    subprocess.run(probe.argv("publish", "status", "well", 1), check=True, timeout=30)
    assert published()[before + 1]["status"] == 200
    cloud.drop_metadata(ATTRIBUTES + "enable-guest-attributes")


def test_the_login_is_the_token_and_nobody_elses(probe, cloud):
    assert probe.ok("login", "asia-northeast3-docker.pkg.dev")["password"] == probe.ok("token")["token"]
    assert probe.ok("login", "docker.io")["user"] is None


def test_a_double_that_dies_is_waited_for_and_said(probe, cloud, watch):
    watch.next()
    cloud.kill()
    said = watch.next()
    assert said["ok"] is False and said["failing_seconds"] in range(10, 16)
    cloud.start()
    over = wait_for("the end of the outage", lambda: next(iter([line for line in [watch.next()] if line["ok"]]), None), 30)
    assert over["failing_seconds"] >= 10
    cloud.set_metadata(ATTRIBUTES + "mervis-plan", "{}")
    wait_for("the new plan", lambda: watch.next()["plan"] == "{}", 10)
    cloud.drop_metadata(ATTRIBUTES + "mervis-plan")


def test_a_secret_that_did_not_move_is_not_read_again(machine):
    """agentd asks for the version of "latest" alone; a pinned one it does not even ask for."""
    machine.cloud.add_secret("MOVING", "a")
    machine.cloud.add_secret("PINNED", "b")
    machine.put_plan(machine.make_plan(containers=[], secrets=[
        {"name": "moving", "secret": "MOVING", "version": "latest", "refresh": "10s"},
        {"name": "pinned", "secret": "PINNED", "version": "1"}]))
    machine.start(machine.agentd)

    def accesses(secret, name_only):
        entries = machine.cloud.ledger(only="secrets_accessed")["secrets_accessed"]
        return sum(e["secret"] == secret and e.get("name_only", False) == name_only for e in entries)

    wait_for("a look at the version", lambda: accesses("MOVING", True) >= 1, 30)
    assert accesses("MOVING", False) == accesses("PINNED", False) == 1
    assert accesses("PINNED", True) == 0
    machine.cloud.add_secret("MOVING", "c")
    wait_for("the new value", lambda: accesses("MOVING", False) == 2, 30)
