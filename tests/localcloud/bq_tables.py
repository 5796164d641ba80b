# SPDX-License-Identifier: Apache-2.0
"""BigQuery datasets and tables: resources, schemas, partitions, and the rows behind them."""

import datetime
import hashlib
import json
import time
from functools import lru_cache

from .bq_types import AFFINITY, EPOCH, Bad, Row, normalise_schema
from .google import GoogleError

PARTITION_FORMS = {"HOUR": 10, "DAY": 8, "MONTH": 6, "YEAR": 4}
MAX_PARTITIONS_PER_JOB = 4000
MAX_PARTITIONS_PER_TABLE = 10000


def not_found(what):
    return GoogleError(404, f"Not found: {what}", reason="notFound")


def invalid(message, **extra):
    return GoogleError(400, message, reason="invalid", **extra)


def etag(value):
    return hashlib.sha1(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12] + "=="


def now_ms():
    return str(int(time.time() * 1000))


@lru_cache(65536)
def _hour_id(hours, form):
    return (EPOCH + datetime.timedelta(hours=hours)).strftime("%Y%m%d%H")[:form]


class Table:
    def __init__(self, number, project, dataset, name, resource):
        self.id = number
        self.project, self.dataset, self.name = project, dataset, name
        self.resource = resource
        self.view = resource.get("view", {}).get("query")
        self.fields = resource.get("schema", {}).get("fields", [])
        self.row = Row(self.fields) if self.fields else None
        self.rows = f"rows_{number}"
        partitioning = resource.get("timePartitioning")
        self.partition_form = PARTITION_FORMS[partitioning["type"]] if partitioning else None
        self.partition_field = partitioning.get("field") if partitioning else None
        self.partition_index = None
        if self.partition_field:
            self.partition_index = self.row.names.index(self.partition_field)
            self.partition_type = self.fields[self.partition_index]["type"]

    def __str__(self):
        return f"{self.project}:{self.dataset}.{self.name}"

    @property
    def key(self):
        return f"{self.project}.{self.dataset}.{self.name}"

    @property
    def requires_filter(self):
        return bool(self.resource.get("requirePartitionFilter")
                    or self.resource.get("timePartitioning", {}).get("requirePartitionFilter"))

    def partition(self, values, arrival):
        """The partition id of a row, None where the table has no partitions."""
        if self.partition_form is None:
            return None
        if self.partition_index is None:
            return _hour_id(int(arrival // 3600), self.partition_form)
        value = values[self.partition_index]
        if value is None:
            return "__NULL__"
        if isinstance(value, int):
            return _hour_id(value // 3600000000, self.partition_form)
        text = value.replace("-", "").replace("T", "")[:10]
        return text[:self.partition_form]

    def insert_sql(self, schema="main"):
        names = ["_lc_bytes", "_lc_part", "_lc_job", "_lc_at"] + [f["name"] for f in self.fields]
        columns = ", ".join(f'"{name}"' for name in names)
        return (f"INSERT INTO {schema}.{self.rows} ({columns}) VALUES "
                f"({', '.join('?' * len(names))})")


class Catalog:
    def __init__(self, store, access, options):
        self.store = store
        self.access = access
        self.options = options
        self.cache = {}
        self.compile_view = None  # set by the query engine: (project, sql) -> fields

    # -- datasets

    def dataset(self, project, dataset):
        row = self.store.one("SELECT resource FROM datasets WHERE project = ? AND dataset = ?",
                             (project, dataset))
        if not row:
            raise not_found(f"Dataset {project}:{dataset}")
        return json.loads(row[0])

    def create_dataset(self, project, body, base):
        reference = body.get("datasetReference") or {}
        name = reference.get("datasetId", "")
        if not name.replace("_", "a").isalnum() or len(name) > 1024:
            raise invalid(f'Invalid dataset ID "{name}". Dataset IDs must be alphanumeric (plus '
                          "underscores) and must be at most 1024 characters long.")
        resource = {
            "kind": "bigquery#dataset", "id": f"{project}:{name}",
            "selfLink": f"{base}/projects/{project}/datasets/{name}", **body,
            "datasetReference": {"datasetId": name, "projectId": project},
            "location": self._location(body.get("location") or "US"), "type": "DEFAULT",
            "creationTime": now_ms(), "lastModifiedTime": now_ms(),
            "access": body.get("access") or [
                {"role": "WRITER", "specialGroup": "projectWriters"},
                {"role": "OWNER", "specialGroup": "projectOwners"},
                {"role": "OWNER", "userByEmail": self.access.email},
                {"role": "READER", "specialGroup": "projectReaders"}],
        }
        resource["etag"] = etag(resource)
        with self.store.transaction() as db:
            if db.execute("SELECT 1 FROM datasets WHERE project = ? AND dataset = ?",
                          (project, name)).fetchone():
                raise GoogleError(409, f"Already Exists: Dataset {project}:{name}",
                                  reason="duplicate")
            db.execute("INSERT INTO datasets VALUES (?, ?, ?)",
                       (project, name, json.dumps(resource)))
        return resource

    @staticmethod
    def _location(name):
        return name.upper() if name.upper() in ("US", "EU") else name.lower()

    def patch_dataset(self, project, dataset, body):
        with self.store.transaction() as db:
            resource = self.dataset(project, dataset)
            fixed = {"location", "datasetReference", "id", "kind", "creationTime"}
            for key, value in body.items():
                if key not in fixed:
                    resource[key] = value
            resource["lastModifiedTime"] = now_ms()
            resource["etag"] = etag(resource)
            db.execute("UPDATE datasets SET resource = ? WHERE project = ? AND dataset = ?",
                       (json.dumps(resource), project, dataset))
        return resource

    def delete_dataset(self, project, dataset, contents):
        with self.store.transaction() as db:
            self.dataset(project, dataset)
            names = [row[0] for row in db.execute(
                "SELECT tbl FROM tables WHERE project = ? AND dataset = ?", (project, dataset))]
            if names and not contents:
                raise GoogleError(400, f"Dataset {project}:{dataset} is still in use",
                                  reason="resourceInUse")
            for name in names:
                self.delete_table(project, dataset, name)
            db.execute("DELETE FROM datasets WHERE project = ? AND dataset = ?",
                       (project, dataset))

    # -- tables

    def table(self, project, dataset, name):
        name = name.partition("$")[0]
        key = (project, dataset, name)
        with self.store.lock:
            if key in self.cache:
                return self.cache[key]
            row = self.store.one("SELECT id, resource FROM tables WHERE project = ? AND "
                                 "dataset = ? AND tbl = ?", key)
            if not row:
                self.dataset(project, dataset)
                raise not_found(f"Table {project}:{dataset}.{name}")
            table = Table(row[0], *key, json.loads(row[1]))
            self.cache[key] = table
            return table

    def tables(self):
        rows = self.store.query("SELECT project, dataset, tbl FROM tables ORDER BY 1, 2, 3")
        return [self.table(*row) for row in rows]

    def list_tables(self, project, dataset):
        self.dataset(project, dataset)
        rows = self.store.query("SELECT tbl FROM tables WHERE project = ? AND dataset = ? "
                                "ORDER BY tbl", (project, dataset))
        return [self.table(project, dataset, row[0]) for row in rows]

    def create_table(self, project, dataset, body, base):
        parent = self.dataset(project, dataset)
        name = (body.get("tableReference") or {}).get("tableId", "")
        if not name or len(name) > 1024 or any(c in name for c in "$.:/\\`\"'"):
            raise invalid(f'Invalid table ID "{name}".')
        resource = {
            **body, "kind": "bigquery#table", "id": f"{project}:{dataset}.{name}",
            "selfLink": f"{base}/projects/{project}/datasets/{dataset}/tables/{name}",
            "tableReference": {"projectId": project, "datasetId": dataset, "tableId": name},
            "creationTime": now_ms(), "lastModifiedTime": now_ms(),
            "location": parent["location"], "type": "VIEW" if "view" in body else "TABLE",
            "_created": time.time(),
        }
        self._check_shape(project, resource)
        resource["etag"] = etag(resource)
        with self.store.transaction() as db:
            if db.execute("SELECT 1 FROM tables WHERE project = ? AND dataset = ? AND tbl = ?",
                          (project, dataset, name)).fetchone():
                raise GoogleError(409, f"Already Exists: Table {project}:{dataset}.{name}",
                                  reason="duplicate")
            number = db.execute("INSERT INTO tables (project, dataset, tbl, resource) VALUES "
                                "(?, ?, ?, ?)", (project, dataset, name,
                                                 json.dumps(resource))).lastrowid
            table = Table(number, project, dataset, name, resource)
            if not table.view:
                db.execute(
                    f"CREATE TABLE {table.rows} (_lc_row INTEGER PRIMARY KEY AUTOINCREMENT, "
                    "_lc_bytes INTEGER, _lc_part TEXT, _lc_job TEXT, _lc_at REAL"
                    + "".join(f', {column(f)}' for f in table.fields) + ")")
            self.cache[(project, dataset, name)] = table
        return table

    def _check_shape(self, project, resource):
        if "view" in resource:
            view = resource["view"]
            if view.get("useLegacySql") is not False:
                raise invalid("Views in legacy SQL are not supported here: set useLegacySql to "
                              "false.")
            resource["schema"] = {"fields": self.compile_view(project, view.get("query", ""))}
            return
        try:
            fields = (resource.get("schema") or {}).get("fields")
            if fields:
                resource["schema"] = {"fields": normalise_schema(fields)}
        except Bad as e:
            raise invalid(e.message) from None
        fields = {f["name"]: f for f in resource.get("schema", {}).get("fields", [])}
        for field in fields.values():
            if "defaultValueExpression" in field:
                raise invalid("defaultValueExpression is not modelled by this double")
        self._check_partitioning(resource, fields)

    @staticmethod
    def _check_partitioning(resource, fields):
        partitioning = resource.get("timePartitioning")
        if partitioning is not None:
            kind, name = partitioning.get("type"), partitioning.get("field")
            if kind not in PARTITION_FORMS:
                raise invalid(f"Invalid time partitioning type: {kind}")
            if name:
                field = fields.get(name)
                if not field:
                    raise invalid(f"The field specified for partitioning cannot be found in the "
                                  f"schema: {name}.")
                wanted = ("TIMESTAMP", "DATETIME") if kind == "HOUR" else \
                         ("TIMESTAMP", "DATETIME", "DATE")
                if field["type"] not in wanted or field["mode"] == "REPEATED":
                    raise invalid(f"The field specified for time partitioning can only be of type "
                                  f"{', '.join(wanted)}. The type found is: {field['type']}.")
        if resource.get("requirePartitionFilter") and partitioning is None:
            raise invalid("requirePartitionFilter needs a partitioned table.")
        clustering = (resource.get("clustering") or {}).get("fields", [])
        if len(clustering) > 4:
            raise invalid("Too many fields specified for clustering. At most 4 are allowed.")
        for name in clustering:
            field = fields.get(name)
            if not field or field["mode"] == "REPEATED" or field["type"] in ("FLOAT", "RECORD",
                                                                             "JSON", "BYTES"):
                raise invalid(f"The field specified for clustering is not allowed or cannot be "
                              f"found in the schema: {name}.")

    def patch_table(self, table, body, if_match=None, replace=False):
        with self.store.transaction() as db:
            resource = dict(table.resource)
            if if_match and if_match.strip('"') not in ("*", resource["etag"]):
                raise GoogleError(412, "Precondition check failed.", reason="conditionNotMet",
                                  location="If-Match", locationType="header")
            added = []
            if body.get("schema"):
                try:
                    fields = normalise_schema(body["schema"].get("fields"))
                except Bad as e:
                    raise invalid(e.message) from None
                added = self.schema_additions(table, fields)
                resource["schema"] = {"fields": fields}
            old, new = resource.get("timePartitioning"), body.get("timePartitioning")
            if new is not None and (not old or any(new.get(k, old.get(k)) != old.get(k)
                                                   for k in ("type", "field"))):
                raise invalid("Cannot change partitioning spec of an existing table.")
            fixed = {"schema", "tableReference", "id", "kind", "creationTime", "location", "type",
                     "etag", "selfLink", "numRows", "numBytes"}
            for key, value in body.items():
                if key not in fixed and not key.startswith("_"):
                    resource[key] = value
            self._check_shape(table.project, resource)
            resource["lastModifiedTime"] = now_ms()
            since = dict(resource.get("_columns_since", {}))
            since.update({name: time.time() for name in added})
            resource["_columns_since"] = since
            resource["etag"] = etag(resource)
            by_name = {f["name"]: f for f in resource.get("schema", {}).get("fields", [])}
            for name in added:
                db.execute(f"ALTER TABLE {table.rows} ADD COLUMN {column(by_name[name])}")
            return self._save(db, table, resource)

    def _save(self, db, table, resource):
        db.execute("UPDATE tables SET resource = ? WHERE id = ?", (json.dumps(resource), table.id))
        new = Table(table.id, table.project, table.dataset, table.name, resource)
        self.cache[(table.project, table.dataset, table.name)] = new
        return new

    @staticmethod
    def schema_additions(table, fields):
        """Names of the new columns; refuses what a patch may not do."""
        new = {f["name"].lower(): f for f in fields}
        prefix = f"Provided Schema does not match Table {table}."
        for old in table.fields:
            field = new.pop(old["name"].lower(), None)
            if field is None:
                raise invalid(f"{prefix} Field {old['name']} is missing in new schema")
            if field["type"] != old["type"]:
                raise invalid(f"{prefix} Field {old['name']} has changed type from {old['type']} "
                              f"to {field['type']}")
            if field["mode"] != old["mode"] and (old["mode"], field["mode"]) != ("REQUIRED",
                                                                                 "NULLABLE"):
                raise invalid(f"{prefix} Field {old['name']} has changed mode from {old['mode']} "
                              f"to {field['mode']}")
        for field in new.values():
            if field["mode"] == "REQUIRED":
                raise invalid(f"{prefix} Cannot add required fields to an existing schema. "
                              f"(field: {field['name']})")
        return [field["name"] for field in new.values()]

    def delete_table(self, project, dataset, name):
        with self.store.transaction() as db:
            table = self.table(project, dataset, name)
            if not table.view:
                db.execute(f"DROP TABLE {table.rows}")
            db.execute("DELETE FROM tables WHERE id = ?", (table.id,))
            self.cache.pop((project, dataset, table.name), None)

    def describe(self, table):
        """The table resource as tables.get shows it."""
        out = {k: v for k, v in table.resource.items() if not k.startswith("_")}
        if table.view:
            return out
        rows, size = self.store.one(f"SELECT count(*), coalesce(sum(_lc_bytes), 0) "
                                    f"FROM {table.rows}")
        out.update(numRows=str(rows), numBytes=str(size), numLongTermBytes="0",
                   numTotalLogicalBytes=str(size), numActiveLogicalBytes=str(size))
        fresh = time.time() - self.options["streaming_buffer_seconds"]
        count, size, oldest = self.store.one(
            f"SELECT count(*), coalesce(sum(_lc_bytes), 0), min(_lc_at) FROM {table.rows} "
            "WHERE _lc_job IS NULL AND _lc_at > ?", (fresh,))
        if count:
            out["streamingBuffer"] = {"estimatedRows": str(count), "estimatedBytes": str(size),
                                      "oldestEntryTime": str(int(oldest * 1000))}
        if table.partition_field:
            out["partitionDefinition"] = {"partitionedColumn": [{"field": table.partition_field}]}
        return out

    # -- quotas, by the table's name: dropping a table does not reset them

    def modifications(self, table):
        row = self.store.one("SELECT loads, partitions FROM modifications WHERE tbl = ? AND "
                             "day = ?", (table.key, time.strftime("%Y-%m-%d", time.gmtime())))
        return row or (0, 0)

    def count_modification(self, db, table, partitions):
        day = time.strftime("%Y-%m-%d", time.gmtime())
        db.execute("INSERT INTO modifications VALUES (?, ?, 1, ?) ON CONFLICT (tbl, day) DO UPDATE "
                   "SET loads = loads + 1, partitions = partitions + excluded.partitions",
                   (table.key, day, partitions))


def column(field):
    kind = "TEXT" if field["mode"] == "REPEATED" else AFFINITY.get(field["type"], "TEXT")
    return f'"{field["name"]}" {kind}'
