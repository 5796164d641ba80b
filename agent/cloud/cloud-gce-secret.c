/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/str.h"
#include "agent/cloud/cloud-gce.h"

#define SECRET_API        "secretmanager.googleapis.com"
#define SECRET_ANSWER_MAX (128U << 10) /* 64 KiB in base64, and the envelope */
#define SECRET_CRC_TRIES  3
#define SECRET_CRC_PAUSE  (500 * MSEC)

/* --- Names ---------------------------------------------------------------------------------- */

typedef struct SecretName {
    char *project;  /* "": the machine's own */
    char *location; /* "": global */
    char *id;
    char *version; /* "": not in the name */
} SecretName;

static void secret_name_done(SecretName *name)
{
    free(name->project);
    free(name->location);
    free(name->id);
    free(name->version);
    *name = (SecretName){0};
}

static bool consists_of(const char *s, const char *extra, size_t max)
{
    size_t size = strlen(s);

    for (const char *p = s; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
              strchr(extra, *p)))
            return false;
    return size > 0 && size <= max;
}

/* "KEY" or "projects/p[/locations/l]/secrets/KEY[/versions/v]". */
static int secret_name_parse(const char *text, SecretName *ret, Error *err)
{
    static const char *const keys[] = {"projects", "locations", "secrets", "versions"};
    auto_(strv_freep) char **parts = str_split(text, "/");
    const char *values[ELEMENTS(keys)] = {"", "", "", ""};
    size_t n = strv_length(parts), at = 0, n_slashes = 0;
    bool is_full = n > 1;

    if (!parts)
        return error_oom(err);
    for (const char *p = text; *p; p++)
        n_slashes += *p == '/';
    if (!is_full)
        values[2] = text;
    for (size_t i = 0; is_full && i < ELEMENTS(keys); i++)
        if (at + 1 < n && streq(parts[at], keys[i])) {
            values[i] = parts[at + 1];
            at += 2;
        }

    if ((is_full && (at != n || !*values[0])) || !consists_of(values[2], "_-", 255) ||
        (*values[0] && !consists_of(values[0], "-.:", 128)) ||
        (*values[1] && !consists_of(values[1], "-", 64)) ||
        (*values[3] && !consists_of(values[3], "_-", 128)) || (is_full && n_slashes + 1 != n)) {
        (void)cloud_refuse_secret_name(text, err);
        return error_remedy(err, -EINVAL,
                            "KEY, projects/PROJECT/secrets/KEY or "
                            "projects/PROJECT/locations/LOCATION/secrets/KEY");
    }

    *ret = (SecretName){strdup(values[0]), strdup(values[1]), strdup(values[2]), strdup(values[3])};
    if (!ret->project || !ret->location || !ret->id || !ret->version) {
        secret_name_done(ret);
        return error_oom(err);
    }
    return 0;
}

int gce_secret_check_name(const char *name, Error *err)
{
    auto_(secret_name_done) SecretName parsed = {0};

    return secret_name_parse(name, &parsed, err);
}

/* --- The operation -------------------------------------------------------------------------- */

typedef struct SecretOp {
    CloudOp op;
    CloudOp *step;  /* the identity, then the secret */
    HttpOp *scopes; /* after a 403 */
    char *what;     /* "secret KEY" */
    SecretName name;
    char *version;
    bool version_only;
    unsigned tries;
    CloudSecretHandler handler;
    void *userdata;
    /* The refusal, kept while the scopes are asked for. */
    HttpResponse refusal;
    HttpHeader refusal_header;
} SecretOp;

static void secret_release(CloudOp *op)
{
    SecretOp *secret = container_of(op, SecretOp, op);

    secret->step = cloud_op_free(secret->step);
    secret->scopes = http_op_free(secret->scopes);
    secret_name_done(&secret->name);
    free(secret->what);
    free(secret->version);
    buf_done(&secret->refusal.body);
    free((char *)secret->refusal_header.value);
    secret->what = secret->version = NULL;
    secret->refusal_header.value = NULL;
}

static void secret_failed(const SecretOp *secret, const Error *err)
{
    secret->handler(NULL, err, secret->userdata);
}

/* --- The answer ----------------------------------------------------------------------------- */

static void cloud_secret_done(CloudSecret *secret)
{
    secret_bytes_free(secret->bytes);
    free(secret->version);
    free(secret->resource);
}

