# SPDX-License-Identifier: Apache-2.0
"""Load jobs: what may be submitted, how its data is read, and that it is all or nothing."""

import csv
import gzip
import io
import os
import sqlite3
import time

from .bq_tables import (MAX_PARTITIONS_PER_JOB, MAX_PARTITIONS_PER_TABLE, invalid, not_found)
from .bq_types import Bad, Row, normalise_schema, parse_json
from .google import GoogleError

KNOWN = {"destinationTable", "sourceFormat", "writeDisposition", "createDisposition", "schema",
         "maxBadRecords", "ignoreUnknownValues", "schemaUpdateOptions", "fieldDelimiter",
         "skipLeadingRows", "quote", "nullMarker", "allowJaggedRows", "allowQuotedNewlines",
         "encoding", "autodetect", "timePartitioning", "clustering",
         "location"}  # Google's Node client says it here, too; only jobReference.location counts
FORMATS = {"CSV": "CSV", "NEWLINE_DELIMITED_JSON": "JSON"}
BATCH = 4000


def used_up(table, which):
    name, what = {
        "loads": ("load_job_per_table.long",
                  "Your table exceeded quota for imports or query appends per table"),
        "partitions": ("partition_modifications_per_column_partitioned_table.long",
                       "Your table exceeded quota for Number of partition modifications to a "
                       "column partitioned table"),
    }[which]
    return name, (f"Quota exceeded: {what}. For more information, see "
                  "https://cloud.google.com/bigquery/docs/troubleshoot-quotas")


