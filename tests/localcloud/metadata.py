# SPDX-License-Identifier: Apache-2.0
"""The metadata server: a tree of values, listings, recursive JSON, long polls, guest attributes."""

import base64
import hashlib
import json
import threading
import time

from .google import PLATFORM, html_page
from .server import Response

HEADERS = [("Metadata-Flavor", "Google"), ("Server", "Metadata Server for VM"),
           ("X-XSS-Protection", "0"), ("X-Frame-Options", "SAMEORIGIN")]
PREFIX = "/computeMetadata/v1"
VERBATIM = ("attributes", "service-accounts")  # names below these are the user's


class NotFound(Exception):
    """No such path."""


def camel(name):
    first, *rest = name.split("-")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def as_json(node, name=""):
    """The node as recursive=true shows it: dashed names in camel case, user's names verbatim."""
    if isinstance(node, dict):
        if name == "guest-attributes":
            return {}
        keep = name in VERBATIM
        return {key if keep else camel(key): as_json(value, key)
                for key, value in sorted(node.items())}
    if isinstance(node, list):
        return [as_json(value) if isinstance(value, dict) else value for value in node]
    if isinstance(node, bytes):
        return node.decode("utf-8", "replace")
    return node


def as_lines(node, prefix):
    """recursive=true&alt=text: a line `path value` for each leaf."""
    if isinstance(node, dict):
        for key, value in sorted(node.items()):
            yield from as_lines(value, f"{prefix}{key}" + ("/" if is_directory(value) else ""))
    elif isinstance(node, list) and is_directory(node):
        for i, value in enumerate(node):
            yield from as_lines(value, f"{prefix}{i}/")
    else:
        yield f"{prefix} ".encode() + as_text(node)


def as_text(node):
    if isinstance(node, bytes):
        return node
    if isinstance(node, list):
        return "\n".join(str(item) for item in node).encode() + b"\n"
    return str(node).encode()


def is_directory(node):
    return isinstance(node, dict) or (isinstance(node, list) and bool(node)
                                      and isinstance(node[0], dict))


def defaults(access):
    number, project = access.number, access.project
    zone = "asia-northeast3-a"
    account = {"aliases": ["default"], "email": access.email, "scopes": [PLATFORM]}
    name = "mervis-1"
    return {
        "instance": {
            "attributes": {},
            "cpu-platform": "Intel Broadwell",
            "description": "",
            "disks": [{"device-name": name, "index": 0, "interface": "SCSI",
                       "mode": "READ_WRITE", "type": "PERSISTENT"}],
            "guest-attributes": {},
            "hostname": f"{name}.{zone}.c.{project}.internal",
            "id": 7723260132568912421,
            "image": "projects/debian-cloud/global/images/debian-12-bookworm-v20260901",
            "licenses": [{"id": "2147286739765738111"}],
            "machine-type": f"projects/{number}/machineTypes/e2-micro",
            "maintenance-event": "NONE",
            "name": name,
            "network-interfaces": [{
                "access-configs": [], "dns-servers": ["169.254.169.254"], "forwarded-ips": [],
                "gateway": "10.178.0.1", "ip": "10.178.0.4", "ip-aliases": [],
                "mac": "42:01:0a:b2:00:04", "mtu": 1460,
                "network": f"projects/{number}/networks/default",
                "subnetmask": "255.255.240.0", "target-instance-ips": []}],
            "preempted": "FALSE",
            "remaining-cpu-time": -1,
            "scheduling": {"automatic-restart": "FALSE", "on-host-maintenance": "TERMINATE",
                           "preemptible": "TRUE"},
            "service-accounts": {access.email: dict(account), "default": dict(account)},
            "tags": ["mervis"],
            "virtual-clock": {"drift-token": "0"},
            "zone": f"projects/{number}/zones/{zone}",
        },
        "oslogin": {"authenticate": {"sessions": {}}},
        "project": {"attributes": {}, "numeric-project-id": int(number), "project-id": project},
    }


