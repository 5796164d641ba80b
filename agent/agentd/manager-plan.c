/* SPDX-License-Identifier: Apache-2.0 */
/* Which plan is in force: a new document is read, judged whole (its crawl part by crawlerd),
 * recorded as a generation, and only then applied. A document that is wrong changes nothing but
 * status; one that is gone neither. */
#include <errno.h>
#include <sys/wait.h>

#include "agent/agentd/manager-internal.h"
#include "agent/base/crash.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/json.h"

#define AGAIN_ACCURACY_USEC    (250 * MSEC)
#define CRAWLERD_NAME          "crawlerd"
#define CRAWL_CHECK_TIMEOUT    (10 * SECOND)
#define CRAWL_CHECK_OUTPUT_MAX (256U << 10)

/* --- Refused --------------------------------------------------------------------------------- */

static json_t *errors_to_json(const FieldErrors *errors)
{
    json_auto_t *list = json_array();

    for (size_t i = 0; list && i < errors->n; i++) {
        const FieldError *e = &errors->items[i];
        auto_free char *where =
            e->line > 0 ? str_printf(" (line %u, column %u)", e->line, e->column) : strdup("");
        auto_free char *text =
            str_printf("%s%s%s%s", e->path ? e->path : "", e->path && *e->path ? ": " : "",
                       e->message, where ? where : "");

        if (!text || json_array_append_new(list, json_string(text)) < 0)
            return NULL;
    }
    if (errors->truncated && json_array_append_new(list, json_string(FIELD_ERRORS_MORE)) < 0)
        return NULL;
    return take_ptr(list);
}

