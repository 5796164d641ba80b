# SPDX-License-Identifier: Apache-2.0
"""The program itself: command line, faults, ledger, admin API, HTTP."""

import http.client
import os
import socket
import subprocess
import time

import pytest

from localcloud.testing import FLAVOR, HERE, PROJECT

ID = "/computeMetadata/v1/instance/id"
GET_ID = (f"GET {ID} HTTP/1.1\r\nHost: x\r\nMetadata-Flavor: Google\r\n"
          "Connection: close\r\n\r\n").encode()


def test_help_names_faults_options_and_the_ledger():
    text = subprocess.run([os.path.join(HERE, "localcloud"), "--help"], capture_output=True,
                          text=True, check=True).stdout
    for word in ("/_admin/faults", "/_admin/ledger", "short_range", "insert_id_seconds",
                 "--registry", "/_admin/market/generate"):
        assert word in text
    assert "--break" not in text


def test_the_port_is_written_when_it_answers(own):
    with open(os.path.join(own.directory, "port"), encoding="ascii") as f:
        assert int(f.read()) == own.port
    assert own.admin("GET", "")["project"] == PROJECT


def test_a_second_one_in_the_same_directory_is_refused(own):
    done = subprocess.run([os.path.join(HERE, "localcloud"), "--dir", own.directory],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "another one runs" in done.stderr


# -- faults


def test_unknown_words_in_orders_are_refused(cloud):
    for order in ({"do": {"stauts": 503}}, {"do": {}}, {"match": {"servce": "x"}, "do": {"status": 1}},
                  {"match": {"service": "redis"}, "do": {"status": 500}}, {"do": {"status": "503"}},
                  {"match": {"path": "("}, "do": {"status": 500}}):
        assert cloud.call("POST", "/_admin/faults", order).status == 400
    assert cloud.call("PUT", "/_admin/options", {"job_pendign": 1}).status == 400
    assert cloud.call("PUT", "/_admin/options", {"job_pending": "1"}).status == 400
    assert cloud.call("GET", "/_admin/nothing").status == 400
    assert cloud.call("PUT", "/_admin/iam", {"deny": ["bigquery.jobs.creat"]}).status == 400
    assert cloud.call("PUT", "/_admin/apis", {"disabled": ["bigquery"]}).status == 400


def test_faults_count_their_hits_and_can_be_removed(cloud):
    number = cloud.fault({"status": 503}, service="metadata", path="instance/id$")
    cloud.meta("instance/id")
    cloud.meta("instance/name")
    listed = cloud.admin("GET", "faults")["faults"]
    assert [(f["id"], f["hits"]) for f in listed] == [(number, 1)]
    cloud.admin("DELETE", f"faults/{number}")
    assert cloud.meta("instance/id").status == 200


def test_probability_is_seeded(cloud):
    seen = []
    for _ in range(2):
        cloud.admin("DELETE", "faults")
        cloud.admin("POST", "faults", {"match": {"service": "metadata"}, "do": {"status": 503},
                                       "probability": 0.5, "seed": 7})
        seen.append([cloud.meta("instance/id").status for _ in range(20)])
    assert seen[0] == seen[1] and set(seen[0]) == {200, 503}


def test_delay_drip_truncation_and_reset(cloud):
    cloud.fault({"delay": 0.3}, times=1, service="metadata")
    begun = time.monotonic()
    assert cloud.meta("instance/id").status == 200 and time.monotonic() - begun >= 0.3
    cloud.fault({"drip": 0.01}, times=1, service="metadata")
    begun = time.monotonic()
    assert cloud.meta("instance/id").status == 200 and time.monotonic() - begun >= 0.19
    cloud.fault({"truncate": 5}, times=1, service="metadata")
    with pytest.raises(http.client.IncompleteRead):
        cloud.meta("instance/id")
    cloud.fault({"truncate": 5, "reset": True}, times=1, service="metadata")
    text, end = cloud.raw(GET_ID)
    assert end == "reset" or text.endswith(b"\r\n\r\n77232")
    cloud.fault({"reset": True}, times=1, service="metadata")
    assert cloud.raw(GET_ID) == (b"", "reset")


def test_a_hang_lasts_until_the_client_goes(cloud):
    cloud.fault({"hang": True}, times=1, service="metadata")
    with pytest.raises(TimeoutError):
        cloud.call("GET", ID, headers=FLAVOR, timeout=0.5)
    time.sleep(0.4)
    last = cloud.admin("GET", "ledger?only=requests")["requests"][-1]
    assert last["status"] == 0 and last["gone"]


def test_google_errors_html_and_empty_bodies_can_be_ordered(cloud):
    url = f"/bigquery/v2/projects/{PROJECT}/jobs"
    cloud.fault({"status": 403, "reason": "rateLimitExceeded", "message": "slow down"}, times=1,
                service="bigquery")
    assert cloud.get(url).reason == "rateLimitExceeded"
    cloud.fault({"status": 503, "html": True}, times=1, service="bigquery")
    assert cloud.get(url).body.startswith(b"<!DOCTYPE html>")
    cloud.fault({"status": 400}, times=1, service="bigquery")
    assert cloud.get(url).body == b""


def test_an_effect_can_happen_behind_an_error(cloud):
    cloud.fault({"status": 503, "after_effect": True}, times=1, service="bigquery", method="POST")
    body = {"datasetReference": {"datasetId": "behind"}}
    assert cloud.api("POST", "datasets", body).status == 503
    assert cloud.api("POST", "datasets", body).status == 409


def test_headers_can_be_changed(cloud):
    cloud.fault({"headers": {"Metadata-Flavor": None, "X-New": "1"}}, times=1, service="metadata")
    answer = cloud.meta("instance/id")
    assert answer.headers["X-New"] == "1" and "Metadata-Flavor" not in answer.headers


# -- ledger


def test_the_ledger_has_every_request_since_a_number(own):
    own.meta("instance/id")
    first = own.admin("GET", "ledger?only=requests")["requests"]
    assert (first[-1]["service"], first[-1]["method"], first[-1]["status"]) == ("metadata", "GET", 200)
    own.meta("instance/name")
    later = own.admin("GET", f"ledger?only=requests&since={first[-1]['n']}")["requests"]
    assert [r["path"] for r in later] == ["/computeMetadata/v1/instance/name"]
    own.kill()
    own.start()
    assert len(own.admin("GET", "ledger?only=requests")["requests"]) == 2
    own.admin("DELETE", "ledger")
    assert own.admin("GET", "ledger?only=requests")["requests"] == []


def test_counts_show_exactly_once_at_a_look(own):
    own.api("POST", "datasets", {"datasetReference": {"datasetId": "d"}})
    fields = [{"name": n, "type": "STRING"} for n in ("source", "symbol", "ts", "note")]
    own.api("POST", "datasets/d/tables", {"tableReference": {"tableId": "t"},
                                          "schema": {"fields": fields}})
    rows = [{"json": {"source": "s", "symbol": x, "ts": "1", "note": str(n)}}
            for n, x in enumerate("aab")]
    own.api("POST", "datasets/d/tables/t/insertAll", {"rows": rows})
    counted = own.admin("GET", "ledger/count")["tables"][f"{PROJECT}.d.t"]
    assert (counted["rows"], counted["distinct"]) == (3, 2)


def test_connections_to_a_market_host_are_counted_and_limited(own):
    for _ in range(3):
        own.get("/market/example.com/x")
    counted = own.admin("GET", "ledger/count")["connections"]["example.com"]
    assert counted == {"total": 3, "max_in_120s": 3}
    own.options(nat_ports=3)
    with pytest.raises(TimeoutError):
        own.call("GET", "/market/example.com/x", timeout=0.4)
    assert own.get("/market/other.com/x").status == 404


def test_a_black_hole_lets_a_connection_wait(cloud):
    port = cloud.admin("GET", "")["blackhole_port"]
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), 0.4)


