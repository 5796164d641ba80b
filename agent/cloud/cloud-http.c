/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-private.h"

/* A request that waits for a token, and for one more when the first was refused. */
typedef struct AuthorizedOp {
    CloudOp op;
    HttpOp *http;
    CloudOp *token_op;
    char *token; /* the one that the peer saw */
    bool renewed;
    CloudHttpHandler handler;
    void *userdata;
    HttpRequest callbacks; /* only its function pointers */
} AuthorizedOp;

static void authorized_release(CloudOp *op)
{
    AuthorizedOp *authorized = container_of(op, AuthorizedOp, op);

    authorized->http = http_op_free(authorized->http);
    authorized->token_op = cloud_op_free(authorized->token_op);
    cleanse_free(authorized->token);
    authorized->token = NULL;
}

static void authorized_fail(AuthorizedOp *authorized, const Error *err)
{
    const HttpResponse none = {.content_type = "", .peer_address = ""};

    authorized->handler(&none, err, authorized->userdata);
}

static void on_token(const char *token, const Error *err, void *userdata)
{
    AuthorizedOp *authorized = userdata;
    auto_error Error error = {0};
    char *copy;

    if (err) {
        authorized_fail(authorized, err);
        return;
    }
    copy = strdup(token);
    if (!copy || http_op_restart(authorized->http, token, &error) < 0) {
        cleanse_free(copy);
        if (!error.code)
            (void)error_oom(&error);
        authorized_fail(authorized, &error);
        return;
    }
    cleanse_free(authorized->token);
    authorized->token = copy;
}

static int ask_token(AuthorizedOp *authorized, Error *err)
{
    authorized->token_op = cloud_op_free(authorized->token_op);
    return cloud_token_get(authorized->op.cloud, on_token, authorized, &authorized->token_op, err);
}

static void on_answer(HttpOp *op, const HttpResponse *response, const Error *err, void *userdata)
{
    AuthorizedOp *authorized = userdata;

    if (!err && response->status == 401 && !authorized->renewed && authorized->op.cloud) {
        authorized->renewed = true;
        cloud_token_invalidate(authorized->op.cloud, authorized->token);
        if (ask_token(authorized, NULL) >= 0)
            return;
    }
    authorized->handler(response, err, authorized->userdata);
}

/* The caller's callbacks get the caller's userdata. */

static int pass_body(HttpOp *op, const void *data, size_t size, void *userdata)
{
    AuthorizedOp *authorized = userdata;

    return authorized->callbacks.on_body(op, data, size, authorized->userdata);
}

static ptrdiff_t pass_read(void *data, size_t size, void *userdata)
{
    AuthorizedOp *authorized = userdata;

    return authorized->callbacks.read(data, size, authorized->userdata);
}

static int pass_rewind(void *userdata)
{
    AuthorizedOp *authorized = userdata;

    return authorized->callbacks.rewind(authorized->userdata);
}

static int pass_address(const char *address, uint16_t port, const char *host, void *userdata)
{
    AuthorizedOp *authorized = userdata;

    return authorized->callbacks.check_address(address, port, host, authorized->userdata);
}

static bool pass_retry(const HttpResponse *response, void *userdata)
{
    AuthorizedOp *authorized = userdata;

    return authorized->callbacks.should_retry(response, authorized->userdata);
}

int cloud_http(Cloud *cloud, const HttpRequest *request, CloudHttpHandler handler, void *userdata,
               CloudOp **ret, Error *err)
{
    AuthorizedOp *authorized;
    HttpRequest copy;
    int r;

    assert(cloud && request && handler && ret);
    assert(!request->bearer && !request->user_pass && !request->held);

    authorized = cloud_op_new(cloud, sizeof(*authorized), authorized_release);
    if (!authorized)
        return error_oom(err);
    authorized->handler = handler;
    authorized->userdata = userdata;
    authorized->callbacks = *request;

    copy = *request;
    copy.held = true;
    copy.on_body = request->on_body ? pass_body : NULL;
    copy.read = request->read ? pass_read : NULL;
    copy.rewind = request->rewind ? pass_rewind : NULL;
    copy.check_address = request->check_address ? pass_address : NULL;
    copy.should_retry = request->should_retry ? pass_retry : NULL;

    r = http_start(cloud->http, &copy, on_answer, authorized, &authorized->http, err);
    if (r >= 0)
        r = ask_token(authorized, err);
    if (r < 0) {
        cloud_op_free(&authorized->op);
        return r;
    }

    *ret = &authorized->op;
    return 0;
}
