# SPDX-License-Identifier: Apache-2.0
"""Queries: jobs.query, query jobs, results by page, dry runs, limits on bytes billed."""

import json
import threading
import time
from collections import OrderedDict

from .bq_functions import install
from .bq_sql import Parser, bad_query
from .bq_tables import etag, invalid
from .bq_types import ALIASES, Bad, checker, to_api
from .google import GoogleError

KNOWN = {"kind", "query", "useLegacySql", "location", "timeoutMs", "maxResults", "dryRun",
         "maximumBytesBilled", "parameterMode", "queryParameters", "requestId", "formatOptions",
         "labels", "useQueryCache", "defaultDataset", "jobCreationMode", "jobTimeoutMs",
         "preserveNulls"}
JOB_KNOWN = {"query", "useLegacySql", "maximumBytesBilled", "parameterMode", "queryParameters",
             "useQueryCache", "priority", "defaultDataset"}
LEAST_BILLED = 10485760  # of each table touched
KEPT = 200
LONGEST_WAIT = 200.0


class Binder:
    """Hands out SQLite parameters; bind.values is what to execute with."""

    def __init__(self):
        self.values = {}

    def __call__(self, value):
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f":{name}"


class Queries:
    def __init__(self, store, access, catalog, jobs, options):
        self.store = store
        self.access = access
        self.catalog = catalog
        self.jobs = jobs
        self.options = options
        self.lock = threading.Lock()
        self.kept = OrderedDict()  # (project, job id) -> (fields, rows)
        self.requests = OrderedDict()  # requestId -> job id
        install(store.db)
        catalog.compile_view = self.compile_view
        jobs.runners["query"] = self.run

    # -- compiling

    def parse(self, project, sql, parameters=None):
        bind = Binder()
        query = Parser(sql, project, self.catalog, parameters or {}, bind).statement()
        for table, done, _, _ in query.sources:
            if not done and table.requires_filter:
                raise bad_query(
                    f"Cannot query over table '{table.key}' without a filter over column(s) "
                    f"'{table.partition_field or '_PARTITION_LOAD_TIME'}' that can be used for "
                    "partition elimination")
            self.allow_read(table)
        return query, bind

    def allow_read(self, table):
        if self.access.denies("bigquery.tables.getData", str(table)):
            raise GoogleError(403, f"Access Denied: Table {table}: User does not have permission to "
                              f"query table {table}, or perhaps it does not exist.",
                              reason="accessDenied")

    def compile_view(self, project, sql):
        """The columns of a view; the filter that its tables require is its readers' duty."""
        return Parser(sql, project, self.catalog, {}, Binder()).statement().fields

    @staticmethod
    def parameters(body):
        if body.get("parameterMode") == "POSITIONAL":
            raise invalid("positional query parameters are not modelled by this double")
        out = {}
        for parameter in body.get("queryParameters") or []:
            name, declared = parameter.get("name", ""), parameter.get("parameterType") or {}
            value = parameter.get("parameterValue") or {}
            try:
                out[name.lower()] = read_parameter(declared, value)
            except Bad as e:
                raise invalid(f"Invalid value for query parameter '{name}': {e.message}") from None
        return out

    def _prepare(self, project, body, known):
        for key in body:
            if key not in known:
                raise invalid(f"{key} is not modelled by this double")
        if body.get("useLegacySql", True) is not False:
            raise bad_query("Legacy SQL is not supported by this double: useLegacySql defaults to "
                            "true, set it to false.")
        if not body.get("query"):
            raise GoogleError(400, "Required parameter is missing: query", reason="required")
        query, bind = self.parse(project, body["query"], self.parameters(body))
        billed = self._bytes(query, bind)
        limit = body.get("maximumBytesBilled")
        tables = {table.key for table, _, _, _ in query.sources}
        least = max(billed, LEAST_BILLED * len(tables))
        if limit is not None and int(limit) < least:
            raise GoogleError(400, f"Query exceeded limit for bytes billed: {limit}. {least} or "
                              "higher required.", reason="bytesBilledLimitExceeded")
        return query, bind, billed

    def _bytes(self, query, bind):
        """Bytes of the partitions that are read."""
        total, seen = 0, set()
        for table, _, conjuncts, _ in query.sources:
            where = f" WHERE {' AND '.join(conjuncts)}" if conjuncts else ""
            if (table.key, where) not in seen:
                seen.add((table.key, where))
                with self.store.lock:
                    total += self.store.db.execute(
                        f"SELECT coalesce(sum(_lc_bytes), 0) FROM {table.rows}{where}",
                        bind.values).fetchone()[0]
        return total

    def _location(self, project, query, asked):
        for table, _, _, _ in query.sources:
            location = self.catalog.dataset(table.project, table.dataset)["location"]
            if asked and asked.lower() != location.lower():
                raise GoogleError(404, f"Not found: Dataset {table.project}:{table.dataset} was not "
                                  f"found in location {asked}", reason="notFound")
            return location
        return asked or "US"

    # -- running

    def _execute(self, query, bind):
        with self.store.lock:
            try:
                return self.store.db.execute(query.sql, bind.values).fetchall()
            except Exception as e:  # SQLite refuses what our grammar let through
                raise bad_query(f"not modelled by this double: {e}") from None

    def run(self, seq, job, plan):
        project = job["jobReference"]["projectId"]
        body = job["configuration"]["query"]
        query, bind, billed = self._prepare(project, body, JOB_KNOWN)
        rows = self._execute(query, bind)
        with self.lock:
            self.kept[(project, job["jobReference"]["jobId"])] = (query.fields, rows)
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)
        with self.store.transaction() as db:
            self.jobs.finish(db, seq, job, {
                "totalBytesProcessed": str(billed),
                "query": {"totalBytesProcessed": str(billed), "totalBytesBilled": str(billed),
                          "cacheHit": False, "statementType": "SELECT"}})

    def insert_job(self, request, project, body, base):
        configuration = body["configuration"]
        query, _, billed = self._prepare(project, configuration["query"], JOB_KNOWN)
        asked = (body.get("jobReference") or {}).get("location")
        location = self._location(project, query, asked)
        if configuration.get("dryRun"):
            return {"kind": "bigquery#job", "configuration": configuration,
                    "jobReference": {"projectId": project, "location": location},
                    "statistics": {"totalBytesProcessed": str(billed), "query": {
                        "totalBytesProcessed": str(billed), "schema": {"fields": query.fields}}},
                    "status": {"state": "DONE"}}
        plan = {"error": request.do["job_error"]} if "job_error" in request.do else {}
        return self.jobs.create(project, body, "query", location, plan, base=base,
                                seconds=request.do.get("job_delay", self.options["query_seconds"]))

    def query(self, request, project, body, base):
        query, _, billed = self._prepare(project, body, KNOWN)
        location = self._location(project, query, body.get("location"))
        if body.get("dryRun"):
            return {"kind": "bigquery#queryResponse", "jobComplete": True,
                    "jobReference": {"projectId": project, "location": location},
                    "schema": {"fields": query.fields}, "totalBytesProcessed": str(billed),
                    "cacheHit": False}
        request_id = body.get("requestId")
        if request_id is not None and (len(request_id) > 36 or not request_id.isascii()):
            raise invalid("requestId is at most 36 ASCII characters")
        with self.lock:
            job_id = self.requests.get((project, request_id)) if request_id else None
        if not job_id:
            job = {"configuration": {
                "query": {k: body[k] for k in JOB_KNOWN if k in body},
                **({"labels": body["labels"]} if "labels" in body else {})}}
            plan = {"error": request.do["job_error"]} if "job_error" in request.do else {}
            job = self.jobs.create(project, job, "query", location, plan, base=base,
                                   seconds=request.do.get("job_delay",
                                                          self.options["query_seconds"]))
            job_id = job["jobReference"]["jobId"]
            with self.lock:
                self.requests[(project, request_id)] = job_id
                while len(self.requests) > KEPT:
                    self.requests.popitem(last=False)
        form = body.get("formatOptions") or {}
        return self._answer(request, project, job_id, location, body.get("timeoutMs", 10000),
                            body.get("maxResults"), 0, form, "bigquery#queryResponse")

    def results(self, request, project, job_id):
        location = request.arg("location")
        self.jobs.find(project, job_id, location)
        try:
            start = int(request.arg("pageToken") or request.arg("startIndex") or 0)
            size = request.arg("maxResults")
            timeout = int(request.arg("timeoutMs") or 10000)
        except ValueError:
            raise invalid("Invalid value for maxResults, timeoutMs or pageToken") from None
        form = {name: request.arg(f"formatOptions.{name}")
                for name in ("useInt64Timestamp", "timestampOutputFormat")}
        return self._answer(request, project, job_id, location, timeout, size, start, form,
                            "bigquery#getQueryResultsResponse")

    def _answer(self, request, project, job_id, location, timeout, size, start, form, kind):
        seq = self.jobs.find(project, job_id, location)
        end = time.monotonic() + min(float(timeout) / 1000, LONGEST_WAIT)
        while True:
            job = self.jobs.resource(seq)
            if job["status"]["state"] == "DONE" or time.monotonic() >= end:
                break
            time.sleep(0.002)
        out = {"kind": kind, "etag": etag(job["status"]), "jobReference": job["jobReference"],
               "jobComplete": job["status"]["state"] == "DONE"}
        if not out["jobComplete"]:
            return out
        error = job["status"].get("errorResult")
        if error:
            raise GoogleError(500 if error["reason"] in ("backendError", "internalError") else 400,
                              error["message"], reason=error["reason"])
        kept = self.kept.get((project, job_id))
        if kept is None:
            raise GoogleError(404, f"Not found: results of job {project}:{job_id}",
                              reason="notFound")
        fields, rows = kept
        size = 10000 if size in (None, "") else int(size)
        page = rows[start:start + size]
        int64 = form.get("useInt64Timestamp") in (True, "true")
        iso = form.get("timestampOutputFormat") == "ISO8601_STRING"
        out.update(schema={"fields": fields}, totalRows=str(len(rows)), cacheHit=False,
                   totalBytesProcessed=job["statistics"].get("totalBytesProcessed", "0"))
        if page:
            out["rows"] = [{"f": [{"v": to_api(f, v, int64, iso)} for f, v in zip(fields, row)]}
                           for row in page]
        if start + len(page) < len(rows):
            out["pageToken"] = str(start + len(page))
        return out


def read_parameter(declared, value):
    """(type or [type], value) of a query parameter as the REST API gives it."""
    kind = declared.get("type", "").upper()
    if kind == "ARRAY":
        inner = (declared.get("arrayType") or {}).get("type", "").upper()
        inner = ALIASES.get(inner, inner)
        check = checker({"type": inner})
        return [inner], json.dumps([check(item.get("value"))
                                    for item in value.get("arrayValues") or []])
    kind = ALIASES.get(kind, kind)
    if kind not in ("STRING", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP", "DATE", "DATETIME",
                    "TIME", "NUMERIC", "BIGNUMERIC"):
        raise Bad(f"type {declared.get('type')} is not modelled by this double")
    raw = value.get("value")
    return kind, None if raw is None else checker({"type": kind})(raw)
