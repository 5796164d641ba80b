# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import json
import re
import time

import pytest

from localcloud.testing import PROJECT

NAME = f"{PROJECT}/app/mervis"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = {"Accept": f"{INDEX}, {MANIFEST}, application/vnd.docker.distribution.manifest.list.v2+json,"
          " application/vnd.docker.distribution.manifest.v2+json"}


@pytest.fixture(autouse=True)
def needs_registry(registry_url):
    if not registry_url:
        pytest.skip("docker-registry is not installed")


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def basic(cloud, user="oauth2accesstoken", password=None):
    cloud.auth
    word = f"{user}:{password or cloud._token}".encode()
    return {"Authorization": "Basic " + base64.b64encode(word).decode()}


def token(cloud, actions="pull", name=NAME, **credentials):
    return cloud.call("GET", f"/v2/token?service=x&scope=repository:{name}:{actions}",
                      headers=basic(cloud, **credentials))


def bearer(cloud, actions="pull"):
    return {**ACCEPT, "Authorization": f"Bearer {token(cloud, actions).json['token']}"}


def put_blob(cloud, headers, data):
    begun = cloud.call("POST", f"/v2/{NAME}/blobs/uploads/", b"", headers)
    assert begun.status == 202, begun.body
    done = cloud.call("PUT", f"{begun.headers['Location']}&digest={digest_of(data)}", data,
                      {**headers, "Content-Type": "application/octet-stream"})
    assert done.status == 201, done.body


def push(cloud, tag, word):
    """An image of one small layer, pushed through the double; its digest."""
    headers = bearer(cloud, "pull,push")
    config = json.dumps({"os": "linux", "architecture": "amd64", "word": word}).encode()
    layer = word.encode() * 1000
    for blob in (config, layer):
        put_blob(cloud, headers, blob)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config),
        "size": len(config)}, "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(layer),
            "size": len(layer)}]}).encode()
    answer = cloud.call("PUT", f"/v2/{NAME}/manifests/{tag}", manifest,
                        {**headers, "Content-Type": MANIFEST})
    assert answer.status == 201, answer.body
    return digest_of(manifest)


@pytest.mark.parametrize("form, service, scope", [
    ("full", True, True), ("no-service", False, True), ("no-scope", True, False),
    ("no-params", False, False), ("odd-case", False, False), ("several", False, False)])
def test_the_challenge_has_the_ordered_form(cloud, form, service, scope):
    cloud.options(registry_challenge=form)
    answer = cloud.get(f"/v2/{NAME}/manifests/stable", **ACCEPT)
    assert answer.status == 401 and answer.json["errors"][0]["code"] == "UNAUTHORIZED"
    challenge = answer.headers["WWW-Authenticate"]
    assert f'realm="http://127.0.0.1:{cloud.port}/v2/token"' in challenge
    assert ("service=" in challenge, "scope=" in challenge) == (service, scope)
    assert challenge.startswith({"odd-case": "BEARER ", "several": "Basic "}.get(form, "Bearer "))


def test_the_token_service_checks_user_password_and_permission(cloud):
    assert token(cloud).status == 200
    assert token(cloud, user="_token").status == 200
    assert token(cloud, user="somebody").status == 401
    assert token(cloud, password="ya29.wrong").status == 401
    url = f"/v2/token?scope=repository:{NAME}:pull"
    assert "Unauthenticated" in cloud.get(url).json["errors"][0]["message"]
    cloud.options(registry_anonymous=True)
    assert cloud.get(url).status == 200
    cloud.admin("PUT", "iam", {"deny": ["artifactregistry.repositories.downloadArtifacts"]})
    denied = token(cloud)
    assert denied.status == 403 and denied.json["errors"][0]["code"] == "DENIED"
    assert "repositories/app" in denied.json["errors"][0]["message"]
    cloud.admin("PUT", "iam", {"deny": []})
    cloud.admin("PUT", "scopes", "https://www.googleapis.com/auth/bigquery")
    assert "scopes" in token(cloud).json["errors"][0]["message"]


def test_tokens_expire_and_hold_for_their_repository_only(cloud):
    push(cloud, "stable", "one")
    cloud.options(registry_token_ttl=1)
    answer = token(cloud)
    assert answer.json["expires_in"] == 1
    headers = {**ACCEPT, "Authorization": f"Bearer {answer.json['token']}"}
    assert cloud.get(f"/v2/{NAME}/manifests/stable", **headers).status == 200
    assert cloud.get(f"/v2/{PROJECT}/app/other/manifests/stable", **headers).status == 401
    assert cloud.call("POST", f"/v2/{NAME}/blobs/uploads/", b"", headers).status == 401
    time.sleep(1.1)
    assert cloud.get(f"/v2/{NAME}/manifests/stable", **headers).status == 401
    cloud.options(registry_token_ttl=60)
    assert "expires_in" not in token(cloud).json


