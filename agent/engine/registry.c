/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/str.h"
#include "agent/engine/registry-internal.h"
#include "agent/io/crypto.h"
#include "agent/io/json.h"

#define DEFAULT_TRIES   3
#define RETRY_CAP_USEC  (10 * SECOND)
#define TOTAL_USEC      (3 * MINUTE) /* of one request with its retries */
#define ERROR_SHOWN_MAX 300
#define TAGS_PAGE_MAX   (8U << 20) /* Google adds every digest to its list */

static void on_reply(HttpOp *request, const HttpResponse *response, const Error *err,
                     void *userdata);

/* ---- Ending --------------------------------------------------------------------------------- */

void registry_fail(RegistryOp *op, Error *err)
{
    auto_error Error mine = {0};

    (void)error_move(&mine, err);
    op->handler(op, NULL, &mine, op->userdata);
}

static void on_deferred(void *userdata)
{
    RegistryOp *op = userdata;

    if (op->deferred_error.code)
        registry_fail(op, &op->deferred_error);
    else
        op->handler(op, &(RegistryImage){.digest = op->digest, .unchanged = true}, NULL,
                    op->userdata);
}

void registry_fail_later(RegistryOp *op, Error *err)
{
    (void)error_move(&op->deferred_error, err);
    (void)timer_set(op->deferred, 0, 0);
}

static void succeed(RegistryOp *op)
{
    RegistryImage image = {
        .digest = op->digest,
        .manifest_digest = op->manifest_digest,
        .config_digest = op->config_digest,
        .platform = op->image_platform,
        .compressed_bytes = op->compressed_bytes,
        .n_layers = op->n_layers,
    };

    op->handler(op, &image, NULL, op->userdata);
}

static void fail_oom(RegistryOp *op)
{
    auto_error Error err = {0};

    (void)error_oom(&err);
    registry_fail(op, &err);
}

/* ---- Asking --------------------------------------------------------------------------------- */

/* A registry may send us to its storage, but not into this network: 169.254.169.254 is a redirect
 * away. Where the person who wrote the plan or its endpoints points, we go. */
int registry_check_address(const char *address, uint16_t port, const char *host, void *userdata)
{
    const RegistryOp *op = userdata;
    const char *own = startswith(strstr(op->base, "://"), "://");
    auto_free char *with_port = str_printf("%s:%u", host, port);

    if (!address_is_private(address) || streq(host, own) || (with_port && streq(with_port, own)) ||
        http_client_is_endpoint(op->http, host, port))
        return 0;
    /* "[::1]:5000" and "::1". */
    if (reference_host_is_loopback(op->reference) && strstr(own, host))
        return 0;

    return -EPERM;
}

static char *step_url(const RegistryOp *op)
{
    const char *path = op->reference->path;

    switch (op->step) {
    case REGISTRY_STEP_HEAD:
        return str_printf("%s/v2/%s/manifests/%s", op->base, path, op->reference->tag);
    case REGISTRY_STEP_MANIFEST:
        return str_printf("%s/v2/%s/manifests/%s", op->base, path,
                          op->digest ? op->digest : op->reference->tag);
    case REGISTRY_STEP_PLATFORM:
        return str_printf("%s/v2/%s/manifests/%s", op->base, path, op->manifest_digest);
    case REGISTRY_STEP_CONFIG:
        return str_printf("%s/v2/%s/blobs/%s", op->base, path, op->config_digest);
    case REGISTRY_STEP_TAGS:
        return strdup(op->tags_url);
    }

    return NULL;
}

static size_t step_max_body(RegistryStep step)
{
    static const size_t sizes[] = {
        [REGISTRY_STEP_HEAD] = MANIFEST_SIZE_MAX,     [REGISTRY_STEP_MANIFEST] = MANIFEST_SIZE_MAX,
        [REGISTRY_STEP_PLATFORM] = MANIFEST_SIZE_MAX, [REGISTRY_STEP_CONFIG] = CONFIG_SIZE_MAX,
        [REGISTRY_STEP_TAGS] = TAGS_PAGE_MAX,
    };

    return sizes[step];
}

