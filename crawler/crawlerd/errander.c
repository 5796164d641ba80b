/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/crawlerd/errander.h"

#include <errno.h>

#include "agent/base/crash.h"
#include "agent/io/loop.h"

#define API_HOST "googleapis.com"

struct Errander {
    Errand errand; /* what the requests' callbacks get */
    ErranderContext context;
    ErranderHandler handler;
    void *userdata;
    CloudOp *op;
    Timer *timer;
};

static void step(Errander *errander);

static void on_timer(void *userdata)
{
    step(userdata);
}

int errander_new(const ErranderContext *context, ErranderHandler handler, void *userdata,
                 Errander **ret)
{
    auto_(errander_freep) Errander *errander = calloc(1, sizeof(*errander));
    int r;

    if (!errander)
        return -ENOMEM;
    errander->context = *context;
    errander->handler = handler;
    errander->userdata = userdata;
    r = timer_new(context->event, on_timer, errander, &errander->timer);
    if (r < 0)
        return r;
    *ret = take_ptr(errander);
    return 0;
}

Errander *errander_free(Errander *errander)
{
    if (!errander)
        return NULL;
    (void)cloud_op_free(errander->op);
    (void)timer_free(errander->timer);
    errand_done(&errander->errand);
    free(errander);
    return NULL;
}

Errand *errander_errand(Errander *errander)
{
    return &errander->errand;
}

void errander_go(Errander *errander, uint64_t delay_usec)
{
    (void)timer_set(errander->timer, delay_usec, 0);
}

/* A retry or two is nobody's business; more are trouble, and whoever waits is told of it. */
static bool is_stuck(const Errand *e)
{
    return e->state == ERRAND_ASKING && e->tries >= ERRANDER_PATIENCE && e->error.code < 0;
}

static void settle(Errander *errander)
{
    Errand *e = &errander->errand;

    if (e->state == ERRAND_ASKING || e->state == ERRAND_PAUSED)
        errander_go(errander, e->wait_usec);
    if (e->state != ERRAND_ASKING || is_stuck(e))
        errander->handler(errander, e, errander->userdata);
}

/* Access scope, IAM and API off are told apart by the cloud, with this machine's own names. */
static void say_refusal(Errander *errander, const HttpResponse *response)
{
    static const CloudNeed need = {
        .what = "BigQuery",
        .api = "bigquery.googleapis.com",
        .permission = "bigquery.jobs.create and bigquery.tables.updateData",
        .role = "roles/bigquery.jobUser and roles/bigquery.dataEditor",
    };
    auto_error Error err = {0};
    Errand *e = &errander->errand;

    if (response->status != 403 || e->state != ERRAND_PAUSED || e->error.kind != ERROR_DENIED ||
        cloud_judge(errander->context.cloud, response, &need, &err) >= 0)
        return;
    error_done(&e->error);
    (void)error_move(&e->error, &err);
}

static void on_reply(const HttpResponse *response, const Error *err, void *userdata)
{
    Errander *errander = container_of((Errand *)userdata, Errander, errand);
    Errand *e = &errander->errand;

    crash_point("reply.before-judge");
    e->now_usec = now_realtime_usec();
    errander->context.sink->ops->judge(errander->context.sink, err ? NULL : response, err, e);
    if (!err)
        say_refusal(errander, response);
    errander->op = cloud_op_free(errander->op);
    settle(errander);
}

/* A session's address comes from the server: the token goes to Google or to where an endpoint maps
 * it, and nowhere else. */
static int check_target(const Errander *errander, const char *url, Error *err)
{
    auto_free char *scheme = NULL, *host = NULL;
    uint16_t port = 0;
    int r = url_host_port(url, &scheme, &host, &port, err);

    if (r < 0)
        return r;
    if ((host_is_within(host, API_HOST) && strcmp(scheme, "https") == 0) ||
        http_client_is_endpoint(errander->context.http, host, port))
        return 0;
    return error_set(err, -EPERM, ERROR_CORRUPT, "BigQuery named %s for an upload", host);
}

static void step(Errander *errander)
{
    Errand *e = &errander->errand;
    HttpRequest request;
    auto_error Error err = {0};
    int r;

    e->now_usec = now_realtime_usec();
    r = errander->context.sink->ops->next(errander->context.sink, e, &request, &err);
    if (r == 0) {
        settle(errander);
        return;
    }
    if (r > 0)
        r = check_target(errander, request.url, &err);
    if (r >= 0)
        r = cloud_http(errander->context.cloud, &request, on_reply, e, &errander->op, &err);
    if (r < 0) {
        /* Nothing left this machine. */
        errander->context.sink->ops->judge(errander->context.sink, NULL, &err, e);
        settle(errander);
        return;
    }
    crash_point("request.sent");
}
