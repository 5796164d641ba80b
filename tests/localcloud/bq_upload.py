# SPDX-License-Identifier: Apache-2.0
"""Media uploads of load jobs: multipart in one request, resumable in chunks of 256 KiB."""

import json
import os
import re
import time

from .bq_tables import invalid
from .google import HEADERS, GoogleError, html_page, reply
from .server import BadRequest, ClientGone, Response

CHUNK = 262144
RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


def no_such_session(code):
    return Response(code, html_page(code), "text/html; charset=UTF-8", HEADERS)


class Uploads:
    def __init__(self, store, loads, jobs, options, broken=()):
        self.store = store
        self.loads = loads
        self.jobs = jobs
        self.options = options
        self.broken = broken
        self.busy = set()  # sessions with a PUT under way

    def path(self, name):
        return os.path.join(self.store.uploads, name)

    def begin(self, request, project, base):
        kind = request.arg("uploadType")
        if kind == "multipart":
            return self._multipart(request, project, base)
        if kind == "resumable":
            return self._resumable(request, project)
        raise invalid(f"uploadType={kind} is not one that jobs.insert takes")

    # -- multipart

    def _multipart(self, request, project, base):
        ctype = request.headers.get("content-type", "")
        match = re.search(r'boundary="?([^";]+)"?', ctype)
        if not ctype.lower().startswith("multipart/related") or not match:
            raise invalid("Content-Type of a multipart upload is multipart/related with a boundary")
        metadata, media = split_parts(request.body(), match[1].encode())
        path = self.path("multipart-" + os.urandom(12).hex())
        with open(path, "wb") as f:
            f.write(media)
        try:
            job = self.loads.submit(project, metadata, path, 0, len(media), request.do, base)
        except GoogleError:
            os.unlink(path)
            raise
        return reply(job)

    # -- resumable

    def _resumable(self, request, project):
        body = request.json()
        self.loads.check(project, body)
        if self.options["early_duplicate"]:
            self.jobs.refuse_duplicate(project, (body.get("jobReference") or {}).get("jobId"))
        length = request.headers.get("x-upload-content-length")
        if length is not None and not length.isdigit():
            raise invalid("X-Upload-Content-Length is no number")
        session = "ABg5-" + os.urandom(24).hex()
        with open(self.path(session), "wb"):
            pass
        with self.store.transaction() as db:
            db.execute("INSERT INTO uploads (id, project, created, total, received, metadata) "
                       "VALUES (?, ?, ?, ?, 0, ?)",
                       (session, project, time.time(), int(length) if length else None,
                        json.dumps({"job": body, "do": request.do})))
        location = (f"http://{request.host}{request.path}?uploadType=resumable"
                    f"&upload_id={session}")
        if "wrong-location" in self.broken:
            location = location.replace("/jobs?", "/nowhere?")
        return Response(200, b"", "text/plain; charset=utf-8",
                        HEADERS + [("Location", location), ("X-GUploader-UploadID", session)])

    def put(self, request, base):
        session = request.arg("upload_id", "")
        with self.store.lock:
            if session in self.busy:
                raise GoogleError(503, "Another request to this upload session is in progress.",
                                  reason="backendError")
            self.busy.add(session)
        try:
            return self._put(request, session, base)
        finally:
            self.busy.discard(session)

    def _put(self, request, session, base):
        row = self.store.one("SELECT project, created, total, received, metadata, answer, gone "
                             "FROM uploads WHERE id = ?", (session,))
        gone = self.options["upload_gone"]
        if not row or row[6] or time.time() - row[1] > self.options["upload_seconds"]:
            return no_such_session(gone)
        project, _, total, received, metadata, answer, _ = row
        if request.method == "DELETE":
            with self.store.transaction() as db:
                db.execute("UPDATE uploads SET gone = 1 WHERE id = ?", (session,))
            return Response(499, b"", None, HEADERS)
        if answer is not None:  # finished: the answer may have been lost on its way
            answer = json.loads(answer)
            if "seq" in answer:
                return reply(self.jobs.resource(answer["seq"]))
            return reply(answer["error"], answer["code"])
        start, end, total = self._range(request, received, total)
        if start is not None:
            received = self._keep(request, session, start, end, total, received)
        if total is None or received < total:
            headers = [("Range", f"bytes=0-{received - 1}")] if received else []
            return Response(308, b"", None, HEADERS + headers)
        return self._finish(session, project, json.loads(metadata), total, base, request.do)

    def _range(self, request, received, known):
        """(start, end, total) of a PUT; start is None for a question about the state."""
        header = request.headers.get("content-range")
        length = request.headers.get("content-length")
        if header is None:  # the whole content at once
            if length is None:
                raise GoogleError(411, "A PUT without Content-Range needs Content-Length.",
                                  "INVALID_ARGUMENT", "invalid")
            start, end, total = 0, int(length) - 1, int(length)
        else:
            match = RANGE.fullmatch(header.strip())
            if not match:
                raise invalid(f"Failed to parse Content-Range header: {header}")
            total = None if match[3] == "*" else int(match[3])
            start = None if match[1] is None else int(match[1])
            end = None if match[2] is None else int(match[2])
        if known is not None and total is not None and total != known:
            raise invalid(f"Invalid request. The total size {total} differs from the {known} bytes "
                          "declared before.")
        if start is None:
            if length not in (None, "0"):
                raise invalid("Invalid request. A question about the state has no body.")
            return None, None, total if total is not None else known
        size = end - start + 1
        if header is not None and (size < 1 or total is not None and end >= total):
            raise invalid(f"Invalid request. Content-Range {header} is not a range.")
        if length is not None and int(length) != size:
            raise invalid(f"Invalid request. There were {length} byte(s) in the request body. There "
                          f"should have been {size} byte(s) (starting at offset {start} and ending "
                          f"at offset {end}) according to the Content-Range header.")
        if start > received:
            raise invalid(f"Invalid request. According to the Content-Range header, the upload "
                          f"offset is {start} byte(s), which exceeds already uploaded size of "
                          f"{received} byte(s).")
        if (total is None or end + 1 < total) and size % CHUNK:
            raise invalid("Invalid request. The number of bytes uploaded is required to be equal or "
                          f"greater than {CHUNK}, except for the final request (it's recommended to "
                          f"be the exact multiple of {CHUNK}). The received request contained "
                          f"{size} bytes, which does not meet this requirement.")
        return start, end, total if total is not None else known

    def _keep(self, request, session, start, end, total, received):
        """Append what is new of the chunk; a broken connection keeps whole 256 KiB of it."""
        skip = received - start
        limit = request.do.get("short_range")
        left = max(0, end + 1 - received) if limit is None else max(0, limit - skip)
        kept, broken = 0, None
        with open(self.path(session), "r+b") as f:
            f.seek(received)
            try:
                for data in request.stream():
                    if skip:
                        drop = min(skip, len(data))
                        skip -= drop
                        data = data[drop:]
                    data = data[:left - kept]
                    f.write(data)
                    kept += len(data)
            except ClientGone as e:
                broken = e
                kept = (received + kept) // CHUNK * CHUNK - received
                kept = max(0, kept)
            f.truncate(received + kept)
        if not broken and limit is None and received + kept != max(received, end + 1):
            raise BadRequest("the body is shorter than its Content-Range")
        with self.store.transaction() as db:
            db.execute("UPDATE uploads SET received = ?, total = ? WHERE id = ?",
                       (received + kept, total, session))
        if broken:
            raise broken
        return received + kept

    def _finish(self, session, project, metadata, total, base, do):
        try:
            with self.store.transaction() as db:  # the job and the session's end, both or neither
                job = self.loads.submit(project, metadata["job"], self.path(session), 0, total,
                                        {**metadata["do"], **do}, base)
                reference = job["jobReference"]
                seq = self.store.one("SELECT seq FROM jobs WHERE project = ? AND job = ?",
                                     (reference["projectId"], reference["jobId"]))[0]
                db.execute("UPDATE uploads SET answer = ? WHERE id = ?",
                           (json.dumps({"seq": seq}), session))
        except GoogleError as e:
            response = e.response()
            with self.store.transaction() as db:
                db.execute("UPDATE uploads SET answer = ? WHERE id = ?",
                           (json.dumps({"code": e.code, "error": json.loads(response.body)}),
                            session))
            return response
        return reply(job)


def split_parts(body, boundary):
    """(job resource, media) of a multipart/related body of exactly two parts."""
    mark = b"--" + boundary
    first = body.find(mark)
    second = body.find(b"\r\n" + mark, first + len(mark))
    last = body.rfind(b"\r\n" + mark + b"--")
    if first < 0 or second < 0 or last <= second:
        raise invalid("Media multipart must have exactly two parts")
    head, _, text = body[first + len(mark):second].partition(b"\r\n\r\n")
    if b"application/json" not in head.lower():
        raise invalid("The first part of a multipart upload is application/json")
    start = body.find(b"\r\n\r\n", second)
    if start < 0 or start > last:
        raise invalid("Media multipart must have exactly two parts")
    try:
        metadata = json.loads(text)
    except ValueError as e:
        raise GoogleError(400, f"Parse Error: {e}", reason="parseError") from None
    return metadata, body[start + 4:last]