class Loads:
    def __init__(self, store, catalog, jobs, options):
        self.store = store
        self.catalog = catalog
        self.jobs = jobs
        self.options = options
        self.recent = {}  # table -> times of the last loads, for the 10 second limit
        jobs.runners["load"] = self.run

    # -- submission

    def check(self, project, body):
        """The parts of a load job that are refused with an HTTP error. Returns its location."""
        configuration = body.get("configuration") if isinstance(body, dict) else None
        load = (configuration or {}).get("load")
        if not isinstance(load, dict):
            raise invalid("Job configuration must contain exactly one job-specific configuration "
                          "object (e.g., query, load, extract, spreadsheetExtract), but there were "
                          "0: ")
        for key in load:
            if key not in KNOWN:
                raise invalid(f"configuration.load.{key} is not modelled by this double")
        if load.get("autodetect"):
            raise invalid("configuration.load.autodetect is not modelled by this double")
        if load.get("sourceFormat", "CSV") not in FORMATS:
            raise invalid(f"sourceFormat {load['sourceFormat']} is not modelled by this double")
        target = load.get("destinationTable") or {}
        if not target.get("datasetId") or not target.get("tableId"):
            raise invalid("Required parameter is missing: destinationTable")
        self._choice(load, "writeDisposition", ("WRITE_APPEND", "WRITE_TRUNCATE", "WRITE_EMPTY"))
        self._choice(load, "createDisposition", ("CREATE_IF_NEEDED", "CREATE_NEVER"))
        dataset = self.catalog.dataset(target.get("projectId", project), target["datasetId"])
        location = (body.get("jobReference") or {}).get("location") or dataset["location"]
        if location.lower() != dataset["location"].lower():
            raise not_found(f"Dataset {project}:{target['datasetId']} was not found in location "
                            f"{location}")
        return dataset["location"]

    @staticmethod
    def _choice(load, key, choices):
        if load.get(key, choices[0]) not in choices:
            raise invalid(f"Invalid value for {key}: {load[key]} is not a valid value")

    def submit(self, project, body, data, offset, length, do, base):
        location = self.check(project, body)
        load = body["configuration"]["load"]
        plan = {"data": data, "offset": offset, "length": length}
        error = do.get("job_error") or self._quota(project, load["destinationTable"])
        if error:
            plan["error"] = error
        return self.jobs.create(project, body, "load", location, plan, base=base,
                                seconds=do.get("job_delay"))

    def _quota(self, project, target):
        try:
            table = self.catalog.table(target.get("projectId", project), target["datasetId"],
                                       target["tableId"])
        except GoogleError:
            return None
        loads, partitions = self.catalog.modifications(table)
        which = ("loads" if loads >= self.options["quota_table_modifications"] else
                 "partitions" if table.partition_form
                 and partitions >= self.options["quota_partition_modifications"] else None)
        if not which:
            return None
        location, message = used_up(table, which)
        if self.options["quota_in_job"]:
            return {"reason": "quotaExceeded", "message": message, "location": location}
        raise GoogleError(403, message, reason="quotaExceeded", location=location)

    # -- execution, on the jobs' thread

    def run(self, seq, job, plan):
        started = time.time()
        load = job["configuration"]["load"]
        try:
            self._run(seq, job, plan, load, started)
        finally:
            if plan["data"] and os.path.exists(plan["data"]) and \
                    self.jobs.resource(seq)["status"]["state"] == "DONE":
                os.unlink(plan["data"])

    def _run(self, seq, job, plan, load, started):
        project = job["jobReference"]["projectId"]
        table, fields, patch = self._target(project, load)
        if table and table.partition_form and self._is_too_fast(table):
            raise GoogleError(403, "Exceeded rate limits: too many partitioned table update "
                              "operations for this table. For more information, see "
                              "https://cloud.google.com/bigquery/docs/troubleshoot-quotas",
                              reason="jobRateLimitExceeded")
        target = load["destinationTable"]
        if table is None:
            table = self.catalog.create_table(
                target.get("projectId", project), target["datasetId"],
                {"tableReference": target, "schema": {"fields": fields},
                 **{k: load[k] for k in ("timePartitioning", "clustering") if k in load}}, "")
        elif patch:
            table = self.catalog.patch_table(table, {"schema": {"fields": patch}})
        names = [f["name"] for f in fields]
        staging = Staging(self.store, table, seq)
        try:
            result = self._read(plan, load, table, fields, names, staging, started)
            self._commit(seq, job, load, table, staging, result, plan)
        finally:
            staging.close()

    def _is_too_fast(self, table):
        now = time.time()
        times = [when for when in self.recent.get(table.key, ()) if when > now - 10]
        self.recent[table.key] = times + [now]
        return len(times) >= self.options["quota_partition_operations_10s"]

    def _target(self, project, load):
        """(table or None, columns of the data, schema to patch the table to or None)."""
        target = load["destinationTable"]
        given = (load.get("schema") or {}).get("fields")
        try:
            given = normalise_schema(given) if given else None
        except Bad as e:
            raise invalid(e.message) from None
        try:
            table = self.catalog.table(target.get("projectId", project), target["datasetId"],
                                       target["tableId"])
        except GoogleError:
            if load.get("createDisposition") == "CREATE_NEVER":
                raise
            if not given:
                raise invalid("No schema specified on job or table.") from None
            return None, given, None
        if table.view:
            raise invalid(f"{table} is not allowed for this operation because it is currently a "
                          "VIEW.")
        if load.get("writeDisposition") == "WRITE_EMPTY" and \
                self.store.one(f"SELECT 1 FROM {table.rows} LIMIT 1"):
            raise GoogleError(409, f"Already Exists: Table {table}", reason="duplicate")
        if not given:
            if not table.fields:
                raise invalid("No schema specified on job or table.")
            return table, table.fields, None
        return self._merge(table, given, load)

    def _merge(self, table, given, load):
        known = {f["name"].lower(): f for f in table.fields}
        options = load.get("schemaUpdateOptions") or []
        new, relaxed = [], {}
        for field in given:
            old = known.get(field["name"].lower())
            prefix = f"Provided Schema does not match Table {table}."
            if old is None:
                if "ALLOW_FIELD_ADDITION" not in options or field["mode"] == "REQUIRED":
                    raise invalid(f"{prefix} Cannot add fields (field: {field['name']})")
                new.append(field)
            elif old["type"] != field["type"]:
                raise invalid(f"{prefix} Field {field['name']} has changed type from "
                              f"{old['type']} to {field['type']}")
            elif old["mode"] != field["mode"] and field["mode"] != "REQUIRED":
                if "ALLOW_FIELD_RELAXATION" not in options or old["mode"] != "REQUIRED":
                    raise invalid(f"{prefix} Field {field['name']} has changed mode from "
                                  f"{old['mode']} to {field['mode']}")
                relaxed[old["name"]] = field["mode"]
        present = {f["name"].lower() for f in given}
        for old in table.fields:
            if old["mode"] == "REQUIRED" and old["name"].lower() not in present:
                raise invalid(f"Provided Schema does not match Table {table}. Field {old['name']} "
                              "is missing in new schema")
        if not new and not relaxed:
            return table, given, None
        patched = [{**f, "mode": relaxed.get(f["name"], f["mode"])} for f in table.fields] + new
        return table, given, patched

    def _read(self, plan, load, table, fields, names, staging, started):
        """Parse everything into the staging table; bad rows are counted and described."""
        limit = int(load.get("maxBadRecords") or 0)
        kind = FORMATS[load.get("sourceFormat", "CSV")]
        row = Row(fields, bool(load.get("ignoreUnknownValues")))
        positions = None
        if names != [f["name"] for f in table.fields]:
            order = {name.lower(): i for i, name in enumerate(names)}
            positions = [order.get(f["name"].lower()) for f in table.fields]
            blanks = ["[]" if f["mode"] == "REPEATED" else None for f in table.fields]
        result = {"rows": 0, "bytes": 0, "bad": 0, "errors": [], "partitions": set(), "failed": False}
        with open_data(plan) as stream:
            for position, size, values in self._rows(stream, kind, load, row):
                if isinstance(values, Bad):
                    result["bad"] += 1
                    if len(result["errors"]) < 5:
                        result["errors"].append(bad_row(kind, position, values))
                    if result["bad"] > limit:
                        result["failed"] = True
                        break
                    continue
                if positions is not None:
                    values = [blank if i is None else values[i]
                              for i, blank in zip(positions, blanks)]
                part = table.partition(values, started)
                result["partitions"].add(part)
                result["rows"] += 1
                result["bytes"] += size
                staging.add(size, part, values)
        staging.flush()
        return result

    @staticmethod
    def _rows(stream, kind, load, row):
        if kind == "JSON":
            position = 0
            for line in stream:
                size = len(line)
                if size > 1 and not line.isspace():
                    try:
                        value = parse_json(line.decode())
                        if not isinstance(value, dict):
                            raise Bad("Parser terminated before end of string")
                        yield position, size, row.check(value)
                    except Bad as e:
                        yield position, size, e
                    except (ValueError, RecursionError) as e:
                        yield position, size, Bad(f"Parser terminated before end of string: {e}")
                position += size
            return
        yield from csv_rows(stream, load, row)

    def _commit(self, seq, job, load, table, staging, result, plan):
        size = str(plan["length"])
        statistics = {"load": {"inputFiles": "1", "inputFileBytes": size, "outputRows": "0",
                               "outputBytes": "0", "badRecords": str(result["bad"])}}
        kind = FORMATS[load.get("sourceFormat", "CSV")]
        error = None
        partitions = {part for part in result["partitions"] if part is not None}
        if result["failed"]:
            error = {"reason": "invalid", "message": (
                f"Error while reading data, error message: {kind} table encountered too many "
                f"errors, giving up. Rows: {result['rows'] + result['bad']}; errors: "
                f"{result['bad']}. Please look into the errors[] collection for more details.")}
        else:
            error = self._partition_error(table, load, partitions)
        with self.store.transaction() as db:
            self.catalog.count_modification(db, table, 0 if error else len(partitions))
            if error:
                self.jobs.finish(db, seq, job, statistics, [error] + result["errors"], failed=True)
                return
        staging.attach()
        with self.store.transaction() as db:
            state = db.execute("SELECT state FROM jobs WHERE seq = ?", (seq,)).fetchone()[0]
            if state == "DONE":  # cancelled meanwhile: nothing is written
                return
            decorator = load["destinationTable"]["tableId"].partition("$")[2]
            if load.get("writeDisposition") == "WRITE_TRUNCATE":
                where, args = ("WHERE _lc_part = ?", (decorator,)) if decorator else ("", ())
                db.execute(f"DELETE FROM {table.rows} {where}", args)
            staging.move(db)
            statistics["load"].update(outputRows=str(result["rows"]),
                                      outputBytes=str(result["bytes"]))
            self.jobs.finish(db, seq, job, statistics, result["errors"])

    def _partition_error(self, table, load, partitions):
        decorator = load["destinationTable"]["tableId"].partition("$")[2]
        if decorator and partitions - {decorator}:
            return {"reason": "invalid", "message": (
                "Some rows belong to different partitions rather than destination partition "
                f"{table.name}${decorator}")}
        if len(partitions) > MAX_PARTITIONS_PER_JOB:
            return {"reason": "invalid", "message": (
                f"Too many partitions produced by load, allowed {MAX_PARTITIONS_PER_JOB}, load "
                f"produces at least {len(partitions)} partitions")}
        if table.partition_form:
            count = self.store.one(f"SELECT count(DISTINCT _lc_part) FROM {table.rows}")[0]
            if count + len(partitions) > MAX_PARTITIONS_PER_TABLE:
                held = {row[0] for row in self.store.query(
                    f"SELECT DISTINCT _lc_part FROM {table.rows}")}
                if len(held | partitions) > MAX_PARTITIONS_PER_TABLE:
                    return {"reason": "quotaExceeded", "message": (
                        f"Too many partitions for table {table}: at most "
                        f"{MAX_PARTITIONS_PER_TABLE} are allowed")}
        return None