def test_head_and_get_negotiate_at_the_real_registry(cloud):
    digest = push(cloud, "stable", "two")
    headers = bearer(cloud)
    for method in ("HEAD", "GET"):
        answer = cloud.call(method, f"/v2/{NAME}/manifests/stable", headers=headers)
        assert answer.status == 200
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Content-Type"] == MANIFEST
        assert answer.headers["Content-Length"].isdigit()
    assert digest_of(answer.body) == digest
    auth = {"Authorization": headers["Authorization"], "Accept": INDEX}
    assert cloud.get(f"/v2/{NAME}/manifests/stable", **auth).status == 404
    missing = cloud.get(f"/v2/{NAME}/manifests/nothing", **headers)
    assert missing.json["errors"][0]["code"] == "MANIFEST_UNKNOWN"
    other = f"{PROJECT}/app/never-pushed"
    auth = {"Authorization": f"Bearer {token(cloud, name=other).json['token']}"}
    answer = cloud.get(f"/v2/{other}/manifests/stable", **ACCEPT, **auth)
    assert (answer.status, answer.json["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


def test_a_google_token_passes_as_bearer(cloud):
    push(cloud, "stable", "two")
    assert cloud.get(f"/v2/{NAME}/manifests/stable", **ACCEPT, **cloud.auth).status == 200


def test_digests_can_be_missing_or_lie_and_bodies_differ(cloud):
    digest = push(cloud, "stable", "three")
    headers, path = bearer(cloud), f"/v2/{NAME}/manifests/stable"
    cloud.fault({"missing_digest": True}, times=1, service="registry", path="manifests")
    assert "Docker-Content-Digest" not in cloud.get(path, **headers).headers
    cloud.fault({"wrong_digest": True}, times=1, service="registry", path="manifests")
    assert cloud.get(path, **headers).headers["Docker-Content-Digest"] != digest
    cloud.fault({"corrupt": True}, times=1, service="registry", path="manifests")
    assert digest_of(cloud.get(path, **headers).body) != digest


def test_a_tag_can_move_between_head_and_get(cloud):
    first, second = push(cloud, "stable", "four"), push(cloud, "next", "five")
    headers, path = bearer(cloud), f"/v2/{NAME}/manifests/stable"
    cloud.fault({"rewrite": f"/v2/{NAME}/manifests/next"}, service="registry", method="GET",
                path="manifests/stable")
    seen = [cloud.call(m, path, headers=headers).headers["Docker-Content-Digest"]
            for m in ("HEAD", "GET")]
    assert seen == [first, second]


def test_ordered_errors_of_a_registry(cloud):
    path = f"/v2/{NAME}/manifests/stable"
    cloud.fault({"status": 429, "headers": {"Retry-After": "3"}, "content_type": "application/json",
                 "body": '{"errors":[{"code":"TOOMANYREQUESTS"}]}'}, times=1, service="registry")
    answer = cloud.get(path)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
    cloud.fault({"status": 502, "html": True}, times=1, service="registry")
    assert cloud.get(path).body.startswith(b"<!DOCTYPE html>")


def test_blobs_may_be_redirected_to_a_host_that_refuses_authorization(cloud):
    push(cloud, "stable", "six")
    headers = bearer(cloud)
    layer = b"six" * 1000
    path = f"/v2/{NAME}/blobs/{digest_of(layer)}"
    assert cloud.get(path, **headers).body == layer
    cloud.options(registry_redirect_blobs=True)
    answer = cloud.get(path, **headers)
    port, target = re.match(r"http://localhost:(\d+)(/.*)", answer.headers["Location"]).groups()
    assert answer.status == 302 and int(port) != cloud.port
    assert cloud.call("GET", target, port=int(port)).body == layer
    assert cloud.call("GET", target, headers=headers, port=int(port)).status == 400
    assert cloud.call("GET", target.partition("?")[0], port=int(port)).status == 403


def test_tags_are_listed_with_googles_additions(cloud):
    digest = push(cloud, "listed", "seven")
    listing = cloud.get(f"/v2/{NAME}/tags/list", **bearer(cloud)).json
    assert "listed" in listing["tags"] and listing["child"] == []
    assert "listed" in listing["manifest"][digest]["tag"]


def test_what_one_may_do_can_be_asked(cloud):
    url = f"/v1/projects/{PROJECT}/locations/asia-northeast3/repositories/app:testIamPermissions"
    wanted = {"permissions": ["artifactregistry.repositories.downloadArtifacts"]}
    assert cloud.api("POST", url, wanted).json == wanted
    cloud.admin("PUT", "iam", {"deny": wanted["permissions"]})
    assert cloud.api("POST", url, wanted).json == {}
