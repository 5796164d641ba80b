# SPDX-License-Identifier: Apache-2.0
"""Switches of the double: how strict, how slow, how large. Read and set over /_admin/options."""

OPTIONS = {
    # name: (default, what it does)
    "directory_redirect": (True, "metadata: 301 for a directory asked without a trailing slash"),
    "registry_challenge": ("full", "full, no-service, no-scope, no-params, odd-case or several"),
    "registry_token_ttl": (300, "seconds; 60 leaves expires_in out, as the token protocol allows"),
    "registry_anonymous": (False, "give pull tokens to callers without credentials"),
    "registry_redirect_blobs": (False, "302 for blobs to a second port that refuses Authorization"),
    "job_pending": (0.02, "seconds a BigQuery job stays PENDING"),
    "job_running": (0.03, "seconds it stays RUNNING, at least"),
    "query_seconds": (0.0, "seconds a query takes"),
    "conflict_404": (0.0, "seconds in which jobs.get says 404 after a 409 for that job id"),
    "early_duplicate": (False, "say 409 duplicate when a resumable upload begins, not at its end"),
    "table_lag": (0.0, "seconds in which a new table is not found by insertAll"),
    "column_lag": (0.0, "seconds in which insertAll does not know a column added by a patch"),
    "insert_id_seconds": (60.0, "how long insertAll remembers an insertId"),
    "streaming_buffer_seconds": (300.0, "how long rows of insertAll stay in the streaming buffer"),
    "insert_max_rows": (50000, "rows in one insertAll"),
    "insert_max_bytes": (10485760, "bytes of one insertAll request, and of one row"),
    "insert_empty_400": (False, "answer an over-size insertAll with a 400 without a body"),
    "upload_seconds": (604800.0, "how long an upload session lives"),
    "upload_gone": (404, "what an expired upload session answers: 404 or 410"),
    "quota_table_modifications": (1500, "loads into one table a day, failed ones count"),
    "quota_partition_modifications": (30000, "partitions of one table changed a day"),
    "quota_partition_operations_10s": (50, "loads into one partitioned table in 10 seconds"),
    "quota_in_job": (False, "report a used-up quota in errorResult, not as HTTP 403"),
    "sandbox": (False, "a project without billing: insertAll is refused"),
    "nat_ports": (0, "new connections to one market host in 120 s; more are never answered"),
}
CHOICES = {"registry_challenge": ("full", "no-service", "no-scope", "no-params", "odd-case",
                                  "several"), "upload_gone": (404, 410)}


class Options:
    def __init__(self, store):
        self.store = store
        self.values = {name: default for name, (default, _) in OPTIONS.items()}
        self.values.update({k: v for k, v in store.get("options", {}).items() if k in OPTIONS})

    def __getitem__(self, name):
        return self.values[name]

    def update(self, changes):
        if not isinstance(changes, dict):
            raise ValueError("options are a JSON object")
        for name, value in changes.items():
            if name not in OPTIONS:
                raise ValueError(f"unknown option {name!r}, known: {', '.join(sorted(OPTIONS))}")
            default = OPTIONS[name][0]
            number = (int, float)
            fits = (isinstance(value, bool) if isinstance(default, bool) else
                    isinstance(value, number) and not isinstance(value, bool)
                    if isinstance(default, number) else isinstance(value, str))
            if not fits or name in CHOICES and value not in CHOICES[name]:
                raise ValueError(f"option {name}: {value!r} does not fit; {OPTIONS[name][1]}")
        self.values.update(changes)
        self.store.put("options", self.values)
