# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 server: a thread a connection, keep-alive, bodies read as streams.

The standard library's http.server parses headers with the e-mail package and cannot half-send an
answer; a double that serves crash loops needs both to be cheap and exact.
"""

import json
import select
import socket
import ssl
import struct
import threading
import time
import zlib
from urllib.parse import parse_qs, unquote

MAX_LINE = 65536
MAX_JSON = 64 << 20
REASONS = {100: "Continue", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content",
           206: "Partial Content", 301: "Moved Permanently", 302: "Found", 304: "Not Modified",
           307: "Temporary Redirect", 308: "Resume Incomplete", 400: "Bad Request",
           401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
           408: "Request Timeout", 409: "Conflict", 410: "Gone", 411: "Length Required",
           412: "Precondition Failed", 413: "Payload Too Large", 416: "Range Not Satisfiable",
           418: "I'm a teapot", 422: "Unprocessable Entity", 429: "Too Many Requests",
           451: "Unavailable For Legal Reasons", 499: "Client Closed Request",
           500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
           503: "Service Unavailable", 504: "Gateway Timeout"}


class ClientGone(Exception):
    """The peer closed or broke the connection."""


class BadRequest(Exception):
    """The bytes received are not HTTP as we accept it."""


class Request:
    def __init__(self, conn, method, target, headers):
        self.conn = conn
        self.method = method
        self.target = target
        self.raw_path, _, self.raw_query = target.partition("?")
        self.path = self.raw_path
        self.headers = headers
        self.host = headers.get("host", "")
        self.query = parse_qs(self.raw_query, keep_blank_values=True) if self.raw_query else {}
        self.do = {}  # what an ordered fault wants of the handler
        self.note = {}  # what the handler adds to the ledger's line
        self._left = 0
        self._chunked = False
        self._body = None
        self._continue = headers.get("expect", "").lower() == "100-continue"
        self.body_bytes = 0
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self._chunked = True
        else:
            try:
                self._left = int(headers.get("content-length") or 0)
            except ValueError:
                raise BadRequest("Content-Length is no number") from None
            if self._left < 0:
                raise BadRequest("Content-Length is negative")

    def arg(self, name, default=None):
        values = self.query.get(name)
        return values[-1] if values else default

    def segments(self):
        return [unquote(part) for part in self.path.split("/")[1:]]

    def has_length(self):
        return self._chunked or "content-length" in self.headers

    def stream(self, size=262144):
        """Yield the body as it arrives. Raises ClientGone where it ends early."""
        if self._continue:
            self._continue = False
            self.conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._chunked:
            yield from self._stream_chunks(size)
            return
        while self._left:
            data = self.conn.read1(min(size, self._left))
            if not data:
                raise ClientGone("the body ended early")
            self._left -= len(data)
            self.body_bytes += len(data)
            yield data

    def _stream_chunks(self, size):
        while self._chunked:
            line = self.conn.line()
            try:
                left = int(line.split(b";")[0], 16)
            except ValueError:
                raise BadRequest("a chunk size is no number") from None
            if left == 0:
                while self.conn.line() not in (b"", b"\r\n", b"\n"):
                    pass
                self._chunked = False
                return
            while left:
                data = self.conn.read1(min(size, left))
                if not data:
                    raise ClientGone("a chunk ended early")
                left -= len(data)
                self.body_bytes += len(data)
                yield data
            self.conn.line()

    def body(self):
        """The whole body, inflated where it was sent with Content-Encoding: gzip."""
        if self._body is None:
            data = b"".join(self.stream())
            if self.headers.get("content-encoding", "").lower() == "gzip":
                try:
                    data = zlib.decompress(data, 31)
                except zlib.error:
                    raise BadRequest("the body is not gzip as its header says") from None
            self._body = data
        return self._body

    def json(self):
        body = self.body()
        if len(body) > MAX_JSON:
            raise BadRequest("the JSON body is too large")
        try:
            return json.loads(body) if body else None
        except (ValueError, RecursionError) as e:
            raise BadRequest(f"the body is not JSON: {e}") from None

    def finish(self):
        """Read what the handler left over, so that the next request starts at its own line."""
        if self._body is None and (self._left or self._chunked):
            if self._continue or self._left > 64 << 20:
                return False
            for _ in self.stream():
                pass
        return True


class Response:
    def __init__(self, status=200, body=b"", ctype=None, headers=()):
        self.status = status
        self.headers = list(headers)
        if ctype:
            self.headers.append(("Content-Type", ctype))
        self.body = body.encode() if isinstance(body, str) else body
        self.stream = None  # (iterator, length or None) in place of body
        self.close = False

    def header(self, name):
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return None

    def set_header(self, name, value):
        self.headers = [(k, v) for k, v in self.headers if k.lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))

    @property
    def size(self):
        return (self.stream[1] or 0) if self.stream else len(self.body)


def json_response(value, status=200, headers=()):
    return Response(status, json.dumps(value, separators=(",", ":"), ensure_ascii=False),
                    "application/json", headers)


class Connection:
    """One accepted connection; handlers reach it through their request."""

    count = 0
    lock = threading.Lock()

    def __init__(self, sock, peer, storage=False):
        with Connection.lock:
            Connection.count += 1
            self.number = Connection.count
        self.sock = sock
        self.peer = peer
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        self.storage = storage  # accepted on the second "host" that blobs are redirected to
        self.opened = time.time()
        self.hosts = set()
        self.rfile = sock.makefile("rb", 262144)

    def line(self):
        line = self.rfile.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise BadRequest("a header line is too long")
        return line

    def read1(self, size):
        try:
            return self.rfile.read1(size)
        except OSError as e:
            raise ClientGone(str(e)) from None

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError as e:
            raise ClientGone(str(e)) from None

    def is_gone(self):
        """True when the peer has closed: asked by handlers that wait."""
        try:
            ready, _, _ = select.select([self.sock], [], [], 0)
            if self.is_tls:
                return False  # nobody may peek into it; a write will tell
            return bool(ready) and not self.sock.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def wait(self, seconds):
        """Sleep, but no longer than the peer stays."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            left = 0.25 if end is None else min(0.25, max(0.0, end - time.monotonic()))
            time.sleep(left)
            if self.is_gone():
                raise ClientGone("while waiting")

    def reset(self):
        """Close with RST instead of FIN."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        raise ClientGone("reset as ordered")

    def read_request(self):
        line = self.line()
        while line in (b"\r\n", b"\n"):
            line = self.line()
        if not line:
            return None
        parts = line.decode("latin-1").split()
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadRequest("not an HTTP/1.x request line")
        method, target, version = parts
        headers = {}
        while True:
            line = self.line()
            if line in (b"\r\n", b"\n"):
                break
            if not line:
                raise ClientGone("inside the header")
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or name != name.strip():
                raise BadRequest("a malformed header line")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if len(headers) > 200:
                raise BadRequest("too many headers")
        if target.startswith("http://"):  # absolute form, as through a proxy
            target = "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
        request = Request(self, method, target, headers)
        request.keep = (headers.get("connection", "").lower() != "close"
                        and (version == "HTTP/1.1"
                             or headers.get("connection", "").lower() == "keep-alive"))
        return request

    def write_response(self, request, response, keep, truncate=None, drip=None):
        bodiless = request.method == "HEAD" or response.status in (204, 304)
        lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        chunked = False
        if response.stream is not None and response.stream[1] is None and not bodiless:
            lines.append("Transfer-Encoding: chunked")
            chunked = True
        elif response.header("content-length") is None and response.status != 204:
            lines.append(f"Content-Length: {response.size}")
        if response.header("date") is None:
            lines.append("Date: " + time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
        if not keep:
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        if bodiless:
            self.send(head)
            return
        if response.stream is not None and truncate is None and drip is None:
            self.send(head)
            for data in response.stream[0]:
                self.send(b"%x\r\n%b\r\n" % (len(data), data) if chunked and data else data)
            if chunked:
                self.send(b"0\r\n\r\n")
            return
        body = response.body if response.stream is None else b"".join(response.stream[0])
        if truncate is not None:
            body = body[:truncate]
        if drip:
            self.send(head)
            for i in range(len(body)):
                self.wait(drip)
                self.send(body[i:i + 1])
        else:
            self.send(head + body if len(body) < 65536 else head)
            if len(body) >= 65536:
                self.send(body)


class Server:
    """Listens on any number of addresses and hands each request to app.serve(request)."""

    def __init__(self, app):
        self.app = app
        self.sockets = []

    def listen(self, address, port, storage=False, tls=None):
        """TLS: an ssl.SSLContext; the handshake is made by the connection's own thread."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(1024)
        self.sockets.append((sock, storage, tls))
        return sock.getsockname()[1]

    def run(self):
        for listener in self.sockets:
            threading.Thread(target=self._accept, args=listener, daemon=True).start()

    def _accept(self, sock, storage, tls):
        while True:
            try:
                peer, address = sock.accept()
            except OSError:
                time.sleep(0.05)  # out of descriptors: some will come back
                continue
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(peer, address, storage, tls),
                             daemon=True).start()

    def _serve(self, sock, address, storage, tls):
        if tls:
            try:
                sock = tls.wrap_socket(sock, server_side=True)
            except OSError:  # whoever does not trust us goes away
                sock.close()
                return
        conn = Connection(sock, address, storage)
        try:
            while True:
                request = conn.read_request()
                if request is None or not self.app.serve(request):
                    break
        except BadRequest as e:
            try:
                conn.write_response(Request(conn, "GET", "/", {}),
                                    Response(400, f"{e}\n", "text/plain"), False)
            except ClientGone:
                pass
        except (ClientGone, OSError):
            pass
        finally:
            try:
                conn.rfile.close()
                sock.close()
            except OSError:
                pass
