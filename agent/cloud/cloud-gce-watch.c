/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/backoff.h"
#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

/* The server answers after WAIT_SECONDS, changed or not; our own limit is longer than its. */
#define WAIT_SECONDS      60
#define WAIT_LIMIT_USEC   (75 * SECOND)
#define FIRST_LIMIT_USEC  (10 * SECOND)
#define ROOT_MAX          (8U << 20) /* two sets of 512 KB attributes, escaped */
#define QUICK_ANSWER_USEC (5 * SECOND)
#define TROUBLE_MAX_USEC  HOUR

/* --- One reading of the tree, and of the plan's own bytes where JSON cannot carry them -------- */

typedef struct Fetch Fetch;
/* `state` is NULL when nothing changed, or with `err`; else it is the callee's to keep. */
typedef void (*FetchHandler)(CloudState *state, const Error *err, void *userdata);

struct Fetch {
    Gce *gce;
    HttpOp *http;
    char *etag; /* of the last good answer */
    CloudState *state;
    FetchHandler handler;
    void *userdata;
};

static void fetch_stop(Fetch *fetch)
{
    fetch->http = http_op_free(fetch->http);
    fetch->state = cloud_state_unref(fetch->state);
}

static void fetch_done(Fetch *fetch)
{
    fetch_stop(fetch);
    free(fetch->etag);
    fetch->etag = NULL;
}

static void fetch_failed(Fetch *fetch, const Error *err)
{
    /* A tree that was read and never shown must be read again, not waited on. */
    if (fetch->state) {
        free(fetch->etag);
        fetch->etag = NULL;
    }
    fetch->state = cloud_state_unref(fetch->state);
    fetch->handler(NULL, err, fetch->userdata);
}

static void fetch_succeeded(Fetch *fetch)
{
    CloudState *state = take_ptr(fetch->state);

    cloud_state_adopt(&fetch->gce->cloud, state);
    fetch->handler(state, NULL, fetch->userdata);
}

/* No answer, or one that is none of the metadata server's. */
static int check_answer(const HttpResponse *response, const Error *answer_err, Error *err)
{
    const char *flavor = http_response_header(response, "Metadata-Flavor");
    int r;

    if (answer_err) {
        (void)error_copy(err, answer_err);
        return error_prefix(err, answer_err->code, "metadata server");
    }
    if (!flavor || !streq(flavor, "Google"))
        return error_set(err, -EPROTO, ERROR_TEMPORARY,
                         "metadata server: something else answered (HTTP %ld)", response->status);
    r = http_response_error(response, "metadata server", err);
    /* Whatever it was, asking again later is all that can be done. */
    if (r < 0 && err->kind == ERROR_INVALID)
        err->kind = ERROR_TEMPORARY;
    return r;
}

static void on_raw_plan(HttpOp *op, const HttpResponse *response, const Error *answer_err,
                        void *userdata)
{
    Fetch *fetch = userdata;
    auto_error Error error = {0};

    if (check_answer(response, answer_err, &error) < 0) {
        fetch_failed(fetch, &error);
        return;
    }
    if (cloud_state_set_plan(fetch->state, buf_str(&response->body), response->body.size) < 0) {
        (void)error_oom(&error);
        fetch_failed(fetch, &error);
        return;
    }
    fetch_succeeded(fetch);
}

static int fetch_raw_plan(Fetch *fetch, const char *path, Error *err)
{
    auto_free char *url = NULL;
    HttpRequest request;

    if (gce_request(fetch->gce, path, &request, &url) < 0)
        return error_oom(err);
    fetch->http = http_op_free(fetch->http);
    return http_start(fetch->gce->cloud.http, &request, on_raw_plan, fetch, &fetch->http, err);
}

static int read_root(Fetch *fetch, const HttpResponse *response, bool *ret_is_same,
                     char **ret_raw_path, Error *err)
{
    const char *etag = http_response_header(response, "ETag");
    int r;

    *ret_is_same = etag && fetch->etag && streq(etag, fetch->etag);
    if (*ret_is_same)
        return 0;

    r = gce_parse_root(buf_str(&response->body), response->body.size, &fetch->state, ret_raw_path,
                       err);
    if (r < 0)
        return r;
    /* Of the very answer that is handled now: read apart from it, a change could be lost. */
    if (str_set(&fetch->etag, etag) < 0)
        return error_oom(err);
    return 0;
}