static void refuse(Manager *m, const char *sha256, json_t *errors)
{
    const char *first = json_string_value(json_array_get(errors, 0));
    size_t n = json_array_size(errors);
    auto_error Error err = {0};

    m->refused_by_us = true;
    if (str_set(&m->refused_sha256, sha256) < 0 ||
        state_refuse(&m->state, sha256, errors, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "the refusal is in the journal only");
    manager_event(m, LOG_LEVEL_ERROR, "plan-refused", NULL,
                  "plan %.12s was refused: %s%s; generation %ju stays in force (agentctl plan show "
                  "lists all)",
                  sha256, first ? first : "it is wrong", n > 1 ? " (and other faults)" : "",
                  (uintmax_t)m->generation.number);
}

static void refuse_with(Manager *m, const char *sha256, const FieldErrors *errors)
{
    json_auto_t *list = errors_to_json(errors);

    if (list)
        refuse(m, sha256, list);
}

/* --- In force -------------------------------------------------------------------------------- */

/* `plan` may be NULL: none. */
static int use_endpoints(Manager *m, const Plan *plan, Error *err)
{
    auto_free HttpEndpoint *endpoints = NULL;
    size_t n = 0;

    endpoints = calloc((plan ? plan->endpoints.n : 0) + 1, sizeof(*endpoints));
    if (!endpoints)
        return error_oom(err);
    if (plan)
        PLAN_FOREACH (PlanEndpoint, endpoint, plan->endpoints)
            endpoints[n++] = (HttpEndpoint){endpoint->host, endpoint->base_url};
    return http_client_set_endpoints(m->http, endpoints, n, err);
}

static void drop_candidate(Manager *m)
{
    m->crawl_check = child_free(m->crawl_check);
    m->check_again = timer_free(m->check_again);
    m->accept_again = timer_free(m->accept_again);
    m->candidate_plan = plan_free(m->candidate_plan);
    generation_done(&m->candidate);
    m->candidate_backoff =
        (Backoff){.base_usec = RECONCILE_BACKOFF_BASE_USEC, .cap_usec = RECONCILE_BACKOFF_CAP_USEC};
}

/* Arms `*timer`, which is made when it is first needed. True: this is the first time. */
static bool candidate_again(Manager *m, Timer **timer, TimerHandler handler)
{
    bool first = !*timer;

    if (first && timer_new(m->event, handler, m, timer) < 0)
        return false;
    (void)timer_set(*timer, backoff_next(&m->candidate_backoff, 0), AGAIN_ACCURACY_USEC);
    return first;
}

/* It is refused, and goes. */
static void refuse_candidate(Manager *m, json_t *errors)
{
    refuse(m, m->candidate.sha256, errors);
    drop_candidate(m);
}

static void accept_candidate(void *userdata);

/* The disk is full, or so: what is in force goes on, and the new plan comes when it can be kept. */
static void accept_later(Manager *m, Error *err)
{
    if (candidate_again(m, &m->accept_again, accept_candidate))
        manager_event(m, LOG_LEVEL_ERROR, "resource-failed", NULL,
                      "the new plan cannot be recorded: %s; generation %ju stays in force until "
                      "it can",
                      error_text(err), (uintmax_t)m->generation.number);
}

static void tell_whom(Manager *m)
{
    auto_error Error err = {0};

    if (m->notifier && notifier_set_plan(m->notifier, m->context.plan, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "notifications stay as they were");
}

/* What the machine had whose image this is, and ours has not, is undone as what left a plan of
 * ours.
 */
static void undo_clone(Manager *m)
{
    auto_error Error err = {0};

    if (!m->cloned_plan)
        return;
    if (reconciler_retire_plan(m->reconciler, m->cloned_plan, 0, &err) < 0) {
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring");
        plan_free(m->cloned_plan);
    }
    m->cloned_plan = NULL; /* the reconciler's now */
}

/* Takes m->candidate and its plan. Recorded first: a kill from here on comes up with the new one.
 */
static void accept_candidate(void *userdata)
{
    Manager *m = userdata;
    auto_error Error err = {0};
    int r;

    if (m->context.draining)
        return;
    r = use_endpoints(m, m->candidate_plan, &err);
    if (r < 0) {
        json_auto_t *list = json_pack("[s]", error_text(&err));

        if (list)
            refuse_candidate(m, list);
        return;
    }
    crash_point("plan.before-record");
    if (m->candidate.number == 0)
        r = state_generation_add(&m->state, &m->candidate, &err);
    if (r >= 0)
        r = state_refusal_clear(&m->state, &err);
    crash_point("plan.recorded");
    if (r >= 0)
        r = reconciler_set_plan(m->reconciler, m->candidate_plan, m->candidate.number, &err);
    if (r < 0) {
        (void)!use_endpoints(m, m->context.plan, NULL); /* it stays in force: so do its peers */
        accept_later(m, &err);
        return;
    }
    m->accept_again = timer_free(m->accept_again);
    m->candidate_plan = NULL; /* the reconciler's now */
    undo_clone(m);
    tell_whom(m);
    generation_done(&m->generation);
    m->generation = m->candidate;
    m->candidate = (Generation){0};
    free(m->refused_sha256);
    m->refused_sha256 = NULL;
    m->plan_applied = false;
    manager_event(m, LOG_LEVEL_NOTICE, "plan-accepted", NULL, "generation %ju from %s (%.12s)",
                  (uintmax_t)m->generation.number, m->generation.source, m->generation.sha256);
}

/* --- The crawl part ----------------------------------------------------------------------------
 */

static void check_crawl_again(void *userdata);

/* It was too slow, was killed or not even begun: that says nothing about the plan. */
static void check_crawl_later(Manager *m, const char *why)
{
    if (candidate_again(m, &m->check_again, check_crawl_again))
        manager_event(m, LOG_LEVEL_WARNING, "resource-failed", NULL,
                      "the crawl part of the new plan could not be checked (" CRAWLERD_NAME
                      " validate %s); trying again, generation %ju stays in force until then",
                      why, (uintmax_t)m->generation.number);
}

static void on_crawl_checked(int status, bool timed_out, const Buf *output, void *userdata)
{
    Manager *m = userdata;
    json_auto_t *reply = NULL, *list = json_array();
    json_t *errors, *item;
    size_t i;

    /* Before the child goes: the output is its own. */
    (void)json_parse_quiet(output->data ? output->data : "", output->size, &reply);
    m->crawl_check = child_free(m->crawl_check);
    if (timed_out || !WIFEXITED(status)) {
        check_crawl_later(m, timed_out ? "took too long" : "was killed");
        return;
    }
    m->check_again = timer_free(m->check_again);
    if (WEXITSTATUS(status) == 0) {
        accept_candidate(m);
        return;
    }
    if (WEXITSTATUS(status) == 127) {
        manager_event(m, LOG_LEVEL_WARNING, "resource-failed", NULL,
                      CRAWLERD_NAME
                      " is not installed: the crawl part of the plan was not checked");
        accept_candidate(m);
        return;
    }
    errors = reply ? json_object_get(reply, "errors") : NULL;
    json_array_foreach (errors, i, item) {
        const char *path = json_str(item, "path"), *message = json_str(item, "message");
        auto_free char *text = str_printf("crawl%s%s: %s", path && *path && *path != '[' ? "." : "",
                                          path ? path : "", message ? message : "wrong");

        if (!text || json_array_append_new(list, json_string(text)) < 0)
            return;
    }
    if (reply && json_flag(reply, "truncated"))
        (void)json_array_append_new(list, json_string(FIELD_ERRORS_MORE));
    if (json_array_size(list) == 0)
        (void)json_array_append_new(
            list, json_string("crawl: " CRAWLERD_NAME " validate refused it without a reason"));
    refuse_candidate(m, list);
}

static int check_crawl(Manager *m, Error *err)
{
    auto_free char *text = json_text(m->candidate_plan->crawl, false);
    auto_free char *beside = NULL;
    const char *argv[] = {CRAWLERD_NAME, "validate", "--json", NULL};
    ChildSpec spec = {
        .argv = argv, .timeout_usec = CRAWL_CHECK_TIMEOUT, .max_output = CRAWL_CHECK_OUTPUT_MAX};

    if (!text)
        return error_oom(err);
    beside = daemon_sibling(CRAWLERD_NAME);
    if (beside)
        argv[0] = beside;
    spec.input = text;
    spec.input_size = strlen(text);
    return child_spawn(m->event, &spec, on_crawl_checked, m, &m->crawl_check, err);
}

static void check_crawl_again(void *userdata)
{
    Manager *m = userdata;
    auto_error Error err = {0};

    if (m->candidate_plan && !m->crawl_check && check_crawl(m, &err) < 0)
        check_crawl_later(m, error_text(&err));
}

/* --- A document ------------------------------------------------------------------------------- */

/* What a secret may be called is the provider's to say. */
static int check_secret_names(const Manager *m, const Plan *plan, FieldErrors *errors)
{
    size_t i = 0;
    int r = 0;

    PLAN_FOREACH (PlanSecret, secret, plan->secrets) {
        auto_free char *path = str_printf("secrets[%zu].secret", i++);
        auto_error Error err = {0};

        if (!path)
            return -ENOMEM;
        if (cloud_secret_check_name(m->cloud, secret->secret, &err) >= 0)
            continue;
        r = field_errors_add(errors, path, 0, 0, "%s%s%s", error_text(&err),
                             err.remedy ? "; write " : "", err.remedy ? err.remedy : "");
        if (r < 0)
            return r;
        r = -EINVAL;
    }
    return r;
}

static int check_with_cloud(const Manager *m, const Plan *plan, bool is_replaced,
                            FieldErrors *errors)
{
    int r = plan_check_identity(plan, is_replaced, errors);
    int names = check_secret_names(m, plan, errors);

    return r < 0 ? r : names;
}

static void judge(Manager *m, const char *text, size_t size, const char *sha256, const char *source,
                  bool is_replaced)
{
    auto_field_errors FieldErrors errors = {0};
    auto_error Error err = {0};
    int r;

    drop_candidate(m);
    r = plan_parse(text, size, &m->candidate_plan, &errors);
    if (r >= 0)
        r = check_with_cloud(m, m->candidate_plan, is_replaced, &errors);
    if (r < 0) {
        refuse_with(m, sha256, &errors);
        drop_candidate(m);
        return;
    }
    m->candidate = (Generation){
        .sha256 = strdup(sha256), .document = strndup(text, size), .source = strdup(source)};
    if (!m->candidate.sha256 || !m->candidate.document || !m->candidate.source) {
        drop_candidate(m);
        return;
    }
    if (!m->candidate_plan->crawl) {
        accept_candidate(m);
        return;
    }
    if (check_crawl(m, &err) < 0)
        check_crawl_later(m, error_text(&err));
}

static void on_plan_removed(Manager *m, const CloudSnapshot *snapshot)
{
    drop_candidate(m);
    if (m->generation.number == 0 && !streq_ptr(m->plan_missing, snapshot->plan_where)) {
        log_info("no plan is set: looked for %s", snapshot->plan_where);
        (void)!str_set(&m->plan_missing, snapshot->plan_where);
    }
    if (m->generation.number == 0 || m->plan_removed)
        return;
    m->plan_removed = true;
    manager_event(m, LOG_LEVEL_WARNING, "plan-removed", NULL,
                  "%s is gone; generation %ju stays in force", snapshot->plan_where,
                  (uintmax_t)m->generation.number);
}

/* Back to what is in force: a candidate that was being judged is no longer wanted, and the refused
 * one is gone. */
static void on_plan_unchanged(Manager *m)
{
    auto_error Error err = {0};

    drop_candidate(m);
    if (!m->refused_sha256)
        return;
    free(m->refused_sha256);
    m->refused_sha256 = NULL;
    if (state_refusal_clear(&m->state, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring");
}

void manager_take_snapshot_plan(Manager *m, const CloudSnapshot *snapshot)
{
    char sha256[SHA256_HEX_MAX];

    if (m->context.draining)
        return; /* the next start takes it up */
    if (!snapshot->plan) {
        on_plan_removed(m, snapshot);
        return;
    }
    if (plan_hash(snapshot->plan, snapshot->plan_size, sha256) < 0)
        return;
    m->plan_removed = false;
    free(m->plan_missing);
    m->plan_missing = NULL;
    if (streq_ptr(m->generation.sha256, sha256)) {
        on_plan_unchanged(m);
        return;
    }
    if (streq_ptr(m->candidate.sha256, sha256))
        return; /* it is being judged, or waits to be recorded */
    if (m->refused_by_us && streq_ptr(m->refused_sha256, sha256)) {
        drop_candidate(m);
        return;
    }
    judge(m, snapshot->plan, snapshot->plan_size, sha256, snapshot->plan_where,
          !str_is_empty(snapshot->identity->group));
}

void manager_forget_plan(Manager *m)
{
    auto_field_errors FieldErrors errors = {0};
    const char *document = m->generation.document;

    drop_candidate(m);
    if (document && !m->cloned_plan)
        (void)!plan_parse(document, strlen(document), &m->cloned_plan, &errors);
    reconciler_forget(m->reconciler);
    (void)!use_endpoints(m, NULL, NULL);
    generation_done(&m->generation);
    free(m->refused_sha256);
    m->refused_sha256 = NULL;
    m->plan_applied = m->plan_removed = false;
    m->context.first_boot = true;
}

/* --- At start ----------------------------------------------------------------------------------
 */

void manager_on_left(void *userdata)
{
    Manager *m = userdata;
    auto_error Error err = {0};

    if (m->resuming) /* what was not undone is not known yet */
        return;
    crash_point("plan.left");
    if (state_generations_retire(&m->state, m->context.generation, &err) < 0)
        log_failure(LOG_LEVEL_WARNING, NULL, &err, "it is looked at again after a restart");
}

/* What left with an earlier plan and was not yet undone when we ended. */
static void resume_leaving(Manager *m)
{
    auto_(generation_done) Generation generation = {0};
    uint64_t before = m->generation.number;

    while (state_generation_unretired(&m->state, before, &generation, NULL) > 0) {
        auto_field_errors FieldErrors errors = {0};
        auto_(plan_freep) Plan *plan = NULL;
        auto_error Error err = {0};

        before = generation.number;
        if (plan_parse(generation.document, strlen(generation.document), &plan, &errors) >= 0) {
            if (reconciler_retire_plan(m->reconciler, plan, generation.number, &err) >= 0)
                plan = NULL; /* the reconciler's now */
            else
                log_failure(LOG_LEVEL_WARNING, NULL, &err, "ignoring");
        }
        generation_done(&generation);
    }
}

static int resume(Manager *m, Error *err)
{
    auto_field_errors FieldErrors errors = {0};
    auto_(plan_freep) Plan *plan = NULL;
    int r;

    generation_done(&m->generation);
    r = state_generation_last(&m->state, &m->generation, err);
    if (r <= 0)
        return r;
    r = plan_parse(m->generation.document, strlen(m->generation.document), &plan, &errors);
    if (r < 0) {
        /* An upgrade may refuse what its predecessor took: what runs goes on, and a person is told.
         */
        refuse_with(m, m->generation.sha256, &errors);
        return 0;
    }
    r = use_endpoints(m, plan, err);
    if (r < 0)
        return r;
    r = reconciler_set_plan(m->reconciler, plan, m->generation.number, err);
    if (r < 0)
        return r;
    plan = NULL; /* the reconciler's now */
    tell_whom(m);
    m->plan_applied = m->generation.applied_at > 0;
    return 1;
}

/* The last accepted plan, before anybody is asked. Without it we wait for the cloud's answer. */
void manager_resume_plan(Manager *m)
{
    json_auto_t *refusal = state_refusal(&m->state);
    auto_error Error err = {0};
    int r;

    if (refusal && json_str(refusal, "sha256"))
        m->refused_sha256 = strdup(json_str(refusal, "sha256"));
    m->resuming = true;
    r = resume(m, &err);
    if (r < 0)
        manager_event(m, LOG_LEVEL_ERROR, "resource-failed", NULL,
                      "the last plan could not be taken up: %s; waiting for the cloud's",
                      error_text(&err));
    if (r > 0)
        resume_leaving(m);
    else
        generation_done(&m->generation);
    m->resuming = false;
    if (r > 0 && !reconciler_is_leaving(m->reconciler))
        manager_on_left(m);
}
