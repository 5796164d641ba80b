# SPDX-License-Identifier: Apache-2.0
"""What all Google REST APIs share: the error envelope, response headers, tokens, scopes, IAM."""

import json
import os
import re
import threading
import time

from .server import Response

CANONICAL = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED",
             404: "NOT_FOUND", 409: "ALREADY_EXISTS", 412: "FAILED_PRECONDITION",
             413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED",
             500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
             504: "DEADLINE_EXCEEDED"}
HEADERS = [("Vary", "Origin"), ("Vary", "X-Origin"), ("Vary", "Referer"), ("Server", "ESF"),
           ("X-XSS-Protection", "0"), ("X-Frame-Options", "SAMEORIGIN"),
           ("X-Content-Type-Options", "nosniff")]
JSON_TYPE = "application/json; charset=UTF-8"
INFO = "type.googleapis.com/google.rpc.ErrorInfo"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
AUTH = "https://www.googleapis.com/auth/"
SCOPES = {
    "secretmanager": (PLATFORM,),
    "artifactregistry": (PLATFORM, PLATFORM + ".read-only"),
    "bigquery": (PLATFORM, AUTH + "bigquery"),
    "bigquery.read": (PLATFORM, AUTH + "bigquery", AUTH + "bigquery.readonly",
                      PLATFORM + ".read-only"),
    "bigquery.insert": (PLATFORM, AUTH + "bigquery", AUTH + "bigquery.insertdata"),
}
PERMISSIONS = {
    f"{service}.{kind}.{verb}" for service, kind, verbs in (
        ("secretmanager", "secrets", "create get list delete"),
        ("secretmanager", "versions", "access get list add enable disable destroy"),
        ("artifactregistry", "repositories", "downloadArtifacts uploadArtifacts"),
        ("bigquery", "jobs", "create get list listAll"),
        ("bigquery", "datasets", "create get update delete"),
        ("bigquery", "tables", "create get list update delete updateData getData"),
    ) for verb in verbs.split()}
APIS = {f"{name}.googleapis.com" for name in ("secretmanager", "artifactregistry", "bigquery")}
HTML = """<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <title>Error {code} ({kind})!!1</title>
  <p><b>{code}.</b> <ins>That’s an error.</ins>
  <p>{text}  <ins>That’s all we know.</ins>
"""


def html_page(code):
    kind = "Server Error" if code >= 500 else "Not Found" if code == 404 else "Client Error"
    return HTML.format(code=code, kind=kind, text="The server encountered an error and could not "
                       "complete your request." if code >= 500 else "The request was refused.")


class GoogleError(Exception):
    """An answer of the shape that all Google APIs use for errors."""

    def __init__(self, code, message, status=None, reason=None, details=(), headers=(), **extra):
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or CANONICAL.get(code, "UNKNOWN")
        self.reason = reason
        self.details = list(details)
        self.headers = list(headers)
        self.extra = extra  # location, locationType in errors[]

    def response(self):
        error = {"code": self.code, "message": self.message}
        if self.reason:
            error["errors"] = [{"message": self.message, "domain": "global",
                                "reason": self.reason, **self.extra}]
        error["status"] = self.status
        if self.details:
            error["details"] = self.details
        return reply({"error": error}, self.code, self.headers)


def reply(value, status=200, headers=()):
    body = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return Response(status, body, JSON_TYPE, HEADERS + list(headers))


