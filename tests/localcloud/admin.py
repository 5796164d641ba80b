# SPDX-License-Identifier: Apache-2.0
"""The admin API under /_admin/: what a test orders and what it reads."""

import os
import re
from urllib.parse import unquote

from .bq_types import to_plain
from .google import APIS, PERMISSIONS, GoogleError
from .server import BadRequest, json_response

IDENTITY = ("source", "symbol", "interval", "kind", "ts", "revision")


class Refused(Exception):
    """An order that makes no sense; its text says why."""


class Admin:
    def __init__(self, cloud):
        self.cloud = cloud

    def handle(self, request):
        parts = [part for part in request.segments()[1:] if part]
        try:
            handler = getattr(self, "_" + (parts[0] if parts else "root").replace("-", "_"), None)
            if handler is None or not re.fullmatch(r"[a-z-]+", parts[0] if parts else "root"):
                raise Refused("no such admin path; see localcloud --help")
            answer = handler(request, request.method, parts[1:])
            return json_response({} if answer is None else answer)
        except (Refused, ValueError, KeyError, BadRequest, GoogleError, re.error) as e:
            return json_response({"error": str(e)}, 400)

    @staticmethod
    def wrong(method):
        raise Refused(f"{method} is not what this admin path takes; see localcloud --help")

    def _root(self, request, method, parts):
        cloud = self.cloud
        return {"project": cloud.access.project, "number": cloud.access.number,
                "pid": os.getpid(), "email": cloud.access.email,
                "storage_port": cloud.registry.storage_port,
                "blackhole_port": cloud.blackhole_port}

    # -- state

    def _metadata(self, request, method, parts):
        cloud = self.cloud
        if parts == ["rotate-token"] and method == "POST":
            return cloud.access.rotate()
        if not parts:
            raise Refused("a metadata path is missing")
        if method == "PUT":
            return cloud.metadata.set("/".join(parts), request.body())
        if method == "DELETE":
            return cloud.metadata.set("/".join(parts), None)
        return self.wrong(method)

    def _scopes(self, request, method, parts):
        if method == "PUT":
            self.cloud.store.put("scopes", request.body().decode().split())
            self.cloud.metadata.sync_scopes()
        return {"scopes": self.cloud.access.scopes}

    def _token_ttl(self, request, method, parts):
        ttl = float(request.body())
        if ttl <= 0:
            raise Refused("the time to live of a token is more than 0 seconds")
        self.cloud.store.put("token-ttl", ttl)

    def _secrets(self, request, method, parts):
        cloud = self.cloud
        if method != "POST" or len(parts) not in (2, 3):
            return self.wrong(method)
        project, secret = cloud.access.canonical_project(parts[0]), parts[1]
        self._know(project)
        if len(parts) == 2:
            with cloud.store.transaction():
                if not cloud.secrets.exists(project, secret):
                    cloud.secrets.create(project, secret)
                return {"version": cloud.secrets.add(project, secret, request.body())}
        version, _, verb = parts[2].partition(":")
        state = {"enable": "ENABLED", "disable": "DISABLED", "destroy": "DESTROYED"}.get(verb)
        if not state:
            raise Refused("a version is followed by :enable, :disable or :destroy")
        if version == "latest":
            version = cloud.store.one("SELECT max(version) FROM versions WHERE project = ? AND "
                                      "secret = ?", (project, secret))[0] or 0
        return cloud.secrets.set_state(project, secret, int(version), state)

    def _know(self, project):
        store, access = self.cloud.store, self.cloud.access
        if not access.project_is_known(project):
            store.put("projects", store.get("projects", []) + [project])

    def _iam(self, request, method, parts):
        if method == "PUT":
            self.cloud.store.put("iam", self._names(request, "deny", PERMISSIONS))
        return {"deny": self.cloud.store.get("iam", [])}

    def _apis(self, request, method, parts):
        if method == "PUT":
            self.cloud.store.put("apis-disabled", self._names(request, "disabled", APIS))
        return {"disabled": self.cloud.store.get("apis-disabled", [])}

    @staticmethod
    def _names(request, key, known):
        body = request.json()
        if not isinstance(body, dict) or set(body) != {key} or not isinstance(body[key], list):
            raise Refused(f'the body is {{"{key}": [...]}}')
        for name in body[key]:
            if str(name).partition("@")[0] not in known:
                raise Refused(f"{name!r} is nothing that the double looks at, known: "
                              f"{', '.join(sorted(known))}")
        return body[key]

    def _options(self, request, method, parts):
        if method == "PUT":
            self.cloud.options.update(request.json())
        return self.cloud.options.values

    def _faults(self, request, method, parts):
        faults = self.cloud.faults
        if method == "POST":
            return {"id": faults.add(request.json())}
        if method == "DELETE":
            return {"removed": faults.remove(int(parts[0]) if parts else None)}
        return {"faults": faults.list()}

    # -- market

    def _market(self, request, method, parts):
        market = self.cloud.market
        if parts == ["generate"]:
            if method in ("PUT", "POST"):
                market.generate(request.json() or {})
            elif method == "DELETE":
                market.generate(None)
            return {"generate": market.generator.config if market.generator else None}
        if parts == ["expected"]:
            if not market.generator:
                raise Refused("nothing is generated: PUT /_admin/market/generate first")
            return {"rows": market.generator.expected(
                request.arg("symbol"), request.arg("interval", "1d"), int(request.arg("from")),
                int(request.arg("to")))}
        if method == "DELETE":
            return market.forget(parts[0] if parts else None)
        match = re.match(r"^/_admin/market/([^/]+)(/.*|\^.*|/\^.*)?$", request.target)
        if method != "PUT" or not match:
            return self.wrong(method)
        pattern = match[2] or "/"
        if pattern.startswith("/^") or pattern.startswith("/%5E"):

            pattern = unquote(pattern[1:])
        return market.register(match[1], pattern, request.json())

    # -- the ledger

    def _ledger(self, request, method, parts):
        if parts == ["count"]:
            return self._count()
        if method == "DELETE":
            return self.cloud.ledger.reset()
        only, since = request.arg("only"), int(request.arg("since") or 0)
        if only not in (None, "requests", "tables", "jobs", "secrets_accessed"):
            raise Refused("only is requests, tables, jobs or secrets_accessed")
        out = {}
        if only in (None, "requests", "secrets_accessed"):
            requests = self.cloud.ledger.read(since)
            if only != "secrets_accessed":
                out["requests"] = requests
            out["secrets_accessed"] = [
                {"time": r["time"], "status": r["status"], **r["secret"]}
                for r in requests if "secret" in r]
        if only in (None, "tables"):
            out["tables"] = {t.key: self.rows(t) for t in self.cloud.bigquery.catalog.tables()
                             if not t.view and request.arg("table") in (None, t.key)}
        if only in (None, "jobs"):
            out["jobs"] = self.cloud.bigquery.jobs.all()
        return out

    def rows(self, table):
        columns = ", ".join(f'"{f["name"]}"' for f in table.fields) or "NULL"
        rows = self.cloud.store.query(f"SELECT {columns} FROM {table.rows} ORDER BY _lc_row")
        return [{f["name"]: to_plain(f, value) for f, value in zip(table.fields, row)}
                for row in rows]

    def _count(self):
        cloud = self.cloud
        tables = {}
        for table in cloud.bigquery.catalog.tables():
            if table.view:
                continue
            names = [f["name"] for f in table.fields if f["name"] in IDENTITY]
            rows = cloud.store.one(f"SELECT count(*) FROM {table.rows}")[0]
            distinct = None
            if names:
                columns = ", ".join(f'"{name}"' for name in names)
                distinct = cloud.store.one(f"SELECT count(*) FROM (SELECT DISTINCT {columns} "
                                           f"FROM {table.rows})")[0]
            loads, partitions = cloud.bigquery.catalog.modifications(table)
            tables[table.key] = {"rows": rows, "distinct": distinct,
                                 "modifications_today": loads,
                                 "partition_modifications_today": partitions}
        states = {}
        for job in cloud.bigquery.jobs.all():
            status = job["status"]
            key = "FAILED" if "errorResult" in status else status["state"]
            states[key] = states.get(key, 0) + 1
        return {"requests": cloud.ledger.count, "services": cloud.ledger.services,
                "tables": tables, "jobs": states,
                "connections": cloud.ledger.connection_counts()}
