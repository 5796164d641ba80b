/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agentd/manager.h"

#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#include "agent/agentd/events.h"
#include "agent/agentd/manager-internal.h"
#include "agent/base/file.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"
#include "agent/io/status-keys.h"
#include "agent/resource/container.h"
#include "agent/resource/images.h"
#include "agent/resource/release.h"

/* --- Events and status ---------------------------------------------------------------------- */

/* One journal record with its MESSAGE_ID and one row for `agentctl status`: the only place that
 * logs what an operator acts on. */
static void record_event(LogLevel level, const char *event, const char *const *fields,
                         const char *text, void *userdata)
{
    Manager *m = userdata;
    const EventKind *kind = event_kind(event);
    auto_free char *id = kind ? str_printf("MESSAGE_ID=%s", kind->message_id) : NULL;
    auto_free char *name = str_printf("MERVIS_EVENT=%s", event);
    const char *list[16];
    size_t n = 0;

    if (id)
        list[n++] = id;
    if (name)
        list[n++] = name;
    for (size_t i = 0; fields && fields[i] && n < ELEMENTS(list) - 1; i++)
        list[n++] = fields[i];
    list[n] = NULL;
    log_fields(level, list, "%s", text);
    bus_emit_event(m->bus, BUS_AGENT_PATH, BUS_AGENT_INTERFACE, event,
                   kind ? kind->message_id : NULL, level, text);
    manager_tell_event(m, level, event, kind ? kind->message_id : NULL, text);
}

