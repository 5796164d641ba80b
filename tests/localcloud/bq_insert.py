# SPDX-License-Identifier: Apache-2.0
"""tabledata.insertAll: a 200 that may refuse rows, `stopped` neighbours, insertIds for a minute."""

import json
import threading
import time

from .bq_tables import invalid, not_found
from .bq_types import Bad, Row, parse_json
from .google import GoogleError, reply
from .server import Response

KNOWN = {"kind", "rows", "skipInvalidRows", "ignoreUnknownValues", "traceId"}


class Inserts:
    def __init__(self, store, catalog, options, broken=()):
        self.store = store
        self.catalog = catalog
        self.options = options
        self.broken = broken
        self.lock = threading.Lock()
        self.seen = {}  # (table id, insertId) -> when

    def handle(self, request, project, dataset, name):
        options = self.options
        body = request.body()
        if len(body) > options["insert_max_bytes"]:
            if options["insert_empty_400"]:
                return Response(400, b"", "text/html; charset=UTF-8")
            raise GoogleError(400, "Request payload size exceeds the limit: "
                              f"{options['insert_max_bytes']} bytes.", reason="badRequest")
        try:
            body = parse_json(body.decode())
        except (ValueError, RecursionError) as e:
            raise GoogleError(400, f"Parse Error: {e}", reason="parseError") from None
        if options["sandbox"]:
            raise GoogleError(403, "Access Denied: BigQuery BigQuery: Streaming insert is not "
                              "allowed in the free tier", reason="accessDenied")
        table = self._table(project, dataset, name)
        rows = self._rows(body)
        checker = Row(self._visible(table), bool(body.get("ignoreUnknownValues")))
        good, errors, schema_error = self._check(rows, checker, request.do)
        if errors and (schema_error or not body.get("skipInvalidRows")):
            for index in range(len(rows)):
                if index not in errors:
                    errors[index] = {"reason": "stopped", "location": "", "debugInfo": "",
                                     "message": ""}
            good = []
        self._insert(table, rows, good, checker)
        out = {"kind": "bigquery#tableDataInsertAllResponse"}
        if errors and "missing-insert-errors" not in self.broken:
            # not sorted by index, and the first bad row rarely comes first
            order = sorted(errors, key=lambda i: (i * 2654435761 + len(errors)) & 0xFFFFFFFF)
            out["insertErrors"] = [{"index": i, "errors": [errors[i]]} for i in order]
        return reply(out)

    def _table(self, project, dataset, name):
        table = self.catalog.table(project, dataset, name)
        if table.view:
            raise invalid(f"Cannot add rows to a table of type VIEW: {table}")
        if time.time() - table.resource["_created"] < self.options["table_lag"]:
            raise not_found(f"Table {table}")
        if not table.fields:
            raise invalid("The destination table has no schema.")
        return table

    def _visible(self, table):
        """Columns added moments ago are not known to the streaming front end yet."""
        since = table.resource.get("_columns_since", {})
        limit = time.time() - self.options["column_lag"]
        return [f for f in table.fields if since.get(f["name"], 0) <= limit]

    def _rows(self, body):
        if not isinstance(body, dict):
            raise invalid("The request is no JSON object.")
        for key in body:
            if key not in KNOWN:
                raise invalid(f"{key} is not modelled by this double")
        trace = body.get("traceId", "")
        if len(trace) > 36 or not trace.isascii():
            raise invalid("traceId is at most 36 ASCII characters")
        rows = body.get("rows")
        if not rows:
            raise invalid("No rows present in the request.")
        if len(rows) > self.options["insert_max_rows"]:
            raise invalid("too many rows present in the request, limit: "
                          f"{self.options['insert_max_rows']} row count: {len(rows)}.")
        for row in rows:
            if not isinstance(row, dict):
                raise invalid("A row is no JSON object.")
            if len(str(row.get("insertId", ""))) > 128:
                raise invalid("insertId is longer than 128 characters")
        return rows

    @staticmethod
    def _check(rows, checker, do):
        ordered = {int(k): v for k, v in (do.get("row_errors") or {}).items()}
        good, errors, schema_error = [], {}, False
        for index, row in enumerate(rows):
            if index in ordered:
                errors[index] = {"reason": "invalid", "location": "", "debugInfo": "",
                                 "message": "", **ordered[index]}
                continue
            try:
                value = row.get("json")
                if not isinstance(value, dict):
                    raise Bad("Row has no json object.")
                good.append((index, checker.check(value)))
            except Bad as e:
                message = e.message.partition(" Field: ")[0]
                message = message.replace("No such field", "no such field")
                schema_error |= message.startswith("no such field")
                errors[index] = {"reason": "invalid", "location": e.field.lower(),
                                 "debugInfo": "", "message": message}
        return good, errors, schema_error

    def _insert(self, table, rows, good, checker):
        now = time.time()
        limit = now - self.options["insert_id_seconds"]
        names = checker.names
        fields = [f["name"] for f in table.fields]
        fresh = []
        with self.lock, self.store.transaction() as db:
            if len(self.seen) > 200000:
                self.seen = {k: v for k, v in self.seen.items() if v > limit}
            for index, values in good:
                insert_id = rows[index].get("insertId")
                if insert_id is not None:
                    key = (table.id, str(insert_id))
                    if self.seen.get(key, 0) > limit:
                        continue
                    self.seen[key] = now
                if len(names) != len(fields):
                    by_name = dict(zip(names, values))
                    values = [by_name.get(name) for name in fields]
                size = len(json.dumps(rows[index]["json"]))
                fresh.append((size, table.partition(values, now), None, now, *values))
            db.executemany(table.insert_sql(), fresh)
