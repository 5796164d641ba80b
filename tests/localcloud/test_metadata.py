# SPDX-License-Identifier: Apache-2.0
import threading
import time

import pytest

from localcloud.testing import FLAVOR, PROJECT

ROOT = "/computeMetadata/v1/"


def test_a_request_without_the_flavor_header_is_refused(cloud):
    for headers in ({}, {"Metadata-Flavor": "google"}):
        answer = cloud.call("GET", ROOT + "instance/id", headers=headers)
        assert answer.status == 403
        assert answer.headers["Metadata-Flavor"] == "Google"


def test_x_forwarded_for_is_refused(cloud):
    assert cloud.get(ROOT + "instance/id", **{**FLAVOR, "X-Forwarded-For": "10.0.0.1"}).status == 403


def test_the_root_needs_no_header(cloud):
    answer = cloud.get("/")
    assert (answer.status, answer.body) == (200, b"computeMetadata/\n")
    assert answer.headers["Metadata-Flavor"] == "Google"


def test_values_carry_the_headers_of_the_real_server(cloud):
    answer = cloud.meta("instance/id")
    assert answer.body == b"7723260132568912421"
    assert answer.headers["Server"] == "Metadata Server for VM"
    assert answer.headers["Content-Type"] == "application/text"
    assert len(answer.headers["ETag"]) == 16 and int(answer.headers["ETag"], 16) >= 0


def test_listings_and_recursive_json(cloud):
    cloud.admin("PUT", "metadata/instance/attributes/my-key", b"v")
    listing = cloud.meta("instance/").body.decode().splitlines()
    assert "attributes/" in listing and "machine-type" in listing
    tree = cloud.meta("?recursive=True").json
    assert tree["instance"]["id"] == 7723260132568912421
    assert tree["instance"]["machineType"].endswith("e2-micro")
    assert tree["instance"]["attributes"]["my-key"] == "v"
    assert "token" not in tree["instance"]["serviceAccounts"]["default"]
    assert tree["project"]["projectId"] == PROJECT
    assert cloud.meta("instance/?recursive=xyz").headers["Content-Type"] == "application/text"


def test_recursive_text_and_lists(cloud):
    lines = cloud.meta("instance/scheduling/?recursive=true&alt=text").body.decode().splitlines()
    assert "preemptible TRUE" in lines
    assert cloud.meta("instance/tags").json == ["mervis"]
    assert cloud.meta("instance/service-accounts/default/scopes").body.endswith(b"platform\n")


@pytest.mark.parametrize("path", ["instance/nothing", "instance/id/", "instance/disks/7/mode",
                                  "instance/disks/x/mode", "instance/attributes/none"])
def test_what_is_not_there_is_404(cloud, path):
    assert cloud.meta(path).status == 404


def test_an_empty_attribute_is_not_an_absent_one_and_slashes_may_double(cloud):
    cloud.admin("PUT", "metadata/instance/attributes/empty", b"")
    answer = cloud.meta("/instance//attributes/empty")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", ["instance/?wait_for_change=true", "instance/?alt=json",
                                  "instance/id?alt=xml"])
def test_bad_combinations_are_400(cloud, path):
    assert cloud.meta(path).status == 400


def test_a_directory_without_slash_redirects_or_not(cloud):
    answer = cloud.meta("instance/attributes?recursive=true")
    assert answer.status == 301
    assert answer.headers["Location"].endswith("/instance/attributes/?recursive=true")
    cloud.options(directory_redirect=False)
    assert cloud.meta("instance/attributes?recursive=true").status == 200


def test_etags_depend_on_content_and_view_and_return_with_it(cloud):
    def etag(path="instance/attributes/flip"):
        return cloud.meta(path).headers["ETag"]
    cloud.admin("PUT", "metadata/instance/attributes/flip", b"A")
    first = etag()
    cloud.admin("PUT", "metadata/instance/attributes/flip", b"B")
    second = etag()
    cloud.admin("PUT", "metadata/instance/attributes/flip", b"A")
    assert first != second and etag() == first
    assert etag("instance/attributes/") != etag("instance/attributes/?recursive=true")


def wait_in_thread(cloud, path):
    out = {}

    def run():
        out["answer"] = cloud.meta(path)
        out["at"] = time.monotonic()
    thread = threading.Thread(target=run)
    thread.start()
    return thread, out


def test_a_long_poll_blocks_until_the_change(cloud):
    path = "?recursive=true&wait_for_change=true&last_etag="
    etag = cloud.meta("?recursive=true").headers["ETag"]
    thread, out = wait_in_thread(cloud, path + etag)
    time.sleep(0.3)
    assert not out
    changed = time.monotonic()
    cloud.admin("PUT", "metadata/instance/preempted", b"TRUE")
    thread.join(5)
    assert out["answer"].json["instance"]["preempted"] == "TRUE"
    assert out["at"] - changed < 0.3 and out["answer"].headers["ETag"] != etag
    cloud.admin("PUT", "metadata/instance/preempted", b"FALSE")


