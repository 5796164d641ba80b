# SPDX-License-Identifier: Apache-2.0
"""HTTP with a time limit, over TCP or a unix socket."""

import http.client
import json
import socket
from urllib.parse import urlsplit

from .process import RigError


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body) if self.body else None

    def expect(self, *statuses):
        if self.status not in (statuses or (200,)):
            raise RigError(f"HTTP {self.status} instead of {statuses or (200,)}: {self.text[:400]}")
        return self

    def __repr__(self):
        return f"HTTP {self.status} {self.text[:200]!r}"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def request(method, url, body=None, headers=None, timeout=10.0, unix=None):
    """One request on a connection of its own. `body` is bytes, text, or anything else as JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    if isinstance(body, str):
        body = body.encode()
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if unix:
        connection = UnixConnection(unix, timeout)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)
    try:
        connection.request(method, target or "/", body=body, headers=headers)
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    except http.client.HTTPException as err:
        raise OSError(f"{method} {url}: {err!r}") from err
    finally:
        connection.close()


def get(url, **kwargs):
    return request("GET", url, **kwargs)