/* The answer must be about what was asked: its name says the resolved version. */
static int read_resource(const SecretOp *secret, const json_t *answer, CloudSecret *ret, Error *err)
{
    auto_(secret_name_done) SecretName name = {0};
    const char *resource = json_str(answer, "name");
    bool asked_number = consists_of(secret->version, "", 20) &&
                        strspn(secret->version, "0123456789") == strlen(secret->version);

    if (!resource || secret_name_parse(resource, &name, NULL) < 0 || !*name.version)
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s: the answer has no resource name",
                         secret->what);
    if (!streq(name.id, secret->name.id) || !streq(name.location, secret->name.location) ||
        (asked_number && !streq(name.version, secret->version)))
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s: the answer is about %s", secret->what,
                         resource);

    ret->resource = strdup(resource);
    ret->version = take_ptr(name.version);
    return ret->resource ? 0 : error_oom(err);
}

static int read_payload(const SecretOp *secret, const json_t *answer, CloudSecret *ret, Error *err)
{
    const json_t *payload = json_object_get(answer, "payload");
    json_t *data = json_object_get(payload, "data");
    auto_secret_buf Buf bytes = BUF_INIT(CLOUD_SECRET_MAX);
    const char *text = json_is_string(data) ? json_string_value(data) : "";
    size_t size = json_is_string(data) ? json_string_length(data) : 0;
    uint64_t declared = 0;
    int r;

    /* proto3 leaves an empty field out: no data is an empty secret, no payload is none. */
    if (!json_is_object(payload) || (data && !json_is_string(data)))
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s: no payload in the answer",
                         secret->what);
    r = base64_decode(text, size, &bytes);
    cleanse((char *)text, size);
    if (r < 0)
        return error_set(err, -EBADMSG, ERROR_CORRUPT,
                         "%s: the payload is no base64, or over %u KiB", secret->what,
                         CLOUD_SECRET_MAX >> 10);

    r = json_u64(payload, "dataCrc32c", &declared);
    if (r != -ENOENT && (r < 0 || declared != crc32c(buf_str(&bytes), bytes.size)))
        return error_set(err, -EBADMSG, ERROR_CORRUPT, "%s: its CRC32C differs: damaged on the way",
                         secret->what);
    if (secret_bytes_new(buf_str(&bytes), bytes.size, &ret->bytes) < 0)
        return error_oom(err);
    return 0;
}

static int read_answer(const SecretOp *secret, const HttpResponse *response, CloudSecret *ret,
                       Error *err)
{
    json_auto_t *answer = NULL;
    json_t *data;
    int r;

    r = json_parse(buf_str(&response->body), response->body.size, secret->what, &answer, err);
    if (r < 0)
        return r;
    r = read_resource(secret, answer, ret, err);
    if (r >= 0 && !secret->version_only)
        r = read_payload(secret, answer, ret, err);

    /* A peer that does not know about partial answers sent the value all the same. */
    data = json_object_get(json_object_get(answer, "payload"), "data");
    if (json_is_string(data))
        cleanse((char *)json_string_value(data), json_string_length(data));
    return r;
}

/* --- The refusals --------------------------------------------------------------------------- */

static const char *project_of(const SecretOp *secret)
{
    const CloudIdentity *identity = cloud_identity_peek(secret->op.cloud);

    if (*secret->name.project)
        return secret->name.project;
    return identity && *identity->project ? identity->project : "PROJECT";
}

/* " --location=l --project=p" */
static char *place_of(const SecretOp *secret)
{
    const char *location = secret->name.location;

    return str_printf("%s%s --project=%s", *location ? " --location=" : "", location,
                      project_of(secret));
}

/* The number between "/versions/" and the bracket, else what was asked for. */
static char *version_in(const char *sentence, const char *asked)
{
    const char *at = sentence ? strstr(sentence, "/versions/") : NULL;
    size_t size;

    if (!at)
        return strdup(asked);
    at += strlen("/versions/");
    size = strspn(at, "0123456789");
    return size ? str_printf("%.*s", (int)size, at) : strdup(asked);
}

static int say_state(const SecretOp *secret, const char *sentence, Error *err)
{
    auto_free char *version = version_in(sentence, secret->version), *place = place_of(secret);
    bool is_destroyed = strstr(sentence, "DESTROYED") != NULL;
    const char *why = streq(secret->version, "latest")
                          ? " (\"latest\" is the newest version, whatever its state)"
                          : "";

    if (!version || !place)
        return error_oom(err);
    (void)error_set(err, -ENODATA, ERROR_INVALID, "%s: version %s is %s%s", secret->what, version,
                    is_destroyed ? "destroyed" : "disabled", why);
    if (is_destroyed)
        return error_remedy(err, -ENODATA, "gcloud secrets versions add %s%s --data-file=FILE",
                            secret->name.id, place);
    return error_remedy(err, -ENODATA, "gcloud secrets versions enable %s --secret=%s%s", version,
                        secret->name.id, place);
}