def test_a_long_poll_answers_at_its_time_limit_with_the_same_etag(cloud):
    etag = cloud.meta("instance/preempted").headers["ETag"]
    begun = time.monotonic()
    answer = cloud.meta(f"instance/preempted?wait_for_change=true&timeout_sec=1&last_etag={etag}")
    assert 0.9 < time.monotonic() - begun < 2
    assert answer.status == 200 and answer.headers["ETag"] == etag


def test_another_etag_is_answered_at_once(cloud):
    begun = time.monotonic()
    for other in ("NONE", "0"):
        answer = cloud.meta(f"instance/id?wait_for_change=true&timeout_sec=5&last_etag={other}")
        assert answer.status == 200
    assert time.monotonic() - begun < 1


def test_a_flip_between_two_polls_is_lost(cloud):
    cloud.admin("PUT", "metadata/instance/attributes/flip", b"A")
    etag = cloud.meta("instance/attributes/flip").headers["ETag"]
    for value in (b"B", b"A"):
        cloud.admin("PUT", "metadata/instance/attributes/flip", value)
    answer = cloud.meta("instance/attributes/flip?wait_for_change=true&timeout_sec=1"
                        f"&last_etag={etag}")
    assert answer.headers["ETag"] == etag


def test_a_deleted_key_ends_the_watch_of_it_with_404(cloud):
    cloud.admin("PUT", "metadata/instance/attributes/gone", b"x")
    etag = cloud.meta("instance/attributes/gone").headers["ETag"]
    thread, out = wait_in_thread(
        cloud, f"instance/attributes/gone?wait_for_change=true&last_etag={etag}")
    time.sleep(0.1)
    cloud.admin("DELETE", "metadata/instance/attributes/gone")
    thread.join(5)
    assert out["answer"].status == 404


def test_tokens_are_reused_expire_and_rotate(cloud):
    first = cloud.meta("instance/service-accounts/default/token").json
    assert first["token_type"] == "Bearer" and 3000 < first["expires_in"] <= 3599
    assert cloud.token() == first["access_token"]
    cloud.admin("PUT", "token-ttl", b"1")
    short = cloud.token()
    auth = {"Authorization": f"Bearer {short}"}
    url = f"/bigquery/v2/projects/{PROJECT}/datasets"
    assert cloud.get(url, **auth).status == 200
    time.sleep(1.1)
    assert cloud.get(url, **auth).status == 401
    cloud.admin("PUT", "token-ttl", b"3599")
    fresh = cloud.token()
    assert fresh != short
    cloud.admin("POST", "metadata/rotate-token")
    cloud._token = None
    assert cloud.get(url, **{"Authorization": f"Bearer {fresh}"}).status == 401


def test_identity_needs_an_audience(cloud):
    path = "instance/service-accounts/default/identity?audience="
    assert cloud.meta(path).status == 400
    assert cloud.meta(path + "https%3A%2F%2Fx").body.count(b".") == 2


def test_a_vm_without_service_account_has_no_token(own):
    own.admin("DELETE", "metadata/instance/service-accounts")
    assert own.meta("instance/service-accounts/default/token").status == 404


def test_guest_attributes_are_off_until_enabled_and_two_levels_deep(own):
    path = "instance/guest-attributes/mervis/status"
    refused = own.meta(path, "PUT", b"x")
    assert refused.status == 403 and b"access is disabled" in refused.body
    own.admin("PUT", "metadata/instance/attributes/enable-guest-attributes", b"TRUE")
    assert own.meta(path, "PUT", b"well").status == 200
    assert own.meta(path).body == b"well"
    for wrong in ("instance/guest-attributes/one", "instance/guest-attributes/a/b/c"):
        assert own.meta(wrong, "PUT", b"x").status == 400
    assert own.meta(path, "DELETE").status == 204
    assert own.meta(path).status == 404
    writes = [r for r in own.admin("GET", "ledger?only=requests")["requests"]
              if r["method"] == "PUT" and r["status"] == 200]
    assert len(writes) == 1


def test_ordered_failures_happen_so_often_and_no_more(cloud):
    for status in (503, 429, 500):
        cloud.fault({"status": status}, times=2, service="metadata", path="instance/id")
        assert [cloud.meta("instance/id").status for _ in range(3)] == [status, status, 200]


def test_attributes_survive_a_kill(own):
    own.admin("PUT", "metadata/instance/attributes/mervis-plan", "{\"a\":\"값\"}".encode())
    own.kill()
    own.start()
    assert own.meta("instance/attributes/mervis-plan").json == {"a": "값"}


def test_attribute_bytes_are_kept_as_they_are(cloud):
    cloud.admin("PUT", "metadata/instance/attributes/raw", b"\xff\x00\n")
    assert cloud.meta("instance/attributes/raw").body == b"\xff\x00\n"