void manager_tell_event(Manager *m, LogLevel level, const char *event, const char *message_id,
                        const char *text)
{
    auto_error Error err = {0};

    if (m->state.db && state_event_add(&m->state, level, event, text, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "the event is in the journal only");
    notifier_event(m->notifier, level, event, message_id, text);
    manager_changed(m);
}

void manager_event(Manager *m, LogLevel level, const char *event, const char *const *fields,
                   const char *format, ...)
{
    auto_free char *text = NULL;
    va_list args;
    int n;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        text = NULL;
    record_event(level, event, fields, text ? text : event, m);
}

void manager_changed(Manager *m)
{
    if (m->draining)
        manager_drain_progress(m);
    if (m->status && !timer_is_set(m->status))
        (void)timer_set(m->status, STATUS_DELAY_USEC, STATUS_DELAY_USEC);
}

static void on_changed(void *userdata)
{
    manager_changed(userdata);
}

/* "degraded" and "well" are told when they change, not at every pass. */
static void tell_state(Manager *m)
{
    const char *state = manager_state(m);

    if (streq_ptr(m->shown_state, state))
        return;
    if (streq(state, "degraded"))
        manager_event(m, LOG_LEVEL_WARNING, "degraded", NULL, "degraded: see agentctl status");
    else if (streq(state, "well") && m->shown_state)
        manager_event(m, LOG_LEVEL_NOTICE, "well", NULL, "all is well");
    m->shown_state = state;
}

/* Whether it says more than that time has passed. */
static bool status_is_new(Manager *m, json_t *status)
{
    auto_free char *text = NULL;
    char sha256[SHA256_HEX_MAX];
    json_t *at = json_incref(json_object_get(status, "at"));

    (void)json_object_del(status, "at");
    text = json_canonical(status);
    (void)json_object_set_new(status, "at", at);
    if (text)
        sha256_of(text, strlen(text), sha256);
    if (!text || streq(sha256, m->status_sha256))
        return false;
    (void)snprintf(m->status_sha256, sizeof(m->status_sha256), "%s", sha256);
    return true;
}

static void write_status(void *userdata)
{
    Manager *m = userdata;
    auto_free char *path = path_join(m->options->state_dir, STATUS_FILE_NAME), *text = NULL;
    auto_free char *summary = NULL;
    json_auto_t *status = NULL;
    auto_error Error err = {0};

    tell_state(m);
    summary = manager_summary(m);
    status = manager_describe(m);
    if (!status || !status_is_new(m, status))
        return;
    text = json_text(status, false);
    if (!text || !path)
        return;
    if (file_replace(path, text, strlen(text), 0644, &err) < 0)
        log_failure(LOG_LEVEL_DEBUG, NULL, &err, "ignoring: it is shown over the bus");
    daemon_status("%s, generation %ju", manager_state(m), (uintmax_t)m->generation.number);
    manager_emit_changed(m);
    if (summary)
        cloud_publish(m->cloud, "status", summary);
}

/* --- What happens around us ------------------------------------------------------------------ */

static void on_settled(bool well, void *userdata)
{
    Manager *m = userdata;
    Resource *images = reconciler_find(m->reconciler, "images", IMAGES_NAME);
    auto_error Error err = {0};

    if (images)
        images_pass_ended(images);
    if (!m->looked && !reconciler_is_busy(m->reconciler)) {
        m->looked = true;
        manager_changed(m);
    }
    if (m->generation.number == 0 || m->plan_applied || reconciler_is_busy(m->reconciler) || !well)
        return;
    m->plan_applied = true;
    m->context.first_boot = false;
    if (m->generation.applied_at == 0) {
        if (state_generation_applied(&m->state, m->generation.number, &err) < 0)
            log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring");
        m->generation.applied_at = now_realtime_usec();
        manager_event(m, LOG_LEVEL_NOTICE, "plan-applied", NULL, "generation %ju is applied",
                      (uintmax_t)m->generation.number);
    }
    manager_changed(m);
}

void manager_take_snapshot(Manager *m, const CloudSnapshot *snapshot, unsigned changes)
{
    if (m->unclaimed)
        changes = CLOUD_CHANGED_ALL;
    if (changes & CLOUD_CHANGED_IDENTITY && manager_claim(m, snapshot->identity->instance_id))
        manager_begin_anyway(m);
    if (changes & CLOUD_CHANGED_MAINTENANCE && snapshot->maintenance != m->maintenance) {
        m->maintenance = snapshot->maintenance;
        if (m->maintenance == CLOUD_MAINTENANCE_NONE)
            manager_event(m, LOG_LEVEL_NOTICE, "maintenance", NULL, "host maintenance is over");
        else
            manager_event(m, LOG_LEVEL_NOTICE, "maintenance", NULL,
                          "host maintenance: the machine will be %s",
                          m->maintenance == CLOUD_MAINTENANCE_MIGRATE ? "moved while it runs"
                                                                      : "stopped");
    }
    if (snapshot->preempted && !m->preempted) {
        m->preempted = true;
        manager_event(m, LOG_LEVEL_WARNING, "preempted", NULL,
                      "the cloud takes this machine back: draining for %ju s",
                      (uintmax_t)(DRAIN_NOTICE_USEC / SECOND));
        manager_begin_drain(m, "preempted", DRAIN_NOTICE_USEC, /* exit_after= */ false);
    }
    if (changes & CLOUD_CHANGED_PLAN && !m->unclaimed)
        manager_take_snapshot_plan(m, snapshot);
    manager_changed(m);
}

static void on_snapshot(const CloudSnapshot *snapshot, unsigned changes, void *userdata)
{
    manager_take_snapshot(userdata, snapshot, changes);
}

static void tell_trouble(Manager *m, const Error *err, uint64_t failing_usec)
{
    if (failing_usec == 0)
        manager_event(
            m, LOG_LEVEL_WARNING, "resource-failed", NULL,
            "the plan cannot be read: %s; what runs goes on, and it is read when it changes",
            error_text(err));
    else
        manager_event(
            m, LOG_LEVEL_WARNING, "metadata-unreachable", NULL,
            "no answer from the metadata server for %ju s: %s; what runs goes on, retrying",
            (uintmax_t)(failing_usec / SECOND), error_text(err));
}

static void on_trouble(const Error *err, uint64_t failing_usec, void *userdata)
{
    Manager *m = userdata;
    bool was = m->metadata_trouble.code < 0;

    error_done(&m->metadata_trouble);
    if (err) {
        (void)error_copy(&m->metadata_trouble, err);
        tell_trouble(m, err, failing_usec);
        manager_begin_anyway(m);
    } else if (was && failing_usec == 0)
        manager_event(m, LOG_LEVEL_NOTICE, "resource-recovered", NULL,
                      "the plan can be read again");
    else if (was)
        manager_event(m, LOG_LEVEL_NOTICE, "metadata-back", NULL,
                      "the metadata server answers again");
    manager_changed(m);
}

static void on_engine_event(const EngineEvent *event, void *userdata)
{
    Manager *m = userdata;

    for (size_t i = 0; i < event->n_attributes; i++) {
        Resource *resource;

        if (!streq(event->attributes[i].name, LABEL_CONTAINER))
            continue;
        resource = reconciler_find(m->reconciler, "container", event->attributes[i].value);
        if (resource)
            container_on_engine_event(resource, event);
    }
}

static void on_engine_up(void *userdata)
{
    Manager *m = userdata;

    if (m->engine_trouble.code < 0) {
        error_done(&m->engine_trouble);
        manager_event(m, LOG_LEVEL_NOTICE, "engine-back", NULL,
                      "the container engine answers again");
    }
    for (Resource *r = reconciler_next(m->reconciler, NULL); r;
         r = reconciler_next(m->reconciler, r))
        if (r->ops == &resource_container)
            container_look(r);
    manager_changed(m);
}

static void on_engine_down(const Error *err, void *userdata)
{
    Manager *m = userdata;

    m->context.engine_outages++;
    error_done(&m->engine_trouble);
    (void)error_copy(&m->engine_trouble, err);
    manager_event(m, LOG_LEVEL_WARNING, "engine-unreachable", NULL, "%s; retrying",
                  error_text(err));
}

static void on_poweroff(const char *reason, void *userdata)
{
    manager_power_off(userdata, reason);
}

/* --- Life --------------------------------------------------------------------------------------
 */

static const ReconcilerHandlers reconciler_handlers = {
    .changed = on_changed,
    .settled = on_settled,
    .left = manager_on_left,
    .event = record_event,
    .poweroff = on_poweroff,
};
static const CloudWatchHandlers watch_handlers = {.changed = on_snapshot, .trouble = on_trouble};
static const EngineEventsHandlers engine_handlers = {
    .on_event = on_engine_event,
    .on_up = on_engine_up,
    .on_down = on_engine_down,
};

static int open_state(Manager *m, Error *err)
{
    int r;

    r = state_open(m->options->state_dir, m->options->runtime_dir, &m->state, err);
    if (r < 0)
        return r;
    if (m->state.trouble.code < 0) {
        if (!m->state.trouble.remedy)
            (void)error_remedy(&m->state.trouble, m->state.trouble.code, "%s",
                               m->state.trouble.code == -ENOSPC
                                   ? "free some disk, then: sudo systemctl restart agentd"
                                   : "make it writable, then: sudo systemctl restart agentd");
        manager_event(m, LOG_LEVEL_ERROR, "resource-failed", NULL,
                      "state: %s; going on with a copy in %s, which ends with this boot (remedy: "
                      "%s)",
                      error_text(&m->state.trouble), m->options->runtime_dir,
                      m->state.trouble.remedy);
    }
    if (m->state.rebuilt)
        manager_event(m, LOG_LEVEL_WARNING, "state-rebuilt", NULL,
                      "%s/" STATE_FILE_NAME
                      " could not be read (%s); it was moved aside and is rebuilt "
                      "from what the engine and the system show",
                      m->options->state_dir, m->state.rebuilt_why ? m->state.rebuilt_why : "");
    r = dir_create(m->options->runtime_dir, 0755, err);
    if (r < 0)
        return r;
    return secret_store_new(m->options->runtime_dir, geteuid() == 0, m->state.db, &m->secrets, err);
}

static int open_clients(Manager *m, Error *err)
{
    CloudConfig config;
    int r;

    r = http_client_new(m->event, "mervis-agent/" PACKAGE_VERSION, &m->http, err);
    if (r < 0)
        return r;
    config = (CloudConfig){.event = m->event, .http = m->http, .root = m->options->root};
    r = cloud_new(&config, &m->cloud, err);
    if (r >= 0)
        r = notifier_new(m->event, m->http, m->cloud, &m->notifier, err);
    if (r < 0)
        return r;
    return engine_new(m->http, m->event, m->options->engine, &m->engine, err);
}

static int start_work(Manager *m, Error *err)
{
    int r;

    /* Known from before until the cloud says who we are: scripts that are done stay done. */
    m->instance_id = state_instance_id(&m->state);
    m->context = (ResourceContext){.event = m->event,
                                   .http = m->http,
                                   .cloud = m->cloud,
                                   .engine = m->engine,
                                   .db = m->state.db,
                                   .secrets = m->secrets,
                                   .bus = m->bus,
                                   .root = m->options->root,
                                   .state_dir = m->options->state_dir,
                                   .runtime_dir = m->options->runtime_dir,
                                   .crawler_dir = m->crawler_dir,
                                   .instance_id = m->instance_id ? m->instance_id : "",
                                   .first_boot = !state_ever_applied(&m->state)};
    r = reconciler_new(&m->context, &reconciler_handlers, m, &m->reconciler, err);
    if (r < 0)
        return r;
    manager_begin(m);
    r = cloud_watch(m->cloud, &watch_handlers, m, &m->watch, err);
    if (r < 0)
        return r;
    return engine_events_new(m->engine, LABEL_CONTAINER, &engine_handlers, m, &m->engine_events,
                             err);
}

int manager_new(sd_event *event, const DaemonOptions *options, const char *crawler_dir,
                Manager **ret, Error *err)
{
    auto_(manager_freep) Manager *m = calloc(1, sizeof(*m));
    int r;

    if (!m)
        return error_oom(err);
    m->event = sd_event_ref(event);
    m->options = options;
    m->crawler_dir = crawler_dir;
    m->started_at = now_realtime_usec();
    if (timer_new(event, write_status, m, &m->status) < 0)
        return error_oom(err);
    r = open_state(m, err);
    if (r >= 0)
        r = open_clients(m, err);
    if (r >= 0)
        r = manager_serve_bus(m, err);
    if (r >= 0)
        r = start_work(m, err);
    if (r < 0)
        return r;
    manager_event(m, LOG_LEVEL_NOTICE, "agentd-started", NULL,
                  "agentd " PACKAGE_VERSION " started");
    *ret = take_ptr(m);
    return 0;
}

Manager *manager_free(Manager *m)
{
    if (!m)
        return NULL;

    /* Work first, then what it stands on. */
    child_free(m->crawl_check);
    timer_free(m->check_again);
    timer_free(m->accept_again);
    bus_call_free(m->flush);
    sd_bus_slot_unref(m->power_off);
    cloud_op_free(m->watch);
    cloud_op_free(m->reread);
    timer_free(m->claim_again);
    timer_free(m->bus_again);
    engine_events_free(m->engine_events);
    manager_cancel_cleanup(m);
    reconciler_free(m->reconciler);
    m->notifier = notifier_free(m->notifier);
    plan_free(m->candidate_plan);
    plan_free(m->cloned_plan);
    generation_done(&m->candidate);
    generation_done(&m->generation);
    free(m->refused_sha256);
    free(m->plan_missing);
    free(m->instance_id);
    timer_free(m->status);
    timer_free(m->drain);
    sd_bus_flush_close_unref(m->bus);
    engine_free(m->engine);
    cloud_free(m->cloud);
    http_client_free(m->http);
    secret_store_free(m->secrets);
    state_done(&m->state);
    error_done(&m->metadata_trouble);
    error_done(&m->engine_trouble);
    sd_event_unref(m->event);
    free(m);
    return NULL;
}

void manager_stop(Manager *m)
{
    uint64_t asked = now_boottime_usec();

    if (m->stopping)
        return;
    m->stopping = true;
    /* Asked only where it is not known: each answer may take seconds of the few that there are. */
    if (m->context.draining || machine_is_going_down(m->bus)) {
        uint64_t spent = now_boottime_usec() - asked;

        /* The unit's TimeoutStopSec= counts from the signal. */
        manager_begin_drain(m, "the machine goes down",
                            DRAIN_BUDGET_USEC - MIN_OF(spent, DRAIN_BUDGET_USEC / 2),
                            /* exit_after= */ true);
        return;
    }
    manager_event(m, LOG_LEVEL_NOTICE, "agentd-stopping", NULL, "stopping; containers go on");
    daemon_stopping("stopping; containers go on");
    write_status(m);
    (void)sd_event_exit(m->event, 0);
}

/* --- Verbs -------------------------------------------------------------------------------------
 */

static int may_change(const Manager *m, Error *err)
{
    if (m->context.draining)
        return error_set(err, -ESHUTDOWN, ERROR_INVALID, "this machine is going down");
    if (m->waiting_for_identity)
        return error_set(err, -EAGAIN, ERROR_TEMPORARY,
                         "the metadata server has not yet said which machine this is; in some "
                         "seconds the last plan is taken up without it");
    return 0;
}

int manager_apply(Manager *m, Error *err)
{
    int r;

    r = may_change(m, err);
    if (r < 0)
        return r;
    if (m->generation.number == 0)
        return error_set(err, -ENOENT, ERROR_INVALID, "there is no plan to apply");
    for (Resource *one = reconciler_next(m->reconciler, NULL); one;
         one = reconciler_next(m->reconciler, one))
        if (one->ops == &resource_container)
            container_approve(one);
    reconciler_look_at_all(m->reconciler);
    return 0;
}

typedef struct ContainerVerb {
    const char *name;
    int (*run)(Resource *resource, Error *err);
} ContainerVerb;

static const ContainerVerb container_verbs[] = {
    {"restart", container_restart},
    {"rollback", container_rollback},
    {"retry", container_retry},
};

int manager_container_verb(Manager *m, const char *verb, const char *name, Error *err)
{
    Resource *resource = reconciler_find(m->reconciler, "container", name);
    int r;

    r = may_change(m, err);
    if (r < 0)
        return r;
    if (!resource)
        return error_set(err, -ENOENT, ERROR_INVALID, "the plan has no container \"%s\"", name);
    for (size_t i = 0; i < ELEMENTS(container_verbs); i++)
        if (streq(container_verbs[i].name, verb))
            return container_verbs[i].run(resource, err);
    return error_set(err, -EINVAL, ERROR_INTERNAL, "no verb %s", verb);
}

uint64_t manager_generation(const Manager *m)
{
    return m->generation.number;
}