def bad_row(kind, position, error):
    where = f"position {position}" if kind == "JSON" else f"position: {position}"
    return {"reason": "invalid", "message": (
        f"Error while reading data, error message: {kind} parsing error in row starting at "
        f"{where}: {error.message}"), **({"location": error.field} if error.field else {})}


def open_data(plan):
    raw = open(plan["data"], "rb", buffering=1 << 20)
    raw.seek(plan["offset"])
    limited = io.BufferedReader(Limited(raw, plan["length"]), 1 << 20)
    if limited.peek(2)[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=limited), 1 << 20)
    return limited


class Limited(io.RawIOBase):
    """The first `left` bytes of a file."""

    def __init__(self, raw, left):
        super().__init__()
        self.raw, self.left = raw, left

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.raw.read(min(len(buffer), self.left))
        self.left -= len(data)
        buffer[:len(data)] = data
        return len(data)

    def close(self):
        self.raw.close()
        super().close()


def csv_rows(stream, load, row):
    encoding = {"ISO-8859-1": "latin-1"}.get(load.get("encoding", "UTF-8"), "utf-8")
    text = io.TextIOWrapper(stream, encoding, errors="replace", newline="")
    quote = load.get("quote", '"')
    reader = csv.reader(text, delimiter=load.get("fieldDelimiter", ","), quotechar=quote or None,
                        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE, strict=True)
    marker, position = load.get("nullMarker", ""), 0
    kinds = [field["type"] for field in row.fields]
    for number, cells in enumerate(reader):
        size = sum(map(len, cells)) + len(cells)
        if number >= int(load.get("skipLeadingRows") or 0) and cells:
            try:
                if len(cells) > len(kinds) and not row.ignore_unknown:
                    raise Bad(f"Too many values in row. Found {len(cells)} columns while expected "
                              f"{len(kinds)} columns.")
                if len(cells) < len(kinds) and not load.get("allowJaggedRows"):
                    raise Bad(f"CSV table references column position {len(cells)}, but line "
                              f"contains only {len(cells)} columns.")
                values = {name: (None if cell == marker and (marker or kind != "STRING") else cell)
                          for name, kind, cell in zip(row.names, kinds, cells)}
                yield position, size, row.check(values)
            except Bad as e:
                yield position, size, e
        position += size


