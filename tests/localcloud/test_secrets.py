# SPDX-License-Identifier: Apache-2.0
import base64

import pytest

from localcloud.secretmanager import crc32c
from localcloud.testing import PROJECT

BASE = f"/v1/projects/{PROJECT}/secrets"


def access(cloud, secret, version="latest", **headers):
    return cloud.api("GET", f"{BASE}/{secret}/versions/{version}:access", headers=headers)


def add(cloud, secret, payload):
    return cloud.admin("POST", f"secrets/{PROJECT}/{secret}", payload)["version"]


@pytest.mark.parametrize("data, crc", [
    (b"", 0), (b"a", 3251651376), (b"123456789", 3808858755), (b"hunter2\n", 3250045932),
    (bytes(32), 2324772522), (b"\xff" * 32, 1655221059), (bytes(range(32)), 1188919630)])
def test_crc32c_agrees_with_the_known_vectors(data, crc):
    assert crc32c(data) == crc


def test_access_resolves_the_version_and_names_the_project_by_number(cloud):
    add(cloud, "one", b"first")
    add(cloud, "one", b"sec\x00nd\n")
    answer = access(cloud, "one")
    assert answer.json["name"] == "projects/123456789012/secrets/one/versions/2"
    assert base64.b64decode(answer.json["payload"]["data"]) == b"sec\x00nd\n"
    assert answer.json["payload"]["dataCrc32c"] == str(crc32c(b"sec\x00nd\n"))
    assert answer.headers["Server"] == "ESF"
    assert access(cloud, "one", "1").json["payload"]["data"] == base64.b64encode(b"first").decode()


def test_latest_is_the_newest_whatever_its_state(cloud):
    add(cloud, "two", b"1")
    number = add(cloud, "two", b"2")
    for verb, state in (("disable", "DISABLED"), ("destroy", "DESTROYED")):
        cloud.admin("POST", f"secrets/{PROJECT}/two/{number}:{verb}")
        answer = access(cloud, "two")
        assert (answer.status, answer.json["error"]["status"]) == (400, "FAILED_PRECONDITION")
        assert f"versions/2] is in {state} state." in answer.message
    enabled = cloud.api("GET", f"{BASE}/two/versions?filter=state:ENABLED&pageSize=1").json
    assert [v["name"].rpartition("/")[2] for v in enabled["versions"]] == ["1"]


def test_missing_malformed_and_aliases(cloud):
    add(cloud, "three", b"x")
    answer = access(cloud, "nothing")
    assert answer.status == 404 and "not found or has no versions" in answer.message
    assert "has no alias [prod]" in access(cloud, "three", "prod").message
    assert access(cloud, "three", "9").status == 404
    assert access(cloud, "three", "a%20b").json["error"]["status"] == "INVALID_ARGUMENT"
    assert cloud.api("GET", "/v1/projects/elsewhere/secrets/x/versions/1:access").status == 403


def test_the_causes_of_a_refusal_are_told_apart(cloud):
    add(cloud, "four", b"x")
    url = f"{BASE}/four/versions/latest:access"
    assert cloud.get(url).status == 401
    assert cloud.get(url, Authorization="Bearer ya29.wrong").status == 401
    cloud.admin("PUT", "iam", {"deny": ["secretmanager.versions.access@four"]})
    denied = access(cloud, "four")
    assert denied.status == 403 and "(or it may not exist)" in denied.message
    assert denied.json["error"]["details"][0]["reason"] == "IAM_PERMISSION_DENIED"
    cloud.admin("PUT", "iam", {"deny": []})
    cloud.admin("PUT", "scopes", "https://www.googleapis.com/auth/devstorage.read_only")
    narrow = access(cloud, "four")
    assert narrow.message == "Request had insufficient authentication scopes."
    assert narrow.json["error"]["details"][0]["reason"] == "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
    assert "insufficient_scope" in narrow.headers["WWW-Authenticate"]
    cloud.admin("PUT", "scopes", "https://www.googleapis.com/auth/cloud-platform")
    cloud.admin("PUT", "apis", {"disabled": ["secretmanager.googleapis.com"]})
    off = access(cloud, "four")
    assert off.json["error"]["details"][0]["reason"] == "SERVICE_DISABLED"


def test_wrong_and_absent_checksums_can_be_ordered(cloud):
    add(cloud, "five", b"x")
    cloud.fault({"wrong_crc": True}, times=1, service="secretmanager")
    assert access(cloud, "five").json["payload"]["dataCrc32c"] != str(crc32c(b"x"))
    cloud.fault({"no_crc": True}, times=1, service="secretmanager")
    assert "dataCrc32c" not in access(cloud, "five").json["payload"]
    assert access(cloud, "five").json["payload"]["dataCrc32c"] == str(crc32c(b"x"))


def test_metadata_of_a_version_says_its_state(cloud):
    add(cloud, "six", b"x")
    assert cloud.api("GET", f"{BASE}/six/versions/latest").json["state"] == "ENABLED"
    number = cloud.api("GET", f"{BASE}/six/versions/1?$alt=json;enum-encoding=int").json["state"]
    assert number == 1


def test_a_regional_name_belongs_to_a_regional_host(cloud):
    add(cloud, "seven", b"x")
    regional = f"/v1/projects/{PROJECT}/locations/asia-northeast3/secrets/seven/versions/1:access"
    assert cloud.api("GET", regional).status == 200
    host = {"Host": "secretmanager.googleapis.com"}
    assert cloud.api("GET", regional, headers=host).status == 400
    host["Host"] = "secretmanager.asia-northeast3.rep.googleapis.com"
    assert cloud.api("GET", regional, headers=host).status == 200
    assert access(cloud, "seven", "1", **host).status == 400


def test_payloads_are_limited_and_permissions_can_be_asked(cloud):
    answer = cloud.call("POST", f"/_admin/secrets/{PROJECT}/big", bytes(65537))
    assert answer.status == 400
    add(cloud, "eight", b"x")
    wanted = {"permissions": ["secretmanager.versions.access"]}
    assert cloud.api("POST", f"{BASE}/eight:testIamPermissions", wanted).json == wanted
    cloud.admin("PUT", "iam", {"deny": wanted["permissions"]})
    assert cloud.api("POST", f"{BASE}/eight:testIamPermissions", wanted).json == {}


def test_the_ledger_knows_which_version_was_read_and_never_its_value(cloud):
    add(cloud, "nine", b"top-secret-value")
    access(cloud, "nine")
    text = cloud.get("/_admin/ledger").body
    assert b"top-secret-value" not in text and cloud._token.encode() not in text
    assert base64.b64encode(b"top-secret-value") not in text
    last = cloud.admin("GET", "ledger?only=secrets_accessed")["secrets_accessed"][-1]
    assert (last["secret"], last["asked"], last["version"]) == ("nine", "latest", 1)
