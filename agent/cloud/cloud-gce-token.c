/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

/* The metadata server itself hands out the same token until some four minutes before its end, so
 * asking earlier brings nothing. */
#define RENEW_USEC     (225 * SECOND)
#define RENEW_GAP_USEC (10 * SECOND) /* between two early renewals: the old one still works */
#define TOKEN_PATH     "instance/service-accounts/default/token"

struct TokenOp {
    CloudOp op;
    LIST_FIELDS(TokenOp, waiting);
    bool is_waiting;
    CloudTokenHandler handler;
    void *userdata;
    Error error;
};

static int token_ask(Gce *gce, Error *err);
static void token_deliver(CloudOp *op);

static uint64_t token_left_usec(const Gce *gce)
{
    uint64_t now = now_boottime_usec();

    return gce->token && gce->token_ends_usec > now ? gce->token_ends_usec - now : 0;
}

static void token_unwait(TokenOp *token)
{
    if (token->is_waiting && token->op.cloud)
        LIST_REMOVE(waiting, gce_of(token->op.cloud)->token_waiters, token);
    token->is_waiting = false;
}

static void token_release(CloudOp *op)
{
    TokenOp *token = container_of(op, TokenOp, op);

    token_unwait(token);
    error_done(&token->error);
}

/* To each from its own timer: a handler may free any of the others, and the cloud. */
static void token_settle(Gce *gce, const Error *err)
{
    while (gce->token_waiters) {
        TokenOp *token = gce->token_waiters;

        token_unwait(token);
        if (err)
            (void)error_copy(&token->error, err);
        if (cloud_op_defer(&token->op, 0, token_deliver) < 0)
            return; /* no memory for a timer: it stays unanswered, and is freed by its owner */
    }
}

static void token_deliver(CloudOp *op)
{
    TokenOp *token = container_of(op, TokenOp, op);
    Gce *gce = gce_of(op->cloud);
    auto_error Error error = {0};
    auto_secret_str char *copy = NULL;

    if (token->error.code)
        (void)error_move(&error, &token->error);
    else if (!gce->token && token_ask(gce, &error) >= 0) {
        /* Invalidated since: wait with the others. */
        token->is_waiting = true;
        LIST_PREPEND(waiting, gce->token_waiters, token);
        return;
    }
    if (!error.code) {
        copy = strdup(gce->token);
        if (!copy)
            (void)error_oom(&error);
    }
    token->handler(copy, error.code ? &error : NULL, token->userdata);
}

static int no_account(const Gce *gce, Error *err)
{
    const CloudIdentity *identity = cloud_identity_peek(&gce->cloud);

    (void)error_set(err, -ENOENT, ERROR_INVALID, "no service account is attached to this VM");
    return error_remedy(err, -ENOENT,
                        "stop the VM and run: gcloud compute instances set-service-account %s "
                        "--zone=%s --project=%s --service-account=ACCOUNT@%s"
                        ".iam.gserviceaccount.com --scopes=cloud-platform",
                        identity ? identity->name : "NAME", identity ? identity->zone : "ZONE",
                        identity ? identity->project : "PROJECT",
                        identity ? identity->project : "PROJECT");
}

static int token_read(Gce *gce, const HttpResponse *response, Error *err)
{
    json_auto_t *answer = NULL;
    json_t *token;
    uint64_t seconds = 0;
    char *copy;
    int r;

    if (response->status == 404)
        return no_account(gce, err);
    r = http_response_error(response, "metadata server", err);
    if (r < 0)
        return r;
    r = json_parse(buf_str(&response->body), response->body.size, "access token", &answer, err);
    if (r < 0)
        return r;
    token = json_object_get(answer, "access_token");
    if (!json_is_string(token) || json_string_length(token) == 0 ||
        json_u64(answer, "expires_in", &seconds) < 0)
        return error_set(err, -EBADMSG, ERROR_CORRUPT,
                         "metadata server: the access token is not in its answer");

    copy = strdup(json_string_value(token));
    cleanse((char *)json_string_value(token), json_string_length(token));
    if (!copy)
        return error_oom(err);
    cleanse_free(gce->token);
    gce->token = copy;
    gce->token_ends_usec =
        usec_add(gce->token_asked_usec, MIN_OF(seconds, UINT64_C(86400)) * SECOND);
    return 0;
}

static void on_token_answer(HttpOp *op, const HttpResponse *response, const Error *answer_err,
                            void *userdata)
{
    Gce *gce = userdata;
    auto_error Error error = {0};
    int r = 0;

    if (answer_err) {
        (void)error_copy(&error, answer_err);
        r = error_prefix(&error, error.code, "metadata server");
    } else {
        r = token_read(gce, response, &error);
    }
    gce->token_request = http_op_free(gce->token_request);
    token_settle(gce, r < 0 ? &error : NULL);
}

/* One request, however many wait. */
static int token_ask(Gce *gce, Error *err)
{
    auto_free char *url = NULL;
    HttpRequest request;

    if (gce->token_request)
        return 0;
    if (gce_request(gce, TOKEN_PATH, &request, &url) < 0)
        return error_oom(err);
    request.sensitive = true;
    request.max_body = 64U << 10;
    /* Before the request: the answer's seconds are counted from no later than this. */
    gce->token_asked_usec = now_boottime_usec();
    return http_start(gce->cloud.http, &request, on_token_answer, gce, &gce->token_request, err);
}

int gce_token(Cloud *cloud, CloudTokenHandler handler, void *userdata, CloudOp **ret, Error *err)
{
    Gce *gce = gce_of(cloud);
    uint64_t left = token_left_usec(gce);
    TokenOp *token;
    int r = 0;

    token = cloud_op_new(cloud, sizeof(*token), token_release);
    if (!token)
        return error_oom(err);
    token->handler = handler;
    token->userdata = userdata;

    if (left > 0) {
        if (left < RENEW_USEC && now_boottime_usec() - gce->token_asked_usec >= RENEW_GAP_USEC)
            (void)token_ask(gce, NULL);
        r = cloud_op_defer(&token->op, 0, token_deliver);
        if (r < 0)
            (void)error_oom(err);
    } else {
        token->is_waiting = true;
        LIST_PREPEND(waiting, gce->token_waiters, token);
        r = token_ask(gce, err);
    }
    if (r < 0) {
        cloud_op_free(&token->op);
        return r;
    }

    *ret = &token->op;
    return 0;
}

void gce_token_invalidate(Cloud *cloud, const char *token)
{
    Gce *gce = gce_of(cloud);

    if (!gce->token || !token || !streq(gce->token, token))
        return;
    cleanse_free(gce->token);
    gce->token = NULL;
}

void gce_token_close(Gce *gce)
{
    gce->token_request = http_op_free(gce->token_request);
    cleanse_free(gce->token);
    gce->token = NULL;
}
