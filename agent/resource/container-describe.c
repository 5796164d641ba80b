/* SPDX-License-Identifier: Apache-2.0 */
/* What a container says of itself. */
#include <errno.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/resource/container-internal.h"

static json_t *json_time(uint64_t usec)
{
    char text[TIME_RFC3339_MAX];

    return usec == 0 ? json_null() : json_string(time_format_rfc3339(text, (int64_t)usec));
}

static json_t *json_text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

/* What was proved by http or by staying up is healthy although the engine has no opinion. */
static const char *health_text(const Container *c)
{
    static const char *const names[] = {
        [ENGINE_HEALTH_NONE] = "none",
        [ENGINE_HEALTH_STARTING] = "starting",
        [ENGINE_HEALTH_HEALTHY] = "healthy",
        [ENGINE_HEALTH_UNHEALTHY] = "unhealthy",
    };

    if (!c->serving.known || !c->serving.running)
        return "none";
    if (c->serving.unanswered)
        return names[c->answers_badly ? ENGINE_HEALTH_UNHEALTHY : ENGINE_HEALTH_STARTING];
    if (container_engine_health(c) != ENGINE_HEALTH_NONE)
        return names[container_engine_health(c)];
    switch (c->slot.state) {
    case ROLLOUT_COMMITTED:
    case ROLLOUT_SETTLED:
    case ROLLOUT_ROLLED_BACK:
        return "healthy";
    case ROLLOUT_PROVING:
    case ROLLOUT_SWITCHING:
        return "starting";
    case ROLLOUT_FAILED:
        return "unhealthy";
    default:
        return "none";
    }
}

static json_t *describe_progress(const Container *c)
{
    if (!c->pulling)
        return json_null();
    return json_pack("{s:s, s:I, s:o}", "phase", c->progress.extracting ? "extracting" : "pulling",
                     "done_bytes", (json_int_t)c->progress.current_bytes, "total_bytes",
                     c->pull_bytes ? json_integer((json_int_t)c->pull_bytes) : json_null());
}

static int describe_release(const Container *c, json_t *item)
{
    Db *db = c->resource->context->db;
    auto_(release_freep) Release *current = NULL, *previous = NULL;
    json_t *quarantined = NULL;

    if (c->slot.current) {
        (void)!release_load(db, c->plan->name, c->slot.current, &current, NULL);
        (void)!release_previous(db, c->plan->name, c->slot.current, &previous, NULL);
    }
    if (release_list_quarantined(db, c->plan->name, &quarantined, NULL) < 0)
        quarantined = json_array();
    if (json_put(item, "quarantined", quarantined) < 0 ||
        json_put(item, "digest", json_text_or_null(current ? current->digest : NULL)) < 0 ||
        json_put(item, "release", json_text_or_null(c->slot.current)) < 0 ||
        json_put(item, "previous_digest", json_text_or_null(previous ? previous->digest : NULL)) <
            0)
        return -ENOMEM;
    return json_put(item, "held_digest", json_text_or_null(c->slot.held_digest));
}

static int describe_run(const Container *c, json_t *item)
{
    bool runs = c->serving.known && c->serving.running;
    bool ended = c->plan->mode == PLAN_MODE_JOB && c->slot.exit_status >= 0;
    bool measured = c->slot.downtime_usec != UINT64_MAX;

    if (json_put(item, "running", json_boolean(runs)) < 0 ||
        json_put(item, "health", json_string(health_text(c))) < 0 ||
        json_put(item, "since", json_time(runs ? c->serving.started_at : c->slot.state_at)) < 0 ||
        json_put(item, "restarts", json_integer((json_int_t)c->serving.restarts)) < 0 ||
        json_put(item, "exit_status", ended ? json_integer(c->slot.exit_status) : json_null()) <
            0 ||
        json_put(item, "memory_bytes",
                 c->serving.memory_bytes ? json_integer((json_int_t)c->serving.memory_bytes)
                                         : json_null()) < 0)
        return -ENOMEM;
    return json_put(item, "downtime_usec",
                    measured ? json_integer((json_int_t)c->slot.downtime_usec) : json_null());
}

json_t *container_describe(const Resource *resource)
{
    const Container *c = container_of_resource(resource);
    bool wrong = resource->error.code < 0;
    json_auto_t *item = json_object();

    /* It may be asked before it was worked on: what is recorded of it is shown then. */
    if (container_prepare((Resource *)resource, NULL) < 0)
        return NULL;
    if (!item || json_put(item, "name", json_string(resource->name)) < 0 ||
        json_put(item, "mode", json_string(plan_mode_names[c->plan->mode])) < 0 ||
        json_put(item, "image", json_string(c->plan->image)) < 0 || describe_release(c, item) < 0 ||
        json_put(item, "state", json_string(rollout_state_name(c->shown))) < 0 ||
        describe_run(c, item) < 0 || json_put(item, "progress", describe_progress(c)) < 0 ||
        json_put(item, "message", json_text_or_null(wrong ? error_text(&resource->error) : NULL)) <
            0 ||
        json_put(item, "remedy", json_text_or_null(wrong ? resource->error.remedy : NULL)) < 0)
        return NULL;
    return take_ptr(item);
}
