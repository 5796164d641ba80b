/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/engine/challenge.h"
#include "agent/engine/registry-internal.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define TOKEN_TRY_USEC   (30 * SECOND)
#define TOKEN_TOTAL_USEC (2 * MINUTE)
#define TOKEN_BODY_MAX   (64U << 10)
#define TOKEN_LIFE_USEC  (60 * SECOND) /* where the service does not say, by the token's spec */
#define TOKEN_LIFE_MAX   HOUR          /* whoever loses the right to read is noticed by then */
#define TOKEN_SPARE_USEC (10 * SECOND) /* of it, for the request under way */

/* ---- Refusals ------------------------------------------------------------------------------- */

static void deny(RegistryOp *op, const RegistryDenial *denial)
{
    auto_error Error err = {0};
    bool has_words = denial->message[0] || denial->code[0];

    if (denial->had_credentials)
        (void)error_set(&err, -EACCES, ERROR_DENIED,
                        "registry %s refuses to let us read %s (HTTP %ld%s%s%s%s)", denial->host,
                        denial->path, denial->status, has_words ? ": " : "", denial->code,
                        denial->message[0] ? ": " : "", denial->message);
    else
        (void)error_set(&err, -EACCES, ERROR_DENIED,
                        "registry %s wants a login for %s, or it does not exist, and there are no "
                        "credentials for that host (HTTP %ld%s%s)",
                        denial->host, denial->path, denial->status, denial->message[0] ? ": " : "",
                        denial->message);

    (void)error_remedy(&err, -EACCES,
                       denial->had_credentials
                           ? "give the account that logs in read access to %s/%s, or correct the "
                             "image's name"
                           : "correct the image's name, make %s/%s public, or push the image to a "
                             "registry that this machine has credentials for",
                       denial->host, denial->path);
    if (op->auth && op->auth->explain)
        op->auth->explain(denial, &err, op->auth_userdata);
    registry_fail_later(op, &err);
}

void registry_denied(RegistryOp *op, const HttpResponse *response, bool at_token_service)
{
    auto_free char *code = NULL, *message = NULL;
    RegistryDenial denial = {
        .host = op->reference->host,
        .path = op->reference->path,
        .status = response->status,
        .at_token_service = at_token_service,
        .had_credentials = op->username,
    };

    registry_read_error(response, &code, &message);
    denial.code = code ? code : "";
    denial.message = message ? message : "";
    deny(op, &denial);
}

/* ---- The token ------------------------------------------------------------------------------ */

void registry_token_done(RegistryToken *token)
{
    free(token->base);
    free(token->path);
    cleanse_free(token->bearer);
    *token = (RegistryToken){0};
}

int registry_recall_token(RegistryOp *op)
{
    const RegistryToken *token = op->token;

    if (!token || !token->bearer || now_boottime_usec() >= token->until_usec ||
        !streq(token->base, op->base) || !streq(token->path, op->reference->path))
        return 0;
    op->bearer = strdup(token->bearer);
    op->recalled = op->bearer;
    return op->bearer ? 0 : -ENOMEM;
}

void registry_forget_token(RegistryOp *op)
{
    op->recalled = false;
    cleanse_free(op->bearer);
    op->bearer = NULL;
    if (op->token)
        registry_token_done(op->token);
}

/* For the caller's next operation. Out of memory, there is none for it. */
static void keep_token(const RegistryOp *op, uint64_t life_usec)
{
    RegistryToken *token = op->token;

    if (!token || life_usec <= TOKEN_SPARE_USEC)
        return;
    registry_token_done(token);
    token->base = strdup(op->base);
    token->path = strdup(op->reference->path);
    token->bearer = strdup(op->bearer);
    token->until_usec = usec_add(now_boottime_usec(), life_usec - TOKEN_SPARE_USEC);
    if (!token->base || !token->path || !token->bearer)
        registry_token_done(token);
}

static uint64_t token_life(const json_t *doc)
{
    uint64_t seconds;

    if (json_u64(doc, "expires_in", &seconds) < 0)
        return TOKEN_LIFE_USEC;
    return MIN_OF(seconds, TOKEN_LIFE_MAX / SECOND) * SECOND;
}

