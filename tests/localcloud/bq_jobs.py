# SPDX-License-Identifier: Apache-2.0
"""BigQuery jobs: ids that are refused twice, PENDING, RUNNING, DONE, listing, cancelling."""

import heapq
import json
import os
import re
import threading
import time
import traceback

from .bq_tables import etag, invalid, not_found, now_ms
from .google import GoogleError

JOB_ID = re.compile(r"^[A-Za-z0-9_-]{1,1024}$")
LABEL_KEY = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
LABEL_VALUE = re.compile(r"^[a-z0-9_-]{0,63}$")
MULTI_REGIONS = ("US", "EU")


def check_labels(labels):
    if not isinstance(labels, dict) or len(labels) > 64:
        raise invalid("labels must be an object of at most 64 entries")
    for key, value in labels.items():
        if not LABEL_KEY.match(key) or not isinstance(value, str) or not LABEL_VALUE.match(value):
            raise invalid(f'Invalid value for label "{key}": keys and values are lower case '
                          "letters, digits, dash and underscore, at most 63 characters.")


class Jobs:
    def __init__(self, store, access, options):
        self.store = store
        self.access = access
        self.options = options
        self.runners = {}  # kind -> function(job, plan), which ends in finish()
        self.conflicts = {}  # (project, job id) -> until when jobs.get says 404
        self.queue = []
        self.wake = threading.Condition()

    def start(self):
        for seq, state in self.store.query("SELECT seq, state FROM jobs WHERE state <> 'DONE'"):
            self._schedule(time.time(), seq)
        threading.Thread(target=self._work, daemon=True).start()

    # -- life cycle

    def create(self, project, body, kind, location, plan, statistics=None, base="", seconds=None):
        """Record a job and let it run. 409 where its id was ever used in this project."""
        reference = body.get("jobReference") or {}
        job_id = reference.get("jobId") or "job_" + os.urandom(14).hex()
        if not JOB_ID.match(job_id):
            raise invalid(f'Invalid job ID "{job_id}". Job IDs must be alphanumeric (plus '
                          "underscores and dashes) and must be at most 1024 characters long.")
        if reference.get("projectId") not in (None, project):
            raise invalid("Value for project in content does not agree with value for project in "
                          "the request.")
        configuration = dict(body.get("configuration") or {}, jobType=kind.upper())
        check_labels(configuration.get("labels", {}))
        now = time.time()
        pending, running = self.options["job_pending"], self.options["job_running"]
        if seconds is not None:
            pending, running = min(pending, seconds / 2), max(0, seconds - pending)
        plan = dict(plan, kind=kind, running=now + pending, done=now + pending + running)
        resource = {
            "kind": "bigquery#job", "id": f"{project}:{location}.{job_id}",
            "selfLink": f"{base}/projects/{project}/jobs/{job_id}?location={location}",
            "user_email": self.access.email, "principal_subject":
                f"serviceAccount:{self.access.email}",
            "configuration": configuration,
            "jobReference": {"projectId": project, "jobId": job_id, "location": location},
            "statistics": {"creationTime": str(int(now * 1000)), **(statistics or {})},
            "status": {"state": "PENDING"},
        }
        with self.store.transaction() as db:
            self.refuse_duplicate(project, job_id)
            seq = db.execute("INSERT INTO jobs (project, job, location, created, state, resource, "
                             "plan) VALUES (?, ?, ?, ?, 'PENDING', ?, ?)",
                             (project, job_id, location, int(now * 1000), json.dumps(resource),
                              json.dumps(plan))).lastrowid
        if plan.get("inline"):
            return seq
        self._schedule(plan["running"], seq)
        return self.resource(seq)

    def refuse_duplicate(self, project, job_id):
        row = self.store.one("SELECT location FROM jobs WHERE project = ? AND job = ?",
                             (project, job_id)) if job_id else None
        if row:
            self.conflicts.setdefault((project, job_id),
                                      time.time() + self.options["conflict_404"])
            raise GoogleError(409, f"Already Exists: Job {project}:{row[0]}.{job_id}",
                              reason="duplicate")

    def resource(self, seq):
        out = json.loads(self.store.one("SELECT resource FROM jobs WHERE seq = ?", (seq,))[0])
        out["etag"] = etag(out["status"])
        return out

    def _schedule(self, when, seq):
        with self.wake:
            heapq.heappush(self.queue, (when, seq))
            self.wake.notify()

    def _work(self):
        while True:
            with self.wake:
                while not self.queue or self.queue[0][0] > time.time():
                    self.wake.wait(self.queue[0][0] - time.time() if self.queue else None)
                _, seq = heapq.heappop(self.queue)
            try:
                self._advance(seq)
            except GoogleError as e:
                self.fail(seq, e.reason or "invalid", e.message)
            except Exception as e:  # our own bug must not look like a job that never ends
                traceback.print_exc()
                self.fail(seq, "internalError", f"localcloud: {e!r}")

    def _advance(self, seq):
        row = self.store.one("SELECT state, resource, plan FROM jobs WHERE seq = ?", (seq,))
        state, job, plan = row[0], json.loads(row[1]), json.loads(row[2])
        if state == "DONE":
            return
        if state == "PENDING":
            job["status"]["state"] = "RUNNING"
            job["statistics"]["startTime"] = now_ms()
            with self.store.transaction() as db:
                db.execute("UPDATE jobs SET state = 'RUNNING', resource = ? WHERE seq = ? AND "
                           "state = 'PENDING'", (json.dumps(job), seq))
            self._schedule(plan["done"], seq)
            return
        if plan.get("error"):
            error = plan["error"]
            self.fail(seq, error.get("reason", "backendError"),
                      error.get("message", "An internal error occurred and the request could not "
                                "be completed."), error.get("location"))
            return
        self.runners[plan["kind"]](seq, job, plan)

    def finish(self, db, seq, job, statistics=None, errors=(), failed=False):
        """DONE, inside the transaction that made its effect."""
        job["statistics"].setdefault("startTime", now_ms())
        job["statistics"].update(statistics or {}, endTime=now_ms())
        status = {"state": "DONE"}
        if failed:
            status["errorResult"] = errors[0]
        if errors:
            status["errors"] = list(errors)
        job["status"] = status
        db.execute("UPDATE jobs SET state = 'DONE', resource = ? WHERE seq = ? AND state <> 'DONE'",
                   (json.dumps(job), seq))

    def fail(self, seq, reason, message, location=None, statistics=None, errors=()):
        error = {"reason": reason, "message": message}
        if location:
            error["location"] = location
        with self.store.transaction() as db:
            job = json.loads(db.execute("SELECT resource FROM jobs WHERE seq = ?",
                                        (seq,)).fetchone()[0])
            self.finish(db, seq, job, statistics, [error, *errors], failed=True)

    # -- HTTP

    def find(self, project, job_id, location):
        if time.time() < self.conflicts.get((project, job_id), 0):
            raise not_found(f"Job {project}:{location or 'US'}.{job_id}")
        row = self.store.one("SELECT seq, location FROM jobs WHERE project = ? AND job = ?",
                             (project, job_id))
        # without a location only the multi-regions are searched
        if not row or (row[1] != location if location else row[1] not in MULTI_REGIONS):
            raise not_found(f"Job {project}:{location}.{job_id}" if location
                            else f"Job {project}:{job_id}")
        return row[0]

    def cancel(self, project, job_id, location):
        seq = self.find(project, job_id, location)
        if self.resource(seq)["status"]["state"] != "DONE":
            self.fail(seq, "stopped", "Job execution was cancelled: User requested cancellation")
        return {"kind": "bigquery#jobCancelResponse", "job": self.resource(seq)}

    def delete(self, project, job_id, location):
        seq = self.find(project, job_id, location)
        with self.store.transaction() as db:
            db.execute("DELETE FROM jobs WHERE seq = ?", (seq,))

    def list(self, project, request):
        wanted = {state.upper() for state in request.query.get("stateFilter", [])}
        if not wanted <= {"DONE", "PENDING", "RUNNING"}:
            raise invalid("Invalid value for stateFilter")
        try:
            size = int(request.arg("maxResults") or 1000)
            before = int(request.arg("pageToken") or 1 << 62)
            least = int(request.arg("minCreationTime") or 0)
            most = int(request.arg("maxCreationTime") or 1 << 62)
        except ValueError:
            raise invalid("Invalid value for maxResults, pageToken or a creation time") from None
        where = "project = ? AND seq < ? AND created >= ? AND created <= ?"
        args = [project, before, least, most]
        if wanted:
            where += f" AND state IN ({', '.join('?' * len(wanted))})"
            args += sorted(wanted)
        rows = self.store.query(f"SELECT seq FROM jobs WHERE {where} ORDER BY seq DESC LIMIT ?",
                                (*args, size + 1))
        full = request.arg("projection", "minimal").lower() == "full"
        out = {"kind": "bigquery#jobList", "etag": etag([row[0] for row in rows]), "jobs": []}
        for (seq,) in rows[:size]:
            job = self.resource(seq)
            item = {"id": job["id"], "kind": "bigquery#job", "jobReference": job["jobReference"],
                    "state": job["status"]["state"], "statistics": job["statistics"],
                    "status": job["status"], "user_email": job["user_email"]}
            if "errorResult" in job["status"]:
                item["errorResult"] = job["status"]["errorResult"]
            if full:
                item["configuration"] = job["configuration"]
                item["principal_subject"] = job["principal_subject"]
            out["jobs"].append(item)
        if len(rows) > size:
            out["nextPageToken"] = str(rows[size - 1][0])
        if not out["jobs"]:
            del out["jobs"]
        return out

    def all(self):
        return [json.loads(row[0]) for row in
                self.store.query("SELECT resource FROM jobs ORDER BY seq")]