class Staging:
    """Rows parsed so far, in a file of their own: the main database is not locked meanwhile."""

    def __init__(self, store, table, seq):
        self.store, self.table, self.seq = store, table, seq
        self.path = os.path.join(store.directory, f"staging-{seq}.db")
        self.close()
        self.db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        self.db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN")
        columns = ", ".join(f"c{i}" for i in range(len(table.fields)))
        self.columns = f"bytes, part{', ' if columns else ''}{columns}"
        self.db.execute(f"CREATE TABLE s ({self.columns})")
        self.sql = f"INSERT INTO s VALUES (?, ?{', ?' * len(table.fields)})"
        self.batch = []

    def add(self, size, part, values):
        self.batch.append((size, part, *values))
        if len(self.batch) >= BATCH:
            self.flush()

    def flush(self):
        self.db.executemany(self.sql, self.batch)
        self.batch = []

    def attach(self):
        self.db.execute("COMMIT")
        self.db.close()
        with self.store.lock:
            self.store.db.execute("ATTACH ? AS staging", (self.path,))

    def move(self, db):
        names = "".join(f', "{f["name"]}"' for f in self.table.fields)
        columns = "".join(f", c{i}" for i in range(len(self.table.fields)))
        db.execute(f"INSERT INTO main.{self.table.rows} (_lc_bytes, _lc_part, _lc_job, _lc_at"
                   f"{names}) SELECT bytes, part, ?, ?{columns} FROM staging.s ORDER BY rowid",
                   (str(self.seq), time.time()))

    def close(self):
        if hasattr(self, "db"):
            self.db.close()
        with self.store.lock:
            attached = {row[1] for row in self.store.db.execute("PRAGMA database_list")}
            if "staging" in attached:
                self.store.db.execute("DETACH staging")
        if os.path.exists(self.path):
            os.unlink(self.path)