static int take_token(RegistryOp *op, const HttpResponse *response, Error *err)
{
    json_t *doc = NULL;
    const char *token;
    int r;

    r = json_parse(buf_str(&response->body), response->body.size, "registry token", &doc, err);
    if (r < 0)
        return r;

    token = json_str(doc, "token");
    if (str_is_empty(token))
        token = json_str(doc, "access_token");
    if (str_is_empty(token)) {
        r = error_set(err, -EBADMSG, ERROR_CORRUPT,
                      "registry %s: its token service answered without a token",
                      op->reference->host);
    } else {
        cleanse_free(op->bearer);
        op->bearer = strdup(token);
        r = op->bearer ? 0 : error_oom(err);
        if (r >= 0)
            keep_token(op, token_life(doc));
    }
    json_cleanse(doc);

    return r;
}

static void want_credentials(RegistryOp *op, bool again);

static void on_token(HttpOp *request, const HttpResponse *response, const Error *err,
                     void *userdata)
{
    RegistryOp *op = userdata;
    auto_error Error mine = {0};
    int r = 0;

    if (err) {
        r = error_copy(&mine, err);
    } else if (response->status == 200) {
        r = take_token(op, response, &mine);
    } else if ((response->status == 401 || response->status == 403) && op->username &&
               !op->asked_again) {
        want_credentials(op, /* again= */ true);
        return;
    } else if (response->status == 401 || response->status == 403) {
        registry_denied(op, response, /* at_token_service= */ true);
        return;
    } else {
        r = http_response_error(response, "token service", &mine);
        if (r >= 0)
            r = error_set(&mine, -EBADMSG, ERROR_TEMPORARY, "token service: HTTP %ld",
                          response->status);
    }

    if (r < 0) {
        (void)error_prefix(&mine, r, "registry %s", op->reference->host);
        registry_fail(op, &mine);
    } else {
        registry_ask(op);
    }
}

static char *token_url(const RegistryOp *op)
{
    auto_free char *service = op->service ? url_escape(op->service, "") : NULL;
    auto_free char *path = url_escape(op->reference->path, "/");

    if (!path || (op->service && !service))
        return NULL;

    return str_printf("%s%s%s%s%sscope=repository:%s:pull", op->realm,
                      strchr(op->realm, '?') ? "&" : "?", service ? "service=" : "",
                      service ? service : "", service ? "&" : "", path);
}

static void ask_token(RegistryOp *op)
{
    auto_free char *url = token_url(op);
    auto_secret_str char *user_pass = NULL;
    auto_error Error err = {0};
    HttpRequest request = {
        .url = url,
        .try_timeout_usec = TOKEN_TRY_USEC,
        .total_timeout_usec = TOKEN_TOTAL_USEC,
        .max_body = TOKEN_BODY_MAX,
        .sensitive = true,
        .follow = true,
        .retry = {.tries = op->tries},
        .check_address = registry_check_address,
    };

    if (op->username)
        user_pass = str_printf("%s:%s", op->username, op->password);
    if (!url || (op->username && !user_pass)) {
        (void)error_oom(&err);
        registry_fail_later(op, &err);
        return;
    }

    request.user_pass = user_pass;
    op->request = http_op_free(op->request);
    if (http_start(op->http, &request, on_token, op, &op->request, &err) < 0)
        registry_fail_later(op, &err);
}

/* ---- Credentials ---------------------------------------------------------------------------- */

static void go_on(RegistryOp *op)
{
    if (op->scheme == REGISTRY_SCHEME_BEARER) {
        ask_token(op);
    } else if (op->username) {
        registry_ask(op);
    } else {
        const RegistryDenial denial = {
            .host = op->reference->host,
            .path = op->reference->path,
            .status = 401,
            .code = "UNAUTHORIZED",
            .message = "",
        };

        deny(op, &denial);
    }
}

static void want_credentials(RegistryOp *op, bool again)
{
    op->asked_again = again;
    if (op->asked && !again) {
        go_on(op);
        return;
    }

    op->asked = true;
    if (!op->auth || !op->auth->want_credentials) {
        go_on(op);
        return;
    }

    /* Last: the answer may come from inside, and the operation may be freed there. */
    op->waiting = true;
    op->auth->want_credentials(op, op->reference->host, again, op->auth_userdata);
}