static void on_root(HttpOp *op, const HttpResponse *response, const Error *answer_err,
                    void *userdata)
{
    Fetch *fetch = userdata;
    auto_error Error error = {0};
    auto_free char *raw_path = NULL;
    bool is_same = false;
    int r;

    r = check_answer(response, answer_err, &error);
    if (r >= 0)
        r = read_root(fetch, response, &is_same, &raw_path, &error);
    if (r >= 0 && raw_path) {
        r = fetch_raw_plan(fetch, raw_path, &error);
        if (r >= 0)
            return;
    }
    if (r < 0)
        fetch_failed(fetch, &error);
    else if (is_same)
        fetch->handler(NULL, NULL, fetch->userdata);
    else
        fetch_succeeded(fetch);
}

/* At once, or, when `wait` and there was an answer already, as soon as something differs from it.
 */
static int fetch_start(Fetch *fetch, bool wait, const HttpRetry *retry, Error *err)
{
    auto_free char *url = NULL, *path = NULL;
    HttpRequest request;

    if (wait && fetch->etag)
        path = str_printf("?recursive=true&alt=json&wait_for_change=true&timeout_sec=%d"
                          "&last_etag=%s",
                          WAIT_SECONDS, fetch->etag);
    else
        path = strdup("?recursive=true&alt=json");
    if (!path || gce_request(fetch->gce, path, &request, &url) < 0)
        return error_oom(err);

    request.max_body = ROOT_MAX;
    request.retry = *retry;
    request.try_timeout_usec = wait && fetch->etag ? WAIT_LIMIT_USEC : FIRST_LIMIT_USEC;
    request.total_timeout_usec = wait ? 0 : 3 * FIRST_LIMIT_USEC;
    fetch_stop(fetch);
    return http_start(fetch->gce->cloud.http, &request, on_root, fetch, &fetch->http, err);
}

/* --- Once ----------------------------------------------------------------------------------- */

typedef struct ReadOp {
    CloudOp op;
    Fetch fetch;
    CloudSnapshotHandler handler;
    void *userdata;
} ReadOp;

static void read_release(CloudOp *op)
{
    fetch_done(&container_of(op, ReadOp, op)->fetch);
}

static void on_read(CloudState *state, const Error *err, void *userdata)
{
    auto_(cloud_state_unrefp) CloudState *hold = state;
    const ReadOp *read = userdata;
    CloudSnapshot snapshot;

    if (!state) {
        read->handler(NULL, err, read->userdata);
        return;
    }
    snapshot = cloud_state_snapshot(hold);
    read->handler(&snapshot, NULL, read->userdata);
}

int gce_read(Cloud *cloud, CloudSnapshotHandler handler, void *userdata, CloudOp **ret, Error *err)
{
    static const HttpRetry retry = {.tries = 5, .base_usec = 500 * MSEC, .cap_usec = 5 * SECOND};
    ReadOp *read;
    int r;

    read = cloud_op_new(cloud, sizeof(*read), read_release);
    if (!read)
        return error_oom(err);
    read->handler = handler;
    read->userdata = userdata;
    read->fetch = (Fetch){.gce = gce_of(cloud), .handler = on_read, .userdata = read};

    r = fetch_start(&read->fetch, false, &retry, err);
    if (r < 0) {
        cloud_op_free(&read->op);
        return r;
    }
    *ret = &read->op;
    return 0;
}

/* --- For ever ------------------------------------------------------------------------------- */

typedef struct WatchOp {
    CloudOp op; /* its timer is the pause between two polls */
    Fetch fetch;
    CloudState *last;
    CloudWatchHandlers handlers;
    void *userdata;
    Backoff failures, quick_answers;
    uint64_t asked_usec;

    Timer *trouble;
    uint64_t failing_since_usec; /* 0: all is well */
    uint64_t told_usec;          /* how long it had been failing when it was told last */
    Error error;
} WatchOp;

static void watch_release(CloudOp *op)
{
    WatchOp *watch = container_of(op, WatchOp, op);

    fetch_done(&watch->fetch);
    watch->last = cloud_state_unref(watch->last);
    watch->trouble = timer_free(watch->trouble);
    error_done(&watch->error);
}

static void watch_poll(CloudOp *op);

/* Says that it fails: after CLOUD_TROUBLE_USEC, then at twice the time, and so on. */
static void on_trouble(void *userdata)
{
    WatchOp *watch = userdata;
    uint64_t failing = now_boottime_usec() - watch->failing_since_usec;
    auto_error Error error = {0};

    if (watch->error.code)
        (void)error_copy(&error, &watch->error);
    else
        (void)error_set(&error, -ETIMEDOUT, ERROR_TEMPORARY, "metadata server: no answer yet");
    watch->told_usec = failing;
    (void)timer_set(watch->trouble, MIN_OF(failing, (uint64_t)TROUBLE_MAX_USEC), SECOND);
    watch->handlers.trouble(&error, failing, watch->userdata);
}

