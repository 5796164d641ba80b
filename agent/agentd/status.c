/* SPDX-License-Identifier: Apache-2.0 */
/* The status document (agent/io/status-keys.h): made from what the resources say of themselves. */
#include "config.h"

#include <errno.h>

#include "agent/agentd/manager-internal.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/status-keys.h"
#include "agent/resource/container.h"
#include "agent/resource/images.h"
#include "agent/resource/secret.h"

#define EVENTS_SHOWN         10
#define SUMMARY_TROUBLE_MAX  300
#define HISTORY_SHOWN        50
#define REFUSED_ERRORS_SHOWN 20

static json_t *json_time(uint64_t usec)
{
    char text[TIME_RFC3339_MAX];

    return usec == 0 ? json_null() : json_string(time_format_rfc3339(text, (int64_t)usec));
}

/* NULL and "" are null. */
static json_t *json_text_or_null(const char *s)
{
    return str_is_empty(s) ? json_null() : json_string(s);
}

static bool is_wrong(const Resource *resource)
{
    return resource->state == RESOURCE_FAILED;
}

/* A plan without containers asks nothing of the engine, which then need not be there. */
static bool engine_is_missed(const Manager *m)
{
    return m->engine_trouble.code < 0 && (!m->context.plan || m->context.plan->containers.n > 0 ||
                                          reconciler_next_leaving(m->reconciler, NULL));
}

static bool anything_is_wrong(const Manager *m)
{
    if (m->metadata_trouble.code < 0 || engine_is_missed(m) || m->refused_sha256 ||
        m->plan_removed || m->accept_again || m->unclaimed || m->state.trouble.code < 0)
        return true;
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (is_wrong(r))
            return true;
    for (Resource *r = reconciler_next_leaving(m->reconciler, NULL); r;
         r = reconciler_next_leaving(m->reconciler, r))
        if (is_wrong(r))
            return true;
    return false;
}

const char *manager_state(const Manager *m)
{
    if (m->stopping || m->context.draining)
        return "stopping";
    if (anything_is_wrong(m))
        return "degraded";
    return m->generation.number > 0 && m->plan_applied && m->looked ? "well" : "starting";
}

/* The first thing that is wrong, as a person reads it; NULL. */
static const char *first_trouble(const Manager *m)
{
    if (m->refused_sha256)
        return "the newest plan was refused";
    if (engine_is_missed(m))
        return error_text(&m->engine_trouble);
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (is_wrong(r))
            return error_text(&r->error);
    return m->metadata_trouble.code < 0 ? error_text(&m->metadata_trouble) : NULL;
}

/* "degraded, generation 3: container web: …", for who has nothing but the guest attribute. */
char *manager_summary(const Manager *m)
{
    const char *trouble = first_trouble(m);
    auto_free char *short_trouble =
        trouble ? str_escape(trouble, strlen(trouble), SUMMARY_TROUBLE_MAX) : NULL;

    return str_printf("%s, generation %ju%s%s", manager_state(m), (uintmax_t)m->generation.number,
                      short_trouble ? ": " : "", short_trouble ? short_trouble : "");
}

/* What /readyz answers: the plan's services serve, and nobody is going down. */
bool manager_is_ready(const Manager *m, char **ret_reason)
{
    if (m->preempted || m->context.draining) {
        *ret_reason = strdup(m->preempted ? "preempted" : "stopping");
        return false;
    }
    /* Where one was in force before, what it brought may serve well although we do not look at it.
     */
    if (!m->context.plan && (m->context.first_boot || m->waiting_for_identity)) {
        *ret_reason = strdup("no plan is in force yet");
        return false;
    }
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (r->ops == &resource_container && !container_is_ready(r)) {
            *ret_reason = str_printf("container %s does not serve", r->name);
            return false;
        }
    return true;
}