void registry_ask(RegistryOp *op)
{
    static const HttpHeader accept_manifest[] = {{"Accept", MANIFEST_ACCEPT}};
    auto_free char *url = step_url(op);
    auto_secret_str char *user_pass = NULL;
    auto_error Error err = {0};
    HttpRequest request = {
        .method = op->step == REGISTRY_STEP_HEAD ? "HEAD" : "GET",
        .url = url,
        .headers = accept_manifest,
        .n_headers = op->step <= REGISTRY_STEP_PLATFORM ? 1 : 0,
        .bearer = op->bearer,
        .total_timeout_usec = TOTAL_USEC,
        .max_body = step_max_body(op->step),
        .follow = true,
        .retry = {.tries = op->tries, .cap_usec = RETRY_CAP_USEC},
        .check_address = registry_check_address,
    };

    if (!url) {
        (void)error_oom(&err);
        registry_fail_later(op, &err);
        return;
    }
    if (op->scheme == REGISTRY_SCHEME_BASIC && op->username) {
        user_pass = str_printf("%s:%s", op->username, op->password);
        request.user_pass = user_pass;
    }

    op->request = http_op_free(op->request);
    if (http_start(op->http, &request, on_reply, op, &op->request, &err) < 0)
        registry_fail_later(op, &err);
}

static void go(RegistryOp *op, RegistryStep step)
{
    op->step = step;
    registry_ask(op);
}

/* ---- Answers -------------------------------------------------------------------------------- */

void registry_read_error(const HttpResponse *response, char **ret_code, char **ret_message)
{
    json_auto_t *doc = NULL;
    const json_t *first;
    const char *code, *message;

    (void)json_parse_quiet(buf_str(&response->body), response->body.size, &doc);
    first = json_array_get(json_object_get(doc, "errors"), 0);
    if (!first) /* Google's other form */
        first = json_object_get(doc, "error");
    code = json_str(first, "code");
    message = json_str(first, "message");
    if (!message) /* Docker Hub's token service */
        message = json_str(doc, "details");

    *ret_code = str_escape(code ? code : "", code ? strlen(code) : 0, 60);
    *ret_message =
        str_escape(message ? message : "", message ? strlen(message) : 0, ERROR_SHOWN_MAX);
}

static bool is_missing(const HttpResponse *response)
{
    auto_free char *code = NULL, *message = NULL;

    registry_read_error(response, &code, &message);
    return response->status == 404 || (code && streq(code, "MANIFEST_UNKNOWN"));
}

void registry_fail_missing_repository(RegistryOp *op)
{
    auto_error Error err = {0};

    (void)error_set(&err, -ENOENT, ERROR_INVALID, "registry %s has no repository %s",
                    op->reference->host, op->reference->path);
    (void)error_remedy(&err, -ENOENT, "correct the image's name, or push it: docker push %s",
                       op->name);
    registry_fail(op, &err);
}

static void fail_missing_digest(RegistryOp *op, const char *digest)
{
    auto_error Error err = {0};

    (void)error_set(&err, -ENOENT, ERROR_INVALID,
                    "registry %s has no %s (any more) in %s: was it deleted there?",
                    op->reference->host, digest, op->reference->path);
    (void)error_remedy(&err, -ENOENT, "push the image again, or name another digest");
    registry_fail(op, &err);
}

static void fail_by_status(RegistryOp *op, const HttpResponse *response)
{
    auto_free char *code = NULL, *message = NULL, *what = NULL;
    auto_error Error err = {0};

    registry_read_error(response, &code, &message);
    what = str_printf("registry %s: %s%s%s", op->reference->host, op->reference->path,
                      message && *message ? ": " : "", message ? message : "");
    (void)http_response_error(response, what ? what : "registry", &err);
    /* An answer that is neither refusal nor success: 2xx but not 200, or a redirect too many. */
    if (!err.code)
        (void)error_set(&err, -EBADMSG, ERROR_TEMPORARY, "%s: HTTP %ld", what ? what : "registry",
                        response->status);
    registry_fail(op, &err);
}

/* A refusal with a body to read: which of the many is it? */
static void refused(RegistryOp *op, const HttpResponse *response)
{
    auto_free char *code = NULL, *message = NULL;

    if (response->status == 403) {
        registry_denied(op, response, /* at_token_service= */ false);
        return;
    }
    if (!is_missing(response)) {
        fail_by_status(op, response);
        return;
    }

    registry_read_error(response, &code, &message);
    if (code && streq(code, "NAME_UNKNOWN"))
        registry_fail_missing_repository(op);
    else if (op->step == REGISTRY_STEP_PLATFORM)
        fail_missing_digest(op, op->manifest_digest);
    else if (op->step == REGISTRY_STEP_CONFIG)
        fail_missing_digest(op, op->config_digest);
    else if (op->reference->digest || !op->reference->tag)
        fail_missing_digest(op, op->digest);
    else
        registry_list_tags(op);
}

/* What we read is what its digest says, or it is not read. */
static int verify(const RegistryOp *op, const HttpResponse *response, const char *digest,
                  Error *err)
{
    char hex[SHA256_HEX_MAX];

    sha256_of(buf_str(&response->body), response->body.size, hex);
    if (streq(hex, startswith(digest, "sha256:")))
        return 0;

    return error_set(err, -EBADMSG, ERROR_CORRUPT,
                     "registry %s: %s: what it sent for %s has the digest sha256:%s",
                     op->reference->host, op->reference->path, digest, hex);
}

