# SPDX-License-Identifier: Apache-2.0
"""BigQuery v2 over REST: which path is which method, with the permission it needs."""

from .bq_insert import Inserts
from .bq_jobs import Jobs
from .bq_load import Loads
from .bq_query import Queries
from .bq_tables import Catalog, invalid
from .bq_types import to_api
from .bq_upload import Uploads
from .google import GoogleError, HEADERS, reply
from .server import Response

SERVICE = "google.cloud.bigquery.v2."
PREFIXES = ("/bigquery/v2/", "/upload/bigquery/v2/", "/resumable/upload/bigquery/v2/")


class BigQuery:
    def __init__(self, store, access, options, broken=()):
        self.store = store
        self.access = access
        self.options = options
        self.catalog = Catalog(store, access, options)
        self.jobs = Jobs(store, access, options)
        self.loads = Loads(store, self.catalog, self.jobs, options)
        self.uploads = Uploads(store, self.loads, self.jobs, options, broken)
        self.inserts = Inserts(store, self.catalog, options, broken)
        self.queries = Queries(store, access, self.catalog, self.jobs, options)
        self.jobs.start()

    # -- permission checks

    def check(self, request, method, scopes="bigquery"):
        self.access.check(request, "bigquery", scopes, SERVICE + method)

    def allow(self, permission, project, table=None):
        resource = f"Table {table}" if table else f"Project {project}"
        if not self.access.denies(permission, str(table or project)):
            return
        if table:
            message = (f"Access Denied: {resource}: Permission {permission} denied on table {table} "
                       "(or it may not exist).")
        else:
            message = (f"Access Denied: {resource}: User does not have {permission} permission in "
                       f"project {project}.")
        raise GoogleError(403, message, reason="accessDenied")

    # -- routing

    def handle(self, request):
        upload = "upload" in request.path.split("/")[1:3]
        path = request.path
        for prefix in PREFIXES:
            if path.startswith(prefix):
                path = "/" + path[len(prefix):]
                break
        request_path = request.path
        request.path = path
        parts = request.segments()
        request.path = request_path
        base = f"http://{request.host}/bigquery/v2"
        if len(parts) < 2 or parts[0] != "projects":
            if parts == ["projects"] and request.method == "GET":
                return self._projects(request)
            return self._nothing()
        if upload and request.method in ("PUT", "DELETE"):
            if parts[2:] != ["jobs"]:
                return self._nothing()
            if "authorization" in request.headers:
                self.check(request, "JobService.InsertJob")
            return self.uploads.put(request, base)
        project = self.access.canonical_project(parts[1])
        rest = parts[2:]
        if upload:
            self.check(request, "JobService.InsertJob")
            self._project(project)
            if rest != ["jobs"] or request.method != "POST":
                return self._nothing()
            self.allow("bigquery.jobs.create", project)
            return self.uploads.begin(request, project, base)
        if not rest:
            return self._nothing()
        handler = {"datasets": self._datasets, "jobs": self._jobs,
                   "queries": self._queries}.get(rest[0])
        if handler is None and rest == ["serviceAccount"]:
            self.check(request, "ProjectService.GetServiceAccount", "bigquery.read")
            return reply({"kind": "bigquery#getServiceAccountResponse",
                          "email": f"bq-{self.access.number}@bigquery-encryption.iam."
                                   "gserviceaccount.com"})
        return handler(request, project, rest[1:], base) if handler else self._nothing()

    @staticmethod
    def _nothing():
        raise GoogleError(404, "The requested URL was not found on this server.",
                          reason="notFound")

    def _project(self, project):
        if not self.access.project_is_known(project):
            raise GoogleError(404, f"Not found: Project {project}", reason="notFound")

    def _projects(self, request):
        self.check(request, "ProjectService.ListProjects", "bigquery.read")
        project = self.access.project
        return reply({"kind": "bigquery#projectList", "totalItems": 1, "projects": [
            {"kind": "bigquery#project", "id": project, "numericId": self.access.number,
             "projectReference": {"projectId": project}, "friendlyName": project}]})

    # -- datasets and tables

    def _datasets(self, request, project, rest, base):
        method, reads = request.method, request.method == "GET"
        self.check(request, f"DatasetService.{method.title()}Dataset",
                   "bigquery.read" if reads else
                   "bigquery.insert" if rest[-1:] == ["insertAll"] else "bigquery")
        self._project(project)
        catalog = self.catalog
        if not rest:
            if method == "POST":
                self.allow("bigquery.datasets.create", project)
                return reply(catalog.create_dataset(project, request.json() or {}, base))
            rows = self.store.query("SELECT dataset FROM datasets WHERE project = ? ORDER BY 1",
                                    (project,))
            items = [catalog.dataset(project, row[0]) for row in rows]
            return self._page(request, "bigquery#datasetList", "datasets", [
                {k: d[k] for k in ("kind", "id", "datasetReference", "labels", "location")
                 if k in d} for d in items])
        dataset = rest[0]
        if len(rest) == 1:
            return self._dataset(request, project, dataset)
        if rest[1] != "tables":
            return self._nothing()
        return self._tables(request, project, dataset, rest[2:], base)

    def _dataset(self, request, project, dataset):
        method = request.method
        verb = {"GET": "get", "PATCH": "update", "PUT": "update", "DELETE": "delete"}.get(method)
        if not verb:
            return self._nothing()
        if self.access.denies(f"bigquery.datasets.{verb}", f"{project}:{dataset}"):
            raise GoogleError(403, f"Access Denied: Dataset {project}:{dataset}: Permission "
                              f"bigquery.datasets.{verb} denied on dataset {project}:{dataset} (or "
                              "it may not exist).", reason="accessDenied")
        if verb == "get":
            return reply(self.catalog.dataset(project, dataset))
        if verb == "update":
            return reply(self.catalog.patch_dataset(project, dataset, request.json() or {}))
        self.catalog.delete_dataset(project, dataset, request.arg("deleteContents") == "true")
        return Response(204, b"", None, HEADERS)

    def _tables(self, request, project, dataset, rest, base):
        method, catalog = request.method, self.catalog
        if not rest:
            if method == "POST":
                self.allow("bigquery.tables.create", project, f"{project}:{dataset}")
                return reply(catalog.describe(
                    catalog.create_table(project, dataset, request.json() or {}, base)))
            self.allow("bigquery.tables.list", project)
            return self._page(request, "bigquery#tableList", "tables", [
                {k: t.resource[k] for k in ("kind", "id", "tableReference", "type", "labels",
                                            "timePartitioning", "clustering", "creationTime")
                 if k in t.resource} for t in catalog.list_tables(project, dataset)])
        name, colon, verb = rest[0].partition(":")
        full = f"{project}:{dataset}.{name.partition('$')[0]}"
        if colon:
            return self._test_permissions(request, project, dataset, name, verb, full)
        if len(rest) == 2 and rest[1] == "insertAll" and method == "POST":
            self.allow("bigquery.tables.updateData", project, full)
            return self.inserts.handle(request, project, dataset, name)
        if len(rest) == 2 and rest[1] == "data" and method == "GET":
            self.allow("bigquery.tables.getData", project, full)
            return self._data(request, catalog.table(project, dataset, name))
        if len(rest) != 1:
            return self._nothing()
        if method == "GET":
            self.allow("bigquery.tables.get", project, full)
            return reply(catalog.describe(catalog.table(project, dataset, name)))
        if method in ("PATCH", "PUT"):
            self.allow("bigquery.tables.update", project, full)
            table = catalog.patch_table(catalog.table(project, dataset, name),
                                        request.json() or {}, request.headers.get("if-match"))
            return reply(catalog.describe(table))
        if method == "DELETE":
            self.allow("bigquery.tables.delete", project, full)
            catalog.delete_table(project, dataset, name)
            return Response(204, b"", None, HEADERS)
        return self._nothing()

    def _test_permissions(self, request, project, dataset, name, verb, full):
        if verb != "testIamPermissions" or request.method != "POST":
            return self._nothing()
        self.catalog.table(project, dataset, name)
        wanted = (request.json() or {}).get("permissions", [])
        granted = [p for p in wanted if not self.access.denies(p, full)]
        return reply({"permissions": granted} if granted else {})

    @staticmethod
    def _page(request, kind, key, items):
        try:
            size = int(request.arg("maxResults") or 1000)
            start = int(request.arg("pageToken") or 0)
        except ValueError:
            raise invalid("Invalid value for maxResults or pageToken") from None
        out = {"kind": kind, "etag": "local==", "totalItems": len(items)}
        if items[start:start + size]:
            out[key] = items[start:start + size]
        if start + size < len(items):
            out["nextPageToken"] = str(start + size)
        return reply(out)

    def _data(self, request, table):
        if table.view:
            raise invalid(f"Cannot list a table of type VIEW: {table}")
        try:
            size = min(int(request.arg("maxResults") or 10000), 100000)
            start = int(request.arg("pageToken") or request.arg("startIndex") or 0)
        except ValueError:
            raise invalid("Invalid value for maxResults, startIndex or pageToken") from None
        wanted = request.arg("selectedFields")
        names = {n.strip() for n in wanted.split(",")} if wanted else None
        fields = [f for f in table.fields if not names or f["name"] in names]
        columns = ", ".join(f'"{f["name"]}"' for f in fields) or "NULL"
        total = self.store.one(f"SELECT count(*) FROM {table.rows}")[0]
        rows = self.store.query(f"SELECT {columns} FROM {table.rows} ORDER BY _lc_row LIMIT ? "
                                "OFFSET ?", (size, start))
        form = (request.arg("formatOptions.useInt64Timestamp") == "true",
                request.arg("formatOptions.timestampOutputFormat") == "ISO8601_STRING")
        out = {"kind": "bigquery#tableDataList", "etag": "local==", "totalRows": str(total)}
        if rows:
            out["rows"] = [{"f": [{"v": to_api(f, v, *form)} for f, v in zip(fields, row)]}
                           for row in rows]
        if start + len(rows) < total:
            out["pageToken"] = str(start + len(rows))
        return reply(out)

    # -- jobs and queries

    def _jobs(self, request, project, rest, base):
        method = request.method
        self.check(request, f"JobService.{'InsertJob' if method == 'POST' else 'GetJob'}",
                   "bigquery.read" if method == "GET" else "bigquery")
        self._project(project)
        location = request.arg("location")
        if not rest and method == "POST":
            return self._insert_job(request, project, base)
        if not rest and method == "GET":
            if request.arg("allUsers") == "true":
                self.allow("bigquery.jobs.listAll", project)
            self.allow("bigquery.jobs.list", project)
            return reply(self.jobs.list(project, request))
        if len(rest) == 1 and method == "GET":
            self.allow("bigquery.jobs.get", project)
            return reply(self.jobs.resource(self.jobs.find(project, rest[0], location)))
        if len(rest) == 2 and rest[1] == "cancel" and method == "POST":
            return reply(self.jobs.cancel(project, rest[0], location))
        if len(rest) == 2 and rest[1] == "delete" and method == "DELETE":
            self.jobs.delete(project, rest[0], location)
            return Response(204, b"", None, HEADERS)
        return self._nothing()

    def _insert_job(self, request, project, base):
        self.allow("bigquery.jobs.create", project)
        body = request.json() or {}
        configuration = body.get("configuration") or {}
        if "query" in configuration:
            return reply(self.queries.insert_job(request, project, body, base))
        if "load" in configuration:
            raise invalid("Load configuration must specify at least one source URI")
        raise invalid("Job configuration must contain exactly one job-specific configuration "
                      "object (e.g., query, load, extract, spreadsheetExtract), but there were 0: ")

    def _queries(self, request, project, rest, base):
        post = request.method == "POST"
        self.check(request, "JobService.Query" if post else "JobService.GetQueryResults",
                   "bigquery" if post else "bigquery.read")
        self._project(project)
        if post and not rest:
            self.allow("bigquery.jobs.create", project)
            return reply(self.queries.query(request, project, request.json() or {}, base))
        if len(rest) == 1 and request.method == "GET":
            return reply(self.queries.results(request, project, rest[0]))
        return self._nothing()
