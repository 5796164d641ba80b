# SPDX-License-Identifier: Apache-2.0
"""All doubles behind one port: which service a request is for, ordered faults, the ledger."""

import re
import socket
import ssl
import time
import traceback

from .admin import Admin
from .bigquery import BigQuery
from .faults import Faults
from .google import Access, GoogleError, html_page
from .ledger import Ledger
from .market import Market
from .metadata import Metadata
from .options import Options
from .registry import Registry
from .secretmanager import SecretManager
from .server import BadRequest, ClientGone, Response, Server
from .store import Store

GOOGLE_HOST = re.compile(r"(^|\.)(googleapis\.com|pkg\.dev|gcr\.io|google\.internal)$")
ADDRESS = re.compile(r"^(localhost|[\d.]+|\[[0-9a-f:.]+\]|[a-z0-9-]+)$", re.I)
PATHS = [
    (re.compile(r"^/(computeMetadata.*)?$"), "metadata"),
    (re.compile(r"^/v2(/.*)?$"), "registry"),
    (re.compile(r"^/v1/projects/[^/]+/locations/[^/]+/repositories/"), "artifactregistry"),
    (re.compile(r"^/v1/projects/"), "secretmanager"),
    (re.compile(r"^/((resumable/)?upload/)?bigquery/v2/"), "bigquery"),
    (re.compile(r"^/projects(/|$)"), "bigquery"),
    (re.compile(r"^/market/"), "market"),
]


class Cloud:
    def __init__(self, directory, project, number, fixtures, upstream=None, broken=()):
        self.store = Store(directory)
        self.options = Options(self.store)
        self.access = Access(self.store, project, number)
        self.faults = Faults()
        self.ledger = Ledger(directory)
        self.metadata = Metadata(self.store, self.access, self.options)
        self.secrets = SecretManager(self.store, self.access)
        self.registry = Registry(self.store, self.access, self.options, upstream)
        self.bigquery = BigQuery(self.store, self.access, self.options, broken)
        self.market = Market(self.store, fixtures, self.options, self.ledger)
        self.admin = Admin(self)
        self.blackhole_port = None
        self.handlers = {
            "metadata": self.metadata.handle, "secretmanager": self.secrets.handle,
            "registry": self.registry.handle, "artifactregistry": self.registry.test_iam,
            "bigquery": self.bigquery.handle, "market": self.market.handle,
            "storage": self.registry.handle_storage,
        }

    def listen(self, address, port, more=(), tls=(), certificate=None):
        server = Server(self)
        port = server.listen(address, port)
        self.registry.storage_port = server.listen(address, 0, storage=True)
        for other_address, other_port in more:
            server.listen(other_address, other_port)
        for tls_address, tls_port in tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.listen(tls_address, tls_port, tls=context)
        self._open_blackhole(address)
        server.run()
        return port

    def _open_blackhole(self, address):
        """A port that takes no connection and refuses none: its backlog is full."""
        self.hole = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.hole.bind((address, 0))
        self.hole.listen(0)
        self.blackhole_port = self.hole.getsockname()[1]
        self.plugs = []
        for _ in range(4):
            plug = socket.socket(self.hole.family)
            plug.setblocking(False)
            local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
            plug.connect_ex((local, self.blackhole_port))
            self.plugs.append(plug)

    # -- one request

    def route(self, request):
        if request.conn.storage:
            return "storage"
        host = request.host.rpartition(":")[0] or request.host
        if not ADDRESS.match(host) and not GOOGLE_HOST.search(host):
            return "market"
        for form, service in PATHS:
            if form.match(request.path):
                return service
        return None

    def serve(self, request):
        """Answer one request; False when the connection is to be closed."""
        if request.path.startswith("/_admin/"):
            request.conn.write_response(request, self.admin.handle(request), request.keep)
            return request.keep and request.finish()
        started = time.time()
        service = self.route(request)
        target = request.target
        if service == "market":
            request.note["host"], path = self.market.locate(request)
        fault = self.faults.take(service, request.method,
                                 request.note.get("host", request.host), target)
        do = fault.do if fault else {}
        extra = {"fault": fault.number} if fault else {}
        response, status = None, 0
        try:
            response = self._answer(request, service, do)
            status = response.status
            if do.get("lose_answer"):
                extra["lost"] = True
                request.conn.reset()
            return self._send(request, response, do)
        except ClientGone:
            extra.setdefault("gone", True)
            raise
        finally:
            self.ledger.add(request, service or "none", status, started, extra)

    def _answer(self, request, service, do):
        if "delay" in do:
            request.conn.wait(do["delay"])
        if do.get("hang"):
            request.conn.wait(None)
        if do.get("reset") and "truncate" not in do:
            request.conn.reset()
        ordered = any(key in do for key in ("status", "reason", "html")) or \
            ("body" in do and not do.get("after_effect"))
        if ordered and not do.get("after_effect"):
            return ordered_response(do)
        request.do = do
        response = self._effect(request, service)
        if do.get("after_effect"):
            return ordered_response(do)
        return response

    def _effect(self, request, service):
        try:
            if service is None:
                return Response(404, html_page(404), "text/html; charset=UTF-8")
            return self.handlers[service](request)
        except GoogleError as e:
            return e.response()
        except BadRequest as e:
            return GoogleError(400, f"Invalid request: {e}", reason="badRequest").response()
        except (ClientGone, OSError):
            raise
        except Exception as e:  # a defect of the double must be loud in the test that meets it
            traceback.print_exc()
            return GoogleError(500, f"localcloud: {e!r}", reason="internalError").response()

    @staticmethod
    def _send(request, response, do):
        for name, value in (do.get("headers") or {}).items():
            response.set_header(name, None if value is None else str(value))
        if do.get("corrupt"):
            body = bytearray(response.body if response.stream is None
                             else b"".join(response.stream[0]))
            if body:
                body[len(body) // 2] ^= 1
            response.body, response.stream = bytes(body), None
        truncate = do.get("truncate")
        keep = request.keep and not response.close and truncate is None
        # what the client still sends is read first: it may not listen before it has sent all
        keep = keep and request.finish()
        request.conn.write_response(request, response, keep, truncate, do.get("drip"))
        if truncate is not None and do.get("reset"):
            request.conn.reset()
        return keep


def ordered_response(do):
    status = do.get("status", 403 if "reason" in do else 502 if do.get("html") else 200)
    if "reason" in do:
        return GoogleError(status, do.get("message", f"ordered: {do['reason']}"),
                           reason=do["reason"]).response()
    if do.get("html"):
        return Response(status, html_page(status), "text/html; charset=UTF-8")
    return Response(status, do.get("body", ""), do.get("content_type", "text/plain"))