static json_t *describe_vm(const Manager *m)
{
    const CloudIdentity *identity = cloud_identity_peek(m->cloud);
    const Error *trouble = m->metadata_trouble.code < 0 ? &m->metadata_trouble : NULL;
    json_auto_t *vm = json_object();

    if (!vm || json_put(vm, "cloud", json_string(cloud_name(m->cloud))) < 0 ||
        json_put(vm, "name", json_string(identity && identity->name ? identity->name : "")) < 0 ||
        json_put(vm, "zone", json_text_or_null(identity ? identity->zone : NULL)) < 0 ||
        json_put(vm, "project", json_text_or_null(identity ? identity->project : NULL)) < 0 ||
        json_put(vm, "id", json_text_or_null(identity ? identity->instance_id : NULL)) < 0 ||
        json_put(vm, "machine_type", json_text_or_null(identity ? identity->machine_type : NULL)) <
            0 ||
        json_put(vm, "role", json_text_or_null(identity ? identity->role : NULL)) < 0 ||
        json_put(vm, "spot", json_boolean(identity && identity->spot)) < 0 ||
        json_put(vm, "preempted", json_boolean(m->preempted)) < 0 ||
        json_put(vm, "message", json_text_or_null(trouble ? error_text(trouble) : NULL)) < 0 ||
        json_put(vm, "remedy", json_text_or_null(trouble ? trouble->remedy : NULL)) < 0)
        return NULL;
    return take_ptr(vm);
}

static json_t *describe_refusal(Manager *m, size_t max_errors)
{
    json_auto_t *refusal = m->refused_sha256 ? state_refusal(&m->state) : NULL;
    size_t n, cut = 0;
    json_t *errors;

    if (!refusal)
        return json_null();
    errors = json_object_get(refusal, "errors");
    for (n = json_array_size(errors); n > max_errors; n--, cut++)
        (void)json_array_remove(errors, n - 1);
    if (cut > 0 &&
        json_array_append_new(errors, json_sprintf("and %zu more: agentctl plan show", cut)) < 0)
        return NULL;
    return take_ptr(refusal);
}

static const char *plan_outcome(const Manager *m)
{
    if (m->generation.number == 0)
        return "none";
    if (m->waiting_for_identity)
        return "applying";
    if (m->plan_applied) /* looking again is no applying: nothing may come of it */
        return anything_is_wrong(m) ? "degraded" : "applied";
    return reconciler_is_busy(m->reconciler) ? "applying" : "degraded";
}

static json_t *describe_plan(Manager *m, size_t max_errors)
{
    const char *message = NULL, *remedy = NULL;
    auto_free char *missing = NULL, *set_it = NULL;
    json_auto_t *plan = json_object();

    if (m->state.trouble.code < 0) {
        message = error_text(&m->state.trouble);
        remedy = m->state.trouble.remedy;
    } else if (m->unclaimed) {
        message = "state.db is another machine's, and cannot be begun anew (is the disk full?)";
        remedy = "df -h /var/lib/mervis-agent";
    } else if (m->accept_again) {
        message = "a new plan waits: it cannot be recorded in state.db (is the disk full?)";
        remedy = "df -h /var/lib/mervis-agent";
    } else if (m->refused_sha256) {
        message = "the newest plan was refused";
        remedy = "correct the plan: agentctl plan show lists every fault";
    } else if (m->plan_missing) {
        missing = str_printf("no plan is set: looked for %s", m->plan_missing);
        set_it = cloud_cure(m->cloud, CLOUD_TROUBLE_NO_PLAN);
        message = missing;
        remedy = set_it;
    } else if (m->plan_removed) {
        message = "the plan is gone from the metadata; the last one stays in force";
        remedy = "set the attribute mervis-plan again";
    }
    if (!plan || json_put(plan, "generation", json_integer((json_int_t)m->generation.number)) < 0 ||
        json_put(plan, "sha256", json_text_or_null(m->generation.sha256)) < 0 ||
        json_put(plan, "source", json_text_or_null(m->generation.source)) < 0 ||
        json_put(plan, "accepted_at", json_time(m->generation.accepted_at)) < 0 ||
        json_put(plan, "outcome", json_string(plan_outcome(m))) < 0 ||
        json_put(plan, "refused", describe_refusal(m, max_errors)) < 0 ||
        json_put(plan, "message", json_text_or_null(message)) < 0 ||
        json_put(plan, "remedy", json_text_or_null(remedy)) < 0)
        return NULL;
    return take_ptr(plan);
}