static int say_missing(const SecretOp *secret, const char *sentence, Error *err)
{
    auto_free char *place = place_of(secret);
    const char *id = secret->name.id, *version = secret->version;

    if (!place)
        return error_oom(err);
    if (sentence && strstr(sentence, "has no alias")) {
        (void)error_set(err, -ENOENT, ERROR_INVALID, "%s: there is no version alias %s",
                        secret->what, version);
        return error_remedy(err, -ENOENT,
                            "gcloud secrets update %s%s --update-version-aliases=%s=VERSION", id,
                            place, version);
    }
    if (sentence && startswith(sentence, "Secret Version")) {
        (void)error_set(err, -ENOENT, ERROR_INVALID, "%s: there is no version %s", secret->what,
                        version);
        return error_remedy(err, -ENOENT, "gcloud secrets versions list %s%s", id, place);
    }
    (void)error_set(err, -ENOENT, ERROR_INVALID,
                    "%s: it does not exist in project %s, or has no version", secret->what,
                    project_of(secret));
    return error_remedy(err, -ENOENT, "gcloud secrets create %s%s --data-file=FILE", id, place);
}

static int say_denied(const SecretOp *secret, const HttpResponse *response, const char *scopes_text,
                      Error *err)
{
    auto_free char *place = place_of(secret), *grant = NULL;
    CloudNeed need = {
        .what = secret->what,
        .api = SECRET_API,
        .permission = "secretmanager.versions.access",
        .role = "roles/secretmanager.secretAccessor",
    };

    grant = place ? str_printf("gcloud secrets add-iam-policy-binding %s%s", secret->name.id, place)
                  : NULL;
    need.grant = grant;
    return gce_judge_with(cloud_identity_peek(secret->op.cloud), scopes_text, response, &need, err);
}

static int say_refused(const SecretOp *secret, const HttpResponse *response, Error *err)
{
    auto_free char *sentence = gce_peer_sentence(response);

    if (response->status == 404)
        return say_missing(secret, sentence, err);
    if (response->status == 400 && sentence &&
        (strstr(sentence, "DISABLED") || strstr(sentence, "DESTROYED")))
        return say_state(secret, sentence, err);
    return say_denied(secret, response, NULL, err);
}

static void on_scopes(HttpOp *op, const HttpResponse *response, const Error *answer_err,
                      void *userdata)
{
    SecretOp *secret = userdata;
    auto_error Error error = {0};
    const char *scopes = !answer_err && response->status == 200 ? buf_str(&response->body) : NULL;

    (void)say_denied(secret, &secret->refusal, scopes, &error);
    secret_failed(secret, &error);
}

/* Too narrow a scope and a missing role look alike from outside; the VM knows its own scopes. */
static int ask_scopes(SecretOp *secret, const HttpResponse *refusal, Error *err)
{
    const char *challenge = http_response_header(refusal, "WWW-Authenticate");
    auto_free char *url = NULL;
    HttpRequest request;

    secret->refusal = (HttpResponse){.status = refusal->status,
                                     .content_type = "",
                                     .peer_address = "",
                                     .body = BUF_INIT(HTTP_ERROR_BODY_MAX)};
    if (challenge) {
        secret->refusal_header = (HttpHeader){"WWW-Authenticate", strdup(challenge)};
        secret->refusal.headers = &secret->refusal_header;
        secret->refusal.n_headers = secret->refusal_header.value ? 1 : 0;
    }
    if (buf_add(&secret->refusal.body, buf_str(&refusal->body), refusal->body.size) < 0 ||
        gce_request(gce_of(secret->op.cloud), "instance/service-accounts/default/scopes", &request,
                    &url) < 0)
        return error_oom(err);
    request.retry.tries = 2;
    return http_start(secret->op.cloud->http, &request, on_scopes, secret, &secret->scopes, err);
}

/* --- The question --------------------------------------------------------------------------- */

static void secret_ask_later(CloudOp *op);

static void on_answer(const HttpResponse *response, const Error *answer_err, void *userdata)
{
    SecretOp *secret = userdata;
    auto_(cloud_secret_done) CloudSecret result = {0};
    auto_error Error error = {0};
    int r;

    if (answer_err) {
        (void)error_copy(&error, answer_err);
        (void)error_prefix(&error, error.code, "%s", secret->what);
        secret_failed(secret, &error);
        return;
    }
    if (response->status == 403 && ask_scopes(secret, response, NULL) >= 0)
        return;
    r = response->status / 100 == 2 ? read_answer(secret, response, &result, &error)
                                    : say_refused(secret, response, &error);
    /* Damaged on the way is worth another way. */
    if (r < 0 && error.kind == ERROR_CORRUPT && ++secret->tries < SECRET_CRC_TRIES &&
        cloud_op_defer(&secret->op, SECRET_CRC_PAUSE, secret_ask_later) >= 0)
        return;
    if (r >= 0)
        secret->handler(&result, NULL, secret->userdata);
    else
        secret_failed(secret, &error);
}

