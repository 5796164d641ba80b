# SPDX-License-Identifier: Apache-2.0
"""The ledger: every request in a file of JSON lines. Never a token, a payload or a session id."""

import json
import os
import re
import threading
import time

SECRET_QUERY = re.compile(r"\b(upload_id|access_token|token|key|apikey|signature|account)=[^&]*")


class Ledger:
    def __init__(self, directory):
        self.path = os.path.join(directory, "requests.jsonl")
        self.lock = threading.Lock()
        self.file = open(self.path, "ab+", buffering=0)
        self.count = 0
        self.services = {}
        self.connections = {}  # market host -> times at which a new connection was first used
        for entry in self.read():
            self._tally(entry)

    def _tally(self, entry):
        self.count = max(self.count, entry["n"])
        self.services[entry["service"]] = self.services.get(entry["service"], 0) + 1
        if entry.get("new_connection"):
            self.connections.setdefault(entry["host"], []).append(entry["time"])

    def add(self, request, service, status, started, extra):
        entry = {
            "n": 0, "time": round(started, 6), "seconds": round(time.time() - started, 6),
            "service": service, "method": request.method, "path": request.raw_path,
            "query": SECRET_QUERY.sub(r"\1=REDACTED", request.raw_query),
            "status": status, "host": request.host, "connection": request.conn.number,
            "tls": request.conn.is_tls, "agent": request.headers.get("user-agent", ""),
            "request_bytes": request.body_bytes, **request.note, **extra,
        }
        host = request.note.get("host", request.host)
        if host not in request.conn.hosts:
            request.conn.hosts.add(host)
            entry["new_connection"] = True
        with self.lock:
            entry["n"] = self.count + 1
            self._tally(entry)
            # one write of one line: a kill leaves whole lines
            os.write(self.file.fileno(), json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def read(self, since=0):
        out = []
        with open(self.path, "rb") as f:
            for line in f:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry["n"] > since:
                    out.append(entry)
        return out

    def reset(self):
        with self.lock:
            os.ftruncate(self.file.fileno(), 0)
            self.count = 0
            self.services = {}
            self.connections = {}

    def connection_counts(self, window=120):
        """For each host: connections ever, and the most that began within any 120 seconds."""
        out = {}
        with self.lock:
            for host, times in self.connections.items():
                times = sorted(times)
                best = first = 0
                for last, when in enumerate(times):
                    while when - times[first] > window:
                        first += 1
                    best = max(best, last - first + 1)
                out[host] = {"total": len(times), "max_in_120s": best}
        return out

    def recent_connections(self, host, window=120):
        with self.lock:
            limit = time.time() - window
            return sum(1 for when in self.connections.get(host, ()) if when > limit)