class Access:
    """Tokens of the VM's service account, its access scopes, IAM denials and disabled APIs."""

    def __init__(self, store, project, number):
        self.store = store
        self.project = project
        self.number = number
        self.lock = threading.Lock()
        self.email = f"{number}-compute@developer.gserviceaccount.com"

    @property
    def scopes(self):
        return self.store.get("scopes", [PLATFORM])

    def token(self):
        """The token and the seconds left, reused until shortly before its expiry, as the MDS does."""
        ttl = self.store.get("token-ttl", 3599)
        early = 300 if ttl > 600 else ttl / 10
        with self.lock:
            current = self.store.get("token-current")
            now = time.time()
            if current and current["expires"] - now > early and current["ttl"] == ttl:
                return current["token"], current["expires"] - now
            token = "ya29.local-" + os.urandom(24).hex()
            with self.store.transaction() as db:
                db.execute("DELETE FROM tokens WHERE expires < ?", (now - 3600,))
                db.execute("INSERT INTO tokens VALUES (?, 'google', ?)", (token, now + ttl))
                self.store.put("token-current", {"token": token, "expires": now + ttl, "ttl": ttl})
            return token, ttl

    def rotate(self):
        with self.store.transaction() as db:
            db.execute("DELETE FROM tokens")
            db.execute("DELETE FROM kv WHERE key = 'token-current'")

    def token_is_valid(self, token, audience="google"):
        row = self.store.one("SELECT expires FROM tokens WHERE token = ? AND audience = ?",
                             (token, audience))
        return bool(row) and row[0] > time.time()

    def denies(self, permission, resource):
        for entry in self.store.get("iam", []):
            name, _, where = entry.partition("@")
            if name == permission and (not where or re.search(where, resource)):
                return True
        return False

    def project_is_known(self, project):
        return project in (self.project, self.number) or project in self.store.get("projects", [])

    def canonical_project(self, project):
        return self.project if project == self.number else project

    def check(self, request, service, scopes, method):
        """Token, API and scope, in the order in which Google's front end looks at them."""
        header = request.headers.get("authorization", "")
        scheme, _, token = header.partition(" ")
        info = {"service": f"{service}.googleapis.com", "method": method}
        if not header:
            raise GoogleError(
                401, "Request is missing required authentication credential. Expected OAuth 2 "
                "access token, login cookie or other valid authentication credential. See "
                "https://developers.google.com/identity/sign-in/web/devconsole-project.",
                reason="required", location="Authorization", locationType="header",
                headers=[("WWW-Authenticate", 'Bearer realm="https://accounts.google.com/"')],
                details=[{"@type": INFO, "reason": "CREDENTIALS_MISSING",
                          "domain": "googleapis.com", "metadata": info}])
        if scheme.lower() != "bearer" or not self.token_is_valid(token.strip()):
            raise GoogleError(
                401, "Request had invalid authentication credentials. Expected OAuth 2 access "
                "token, login cookie or other valid authentication credential. See "
                "https://developers.google.com/identity/sign-in/web/devconsole-project.",
                reason="authError", location="Authorization", locationType="header",
                headers=[("WWW-Authenticate", 'Bearer realm="https://accounts.google.com/", '
                          'error="invalid_token"')],
                details=[{"@type": INFO, "reason": "ACCESS_TOKEN_EXPIRED",
                          "domain": "googleapis.com", "metadata": info}])
        if f"{service}.googleapis.com" in self.store.get("apis-disabled", []):
            self._disabled(service)
        if not set(self.scopes) & set(SCOPES[scopes]):
            raise GoogleError(
                403, "Request had insufficient authentication scopes.",
                reason="insufficientPermissions",
                headers=[("WWW-Authenticate", 'Bearer realm="https://accounts.google.com/", '
                          'error="insufficient_scope", scope="%s"' % " ".join(SCOPES[scopes]))],
                details=[{"@type": INFO, "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
                          "domain": "googleapis.com", "metadata": info}])

    def _disabled(self, service):
        title = {"secretmanager": "Secret Manager", "bigquery": "BigQuery",
                 "artifactregistry": "Artifact Registry"}[service]
        url = (f"https://console.developers.google.com/apis/api/{service}.googleapis.com/overview"
               f"?project={self.number}")
        raise GoogleError(
            403, f"{title} API has not been used in project {self.number} before or it is disabled."
            f" Enable it by visiting {url} then retry. If you enabled this API recently, wait a few "
            "minutes for the action to propagate to our systems and retry.",
            reason="accessNotConfigured",
            details=[{"@type": INFO, "reason": "SERVICE_DISABLED", "domain": "googleapis.com",
                      "metadata": {"service": f"{service}.googleapis.com",
                                   "consumer": f"projects/{self.number}"}}])
