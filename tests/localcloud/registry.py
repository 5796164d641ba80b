# SPDX-License-Identifier: Apache-2.0
"""Artifact Registry as a puller sees it: token service and checks in front of a real registry."""

import base64
import hashlib
import http.client
import json
import os
import re
import threading
import time
from urllib.parse import urlsplit

from .google import INFO, SCOPES, GoogleError, reply
from .server import Response

FORWARD = ("accept", "content-type", "content-length", "content-range", "range", "if-none-match",
           "user-agent")
RETURN = {"content-type", "docker-content-digest", "docker-distribution-api-version", "etag",
          "link", "location", "range", "docker-upload-uuid", "content-range", "accept-ranges",
          "cache-control", "content-length", "oci-subject"}
USERS = ("oauth2accesstoken", "_token")
NAME = re.compile(r"^/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.+)$")


def error(status, code, message, headers=(), detail=None):
    entry = {"code": code, "message": message}
    if detail is not None:
        entry["detail"] = detail
    return Response(status, json.dumps({"errors": [entry]}), "application/json",
                    [("Docker-Distribution-Api-Version", "registry/2.0"), *headers])


class Registry:
    def __init__(self, store, access, options, upstream):
        self.store = store
        self.access = access
        self.options = options
        self.upstream = urlsplit(upstream).netloc if upstream else None
        self.storage_port = None
        self.local = threading.local()

    # -- the real registry behind

    def _call(self, request, path, method=None, body=None, fresh=False):
        headers = {name: request.headers[name] for name in FORWARD if name in request.headers}
        headers["Host"] = request.host
        if body is None:
            headers.pop("content-length", None)
        for attempt in (0, 1):
            link = None if fresh else getattr(self.local, "link", None)
            kept = link is not None
            if not kept:
                link = http.client.HTTPConnection(self.upstream, timeout=60)
            self.local.link = None
            try:
                link.request(method or request.method, path, body, headers)
                answer = link.getresponse()
                return link, answer
            except (OSError, http.client.HTTPException):
                link.close()
                if not kept or body is not None or attempt:
                    raise
        return None

    def _proxy(self, request, path, method=None):
        """Pass the request on and stream the answer back."""
        if not self.upstream:
            return error(503, "UNAVAILABLE", "localcloud was started without --registry URL")
        body = request.stream() if request.has_length() else None
        try:
            link, answer = self._call(request, path, method, body, fresh=body is not None)
        except (OSError, http.client.HTTPException) as e:
            return error(502, "UNAVAILABLE", f"the registry behind localcloud: {e}")
        response = Response(answer.status, b"", None,
                            [(k, v) for k, v in answer.getheaders() if k.lower() in RETURN])
        response.set_header("Docker-Distribution-Api-Version", "registry/2.0")
        length = answer.length

        def chunks():
            while True:
                data = answer.read(262144)
                if not data:
                    break
                yield data
            self.local.link = link

        if length is not None and length < 1 << 20 or request.method == "HEAD":
            response.body = answer.read()
            if request.method != "HEAD":
                response.set_header("Content-Length", None)
            self.local.link = link
        else:
            response.stream = (chunks(), length)
        return response

    # -- the token service

    def _resource(self, request, name):
        parts = name.split("/")
        host = re.match(r"^([a-z0-9-]+)-docker\.pkg\.dev", request.host)
        return (f"projects/{parts[0]}/locations/{host[1] if host else 'asia-northeast3'}"
                f"/repositories/{parts[1] if len(parts) > 1 else parts[0]}")

    def _denied(self, permission, resource):
        return error(403, "DENIED", f'Permission "{permission}" denied on resource "{resource}" '
                     "(or it may not exist)")

    def _identity(self, request):
        """None where there are no credentials, True for good ones, else the refusal."""
        header = request.headers.get("authorization", "")
        if not header:
            return None
        scheme, _, value = header.partition(" ")
        refused = error(401, "UNAUTHORIZED", "authentication failed",
                        [("WWW-Authenticate", 'Basic realm="token"')])
        if scheme.lower() != "basic":
            return refused
        try:
            user, _, password = base64.b64decode(value.strip()).decode().partition(":")
        except ValueError:
            return refused
        if user not in USERS or not self.access.token_is_valid(password):
            return refused
        if "artifactregistry.googleapis.com" in self.store.get("apis-disabled", []):
            return error(403, "DENIED", "Artifact Registry API has not been used in project "
                         f"{self.access.number} before or it is disabled.")
        if not set(self.access.scopes) & set(SCOPES["artifactregistry"]):
            return error(403, "DENIED", "Request had insufficient authentication scopes.")
        return True

    def _token(self, request):
        identity = self._identity(request)
        if isinstance(identity, Response):
            return identity
        granted = []
        for scope in " ".join(request.query.get("scope", [])).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if kind != "repository" or not name:
                return error(400, "NAME_INVALID", f"scope {scope!r} is malformed")
            resource = self._resource(request, name)
            read = "artifactregistry.repositories.downloadArtifacts"
            if identity is None and not self.options["registry_anonymous"]:
                return error(403, "DENIED", "Unauthenticated request. Unauthenticated requests do "
                             f'not have permission "{read}" on resource "{resource}" (or it may '
                             "not exist)")
            if self.access.denies(read, resource):
                return self._denied(read, resource)
            wanted = set(actions.split(",")) & {"pull", "push", "delete", "*"}
            write = "artifactregistry.repositories.uploadArtifacts"
            if identity is None or self.access.denies(write, resource):
                wanted &= {"pull"}
            granted.append(f"{name}:{','.join(sorted(wanted))}")
        if identity is None and not granted and not self.options["registry_anonymous"]:
            return error(401, "UNAUTHORIZED", "authentication required",
                         [("WWW-Authenticate", 'Basic realm="token"')])
        ttl = self.options["registry_token_ttl"]
        token = "local-registry-" + os.urandom(24).hex()
        with self.store.transaction() as db:
            db.execute("DELETE FROM tokens WHERE audience LIKE 'registry %' AND expires < ?",
                       (time.time() - 600,))
            db.execute("INSERT INTO tokens VALUES (?, ?, ?)",
                       (token, "registry " + " ".join(granted), time.time() + ttl))
        answer = {"token": token, "access_token": token}
        if ttl != 60:  # an absent expires_in means 60 seconds
            answer["expires_in"] = ttl
            answer["issued_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Response(200, json.dumps(answer), "application/json")

    def _challenge(self, request, name, actions="pull", failure=None):
        form = self.options["registry_challenge"]
        scheme = "https" if request.conn.is_tls else "http"
        parts = [f'realm="{scheme}://{request.host}/v2/token"']
        if form in ("full", "no-scope"):
            parts.append(f'service="{request.host}"')
        if form in ("full", "no-service") and name:
            parts.append(f'scope="repository:{name}:{actions}"')
        if failure:
            parts.append(f'error="{failure}"')
        scheme = "BEARER" if form == "odd-case" else "Bearer"
        value = f"{scheme} {','.join(parts)}"
        if form == "several":
            value = f'Basic realm="registry", {value}'
        return error(401, "UNAUTHORIZED", "authentication required", [("WWW-Authenticate", value)])

    def _authorize(self, request, name, action):
        """None when the request may pass, else the refusal."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and self.access.token_is_valid(token):
            resource = self._resource(request, name) if name else ""
            read = "artifactregistry.repositories.downloadArtifacts"
            if name and self.access.denies(read, resource):
                return self._denied(read, resource)
            return None
        row = self.store.one("SELECT audience, expires FROM tokens WHERE token = ? AND audience "
                             "LIKE 'registry%'", (token,)) if scheme.lower() == "bearer" else None
        if row is None:
            return self._challenge(request, name, action, "invalid_token" if token else None)
        if row[1] <= time.time():
            return self._challenge(request, name, action, "invalid_token")
        if name:
            for grant in row[0].split()[1:]:
                repository, _, actions = grant.rpartition(":")
                if repository == name and (action in actions.split(",") or "*" in actions):
                    return None
            return self._challenge(request, name, action, "insufficient_scope")
        return None

    # -- HTTP

    def handle(self, request):
        path = request.path
        if path == "/v2/token":
            return self._token(request)
        if path in ("/v2", "/v2/"):
            refusal = self._authorize(request, None, "pull")
            return refusal or Response(200, b"{}", "application/json",
                                       [("Docker-Distribution-Api-Version", "registry/2.0")])
        match = NAME.match(path)
        if not match:
            return error(404, "NAME_INVALID", "invalid repository name")
        action = "pull" if request.method in ("GET", "HEAD") else "pull,push"
        refusal = self._authorize(request, match["name"], action.split(",")[-1])
        if refusal:
            return refusal
        target = request.target
        if request.do.get("rewrite"):
            target = request.do["rewrite"]
        if match["kind"] == "blobs" and request.method == "GET" and \
                self.options["registry_redirect_blobs"] and self.storage_port:
            signature = hashlib.sha256(os.urandom(16)).hexdigest()
            return Response(302, b"", None, [("Location", f"http://localhost:{self.storage_port}"
                                              f"/blobs{path}?signature={signature}")])
        response = self._proxy(request, target)
        if match["kind"] == "manifests":
            self._disturb(request, response)
            if response.status == 404 and not self._exists(request, match["name"]):
                return error(404, "NAME_UNKNOWN", f"Repository \"{match['name']}\" not found")
        if match["kind"] == "tags" and response.status == 200:
            self._add_google_fields(request, match["name"], response)
        return response

    def _exists(self, request, name):
        """A repository that nothing was ever pushed to is told apart from a missing tag."""
        link, answer = self._call(request, f"/v2/{name}/tags/list", "GET")
        answer.read()
        self.local.link = link
        return answer.status != 404

    def _disturb(self, request, response):
        if request.do.get("missing_digest"):
            response.set_header("Docker-Content-Digest", None)
        if request.do.get("wrong_digest"):
            response.set_header("Docker-Content-Digest",
                                "sha256:" + hashlib.sha256(b"another manifest").hexdigest())

    def _add_google_fields(self, request, name, response):
        """Artifact Registry's tags/list also says `child` and `manifest`: digest to its tags."""
        listing = json.loads(response.body)
        manifests = {}
        request.headers["accept"] = ", ".join((
            "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json"))
        for tag in (listing.get("tags") or [])[:100]:
            link, answer = self._call(request, f"/v2/{name}/manifests/{tag}", "HEAD")
            answer.read()
            self.local.link = link
            digest = answer.getheader("docker-content-digest")
            if digest:
                entry = manifests.setdefault(digest, {
                    "imageSizeBytes": answer.getheader("content-length") or "0", "layerId": "",
                    "mediaType": answer.getheader("content-type"), "tag": [],
                    "timeCreatedMs": "0", "timeUploadedMs": "0"})
                entry["tag"].append(tag)
        listing.update(child=[], manifest=manifests)
        response.body = json.dumps(listing).encode()

    def handle_storage(self, request):
        """The host that blobs are redirected to: it knows its own signatures only."""
        if "authorization" in request.headers:
            return Response(400, "<?xml version='1.0' encoding='UTF-8'?><Error><Code>InvalidArgument"
                            "</Code><Message>Only one auth mechanism allowed</Message></Error>",
                            "application/xml")
        if not request.path.startswith("/blobs/v2/") or not request.arg("signature"):
            return Response(403, "<Error><Code>AccessDenied</Code></Error>", "application/xml")
        return self._proxy(request, request.path[len("/blobs"):])

    def test_iam(self, request):
        """POST v1/projects/P/locations/L/repositories/R:testIamPermissions"""
        self.access.check(request, "artifactregistry", "artifactregistry",
                          "google.devtools.artifactregistry.v1.ArtifactRegistry.TestIamPermissions")
        resource, _, verb = request.path[len("/v1/"):].rpartition(":")
        if verb != "testIamPermissions" or request.method != "POST":
            raise GoogleError(404, "The requested URL was not found on this server.")
        if not self.access.project_is_known(resource.split("/")[1]):
            raise GoogleError(403, "The caller does not have permission", details=[
                {"@type": INFO, "reason": "IAM_PERMISSION_DENIED", "domain": "iam.googleapis.com"}])
        wanted = (request.json() or {}).get("permissions", [])
        granted = [p for p in wanted if not self.access.denies(p, resource)]
        return reply({"permissions": granted} if granted else {})
