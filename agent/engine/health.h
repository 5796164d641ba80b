/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENT_ENGINE_HEALTH_H
#define AGENT_ENGINE_HEALTH_H

/* Is this container well? One probe watches one started container until it has an answer: by http,
 * by the engine's HEALTHCHECK, or by running long enough. Whatever the way, a container that exits
 * or is restarted while it is being proved is not well, and the reason says what became of it. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/base/error.h"
#include "agent/engine/engine.h"
#include "agent/io/http.h"

typedef enum HealthKind {
    HEALTH_STABILITY, /* it runs, without a restart, for `stable` */
    HEALTH_ENGINE,    /* the image's HEALTHCHECK says healthy */
    HEALTH_HTTP,      /* the URL answers 2xx or 3xx */
} HealthKind;

typedef struct HealthSpec {
    HealthKind kind;
    const char *container;  /* name or id */
    const char *url;        /* of HTTP; "{container}" is replaced by the container's address */
    uint64_t interval_usec; /* between looks; 0: 5 s */
    uint64_t timeout_usec;  /* of one http look; 0: 2 s */
    unsigned retries;       /* failures in a row that are too many; 0: 3 */
    uint64_t
        start_period_usec; /* from the start: until then failures do not count, but for an exit */
    uint64_t stable_usec;  /* well without a break for that long; STABILITY 0: 20 s, else 0: once */
    uint64_t limit_usec;   /* no verdict by then is unhealthy; 0: 1 h */
} HealthSpec;

typedef struct HealthVerdict {
    bool healthy;
    const char *reason; /* of unhealthy, one sentence: "http://172.17.0.2:8080/ answered HTTP 503
                           (3 times)"; of healthy what was seen */
    int exit_code;      /* -1 while it runs */
    bool oom_killed;
    uint64_t elapsed_usec; /* from the probe's start to the first success (healthy), or to now */
} HealthVerdict;

typedef struct HealthProbe HealthProbe;
/* Exactly once, unless freed before; may free the probe. */
typedef void (*HealthHandler)(HealthProbe *probe, const HealthVerdict *verdict, void *userdata);

/* An engine that is away gives no verdict: the probe waits for it to come back (up to the limit).
 */
int health_probe_start(Engine *engine, HttpClient *http, sd_event *event, const HealthSpec *spec,
                       HealthHandler handler, void *userdata, HealthProbe **ret, Error *err)
    must_check;
/* Look now, not at the next interval: an engine event says that something changed. */
void health_probe_look(HealthProbe *probe);
/* What is known by now, for status: "waiting for http://…: connection refused". Borrowed. */
const char *health_probe_progress(const HealthProbe *probe);
HealthProbe *health_probe_free(HealthProbe *probe);
DEFINE_AUTO(HealthProbe, health_probe_free)

#endif
