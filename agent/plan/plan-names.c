/* SPDX-License-Identifier: Apache-2.0 */

/* The words of the document, each list in the order of its enum in plan.h. */

#include "agent/plan/plan.h"

const char *const plan_locale_names[] = {"en", "ko", NULL};
const char *const plan_when_names[] = {"once", "boot", "change", NULL};
const char *const plan_mode_names[] = {"service", "job", NULL};
const char *const plan_log_names[] = {"journald", "json-file", "local", "none", NULL};
const char *const plan_policy_names[] = {"auto", "manual", NULL};
const char *const plan_switch_names[] = {"stop-first", "start-first", NULL};
const char *const plan_cure_names[] = {"rollback", "keep", NULL};
const char *const plan_on_success_names[] = {"nothing", "poweroff", NULL};
const char *const plan_scope_names[] = {"managed", "all", NULL};
const char *const plan_notify_names[] = {"slack", NULL};

/* What agent/agentd/events.c and crawler/crawlerd/events.c report; tests compare them. */
const char *const plan_event_names[] = {"agentd-started",
                                        "agentd-stopping",
                                        "plan-accepted",
                                        "plan-refused",
                                        "plan-removed",
                                        "plan-applied",
                                        "resource-failed",
                                        "resource-recovered",
                                        "metadata-unreachable",
                                        "metadata-back",
                                        "secret-fetched",
                                        "secret-changed",
                                        "secret-stale",
                                        "container-started",
                                        "rolled-out",
                                        "rolled-back",
                                        "release-failed",
                                        "update-held",
                                        "secret-baked",
                                        "job-done",
                                        "job-failed",
                                        "container-removed",
                                        "images-removed",
                                        "engine-unreachable",
                                        "engine-back",
                                        "preempted",
                                        "maintenance",
                                        "draining",
                                        "drained",
                                        "state-rebuilt",
                                        "instance-changed",
                                        "degraded",
                                        "well",
                                        "script-ended",
                                        "left-alone",
                                        "spool-full",
                                        "spool-has-room",
                                        "spool-lost",
                                        "spool-back",
                                        "spool-rebuilt",
                                        "document-refused",
                                        "fetch-failed",
                                        "egress-shut",
                                        "delivery-failed",
                                        "delivery-back",
                                        "other-writer",
                                        "other-writer-gone",
                                        "crawl-refused",
                                        NULL};
