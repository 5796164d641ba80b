/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_IO_STATUS_KEYS_H
#define AGENT_IO_STATUS_KEYS_H

/* The two status documents: what io.mervis.Agent1.Describe() and io.mervis.Crawler1.Describe()
 * return. `agentctl status --json` and statusd's /status.json show the agent's with two keys more:
 *   "reachable": bool,              false: agentd did not answer, this is what it last recorded
 *   "crawler": the crawler's document, or null when crawlerd did not answer
 * and, while it is not reachable, "message" and "remedy" that say why (status_join() makes it);
 * there "state" is "degraded" also where the crawler is, is paused, or is missing although wanted.
 * agentd keeps its own in <state-dir>/status.json for the time when it does not run. agentd and
 * crawlerd write them; agentctl and statusd read them, and know nothing else about the daemons.
 *
 * Rules that hold everywhere
 *   - Times are RFC 3339 UTC strings ("2026-10-07T06:30:00Z"), null while unknown or never.
 *     Durations end in _usec, sizes in _bytes. Integers are JSON integers.
 *   - `message` says what is wrong in one sentence, and is null while nothing is; `remedy` is the
 *     command or step that cures it, null when waiting does. So an item with a message needs
 *     somebody's attention, and progress never goes there. Neither holds a secret's value, a token
 *     or the query of a URL.
 *   - `since` is when the item entered its present state.
 *   - A key that is listed is always present, unless marked "optional". Readers take an absent or
 *     mistyped key as null and skip keys that they do not know, so both sides may grow apart by a
 *     version. Keys are never renamed and never change their type.
 *   - Lists are in plan order; events newest first. */

/* ---- Agent1.Describe() --------------------------------------------------------------------------
 *
 * { "kind": "agent",                  the document's own name
 *   "version": "0.1.0",               of the daemon
 *   "at": time,                       when this was written; tells the age of a recorded one
 *   "started_at": time,
 *   "state": "starting" | "well" | "degraded" | "stopping",
 *                                     degraded: any item below has a message
 *   "ready": bool,                    the plan's service containers serve, and no drain is under
 *                                     way: what /readyz answers. True with no plan or no service
 *   "ready_reason": string | null,    why not: "container mervis: proving", "preempted"
 *
 *   "vm": {
 *     "cloud": "gce" | "local", "name": string, "zone": string | null, "project": string | null,
 *     "id": string | null, "machine_type": string | null, "role": string | null,
 *     "spot": bool, "preempted": bool,
 *     "message": string | null, "remedy": string | null },   metadata server out of reach, say
 *
 *   "plan": {
 *     "generation": integer,          0 while there is none
 *     "sha256": string | null, "source": string | null,      "attribute mervis-plan of the
 * instance" "accepted_at": time, "outcome": "none" | "applying" | "applied" | "degraded",
 *     "refused": null | { "at": time, "sha256": string,
 *                         "errors": [ string, … ] },         each "path: message", at most 20
 *     "message", "remedy" },          a refused plan, a removed one
 *
 *   "resources": [ {                  system items and whatever has no list of its own below
 *     "kind": "timezone" | "swap" | "file" | "script" | "images" | "crawler" | …, "name": string,
 *     "state": "ok" | "pending" | "applying" | "failed" | "waiting",
 *     "message", "remedy", "since": time } ],
 *
 *   "secrets": [ {
 *     "name": string, "secret": string, "version": string | null, "fetched_at": time,
 *     "state": "ok" | "pending" | "stale" | "failed",        stale: the last good value is in use
 *     "message", "remedy" } ],
 *
 *   "containers": [ {
 *     "name": string, "mode": "service" | "job",
 *     "image": string,                as the plan says it
 *     "digest": string | null,        "sha256:…" of what runs, or ran last
 *     "release": string | null, "previous_digest": string | null,
 *     "state": "new" | "resolving" | "pulling" | "staged" | "switching" | "proving" | "committed"
 *            | "settled" | "rolling-back" | "rolled-back" | "failed" | "waiting" | "done",
 *                                     of the rollout; done: a job that ended
 *     "running": bool, "health": "healthy" | "starting" | "unhealthy" | "none",
 *     "since": time,                  of the running container: when it started; else of the state
 *     "restarts": integer, "exit_status": integer | null,
 *     "memory_bytes": integer | null,
 *     "downtime_usec": integer | null,                       of the last switch
 *     "progress": null | { "phase": string,                  "pulling"
 *                          "done_bytes": integer, "total_bytes": integer | null },
 *     "quarantined": [ { "digest": string, "release": string, "reason": string, "at": time,
 *                        "digest_is_bad": bool } ],     false: plan or secrets are, not the image
 *     "message", "remedy" } ],
 *
 *   "images": { "disk_used_percent": integer | null, "freed_bytes": integer, "removed": integer,
 *               "last_run_at": time, "message", "remedy" },  sums since the state began
 *
 *   "events": [ { "at": time, "event": string, "text": string } ]     at most 10
 * }
 *
 * ---- Crawler1.Describe() ------------------------------------------------------------------------
 *
 * { "kind": "crawler", "version": string, "at": time, "started_at": time,
 *   "state": "starting" | "well" | "degraded" | "paused" | "stopping" | "idle",
 *                                     idle: no jobs are declared
 *   "message", "remedy",              of the whole: why it is paused
 *
 *   "jobs": [ {
 *     "name": string, "recipe": string,
 *     "state": "ok" | "running" | "waiting" | "paused" | "failed",
 *     "symbols": integer,
 *     "rows": integer,                accepted into the spool since the state began
 *     "requests": integer, "failures": integer, "bytes_in": integer,
 *     "last_fetch_at": time, "next_fetch_at": time,
 *     "message", "remedy" } ],
 *
 *   "backfills": [ { "job": string, "from": time, "to": time,    under way
 *                    "symbols": integer, "symbols_done": integer } ],
 *
 *   "spool": { "rows": integer,       not yet delivered: the backlog
 *              "bytes": integer, "max_bytes": integer, "oldest_at": time, "refused": integer },
 *
 *   "delivery": { "sink": string | null,                     "bigquery-load", "sqlite", "ndjson"
 *     "rows_delivered": integer,      since the state began
 *     "last_delivery_at": time, "batches_open": integer, "dead_letters": integer,
 *     "loads_today", "partitions_today", "repairs_today": integer,     of BigQuery's limits
 *     "loads_forecast": integer,      a day and table, where rows come all the time
 *     "message", "remedy" },
 *
 *   "egress": { "bytes_today": integer, "daily_bytes": integer,      0: no limit
 *               "cost_today": real,      by the plan's prices, a day of Cloud NAT included
 *               "nat_ports": integer } | null,        bound of each host's connections_120s
 *
 *   "hosts": [ { "host": string, "requests": integer, "refusals": integer,
 *                "bytes_in": integer, "bytes_out": integer,
 *                "connections": integer, "connections_120s": integer,
 *                "breaker_open": bool, "retry_at": time,
 *                "waits": string | null,       for a budget: nothing is wrong
 *                "message", "remedy" } ]
 * }
 */

#include <jansson.h>
#include <stdbool.h>

#include "agent/base/error.h"

#define STATUS_FILE_NAME "status.json" /* in agentd's --state-dir: the last Agent1 document */

/* What is shown of both. `agent` is its document, or when `err` says that it is not reachable what
 * it last recorded; both documents may be NULL. New reference; NULL when memory is out. */
json_t *status_join(const json_t *agent, const json_t *crawler, const Error *err);

/* The plan has something to crawl, and crawlerd did not answer. */
bool status_misses_crawler(const json_t *status);

#endif