# -- HTTP


def test_connections_are_kept_and_bodies_may_be_chunked(cloud):
    link = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=5)
    link.connect()
    sock = link.sock
    for _ in range(3):
        link.request("GET", ID, headers=FLAVOR)
        assert link.getresponse().read() == b"7723260132568912421"
    link.request("PUT", "/_admin/metadata/instance/attributes/c", iter([b"a", b"bc"]),
                 encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    link.getresponse().read()
    assert link.sock is sock
    link.close()
    assert cloud.meta("instance/attributes/c").body == b"abc"


def test_a_client_that_expects_100_gets_it(cloud):
    text, _ = cloud.raw(b"PUT /_admin/token-ttl HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
                        b"Expect: 100-continue\r\nConnection: close\r\n\r\n3599")
    assert text.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n bad\r\n\r\n",
                                  b"PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                                  b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n"])
def test_what_is_not_http_is_400(cloud, data):
    assert cloud.raw(data)[0].startswith(b"HTTP/1.1 400")


def test_keep_alive_requests_are_not_held_back(cloud):
    link = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=5)
    begun = time.monotonic()
    for _ in range(50):
        link.request("GET", ID, headers=FLAVOR)
        link.getresponse().read()
    link.close()
    assert time.monotonic() - begun < 1  # 43 ms each with Nagle's algorithm


def test_make_synthetic_agrees_with_the_fixtures():
    script = os.path.join(os.path.dirname(HERE), "fixtures", "make-synthetic")
    subprocess.run([script, "--check"], check=True)
