# SPDX-License-Identifier: Apache-2.0
"""Market hosts that mean no good, all at once, beside one that does: each is refused with its reason, counted and left
alone for a while, and the rows of the other go on. And what a host that asks for peace is asked."""

import gzip
import http.server
import json
import os
import threading
import time
from pathlib import Path

import pytest

from rig.process import RigError, tail, wait_for

DAY = 86400
LAUGHS = ('<?xml version="1.0"?><!DOCTYPE protocol [<!ENTITY a "ha">' +
          "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij")) +
          ']><protocol><chartdata symbol="005930" name="&j;"/></protocol>').encode()
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE protocol [<!ENTITY x SYSTEM "http://127.0.0.1:{port}/taken">]>' \
          '<protocol><chartdata symbol="005930" name="&x;"/></protocol>'


def chart(path):
    symbol = path.partition("?")[0].rpartition("/")[2]
    stamps = [int(time.time()) // DAY * DAY + 52200 - DAY * days for days in (5, 4, 3)]
    return json.dumps({"chart": {"error": None, "result": [{
        "meta": {"currency": "USD", "symbol": symbol, "exchangeName": "NMS", "exchangeTimezoneName": "America/New_York",
                 "dataGranularity": "1d"}, "timestamp": stamps,
        "indicators": {"quote": [{"close": [1.5, 2.5, 3.5]}]}}]}}).encode()


class Host(http.server.ThreadingHTTPServer):
    """Answers /CASE/… in that case's way, and knows when it was asked and how much it could say."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        self.times, self.sent, self.peace, self.asked_if = {}, {}, 0, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # who is refused closes early


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        case = self.path.split("/")[1]
        self.server.times.setdefault(case, []).append(time.monotonic())
        getattr(self, f"case_{case.replace('-', '_')}")()

    def answer(self, status, kind, body, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.say(body)

    def say(self, data):
        case = self.path.split("/")[1]
        self.wfile.write(data)
        self.server.sent[case] = self.server.sent.get(case, 0) + len(data)

    def case_throttled(self):
        self.answer(429, "text/plain", b"Too Many Requests\r\n")

    def case_later(self):
        self.answer(429, "text/plain", b"Edge: Too Many Requests", Retry_After="3600")

    def case_page(self):
        self.answer(200, "text/html", b"<!DOCTYPE html><html><body>Please log in</body></html>")

    def case_flood(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(1 << 30))
        self.end_headers()
        for _ in range(1 << 14):
            self.say(b" " * 65536)

    def case_bomb(self):
        self.answer(200, "application/json", BOMB, Content_Encoding="gzip")

    def case_laughs(self):
        self.answer(200, "text/xml", LAUGHS)

    def case_entity(self):
        self.answer(200, "text/xml", OUTSIDE.replace("{port}", str(self.server.port)).encode())

    def case_drip(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        while True:
            self.say(b" ")
            self.wfile.flush()
            time.sleep(0.3)

    def case_away(self):
        self.answer(302, "text/plain", b"", Location="http://169.254.169.254/computeMetadata/v1/instance/stolen")

    def case_same(self):
        self.server.asked_if.append(self.headers.get("If-None-Match"))
        if self.server.asked_if[-1] == '"one"':
            self.send_response(304)
            self.end_headers()
        else:
            self.answer(200, "text/xml", RATES, ETag='"one"')

    def case_robots(self):
        word = self.path.split("/")[2]
        self.server.times.setdefault(f"{word}{self.path.partition('?')[0].partition(word)[2]}", []).append(time.monotonic())
        status, text = ROBOTS[word]
        if self.path.endswith("/robots.txt"):
            self.answer(status, "text/plain", text)
        else:
            self.answer(200, "application/json", chart(self.path))

    def case_peace(self):
        if time.monotonic() < self.server.peace:
            self.answer(429, "text/plain", b"Too Many Requests", Retry_After="5")
        else:
            self.answer(200, "application/json", chart(self.path))


ROBOTS = {
    "no": (200, b"User-agent: *\nDisallow: /\n"),
    "some": (200, b"User-agent: *\nDisallow: /private\nDisallow: /v8\nAllow: /v8/finance\n"),  # the longest wins
    "ours": (200, b"User-agent: *\nAllow: /\n\nUser-agent: Mervis-Agent\nDisallow: /v8\n"),
    "none": (404, b"there is none"),
    "broken": (500, b"later"),
}
# Of two days ago: today's are of this afternoon, and nothing newer is asked for before.
RATES = f'''<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
 xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"><Cube><Cube time='{time.strftime("%Y-%m-%d", time.gmtime(time.time() - 2 * 86400))}'>
<Cube currency='USD' rate='1.1684'/></Cube></Cube></gesmes:Envelope>'''.encode()
BOMB = gzip.compress(bytes(1 << 29), 9)  # half a GiB of zeros

# name: (recipe it is made of, words of the status)
CASES = {
    "throttled": ("yahoo-chart", "too many requests"),
    "later": ("yahoo-chart", "too many requests"),
    "page": ("yahoo-chart", 'content type "text/html"'),
    "flood": ("yahoo-chart", "the answer is over 16777216 bytes"),
    "bomb": ("yahoo-chart", "the answer is over 16777216 bytes"),
    "laughs": ("naver-day", "document type"),
    "entity": ("naver-day", "document type"),
    "drip": ("yahoo-chart", "no complete answer within"),
    "away": ("yahoo-chart", "redirected to 169.254.169.254, which is not allowed"),
    "metadata": ("yahoo-chart", "its address is not allowed"),  # its name resolves to the metadata server
}


@pytest.fixture
def host():
    made = Host()
    yield made
    made.shutdown()


def make_recipe(machine, name, base, host_name, recipes, robots="api"):
    recipe = json.loads((machine.recipes / f"{base}.json").read_text())
    recipe.update(name=name, hosts=[host_name], terms={},
                  politeness={**recipe["politeness"], "robots": robots, "delay": "0s", "connections": 1})
    for part in recipe["request"].get("urls", [recipe["request"]]):
        part["url"] = f"https://{host_name}/" + part["url"].split("/", 3)[3]
    recipe["request"]["timeout"] = "3s"
    for interval in recipe["intervals"].values():
        interval.pop("minimum_every", None)
    (recipes / f"{name}.json").write_text(json.dumps(recipe))


@pytest.fixture
def recipes(machine):
    path = machine.dir / "recipes"
    path.mkdir()
    for recipe in machine.recipes.glob("*.json"):
        (path / recipe.name).write_text(recipe.read_text())
    for daemon in (machine.agentd, machine.crawlerd):
        daemon.env["MERVIS_RECIPES_DIR"] = str(path)
    return path


def crawl(machine, jobs, endpoints):
    machine.cloud.make_dataset("market")
    plan = machine.make_plan(containers=[], secrets=[], crawl=machine.crawl(jobs=jobs, egress={"min_delay": "0s"}))
    plan["endpoints"].update(endpoints)
    machine.put_plan(plan)
    machine.start_daemons()


def crawler(machine):
    found = machine.status().get("crawler") or {}
    return found if found.get("jobs") else None


def explained(machine, what, question, timeout):
    try:
        return wait_for(what, question, timeout, 0.3)
    except RigError as err:
        shown = json.dumps({key: (crawler(machine) or {}).get(key) for key in ("jobs", "hosts")}, indent=1)
        raise RigError(f"{err}\n{shown[:6000]}\n{tail(machine.crawlerd.log, 20)}") from None


def test_hosts_that_mean_no_good_are_refused_counted_and_left_alone_and_the_others_go_on(machine, host, recipes):
    hosts = Path(os.environ["MERVIS_RIG_DIR"]) / "hosts"
    before = hosts.read_text()
    hosts.write_text(before + "\n169.254.169.254 metadata.example\n")
    jobs, endpoints = [], {}
    for name, (base, _) in CASES.items():
        make_recipe(machine, name, base, f"{name}.example", recipes)
        jobs.append({"name": name, "recipe": name, "symbols": ["005930"], "interval": "1d", "every": "1s", "backfill": "9d"})
        if name != "metadata":
            endpoints[f"{name}.example"] = f"http://127.0.0.1:{host.port}/{name}"
    jobs.append({"name": "good", "recipe": "yahoo-chart", "symbols": ["AAPL", "MSFT"], "interval": "1d", "every": "1m",
                 "backfill": "30d", "terms": "acknowledged"})
    try:
        crawl(machine, jobs, endpoints)

        def all_refused():
            found = crawler(machine)
            shut = {one["host"].partition(".")[0]: one for one in (found or {}).get("hosts", [])
                    if one["refusals"] >= 1 and one["host"].endswith(".example")}
            return shut if set(shut) == set(CASES) else None
        shut = explained(machine, "refusal of every one of them", all_refused, 90)
        good = explained(machine, "rows of the good one", lambda: next(
            (job for job in crawler(machine)["jobs"] if job["name"] == "good" and job["rows"] > 0), None), 30)
    finally:
        hosts.write_text(before)

    said = {job["name"]: job["message"] or "" for job in crawler(machine)["jobs"]}
    for name, (_, words) in CASES.items():
        assert shut[name]["refusals"] >= 1 and said[name], (name, shut[name], said[name])
        assert words in said[name], (name, said[name])
    assert (good["failures"], good["message"]) == (0, None), good
    # Nobody was let in where nobody may.
    assert "taken" not in host.times and len(host.times["later"]) == 1
    assert host.sent["flood"] < 64 << 20, host.sent
    assert "stolen" not in json.dumps(machine.cloud.admin("GET", "ledger?only=requests"))
    # Back-off: the job would ask each second.
    for name, times in host.times.items():
        assert len(times) < 12, (name, len(times))
    peak = int(next(line for line in Path(f"/proc/{machine.crawlerd.pid}/status").read_text().splitlines()
                    if line.startswith("VmHWM")).split()[1])
    assert peak < 96 << 10, f"{peak} KiB"
    print(json.dumps({name: [len(host.times.get(name, [])), said[name][:80]] for name in CASES}, indent=1))


def test_a_host_that_asks_for_peace_has_it_and_is_asked_as_before_afterwards(machine, host, recipes):
    make_recipe(machine, "peace", "yahoo-chart", "peace.example", recipes)
    crawl(machine, [{"name": "peace", "recipe": "peace", "symbols": ["AAPL"], "interval": "1d", "every": "1s",
                     "backfill": "9d"}], {"peace.example": f"http://127.0.0.1:{host.port}/peace"})
    asked = host.times.setdefault("peace", [])

    def rate(begin, end):
        return sum(begin <= at < end for at in asked) / (end - begin)
    explained(machine, "four requests", lambda: len(asked) >= 4, 30)
    began = time.monotonic()
    host.peace = began + 2  # each answer until then says: in 5 s
    explained(machine, "four requests after the peace", lambda: sum(at > began + 6 for at in asked) >= 4, 60)
    refused = next(at for at in asked if at > began)
    first_again = next(at for at in asked if at > refused)
    before, during, after = rate(asked[0], began), rate(refused + 0.01, refused + 5), rate(first_again, asked[-1] + 0.01)
    print(f"requests a second: {before:.2f} before, {during:.2f} during, {after:.2f} after")
    assert before > 0.3 and during == 0 and after > 0.3, (before, during, after, [at - asked[0] for at in asked])
    assert first_again - refused >= 5


def test_a_document_that_did_not_change_is_not_sent_again_not_even_after_a_restart(machine, host, recipes):
    make_recipe(machine, "same", "ecb-fx", "same.example", recipes)
    crawl(machine, [{"name": "same", "recipe": "same", "symbols": ["EURUSD"], "interval": "1d", "every": "1s",
                     "backfill": "9d"}], {"same.example": f"http://127.0.0.1:{host.port}/same"})
    explained(machine, "three conditional requests", lambda: len(host.asked_if) >= 4, 30)
    assert host.asked_if[0] is None and set(host.asked_if[1:]) == {'"one"'}, host.asked_if
    time.sleep(6)  # what is not urgent is written down within 5 s
    machine.crawlerd.kill()
    before = len(host.asked_if)
    machine.start(machine.crawlerd)
    explained(machine, "two more", lambda: len(host.asked_if) >= before + 2, 30)
    assert set(host.asked_if[before:]) == {'"one"'}, host.asked_if[before:]
    job = crawler(machine)["jobs"][0]
    assert (job["rows"], job["failures"], job["state"]) == (1, 0, "ok"), job


def test_robots_txt_is_read_first_and_obeyed(machine, host, recipes):
    for word in ROBOTS:
        make_recipe(machine, word, "yahoo-chart", f"{word}.example", recipes, robots="obey")
    crawl(machine, [{"name": word, "recipe": word, "symbols": ["AAPL"], "interval": "1d", "every": "1m", "backfill": "9d"}
                    for word in ROBOTS],
          {f"{word}.example": f"http://127.0.0.1:{host.port}/robots/{word}" for word in ROBOTS})

    def all_known():
        jobs = {job["name"]: job for job in (crawler(machine) or {"jobs": []})["jobs"]}
        return jobs if jobs and all(host.times.get("broken/robots.txt") if name == "broken" else job["rows"] or job["message"]
                                    for name, job in jobs.items()) else None
    jobs = explained(machine, "word of each", all_known, 40)
    asked = {word: f"{word}/v8/finance/chart/AAPL" in host.times for word in ROBOTS}
    assert asked == {"no": False, "some": True, "ours": False, "none": True, "broken": False}, asked
    for word in set(ROBOTS) - {"broken"}:
        assert len(host.times[f"{word}/robots.txt"]) == 1, word  # once, not for every request
        if asked[word]:
            assert jobs[word]["rows"] == 3 and host.times[f"{word}/robots.txt"] < host.times[f"{word}/v8/finance/chart/AAPL"]
    for word in ("no", "ours"):
        assert jobs[word]["message"] == f"robots.txt of {word}.example forbids it", jobs[word]
        assert '`terms` to "acknowledged"' in jobs[word]["remedy"], jobs[word]
    # What cannot be read is asked for again after the host's pause, and nothing else is.
    explained(machine, "a second try", lambda: len(host.times["broken/robots.txt"]) > 1, 30)
    assert host.times["broken/robots.txt"][1] - host.times["broken/robots.txt"][0] >= 1
    assert "broken/v8/finance/chart/AAPL" not in host.times
    jobs = {job["name"]: job for job in crawler(machine)["jobs"]}
    assert "robots.txt of broken.example could not be read: HTTP 500" in jobs["broken"]["message"], jobs["broken"]