class Metadata:
    def __init__(self, store, access, options):
        self.store = store
        self.access = access
        self.options = options
        self.changed = threading.Condition()
        self.tree = defaults(access)
        for path, value in store.query("SELECT path, value FROM metadata ORDER BY rowid"):
            self._apply(path, value)
        self.sync_scopes()

    # -- changes, from the admin API and guest attributes

    def _apply(self, path, value):
        parts = [part for part in path.split("/") if part]
        node = self.tree
        for part in parts[:-1]:
            if isinstance(node, list):
                node = node[int(part)]
            else:
                if not isinstance(node.get(part), (dict, list)):
                    node[part] = {}
                node = node[part]
        last = parts[-1]
        if value is None:
            if isinstance(node, dict):
                node.pop(last, None)
            return
        old = node.get(last) if isinstance(node, dict) else None
        if isinstance(old, list) or (parts[0] == "instance" and last in ("tags", "scopes")):
            text = value.decode("utf-8", "replace")
            value = json.loads(text) if text.startswith("[") else text.split()
        elif isinstance(old, int):
            value = int(value)
        elif "attributes" not in parts[:-1]:
            value = value.decode("utf-8", "replace")
        node[last] = value

    def set(self, path, value):
        path = "/".join(part for part in path.split("/") if part)
        with self.changed:
            self._apply(path, value)
            with self.store.transaction() as db:
                db.execute("DELETE FROM metadata WHERE path = ?", (path,))
                db.execute("INSERT INTO metadata VALUES (?, ?)", (path, value))
            self.changed.notify_all()

    def sync_scopes(self):
        with self.changed:
            for account in self.tree["instance"].get("service-accounts", {}).values():
                account["scopes"] = self.access.scopes
            self.changed.notify_all()

    # -- reading

    def find(self, parts):
        node = self.tree
        for part in parts:
            if isinstance(node, dict) and part in node:
                node = node[part]
            elif is_directory(node) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                raise NotFound
        return node

    def view(self, parts, slash, recursive, alt):
        """(body, content type, etag) of what was asked; NotFound where there is none."""
        node = self.find(parts)
        directory = is_directory(node)
        if slash and not directory:
            raise NotFound
        kind = "application/json"
        if recursive and directory:
            if alt == "text":
                body = b"".join(line + b"\n" for line in as_lines(node, ""))
                kind = "application/text"
            else:
                body = json.dumps(as_json(node, parts[-1] if parts else ""), ensure_ascii=False,
                                  separators=(",", ":"), sort_keys=True).encode()
        elif directory:
            names = (sorted(node) if isinstance(node, dict) else [str(i) for i in range(len(node))])
            dirs = {n for n in names if is_directory(node[int(n)] if isinstance(node, list)
                                                     else node[n])}
            extra = ["identity", "token"] if len(parts) == 3 and parts[1] == "service-accounts" else []
            body = "".join(f"{n}/\n" if n in dirs else f"{n}\n"
                           for n in sorted(names + extra)).encode()
            kind = "application/text"
        elif alt == "json" or (alt is None and isinstance(node, list) and parts[-1] == "tags"):
            body = json.dumps(as_json(node), ensure_ascii=False).encode()
        else:
            body, kind = as_text(node), "application/text"
        what = f"{'/'.join(parts)}|{directory and recursive}|{alt}|".encode()
        return body, kind, hashlib.sha256(what + body).hexdigest()[:16]

    # -- HTTP

    def error(self, status, text=None):
        return Response(status, f"{text}\n" if text else html_page(status),
                        "text/html; charset=UTF-8", HEADERS)

    def handle(self, request):
        path = request.path
        if path in ("", "/"):
            return Response(200, b"computeMetadata/\n", "application/text", HEADERS)
        if request.headers.get("metadata-flavor") != "Google":
            return self.error(403, "Missing Metadata-Flavor:Google header.")
        if "x-forwarded-for" in request.headers:
            return self.error(403, "X-Forwarded-For header is not allowed.")
        if path.rstrip("/") == "/computeMetadata":
            return Response(200, b"v1/\n", "application/text", HEADERS)
        if not path.startswith(PREFIX + "/"):
            if path == PREFIX:
                return self._redirect(request)
            return self.error(404)
        raw = path[len(PREFIX):]
        parts = [part for part in raw.split("/") if part]
        if parts[:2] == ["instance", "guest-attributes"]:
            return self._guest_attributes(request, parts[2:], raw.endswith("/"))
        if request.method not in ("GET", "HEAD"):
            return self.error(405)
        if len(parts) == 4 and parts[:2] == ["instance", "service-accounts"] and \
                parts[3] in ("token", "identity"):
            return self._credentials(request, parts)
        return self._read(request, parts, raw.endswith("/"))

    def _redirect(self, request):
        query = "?" + request.raw_query if request.raw_query else ""
        target = f"http://{request.host}{request.path}/{query}"
        return Response(301, b"", "text/html; charset=UTF-8", HEADERS + [("Location", target)])

    def _read(self, request, parts, slash):
        recursive = request.arg("recursive", "").lower() == "true"
        wait = request.arg("wait_for_change", "").lower() == "true"
        alt = request.arg("alt")
        if alt not in (None, "json", "text"):
            return self.error(400)
        try:
            directory = is_directory(self.find(parts))
            if directory and parts and not slash and self.options["directory_redirect"]:
                return self._redirect(request)
            if directory and not recursive and (wait or alt):
                return self.error(400)
            slash = slash and bool(parts)
            body, kind, etag = self.view(parts, slash, recursive, alt)
            if wait:
                body, kind, etag = self._wait(request, (parts, slash, recursive, alt), etag)
        except NotFound:
            return self.error(404)
        return Response(200, body, kind, HEADERS + [("ETag", etag)])

    def _wait(self, request, what, etag):
        last = request.arg("last_etag")
        old = etag if last is None else last
        seconds = request.arg("timeout_sec", "")
        end = time.monotonic() + int(seconds) if seconds.isdigit() and int(seconds) else None
        answer = self.view(*what)
        while answer[2] == old:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            with self.changed:
                if self.view(*what)[2] == old:
                    self.changed.wait(0.5 if left is None else min(0.5, left))
            if request.conn.is_gone():
                request.conn.reset()
            answer = self.view(*what)
        return answer

    def _credentials(self, request, parts):
        try:
            account = self.find(parts[:3])
        except NotFound:
            return self.error(404)
        if parts[3] == "token":
            token, left = self.access.token()
            body = json.dumps({"access_token": token, "expires_in": int(left),
                               "token_type": "Bearer"}, separators=(",", ":"))
            return Response(200, body, "application/json", HEADERS)
        audience = request.arg("audience", "")
        if not audience:
            return self.error(400, "non-empty audience parameter required")
        now = int(time.time())
        claims = {"aud": audience, "azp": "100000000000000000000", "email": account["email"],
                  "email_verified": True, "exp": now + 3600, "iat": now,
                  "iss": "https://accounts.google.com", "sub": "100000000000000000000"}
        part = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode()
                for p in ({"alg": "RS256", "kid": "local", "typ": "JWT"}, claims)]
        signature = base64.urlsafe_b64encode(hashlib.sha256(part[1].encode()).digest())
        return Response(200, ".".join(part + [signature.rstrip(b"=").decode()]),
                        "application/text", HEADERS)

    def _guest_attributes(self, request, parts, slash):
        def attribute(where):
            value = self.tree[where]["attributes"].get("enable-guest-attributes", b"")
            return value.upper() == b"TRUE"
        if not (attribute("instance") or attribute("project")):
            return self.error(403, "Guest attributes endpoint access is disabled.")
        if request.method in ("GET", "HEAD"):
            return self._read(request, ["instance", "guest-attributes"] + parts, slash)
        if len(parts) != 2 or slash:
            return self.error(400, "guest attributes have a namespace and a key, nothing else")
        path = "instance/guest-attributes/" + "/".join(parts)
        if request.method == "DELETE":
            self.set(path, None)
            return Response(204, b"", None, HEADERS)
        if request.method not in ("PUT", "POST"):
            return self.error(405)
        value = request.body()
        if len(value) > 262144:
            return self.error(413)
        self.set(path, value)
        return Response(200, b"", "application/text", HEADERS)
