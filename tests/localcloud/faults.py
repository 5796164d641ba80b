# SPDX-License-Identifier: Apache-2.0
"""Ordered faults: which request they match, what they do to it, how often."""

import random
import re
import threading

SERVICES = ("metadata", "secretmanager", "bigquery", "registry", "artifactregistry", "market",
            "storage")
MATCH_KEYS = {"service", "method", "path", "host"}
# what a fault may do: key -> (types, help)
ACTIONS = {
    "status": (int, "answer this status, without the effect"),
    "body": (str, "with this body"),
    "content_type": (str, "of this type"),
    "html": (bool, "with a Google HTML error page as body"),
    "reason": (str, "with a Google error envelope of this reason (rateLimitExceeded, ...)"),
    "message": (str, "and this message in it"),
    "headers": (dict, "add or replace headers of the answer; null removes one"),
    "after_effect": (bool, "let the effect happen before the ordered status is answered"),
    "delay": ((int, float), "wait so many seconds first"),
    "hang": (bool, "never answer"),
    "reset": (bool, "close with RST; with truncate, after that many bytes"),
    "truncate": (int, "send the full Content-Length but only so many bytes, then close"),
    "drip": ((int, float), "seconds between two bytes of the body"),
    "corrupt": (bool, "flip one byte in the middle of the body"),
    "lose_answer": (bool, "the effect happens, the connection closes before the answer"),
    "wrong_crc": (bool, "secretmanager: a dataCrc32c that is not that of the data"),
    "no_crc": (bool, "secretmanager: no dataCrc32c"),
    "wrong_digest": (bool, "registry: a Docker-Content-Digest that is not that of the body"),
    "missing_digest": (bool, "registry: no Docker-Content-Digest"),
    "rewrite": (str, "registry: serve this path instead (a tag that moves between HEAD and GET)"),
    "job_error": (dict, "bigquery: the job becomes DONE with this errorResult and writes nothing"),
    "job_delay": ((int, float), "bigquery: seconds until the job is DONE"),
    "short_range": (int, "bigquery: keep only so many bytes of an uploaded chunk"),
    "row_errors": (dict, "bigquery insertAll: refuse these rows {index: {reason, message}}"),
}


class Fault:
    def __init__(self, number, order):
        if not isinstance(order, dict) or not set(order) <= {"match", "do", "times", "probability",
                                                             "seed"}:
            raise ValueError("a fault is {match, do, times | probability, seed}")
        self.number = number
        self.order = order
        match, do = order.get("match") or {}, order.get("do") or {}
        unknown = set(match) - MATCH_KEYS
        if unknown:
            raise ValueError(f"match: unknown key {sorted(unknown)[0]!r}, "
                             f"known: {', '.join(sorted(MATCH_KEYS))}")
        if match.get("service") not in (None, *SERVICES):
            raise ValueError(f"match.service is one of {', '.join(SERVICES)}")
        if not do:
            raise ValueError("do is empty: a fault must do something")
        for key, value in do.items():
            if key not in ACTIONS:
                raise ValueError(f"do: unknown key {key!r}, known: {', '.join(sorted(ACTIONS))}")
            if not isinstance(value, ACTIONS[key][0]):
                raise ValueError(f"do.{key} has the wrong type")
        self.do = do
        self.service, self.method = match.get("service"), match.get("method")
        self.host = match.get("host")
        try:
            self.path = re.compile(match.get("path", ""))
        except re.error as e:
            raise ValueError(f"match.path: {e}") from None
        self.left = order.get("times")
        self.probability = order.get("probability")
        self.random = random.Random(order.get("seed", 1))
        self.hits = 0

    def matches(self, service, method, host, target):
        return (self.left != 0 and self.service in (None, service)
                and self.method in (None, method) and self.host in (None, host)
                and self.path.search(target) is not None
                and (self.probability is None or self.random.random() < self.probability))

    def describe(self):
        return {"id": self.number, "hits": self.hits, "left": self.left, **self.order}


class Faults:
    def __init__(self):
        self.lock = threading.Lock()
        self.faults = []
        self.count = 0

    def add(self, order):
        with self.lock:
            fault = Fault(self.count + 1, order)
            self.count += 1
            self.faults.append(fault)
            return fault.number

    def take(self, service, method, host, target):
        """The first fault that matches, its count already lowered; None when none does."""
        if not self.faults:
            return None
        with self.lock:
            for fault in self.faults:
                if fault.matches(service, method, host, target):
                    fault.hits += 1
                    if fault.left is not None:
                        fault.left -= 1
                    return fault
        return None

    def remove(self, number=None):
        with self.lock:
            before = len(self.faults)
            self.faults = [f for f in self.faults if number is not None and f.number != number]
            return before - len(self.faults)

    def list(self):
        with self.lock:
            return [fault.describe() for fault in self.faults]