/* A short name where the plan moved the API to one region means that region's secret: the regional
 * service knows no others. */
static int adopt_location(SecretOp *secret, Error *err)
{
    auto_free char *url = NULL, *host = NULL;
    const char *from, *to;
    int r;

    if (!str_is_empty(secret->name.project) || !str_is_empty(secret->name.location))
        return 0;
    r = http_client_map_url(secret->op.cloud->http, "https://" SECRET_API "/", &url, err);
    if (r < 0)
        return r;
    r = url_host_port(url, NULL, &host, NULL, err);
    if (r < 0)
        return r;

    from = startswith(host, "secretmanager.");
    to = from ? strstr(from, ".rep.") : NULL;
    if (!to)
        return 0;
    free(secret->name.location);
    secret->name.location = str_printf("%.*s", (int)(to - from), from);
    return secret->name.location ? 0 : error_oom(err);
}

static char *secret_url(const SecretOp *secret, const char *project, const char *universe)
{
    auto_free char *p = url_escape(project, ":"), *l = url_escape(secret->name.location, NULL);
    auto_free char *s = url_escape(secret->name.id, NULL), *v = url_escape(secret->version, NULL);
    /* The name alone: the value does not travel, and the small quota of metadata reads is left. */
    const char *fields = secret->version_only ? "?fields=name" : "";

    if (!p || !l || !s || !v)
        return NULL;
    if (!*l)
        return str_printf("https://secretmanager.%s/v1/projects/%s/secrets/%s/versions/%s:access%s",
                          universe, p, s, v, fields);
    return str_printf("https://secretmanager.%s.rep.%s/v1/projects/%s/locations/%s/secrets/%s/"
                      "versions/%s:access%s",
                      l, universe, p, l, s, v, fields);
}

static int secret_ask(SecretOp *secret, Error *err)
{
    const CloudIdentity *identity = cloud_identity_peek(secret->op.cloud);
    const char *project =
        !str_is_empty(secret->name.project) ? secret->name.project : identity->project;
    auto_free char *url = NULL;
    HttpRequest request;
    int r;

    r = adopt_location(secret, err);
    if (r < 0)
        return r;
    url = secret_url(secret, project, identity->universe);
    if (!url)
        return error_oom(err);
    request = (HttpRequest){
        .url = url,
        .sensitive = true,
        .max_body = SECRET_ANSWER_MAX,
        .try_timeout_usec = 15 * SECOND,
        .total_timeout_usec = 40 * SECOND,
        .retry = {.tries = 3, .base_usec = SECOND, .cap_usec = 8 * SECOND},
    };
    secret->step = cloud_op_free(secret->step);
    return cloud_http(secret->op.cloud, &request, on_answer, secret, &secret->step, err);
}

static void secret_ask_later(CloudOp *op)
{
    SecretOp *secret = container_of(op, SecretOp, op);
    auto_error Error error = {0};

    if (secret_ask(secret, &error) < 0)
        secret_failed(secret, &error);
}

static void on_identity(const CloudSnapshot *snapshot, const Error *answer_err, void *userdata)
{
    SecretOp *secret = userdata;
    auto_error Error error = {0};

    if (!answer_err) {
        secret_ask_later(&secret->op);
        return;
    }
    (void)error_copy(&error, answer_err);
    (void)error_prefix(&error, error.code, "%s: whose project", secret->what);
    secret_failed(secret, &error);
}

static int secret_begin(SecretOp *secret, const char *name, const char *version, Error *err)
{
    int r;

    r = secret_name_parse(name, &secret->name, err);
    if (r < 0)
        return r;
    if (!str_is_empty(secret->name.version))
        version = secret->name.version;
    if (!consists_of(version, "_-", 128))
        return error_set(err, -EINVAL, ERROR_INVALID, "secret %s: %s is no version", name, version);
    secret->version = strdup(version);
    secret->what = str_printf("secret %s", secret->name.id);
    if (!secret->version || !secret->what)
        return error_oom(err);

    /* Also for a full name: the remedies name the account and the universe the host. */
    if (!cloud_identity_peek(secret->op.cloud))
        return cloud_read(secret->op.cloud, on_identity, secret, &secret->step, err);
    return secret_ask(secret, err);
}

int gce_secret(Cloud *cloud, const char *name, const char *version, bool version_only,
               CloudSecretHandler handler, void *userdata, CloudOp **ret, Error *err)
{
    SecretOp *secret;
    int r;

    secret = cloud_op_new(cloud, sizeof(*secret), secret_release);
    if (!secret)
        return error_oom(err);
    secret->handler = handler;
    secret->userdata = userdata;
    secret->version_only = version_only;

    r = secret_begin(secret, name, version, err);
    if (r < 0) {
        cloud_op_free(&secret->op);
        return r;
    }
    *ret = &secret->op;
    return 0;
}
