# SPDX-License-Identifier: Apache-2.0
"""Notifications: chosen, gathered, tried again, in the plan's language; and nothing waits for them."""

import http.server
import json
import subprocess
import threading
import time

import pytest

from rig.process import wait_for


class Hook:
    """A receiver of webhooks on loopback; `answers` are used up first, then 200."""

    def __init__(self):
        self.texts, self.times, self.answers = [], [], []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.answers.pop(0) if hook.answers else 200
                hook.times.append(time.monotonic())
                if status == 200:
                    assert self.headers["Content-Type"].startswith("application/json")
                    hook.texts.append(json.loads(body)["text"])
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/T0/B0/very-secret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def said(self):
        return "\n".join(self.texts)


@pytest.fixture
def hook():
    made = Hook()
    yield made
    made.server.shutdown()


def start(machine, hook, url=None, locale="en", **notify):
    machine.publish("1")
    machine.cloud.add_secret("APP_KEY", "the-key")
    machine.cloud.add_secret("HOOK", (url or hook.url) + "\n")
    plan = machine.make_plan(locale=locale, notify=[{"secret": "hook", **notify}])
    plan["secrets"].append({"name": "hook", "secret": "HOOK"})
    machine.put_plan(plan)
    machine.start(machine.agentd)
    machine.wait_settled()
    return plan


def test_what_the_crawler_reports_is_told_too_and_stands_in_the_history(machine, hook):
    machine.cloud.add_secret("HOOK", hook.url)
    machine.cloud.make_dataset("market")
    machine.cloud.fault({"service": "market"}, {"status": 200, "body": "<html>no chart</html>"})
    plan = machine.make_plan(containers=[], secrets=[{"name": "hook", "secret": "HOOK"}], crawl=machine.crawl(),
                             notify=[{"secret": "hook", "on": ["fetch-failed", "document-refused"]}])
    machine.put_plan(plan)
    watch = subprocess.Popen(["busctl", f"--address={machine.servers.bus.address}", "monitor", "--json=short",
                              "--match=type='signal',interface='io.mervis.Crawler1',member='Event'"],
                             stdout=subprocess.PIPE, text=True)
    try:
        machine.start(machine.crawlerd)
        machine.start(machine.agentd)
        wait_for("a message", lambda: hook.texts, 30)
    finally:
        watch.kill()
    told = [json.loads(line)["payload"]["data"] for line in watch.stdout if line.startswith("{")]
    assert told and told[0][0] in ("fetch-failed", "document-refused") and len(told[0][1]) == 32
    assert "job us-1d" in hook.said() and "Remedy: " in hook.said()
    events = json.loads(machine.agentctl("history", "--json").stdout)["events"]
    assert any(one["event"] == told[0][0] and one["text"] == told[0][3] for one in events), events
    # The journal has it once: from crawlerd.
    assert told[0][3] in machine.crawlerd.log.read_text() and told[0][3] not in machine.agentd.log.read_text()


def break_plan(machine, plan):
    machine.put_plan({**plan, "containers": [{**plan["containers"][0], "memry": "1MiB"}]})


def test_chosen_events_come_gathered_and_name_the_remedy(machine, hook):
    start(machine, hook, on=["plan-accepted", "plan-applied", "container-started"])
    wait_for("a message", lambda: hook.texts, 20)
    assert len(hook.texts) == 1, hook.texts
    text = hook.said()
    assert text.startswith("*mervis-1* (asia-northeast3-a)\n")
    assert "A new plan was accepted" in text and "generation 1" in text
    assert "container mervis" in text and "secret app-key" not in text


def test_by_default_only_what_a_person_should_act_on_is_told(machine, hook):
    plan = start(machine, hook)
    break_plan(machine, plan)
    wait_for("a message", lambda: hook.texts, 20)
    text = hook.said()
    assert "The newest plan was refused" in text and "memry" in text and "Remedy: " in text
    assert "A new plan was accepted" not in text


def test_korean_by_the_plans_locale(machine, hook):
    plan = start(machine, hook, locale="ko", on=["plan-refused"])
    break_plan(machine, plan)
    wait_for("a message", lambda: hook.texts, 20)
    assert "최신 플랜이 거부되었습니다" in hook.said() and "해결 방법: " in hook.said()


def test_what_cannot_be_sent_is_tried_again_and_nothing_waits_for_it(machine, hook):
    hook.answers = [503, 500]
    plan = start(machine, hook, on=["plan-refused"])
    break_plan(machine, plan)
    wait_for("a message", lambda: hook.texts, 40)
    assert len(hook.times) == 3 and len(hook.texts) == 1
    log = machine.agentd.log.read_text()
    assert log.count("notification: HTTP") == 1 and "very-secret-path" not in log


def test_an_address_that_swallows_everything_holds_nothing_up(machine, hook):
    port = machine.cloud.admin("GET", "")["blackhole_port"]
    plan = start(machine, hook, url=f"http://127.0.0.1:{port}/", on=["plan-refused", "plan-accepted"])
    for _ in range(3):
        break_plan(machine, plan)
        begun = time.monotonic()
        wait_for("refusal", lambda: machine.status()["plan"]["refused"], 10)
        assert time.monotonic() - begun < 5
        machine.put_plan(plan)
        wait_for("acceptance", lambda: not machine.status()["plan"]["refused"], 10)