void registry_give_credentials(RegistryOp *op, const char *username, const char *password,
                               const Error *err)
{
    auto_error Error mine = {0};

    if (!op->waiting)
        return;
    op->waiting = false;

    cleanse_free(op->username);
    cleanse_free(op->password);
    op->username = op->password = NULL;
    if (err) {
        (void)error_copy(&mine, err);
        (void)error_prefix(&mine, mine.code, "credentials for registry %s", op->reference->host);
        registry_fail_later(op, &mine);
        return;
    }
    if (username) {
        op->username = strdup(username);
        op->password = strdup(password ? password : "");
        if (!op->username || !op->password) {
            (void)error_oom(&mine);
            registry_fail_later(op, &mine);
            return;
        }
    }

    go_on(op);
}

const char *registry_realm(const RegistryOp *op)
{
    return op->scheme == REGISTRY_SCHEME_BEARER ? op->realm : NULL;
}

/* ---- The challenge -------------------------------------------------------------------------- */

/* Where credentials are sent must be https, and no address of this network that a hostile registry
 * could name: but for what the plan points to itself. */
static int check_realm(const RegistryOp *op, const char *realm, Error *err)
{
    auto_free char *scheme = NULL, *host = NULL;
    auto_free char *shown = url_for_log(realm);
    uint16_t port = 0;
    bool at_home;
    int r;

    r = url_host_port(realm, &scheme, &host, &port, err);
    if (r < 0)
        return error_prefix(err, r, "registry %s: token realm", op->reference->host);

    at_home = http_client_is_endpoint(op->http, host, port) ||
              (reference_host_is_loopback(op->reference) &&
               strstr(startswith(strstr(op->base, "://"), "://"), host));
    if (at_home || (streq(scheme, "https") && !address_is_private(host)))
        return 0;

    return error_set(err, -EPERM, ERROR_INVALID,
                     "registry %s sends us to %s for a token, where no credentials are sent: %s",
                     op->reference->host, shown ? shown : "",
                     streq(scheme, "https") ? "the address is private" : "it is not https");
}

static int take_challenge(RegistryOp *op, const Challenges *list, Error *err)
{
    const Challenge *bearer = challenges_find(list, "bearer");
    const char *realm = bearer ? challenge_param(bearer, "realm") : NULL;
    int r;

    if (realm) {
        r = check_realm(op, realm, err);
        if (r < 0)
            return r;
        op->scheme = REGISTRY_SCHEME_BEARER;
        if (str_set(&op->realm, realm) < 0 ||
            str_set(&op->service, challenge_param(bearer, "service")) < 0)
            return error_oom(err);
        return 0;
    }
    if (challenges_find(list, "basic")) {
        op->scheme = REGISTRY_SCHEME_BASIC;
        return 0;
    }

    return error_set(err, -EPROTO, ERROR_INVALID,
                     "registry %s wants a login in a way that is not known here (%s)",
                     op->reference->host, list->n_items ? list->items[0].scheme : "no challenge");
}

void registry_challenged(RegistryOp *op, const HttpResponse *response)
{
    auto_(challenges_done) Challenges list = {0};
    bool tried = op->scheme != REGISTRY_SCHEME_NONE;
    auto_error Error err = {0};
    int r = 0;

    /* There may be several lines of it. */
    for (size_t i = 0; r >= 0 && i < response->n_headers; i++)
        if (strcasecmp(response->headers[i].name, "WWW-Authenticate") == 0)
            r = challenges_parse(response->headers[i].value, &list, &err);
    if (r >= 0 && list.n_items == 0 && tried) {
        registry_denied(op, response, /* at_token_service= */ false);
        return;
    }
    if (r >= 0)
        r = take_challenge(op, &list, &err);
    if (r < 0) {
        registry_fail(op, &err);
        return;
    }

    /* Refused with what we brought: once more with fresh credentials, and that is all. */
    if (tried && (op->asked_again || !op->username))
        registry_denied(op, response, /* at_token_service= */ false);
    else
        want_credentials(op, /* again= */ tried);
}