static void trouble_begins(WatchOp *watch)
{
    if (watch->failing_since_usec)
        return;
    watch->failing_since_usec = now_boottime_usec();
    watch->told_usec = 0;
    if (watch->handlers.trouble)
        (void)timer_set(watch->trouble, CLOUD_TROUBLE_USEC, 0);
}

/* False when the watch was freed by the handler that was told. */
static bool trouble_ends(WatchOp *watch)
{
    uint64_t failing = now_boottime_usec() - watch->failing_since_usec;
    bool was_told = watch->failing_since_usec && watch->told_usec, freed = false;

    error_done(&watch->error);
    watch->failing_since_usec = 0;
    timer_cancel(watch->trouble);
    if (!was_told)
        return true;

    watch->op.freed = &freed;
    watch->handlers.trouble(NULL, failing, watch->userdata);
    if (!freed)
        watch->op.freed = NULL;
    return !freed;
}

static void watch_pause(WatchOp *watch, uint64_t delay_usec)
{
    /* The timer was made with the watch: setting it does not fail. */
    (void)!cloud_op_defer(&watch->op, delay_usec, watch_poll);
}

static void watch_failed(WatchOp *watch, const Error *err)
{
    trouble_begins(watch);
    error_done(&watch->error);
    (void)error_copy(&watch->error, err);
    watch_pause(watch, backoff_next(&watch->failures, err->retry_after_usec));
}

/* A server that answers a long poll at once, and says nothing new, must not become a busy loop. */
static uint64_t pause_after_answer(WatchOp *watch)
{
    if (now_boottime_usec() - watch->asked_usec >= QUICK_ANSWER_USEC) {
        backoff_reset(&watch->quick_answers);
        return 0;
    }
    return backoff_next(&watch->quick_answers, 0);
}

static void on_fetched(CloudState *state, const Error *err, void *userdata)
{
    WatchOp *watch = userdata;
    auto_(cloud_state_unrefp) CloudState *current = state;
    CloudSnapshot snapshot;
    unsigned changes;

    if (err) {
        watch_failed(watch, err);
        return;
    }
    backoff_reset(&watch->failures);
    if (!trouble_ends(watch))
        return;

    changes = current ? cloud_state_compare(watch->last, current) : 0;
    watch_pause(watch, changes ? 0 : pause_after_answer(watch));
    if (!current)
        return;
    cloud_state_unref(watch->last);
    watch->last = cloud_state_ref(current);
    if (!changes)
        return;

    snapshot = cloud_state_snapshot(current);
    watch->handlers.changed(&snapshot, changes, watch->userdata);
}

static void watch_poll(CloudOp *op)
{
    static const HttpRetry once = {.tries = 1};
    WatchOp *watch = container_of(op, WatchOp, op);
    auto_error Error error = {0};

    /* After a failure an answer is wanted now, changed or not: it is what ends the trouble. */
    watch->asked_usec = now_boottime_usec();
    if (fetch_start(&watch->fetch, watch->failing_since_usec == 0, &once, &error) < 0)
        watch_failed(watch, &error);
}

int gce_watch(Cloud *cloud, const CloudWatchHandlers *handlers, void *userdata, CloudOp **ret,
              Error *err)
{
    WatchOp *watch;
    int r;

    watch = cloud_op_new(cloud, sizeof(*watch), watch_release);
    if (!watch)
        return error_oom(err);
    watch->handlers = *handlers;
    watch->userdata = userdata;
    watch->fetch = (Fetch){.gce = gce_of(cloud), .handler = on_fetched, .userdata = watch};
    /* A preemption leaves half a minute: the cap is what may be lost of it. */
    watch->failures =
        (Backoff){.base_usec = 200 * MSEC, .cap_usec = 5 * SECOND, .floor_usec = 100 * MSEC};
    watch->quick_answers =
        (Backoff){.base_usec = 200 * MSEC, .cap_usec = 10 * SECOND, .floor_usec = 100 * MSEC};

    r = timer_new(cloud->event, on_trouble, watch, &watch->trouble);
    if (r >= 0)
        r = cloud_op_defer(&watch->op, 0, watch_poll);
    if (r < 0) {
        cloud_op_free(&watch->op);
        return error_errno(err, r, "watch the metadata server");
    }
    trouble_begins(watch);

    *ret = &watch->op;
    return 0;
}