static const char *declared_digest(const HttpResponse *response)
{
    const char *digest = http_response_header(response, "Docker-Content-Digest");

    return digest_is_valid(digest) ? digest : NULL;
}

static void head_answered(RegistryOp *op, const HttpResponse *response)
{
    const char *digest = response->status == 200 ? declared_digest(response) : NULL;

    /* No digest, or a refusal, which has no body after HEAD: GET tells more. */
    if (digest && str_set(&op->digest, digest) < 0) {
        fail_oom(op);
        return;
    }
    if (digest && op->known_digest && streq(digest, op->known_digest)) {
        op->handler(op, &(RegistryImage){.digest = op->digest, .unchanged = true}, NULL,
                    op->userdata);
        return;
    }

    go(op, REGISTRY_STEP_MANIFEST);
}

/* The digest of what came: asked for, declared, or its own hash. */
static int settle_digest(RegistryOp *op, const HttpResponse *response, Error *err)
{
    const char *declared = declared_digest(response);
    char hex[SHA256_HEX_MAX];

    if (op->digest)
        return verify(op, response, op->digest, err);
    if (declared) {
        if (str_set(&op->digest, declared) < 0)
            return error_oom(err);
        return verify(op, response, declared, err);
    }

    sha256_of(buf_str(&response->body), response->body.size, hex);
    op->digest = str_printf("sha256:%s", hex);
    return op->digest ? 0 : error_oom(err);
}

static int take_image(RegistryOp *op, const Manifest *manifest, Error *err)
{
    op->compressed_bytes = manifest->compressed_bytes;
    op->n_layers = manifest->n_layers;

    return str_set(&op->config_digest, manifest->config_digest) < 0 ? error_oom(err) : 0;
}

static int take_entry(RegistryOp *op, const Manifest *index, Error *err)
{
    const ManifestEntry *entry = NULL;
    int r;

    r = manifest_choose(index, &op->platform, op->name, &entry, err);
    if (r < 0)
        return r;

    op->entry_size = entry->size;
    op->image_platform = entry->platform;
    return str_set(&op->manifest_digest, entry->digest) < 0 ? error_oom(err) : 0;
}

static int manifest_answered(RegistryOp *op, const HttpResponse *response, RegistryStep *ret_next,
                             Error *err)
{
    auto_(manifest_freep) Manifest *manifest = NULL;
    int r;

    r = settle_digest(op, response, err);
    if (r < 0)
        return r;
    r = manifest_parse(buf_str(&response->body), response->body.size, response->content_type,
                       &manifest, err);
    if (r < 0)
        return error_prefix(err, r, "image %s", op->name);

    if (manifest->kind == MANIFEST_INDEX) {
        *ret_next = REGISTRY_STEP_PLATFORM;
        return take_entry(op, manifest, err);
    }

    *ret_next = REGISTRY_STEP_CONFIG;
    if (str_set(&op->manifest_digest, op->digest) < 0)
        return error_oom(err);
    return take_image(op, manifest, err);
}

static int platform_answered(RegistryOp *op, const HttpResponse *response, Error *err)
{
    auto_(manifest_freep) Manifest *manifest = NULL;
    int r;

    r = verify(op, response, op->manifest_digest, err);
    if (r < 0)
        return r;
    if (response->body.size != op->entry_size)
        return error_set(err, -EBADMSG, ERROR_CORRUPT,
                         "image %s: its index declares another size for %s", op->name,
                         op->manifest_digest);
    r = manifest_parse(buf_str(&response->body), response->body.size, response->content_type,
                       &manifest, err);
    if (r < 0)
        return error_prefix(err, r, "image %s", op->name);
    if (manifest->kind == MANIFEST_INDEX)
        return error_set(err, -EINVAL, ERROR_INVALID,
                         "image %s is an index of indexes, which container engines do not pull",
                         op->name);

    return take_image(op, manifest, err);
}

static int config_answered(RegistryOp *op, const HttpResponse *response, Error *err)
{
    int r;

    r = verify(op, response, op->config_digest, err);
    if (r < 0)
        return r;
    r = config_parse_platform(buf_str(&response->body), response->body.size, &op->image_platform,
                              err);
    if (r < 0)
        return error_prefix(err, r, "image %s", op->name);

    return manifest_check_platform(&op->platform, &op->image_platform, op->name, err);
}

