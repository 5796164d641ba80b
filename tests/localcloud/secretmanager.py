# SPDX-License-Identifier: Apache-2.0
"""Secret Manager v1: secrets, versions, access with CRC32C, states, aliases, IAM."""

import base64
import hashlib
import json
import re
import time

from .google import INFO, GoogleError, reply

SERVICE = "google.cloud.secretmanager.v1.SecretManagerService."
MAX_PAYLOAD = 65536
STATES = {"ENABLED": 1, "DISABLED": 2, "DESTROYED": 3}
NAME = re.compile(r"^[A-Za-z0-9_-]{1,255}$")


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def stamp(when=None):
    when = time.time() if when is None else when
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1e6):06d}Z"


class SecretManager:
    def __init__(self, store, access):
        self.store = store
        self.access = access

    # -- used by the admin API, too

    def create(self, project, secret, resource=None):
        if not NAME.match(secret):
            raise GoogleError(400, f"Secret id [{secret}] must match [A-Za-z0-9_-]{{1,255}}.")
        resource = {"name": f"projects/{self.access.number}/secrets/{secret}",
                    "createTime": stamp(), "replication": {"automatic": {}}, **(resource or {})}
        resource["etag"] = '"' + hashlib.sha1(repr(resource).encode()).hexdigest()[:14] + '"'
        with self.store.transaction() as db:
            if db.execute("SELECT 1 FROM secrets WHERE project = ? AND secret = ?",
                          (project, secret)).fetchone():
                raise GoogleError(409, f"Secret [{resource['name']}] already exists.")
            db.execute("INSERT INTO secrets VALUES (?, ?, ?)",
                       (project, secret, json.dumps(resource)))
        return resource

    def add(self, project, secret, data):
        if len(data) > MAX_PAYLOAD:
            raise GoogleError(400, "The payload is larger than 65536 bytes.")
        with self.store.transaction() as db:
            version = db.execute("SELECT coalesce(max(version), 0) + 1 FROM versions "
                                 "WHERE project = ? AND secret = ?", (project, secret)).fetchone()[0]
            db.execute("INSERT INTO versions VALUES (?, ?, ?, 'ENABLED', ?, ?)",
                       (project, secret, version, data, stamp()))
        return version

    def set_state(self, project, secret, version, state):
        with self.store.transaction() as db:
            row = db.execute("SELECT state FROM versions WHERE project = ? AND secret = ? AND "
                             "version = ?", (project, secret, version)).fetchone()
            if not row:
                raise self.missing(secret, version)
            if row[0] == "DESTROYED" and state != "DESTROYED":
                raise self.bad_state(secret, version, "DESTROYED")
            db.execute("UPDATE versions SET state = ?, data = CASE WHEN ? = 'DESTROYED' THEN NULL "
                       "ELSE data END WHERE project = ? AND secret = ? AND version = ?",
                       (state, state, project, secret, version))

    def exists(self, project, secret):
        return self.store.one("SELECT 1 FROM secrets WHERE project = ? AND secret = ?",
                              (project, secret)) is not None

    # -- errors

    def missing(self, secret, version=None):
        name = f"projects/{self.access.number}/secrets/{secret}"
        if version is None:
            return GoogleError(404, f"Secret [{name}] not found.")
        if version == "latest":
            return GoogleError(404, f"Secret [{name}] not found or has no versions.")
        return GoogleError(404, f"Secret Version [{name}/versions/{version}] not found.")

    def bad_state(self, secret, version, state):
        return GoogleError(400, f"Secret Version [projects/{self.access.number}/secrets/{secret}/"
                           f"versions/{version}] is in {state} state.", "FAILED_PRECONDITION")

    def allow(self, permission, resource):
        if self.access.denies(permission, resource):
            raise GoogleError(
                403, f"Permission '{permission}' denied for resource '{resource}' (or it may not "
                "exist).", details=[{"@type": INFO, "reason": "IAM_PERMISSION_DENIED",
                                     "domain": "iam.googleapis.com",
                                     "metadata": {"permission": permission,
                                                  "resource": resource}}])

    # -- HTTP

    def handle(self, request):
        parts = request.segments()[1:]  # after v1
        last, colon, verb = parts[-1].partition(":")
        if colon:
            parts[-1] = last
        method = {"access": "AccessSecretVersion"}.get(verb, "GetSecretVersion")
        self.access.check(request, "secretmanager", "secretmanager", SERVICE + method)
        asked = "/".join(parts)
        regional = len(parts) > 3 and parts[2] == "locations"
        if regional:
            del parts[2:4]
        if len(parts) < 3 or parts[0] != "projects" or parts[2] != "secrets":
            raise GoogleError(404, "The requested URL was not found on this server.")
        if not self.access.project_is_known(parts[1]):
            raise GoogleError(403, f"Permission denied on resource project {parts[1]}.",
                              details=[{"@type": INFO, "reason": "CONSUMER_INVALID",
                                        "domain": "googleapis.com"}])
        self.regional_host_matches(request, regional, asked)
        parts[1] = self.access.canonical_project(parts[1])
        return self._route(request, parts, verb, asked)

    def regional_host_matches(self, request, regional, asked):
        host = request.host.partition(":")[0]
        if not host.endswith("googleapis.com"):
            return
        if regional != host.endswith(".rep.googleapis.com"):
            raise GoogleError(400, f"Resource [{asked}] does not belong to the endpoint {host}.")

    def _route(self, request, parts, verb, asked):
        project, tail, method = parts[1], parts[3:], request.method
        if not tail:
            if method == "POST":
                return self._create(request, project)
            return self._list_secrets(request, project)
        secret = tail[0]
        if len(tail) == 1:
            if verb == "addVersion" and method == "POST":
                return self._add(request, project, secret, asked)
            if verb == "testIamPermissions" and method == "POST":
                return self._test(request, asked)
            if not verb and method == "GET":
                return self._get(project, secret, asked)
            if not verb and method == "DELETE":
                return self._delete(project, secret, asked)
        if len(tail) == 2 and tail[1] == "versions" and method == "GET":
            return self._list_versions(request, project, secret, asked)
        if len(tail) == 3 and tail[1] == "versions":
            if verb == "access" and method == "GET":
                return self._access(request, project, secret, tail[2], asked)
            if not verb and method == "GET":
                self.allow("secretmanager.versions.get", asked)
                return reply(self._version(request, self._find(project, secret, tail[2])))
            if verb in ("enable", "disable", "destroy") and method == "POST":
                self.allow(f"secretmanager.versions.{verb}", asked)
                row = self._find(project, secret, tail[2])
                self.set_state(project, secret, row[1], verb.upper() + ("ED" if verb[-1] == "y"
                                                                        else "D"))
                return reply(self._version(request, self._find(project, secret, str(row[1]))))
        raise GoogleError(404, "The requested URL was not found on this server.")

    def _find(self, project, secret, version):
        """(secret, number, state, data, created) of a number, an alias or `latest`."""
        if not re.match(r"^[A-Za-z0-9_-]+$", version):
            raise GoogleError(400, f"Secret version name [{version}] is malformed.")
        if not self.exists(project, secret):
            raise self.missing(secret, "latest")
        where, args = "version = ?", (project, secret, version)
        if version == "latest":
            where, args = "1 ORDER BY version DESC LIMIT 1", (project, secret)
        elif not version.isdigit():
            alias = self._resource(project, secret).get("versionAliases", {}).get(version)
            if alias is None:
                raise GoogleError(404, f"Secret [projects/{self.access.number}/secrets/{secret}] "
                                  f"has no alias [{version}].")
            args = (project, secret, alias)
        row = self.store.one("SELECT secret, version, state, data, created FROM versions WHERE "
                             f"project = ? AND secret = ? AND {where}", args)
        if not row:
            raise self.missing(secret, version)
        return row

    def _resource(self, project, secret):
        row = self.store.one("SELECT resource FROM secrets WHERE project = ? AND secret = ?",
                             (project, secret))
        if not row:
            raise self.missing(secret)
        return json.loads(row[0])

    def _version(self, request, row):
        secret, version, state, _, created = row
        if "enum-encoding=int" in request.arg("$alt", ""):
            state = STATES[state]
        name = f"projects/{self.access.number}/secrets/{secret}/versions/{version}"
        etag = hashlib.sha1(f"{name}{state}".encode()).hexdigest()[:14]
        return {"name": name, "createTime": created, "state": state, "etag": f'"{etag}"',
                "replicationStatus": {"automatic": {}}}

    def _access(self, request, project, secret, version, asked):
        request.note["secret"] = {"secret": secret, "asked": version}
        self.allow("secretmanager.versions.access", asked)
        row = self._find(project, secret, version)
        _, number, state, data, _ = row
        request.note["secret"]["version"] = number
        if state != "ENABLED":
            raise self.bad_state(secret, number, state)
        name = f"projects/{self.access.number}/secrets/{secret}/versions/{number}"
        if request.arg("fields") == "name":  # a partial answer: the value does not travel
            request.note["secret"]["name_only"] = True
            return reply({"name": name})
        crc = crc32c(data)
        payload = {"data": base64.b64encode(data).decode()}
        if request.do.get("wrong_crc"):
            crc ^= 1
        if not request.do.get("no_crc"):
            payload["dataCrc32c"] = str(crc)
        return reply({"name": name, "payload": payload})

    def _create(self, request, project):
        self.allow("secretmanager.secrets.create", f"projects/{project}")
        body = request.json() or {}
        return reply(self.create(project, request.arg("secretId", ""), {
            key: body[key] for key in ("labels", "versionAliases", "replication") if key in body}))

    def _add(self, request, project, secret, asked):
        self.allow("secretmanager.versions.add", asked)
        self._resource(project, secret)
        payload = (request.json() or {}).get("payload") or {}
        try:
            data = base64.b64decode(payload.get("data", ""), validate=True)
        except ValueError:
            raise GoogleError(400, "payload.data is not base64.") from None
        declared = payload.get("dataCrc32c")
        if declared is not None and int(declared) != crc32c(data):
            raise GoogleError(400, "The checksum provided does not match the payload.")
        number = self.add(project, secret, data)
        return reply(self._version(request, self._find(project, secret, str(number))))

    def _test(self, request, asked):
        wanted = (request.json() or {}).get("permissions", [])
        granted = [p for p in wanted if not self.access.denies(p, asked)]
        return reply({"permissions": granted} if granted else {})

    def _get(self, project, secret, asked):
        self.allow("secretmanager.secrets.get", asked)
        return reply(self._resource(project, secret))

    def _delete(self, project, secret, asked):
        self.allow("secretmanager.secrets.delete", asked)
        self._resource(project, secret)
        with self.store.transaction() as db:
            for table in ("secrets", "versions"):
                db.execute(f"DELETE FROM {table} WHERE project = ? AND secret = ?",
                           (project, secret))
        return reply({})

    def _list_secrets(self, request, project):
        self.allow("secretmanager.secrets.list", f"projects/{project}")
        rows = self.store.query("SELECT resource FROM secrets WHERE project = ? ORDER BY secret",
                                (project,))
        return self._page(request, "secrets", [json.loads(row[0]) for row in rows])

    def _list_versions(self, request, project, secret, asked):
        self.allow("secretmanager.versions.list", asked)
        self._resource(project, secret)
        rows = self.store.query("SELECT secret, version, state, data, created FROM versions WHERE "
                                "project = ? AND secret = ? ORDER BY version DESC",
                                (project, secret))
        state = re.fullmatch(r"\s*state\s*[:=]\s*(ENABLED|DISABLED|DESTROYED)\s*",
                             request.arg("filter", "") or "state:ENABLED")
        if not state:
            raise GoogleError(400, "The filter is not understood.")
        if request.arg("filter"):
            rows = [row for row in rows if row[2] == state[1]]
        return self._page(request, "versions", [self._version(request, row) for row in rows])

    def _page(self, request, key, items):
        try:
            size = int(request.arg("pageSize") or 25000)
            start = int(request.arg("pageToken") or 0)
        except ValueError:
            raise GoogleError(400, "pageSize or pageToken is malformed.") from None
        page = items[start:start + size]
        out = {key: page} if page else {}
        if start + size < len(items):
            out["nextPageToken"] = str(start + size)
        out["totalSize"] = len(items)
        return reply(out)