static json_t *describe_resource(const Resource *resource)
{
    bool said = is_wrong(resource);

    if (resource->ops->describe)
        return resource->ops->describe(resource);
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "kind", resource->ops->kind, "name",
                     resource->name, "state", resource_state_name(resource->state), "message",
                     json_text_or_null(said ? error_text(&resource->error) : NULL), "remedy",
                     json_text_or_null(said ? resource->error.remedy : NULL), "since",
                     json_time(resource->state_at));
}

/* What left the plan is shown while it cannot be undone. */
static json_t *describe_leaving(const Resource *resource)
{
    auto_free char *message =
        str_printf("it left the plan, and is not undone yet: %s", error_text(&resource->error));

    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "kind", resource->ops->kind, "name",
                     resource->name, "state", resource_state_name(resource->state), "message",
                     json_text_or_null(message), "remedy",
                     json_text_or_null(resource->error.remedy), "since",
                     json_time(resource->state_at));
}

static int describe_resources(const Manager *m, json_t *status)
{
    json_t *resources = json_array(), *secrets = json_array(), *containers = json_array();

    if (json_put(status, "resources", resources) < 0 || json_put(status, "secrets", secrets) < 0 ||
        json_put(status, "containers", containers) < 0)
        return -ENOMEM;
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r)) {
        json_t *list = r->ops == &resource_container ? containers
                       : r->ops == &resource_secret  ? secrets
                                                     : resources;

        if (json_array_append_new(list, describe_resource(r)) < 0)
            return -ENOMEM;
    }
    for (Resource *r = reconciler_next_leaving(m->reconciler, NULL); r;
         r = reconciler_next_leaving(m->reconciler, r))
        if (is_wrong(r) && json_array_append_new(resources, describe_leaving(r)) < 0)
            return -ENOMEM;
    return 0;
}

json_t *manager_describe(Manager *m)
{
    auto_free char *reason = NULL;
    bool ready = manager_is_ready(m, &reason);
    json_auto_t *status = json_object();

    if (!status || json_put(status, "kind", json_string("agent")) < 0 ||
        json_put(status, "version", json_string(PACKAGE_VERSION)) < 0 ||
        json_put(status, "at", json_time(now_realtime_usec())) < 0 ||
        json_put(status, "started_at", json_time(m->started_at)) < 0 ||
        json_put(status, "state", json_string(manager_state(m))) < 0 ||
        json_put(status, "ready", json_boolean(ready)) < 0 ||
        json_put(status, "ready_reason", json_text_or_null(reason)) < 0 ||
        json_put(status, "vm", describe_vm(m)) < 0 ||
        json_put(status, "plan", describe_plan(m, REFUSED_ERRORS_SHOWN)) < 0 ||
        describe_resources(m, status) < 0 ||
        json_put(status, "images",
                 images_describe(reconciler_find(m->reconciler, "images", IMAGES_NAME))) < 0 ||
        json_put(status, "events", state_events(&m->state, EVENTS_SHOWN)) < 0)
        return NULL;
    return take_ptr(status);
}

/* `agentctl plan show`: in force, last refused, where from. */
json_t *manager_plan(Manager *m)
{
    json_auto_t *answer = describe_plan(m, SIZE_MAX);
    json_t *document = NULL;

    if (!answer)
        return NULL;
    if (m->generation.document)
        (void)json_parse_quiet(m->generation.document, strlen(m->generation.document), &document);
    if (json_put(answer, "document", document ? document : json_null()) < 0)
        return NULL;
    return take_ptr(answer);
}

json_t *manager_history(Manager *m)
{
    json_auto_t *answer = json_object();

    if (!answer || json_put(answer, "generations", state_history(&m->state, HISTORY_SHOWN)) < 0 ||
        json_put(answer, "events", state_events(&m->state, HISTORY_SHOWN)) < 0)
        return NULL;
    return take_ptr(answer);
}

json_t *manager_dry_run(Manager *m)
{
    return reconciler_dry_run(m->reconciler);
}