static void answered(RegistryOp *op, const HttpResponse *response)
{
    RegistryStep next = op->step;
    auto_error Error err = {0};
    int r = 0;

    switch (op->step) {
    case REGISTRY_STEP_HEAD:
        head_answered(op, response);
        return;
    case REGISTRY_STEP_TAGS:
        registry_tags_page(op, response);
        return;
    case REGISTRY_STEP_MANIFEST:
        r = manifest_answered(op, response, &next, &err);
        break;
    case REGISTRY_STEP_PLATFORM:
        r = platform_answered(op, response, &err);
        break;
    case REGISTRY_STEP_CONFIG:
        r = config_answered(op, response, &err);
        break;
    }

    if (r < 0)
        registry_fail(op, &err);
    else if (next != op->step)
        go(op, next);
    else
        succeed(op);
}

static bool is_transient_status(long status)
{
    return status == 408 || status == 429 || status >= 500;
}

static void on_reply(HttpOp *request, const HttpResponse *response, const Error *err,
                     void *userdata)
{
    RegistryOp *op = userdata;
    auto_error Error mine = {0};

    if (op->step == REGISTRY_STEP_TAGS) {
        /* Only to say more: whatever is wrong with the list, the tag is missing. */
        registry_tags_page(op, err ? NULL : response);
    } else if (err) {
        (void)error_copy(&mine, err);
        (void)error_prefix(&mine, mine.code, "registry %s", op->reference->host);
        registry_fail(op, &mine);
    } else if (response->status == 403 && op->recalled) {
        /* By whom it was made may have lost the right, or got it back: once more from the start. */
        registry_forget_token(op);
        registry_ask(op);
    } else if (response->status == 401) {
        if (op->recalled)
            registry_forget_token(op);
        registry_challenged(op, response);
    } else if (is_transient_status(response->status)) {
        fail_by_status(op, response);
    } else if (response->status == 200 || op->step == REGISTRY_STEP_HEAD) {
        answered(op, response);
    } else {
        refused(op, response);
    }
}

/* ---- Beginning and end ---------------------------------------------------------------------- */

static int copy_query(RegistryOp *op, const RegistryQuery *query, Error *err)
{
    auto_free char *text = reference_text(query->reference);
    int r;

    if (!text)
        return error_oom(err);
    r = reference_parse(text, &op->reference, err);
    if (r < 0)
        return r;

    op->name = take_ptr(text);
    op->base = str_printf("%s://%s", reference_host_is_loopback(op->reference) ? "http" : "https",
                          reference_api_host(op->reference));
    if (!op->base || str_set(&op->known_digest, query->known_digest) < 0 ||
        str_set(&op->digest, op->reference->digest) < 0)
        return error_oom(err);
    if (query->platform)
        op->platform = *query->platform;
    else
        platform_of_this_machine(&op->platform);

    return 0;
}

int registry_resolve(HttpClient *http, sd_event *event, const RegistryQuery *query,
                     RegistryHandler handler, void *userdata, RegistryOp **ret, Error *err)
{
    auto_(registry_op_freep) RegistryOp *op = calloc(1, sizeof(*op));
    int r;

    if (!op)
        return error_oom(err);
    op->http = http;
    op->auth = query->auth;
    op->auth_userdata = query->auth_userdata;
    op->token = query->token;
    op->tries = query->tries ? query->tries : DEFAULT_TRIES;
    op->handler = handler;
    op->userdata = userdata;
    r = copy_query(op, query, err);
    if (r < 0)
        return r;
    if (registry_recall_token(op) < 0)
        return error_oom(err);
    r = timer_new(event, on_deferred, op, &op->deferred);
    if (r < 0)
        return error_errno(err, r, "timer");

    /* A digest never moves: there is nothing to ask. */
    if (op->digest && op->known_digest && streq(op->digest, op->known_digest)) {
        r = timer_set(op->deferred, 0, 0);
        if (r < 0)
            return error_errno(err, r, "timer");
    } else {
        op->step = op->digest ? REGISTRY_STEP_MANIFEST : REGISTRY_STEP_HEAD;
        registry_ask(op);
    }

    *ret = take_ptr(op);
    return 0;
}

RegistryOp *registry_op_free(RegistryOp *op)
{
    if (!op)
        return NULL;

    (void)http_op_free(op->request);
    (void)timer_free(op->deferred);
    error_done(&op->deferred_error);
    (void)reference_free(op->reference);
    cleanse_free(op->username);
    cleanse_free(op->password);
    cleanse_free(op->bearer);
    free(op->realm);
    free(op->service);
    free(op->name);
    free(op->base);
    free(op->known_digest);
    free(op->digest);
    free(op->manifest_digest);
    free(op->config_digest);
    free(op->tags_url);
    (void)strv_free(op->tags);
    free(op);
    return NULL;
}
