/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http-fixture.h"

#include <errno.h>
#include <string.h>

#include "agent/engine/registry.h"
#include "agent/io/crypto.h"

#define DIGEST_TEXT_MAX (SHA256_HEX_MAX + 8)

/* A registry with one repository, "p/app". What it holds is by path below /v2/p/app; what is not
 * there is 404 with `missing`. */
typedef struct Thing {
    const char *path; /* "manifests/stable" */
    const char *type;
    const char *body;
    const char *headers; /* instead of the digest header; "" for none */
    int status;
} Thing;

typedef struct Fake {
    HttpServer *server;
    Thing things[16];
    size_t n_things;
    const char *missing;   /* body of a 404 */
    const char *challenge; /* WWW-Authenticate; NULL: everybody may read */
    const char *token;     /* what is accepted: "Bearer t" */
    const char *token_reply;
    int token_status;
    unsigned n_tokens, n_heads, n_gets;
    char *token_target, *token_authorization; /* of the last request there */
    char *last_authorization;                 /* of the last one to the repository */
    int override_status;                      /* answers everything */
    const char *override_headers;
} Fake;

static char *keep(Fake *fake, char *s)
{
    assert_non_null(s);
    return http_server_keep(fake->server, s);
}

static void remember(char **at, const char *value)
{
    free(*at);
    *at = value ? strdup(value) : NULL;
}

static void answer_token(Fake *fake, const Request *request, Reply *reply)
{
    fake->n_tokens++;
    remember(&fake->token_target, request->target);
    remember(&fake->token_authorization, request_header(request, "Authorization"));
    reply->status = fake->token_status;
    reply->headers = "Content-Type: application/json\r\n";
    reply->body = fake->token_reply;
}

static void answer_thing(Fake *fake, const Request *request, Reply *reply)
{
    const char *path = startswith(request->target, "/v2/p/app/");

    for (size_t i = 0; path && i < fake->n_things; i++) {
        const Thing *thing = &fake->things[i];
        char hex[SHA256_HEX_MAX];

        if (!streq(path, thing->path))
            continue;
        sha256_of(thing->body, strlen(thing->body), hex);
        reply->status = thing->status;
        reply->body = thing->body;
        reply->headers =
            keep(fake, thing->headers
                           ? str_printf("Content-Type: %s\r\n%s", thing->type, thing->headers)
                           : str_printf("Content-Type: %s\r\nDocker-Content-Digest: sha256:%s\r\n",
                                        thing->type, hex));
        return;
    }

    reply->status = 404;
    reply->body = fake->missing;
}

static void on_request(HttpServer *server, const Request *request, Reply *reply, void *userdata)
{
    Fake *fake = userdata;
    const char *authorization;

    if (startswith(request->target, "/token")) {
        answer_token(fake, request, reply);
        return;
    }
    fake->n_heads += streq(request->method, "HEAD");
    fake->n_gets += streq(request->method, "GET");
    authorization = request_header(request, "Authorization");
    remember(&fake->last_authorization, authorization);
    if (fake->override_status) {
        reply->status = fake->override_status;
        reply->headers = fake->override_headers;
        reply->body = "<html>sorry</html>";
    } else if (fake->challenge && !(authorization && streq(authorization, fake->token))) {
        reply->status = 401;
        reply->headers = keep(fake, str_printf("WWW-Authenticate: %s\r\n", fake->challenge));
        reply->body = "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}";
    } else {
        answer_thing(fake, request, reply);
    }
    if (streq(request->method, "HEAD"))
        reply->body = NULL;
}

static void put(Fake *fake, const char *path, const char *type, const char *body)
{
    assert_true(fake->n_things < ELEMENTS(fake->things));
    fake->things[fake->n_things++] = (Thing){.path = path, .type = type, .body = body};
}

static const char *digest_of(Fake *fake, const char *body)
{
    char hex[SHA256_HEX_MAX];

    sha256_of(body, strlen(body), hex);
    return keep(fake, str_printf("sha256:%s", hex));
}

/* An image of that architecture behind its digest (and a tag): the digest. */
static const char *put_image(Fake *fake, const char *architecture, const char *tag)
{
    char *config =
        keep(fake, str_printf("{\"os\":\"linux\",\"architecture\":\"%s\"}", architecture));
    const char *config_digest = digest_of(fake, config);
    char *body =
        keep(fake, str_printf("{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/"
                              "vnd.oci.image.config.v1+json\",\"size\":%zu,\"digest\":\"%s\"},"
                              "\"layers\":[{\"size\":1000,\"digest\":\"%s\"}]}",
                              strlen(config), config_digest, config_digest));
    const char *digest = digest_of(fake, body);

    put(fake, keep(fake, str_printf("blobs/%s", config_digest)), "application/octet-stream",
        config);
    put(fake, keep(fake, str_printf("manifests/%s", digest)), MEDIA_TYPE_OCI_MANIFEST, body);
    if (tag)
        put(fake, keep(fake, str_printf("manifests/%s", tag)), MEDIA_TYPE_OCI_MANIFEST, body);

    return digest;
}

static void fake_setup(Fixture *f, Fake *fake)
{
    *fake = (Fake){
        .server = f->server,
        .missing = "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"unknown\"}]}",
        .token = "Bearer t0ken",
        .token_reply = "{\"token\":\"t0ken\"}",
    };
    http_server_handle(f->server, on_request, fake);
}

static void fake_done(Fake *fake)
{
    free(fake->token_target);
    free(fake->token_authorization);
    free(fake->last_authorization);
    *fake = (Fake){0};
}

#define auto_fake auto_(fake_done)

/* ---- One resolution ------------------------------------------------------------------------- */

typedef struct Result {
    bool done;
    RegistryOp *op;
    Error err;
    bool unchanged;
    char digest[DIGEST_TEXT_MAX], manifest_digest[DIGEST_TEXT_MAX];
    uint64_t bytes;
    Platform platform;

    /* What the test gives as credentials. */
    const char *username, *password;
    RegistryToken *token;
    bool answers_later, answers_error;
    unsigned asked, asked_again, explained;
    bool at_token_service, had_credentials;
} Result;

static void result_done(Result *result)
{
    (void)registry_op_free(result->op);
    error_done(&result->err);
}

#define auto_result auto_(result_done)

static void on_resolved(RegistryOp *op, const RegistryImage *image, const Error *err,
                        void *userdata)
{
    Result *result = userdata;

    assert_false(result->done);
    result->done = true;
    if (err) {
        (void)error_copy(&result->err, err);
        return;
    }
    result->unchanged = image->unchanged;
    (void)snprintf(result->digest, sizeof(result->digest), "%s", image->digest);
    (void)snprintf(result->manifest_digest, sizeof(result->manifest_digest), "%s",
                   image->manifest_digest ? image->manifest_digest : "");
    result->bytes = image->compressed_bytes;
    result->platform = image->platform;
}

static void on_want(RegistryOp *op, const char *host, bool again, void *userdata)
{
    Result *result = userdata;
    const Error none = {.code = -EAGAIN, .kind = ERROR_TEMPORARY, .message = (char[]){"no token"}};

    assert_contains(host, "127.0.0.1:");
    result->asked++;
    result->asked_again += again;
    if (!result->answers_later)
        registry_give_credentials(op, result->username, result->password,
                                  result->answers_error ? &none : NULL);
}

static void on_explain(const RegistryDenial *denial, Error *err, void *userdata)
{
    Result *result = userdata;

    result->explained++;
    result->at_token_service = denial->at_token_service;
    result->had_credentials = denial->had_credentials;
    (void)error_remedy(err, err->code, "ask for %s", denial->path);
}

static const RegistryAuth auth = {.want_credentials = on_want, .explain = on_explain};

static void start_of(Fixture *f, const char *name, const char *known, Result *result)
{
    const Platform platform = {.os = "linux", .architecture = "amd64"};
    auto_(reference_freep) Reference *reference = NULL;
    auto_free char *text = str_printf("127.0.0.1:%u/p/app%s", http_server_port(f->server), name);
    auto_error Error err = {0};
    RegistryQuery query = {
        .platform = &platform,
        .known_digest = known,
        .auth = &auth,
        .auth_userdata = result,
        .token = result->token,
        .tries = 1,
    };

    assert_ok(reference_parse(text, &reference, &err), &err);
    query.reference = reference;
    assert_ok(registry_resolve(f->client, f->event, &query, on_resolved, result, &result->op, &err),
              &err);
    assert_false(result->done);
}

static void resolve(Fixture *f, const char *name, const char *known, Result *result)
{
    start_of(f, name, known, result);
    loop_run_until(f->event, &result->done, 20 * SECOND);
}

static void assert_refused(const Result *result, int code, ErrorKind kind, const char *message)
{
    assert_int_equal(result->err.code, code);
    assert_int_equal(result->err.kind, kind);
    assert_contains(result->err.message, message);
}

/* ---- Digests -------------------------------------------------------------------------------- */

static void a_tag_gives_digest_platform_and_size(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};
    const char *digest;

    fake_setup(f, &fake);
    digest = put_image(&fake, "amd64", "stable");
    resolve(f, ":stable", NULL, &result);

    assert_ok(result.err.code, &result.err);
    assert_string_equal(result.digest, digest);
    assert_string_equal(result.manifest_digest, digest);
    assert_string_equal(result.platform.architecture, "amd64");
    assert_true(result.bytes > 1000);
    assert_int_equal(fake.n_heads, 1);
    assert_int_equal(fake.n_gets, 2);
    assert_int_equal(result.asked, 0);
    assert_null(fake.last_authorization);
}

static void a_known_digest_costs_one_head(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};
    auto_result Result pinned = {0};
    const char *digest;
    auto_free char *by_digest = NULL;

    fake_setup(f, &fake);
    digest = put_image(&fake, "amd64", "stable");
    resolve(f, ":stable", digest, &result);
    assert_true(result.unchanged);
    assert_int_equal(fake.n_heads, 1);
    assert_int_equal(fake.n_gets, 0);

    /* A reference by that digest costs nothing at all. */
    by_digest = str_printf("@%s", digest);
    resolve(f, by_digest, digest, &pinned);
    assert_true(pinned.unchanged);
    assert_int_equal(http_server_count(f->server), 1);
}

static void a_registry_that_declares_no_digest_is_hashed(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};
    const char *digest;

    fake_setup(f, &fake);
    digest = put_image(&fake, "amd64", "stable");
    for (size_t i = 0; i < fake.n_things; i++)
        fake.things[i].headers = "";
    resolve(f, ":stable", NULL, &result);
    assert_ok(result.err.code, &result.err);
    assert_string_equal(result.digest, digest);
}

static void what_contradicts_its_digest_is_refused(void **state)
{
    static const char *const paths[] = {"manifests/", "blobs/"};

    for (size_t i = 0; i < ELEMENTS(paths); i++) {
        Fixture *f = *state;
        auto_fake Fake fake;
        auto_result Result result = {0};

        fake_setup(f, &fake);
        (void)put_image(&fake, "amd64", "stable");
        for (size_t k = 0; k < fake.n_things; k++)
            if (startswith(fake.things[k].path, paths[i]) && strstr(fake.things[k].path, "sha256"))
                fake.things[k].body = "{\"schemaVersion\":2}";
        resolve(f, ":stable", NULL, &result);
        assert_refused(&result, -EBADMSG, ERROR_CORRUPT, "what it sent for sha256:");
    }
}

static const char *put_index(Fake *fake, const char *architecture, long size_off)
{
    const char *digest = put_image(fake, architecture, NULL);
    size_t size = 0;
    char *body;

    for (size_t i = 0; i < fake->n_things; i++)
        if (strstr(fake->things[i].path, digest))
            size = strlen(fake->things[i].body);
    body = keep(fake, str_printf("{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_TYPE_OCI_INDEX
                                 "\",\"manifests\":[{\"mediaType\":\"" MEDIA_TYPE_OCI_MANIFEST
                                 "\",\"size\":%ld,\"digest\":\"%s\",\"platform\":{\"os\":\"linux\","
                                 "\"architecture\":\"%s\"}}]}",
                                 (long)size + size_off, digest, architecture));
    put(fake, "manifests/stable", MEDIA_TYPE_OCI_INDEX, body);
    put(fake, keep(fake, str_printf("manifests/%s", digest_of(fake, body))), MEDIA_TYPE_OCI_INDEX,
        body);

    return digest_of(fake, body);
}

static void an_index_gives_both_digests_and_needs_no_config(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};
    const char *digest;

    fake_setup(f, &fake);
    digest = put_index(&fake, "amd64", 0);
    resolve(f, ":stable", NULL, &result);
    assert_ok(result.err.code, &result.err);
    assert_string_equal(result.digest, digest);
    assert_string_not_equal(result.manifest_digest, digest);
    assert_string_equal(result.platform.architecture, "amd64");
    assert_int_equal(fake.n_gets, 2);
}

static void an_index_that_lies_about_a_size_is_refused(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};

    fake_setup(f, &fake);
    (void)put_index(&fake, "amd64", 1);
    resolve(f, ":stable", NULL, &result);
    assert_refused(&result, -EBADMSG, ERROR_CORRUPT, "another size");
}

static void a_wrong_platform_is_refused_for_index_and_image(void **state)
{
    Fixture *f = *state;

    for (int as_index = 0; as_index < 2; as_index++) {
        auto_fake Fake fake;
        auto_result Result result = {0};

        fake_setup(f, &fake);
        (void)(as_index ? put_index(&fake, "arm64", 0) : put_image(&fake, "arm64", "stable"));
        resolve(f, ":stable", NULL, &result);
        assert_refused(&result, -ENOEXEC, ERROR_INVALID, "it is there for linux/arm64");
        assert_contains(result.err.remedy, "docker buildx build --platform linux/amd64");
    }
}

/* ---- Authentication ------------------------------------------------------------------------- */

static void set_challenge(Fixture *f, Fake *fake, const char *rest)
{
    fake->challenge = keep(fake, str_printf("Bearer realm=\"http://127.0.0.1:%u/token\"%s",
                                            http_server_port(f->server), rest));
}

static void a_challenge_is_met_with_a_token_made_of_credentials(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {.username = "oauth2accesstoken", .password = "p?>~w"};
    auto_free char *basic = base64_encode("oauth2accesstoken:p?>~w", 23, false);
    auto_free char *expected = str_printf("Basic %s", basic);

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, ",service=\"the service\",scope=\"repository:p/app:pull\"");
    resolve(f, ":stable", NULL, &result);

    assert_ok(result.err.code, &result.err);
    assert_int_equal(result.asked, 1);
    assert_int_equal(fake.n_tokens, 1);
    assert_string_equal(fake.token_target,
                        "/token?service=the%20service&scope=repository:p/app:pull");
    assert_string_equal(fake.token_authorization, expected);
    assert_string_equal(fake.last_authorization, "Bearer t0ken");
}

static void a_challenge_without_service_is_met_too(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {.username = "u", .password = "p"};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    fake.token_reply = "{\"access_token\":\"t0ken\",\"expires_in\":300}";
    resolve(f, ":stable", NULL, &result);
    assert_ok(result.err.code, &result.err);
    assert_string_equal(fake.token_target, "/token?scope=repository:p/app:pull");
}

static void without_credentials_an_anonymous_token_is_tried(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    resolve(f, ":stable", NULL, &result);
    assert_ok(result.err.code, &result.err);
    assert_null(fake.token_authorization);
}

static void a_token_is_used_again_until_it_expires(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_(registry_token_done) RegistryToken token = {0};
    auto_result Result first = {.username = "u", .password = "p", .token = &token};
    auto_result Result second = {.token = &token}, third = {.token = &token};
    const char *digest;

    fake_setup(f, &fake);
    digest = put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    fake.token_reply = "{\"token\":\"t0ken\",\"expires_in\":300}";
    resolve(f, ":stable", NULL, &first);
    assert_ok(first.err.code, &first.err);

    fake.n_heads = 0;
    resolve(f, ":stable", digest, &second);
    assert_ok(second.err.code, &second.err);
    assert_true(second.unchanged);
    assert_int_equal(fake.n_heads, 1);
    assert_int_equal(fake.n_tokens, 1);
    assert_int_equal(second.asked, 0);

    assert_true(token.until_usec > now_boottime_usec() + 200 * SECOND);
    token.until_usec = now_boottime_usec();
    resolve(f, ":stable", digest, &third);
    assert_ok(third.err.code, &third.err);
    assert_int_equal(fake.n_tokens, 2);
    assert_int_equal(third.asked, 1);
}

static void a_kept_token_that_is_refused_is_asked_for_anew(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_(registry_token_done) RegistryToken token = {0};
    auto_result Result first = {.username = "u", .password = "p", .token = &token};
    auto_result Result second = {.username = "u", .password = "p", .token = &token};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    resolve(f, ":stable", NULL, &first);
    assert_ok(first.err.code, &first.err);

    /* Signed anew over there, long before ours expires. */
    fake.token = "Bearer another";
    fake.token_reply = "{\"token\":\"another\"}";
    resolve(f, ":stable", NULL, &second);
    assert_ok(second.err.code, &second.err);
    assert_int_equal(second.asked, 1);
    assert_int_equal(second.asked_again, 0);
    assert_int_equal(fake.n_tokens, 2);
    assert_string_equal(token.bearer, "another");
}

/* A 403 says of a token of ours what it says of one who has just come: the whole way is gone before
 * it is believed. */
static void a_kept_token_that_may_not_read_is_no_verdict(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_(registry_token_done) RegistryToken token = {0};
    auto_result Result first = {.username = "u", .password = "p", .token = &token};
    auto_result Result second = {.username = "u", .password = "p", .token = &token};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    resolve(f, ":stable", NULL, &first);
    assert_ok(first.err.code, &first.err);

    for (size_t i = 0; i < fake.n_things; i++)
        fake.things[i].status = 403;
    resolve(f, ":stable", NULL, &second);
    assert_refused(&second, -EACCES, ERROR_DENIED, "refuses to let us read");
    assert_true(second.had_credentials);
    assert_int_equal(fake.n_tokens, 2);
}

/* One for another repository, or of another registry, is nobody's business there. */
static void a_token_stays_with_its_repository(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_(registry_token_done) RegistryToken token = {.base = strdup("http://127.0.0.1:1"),
                                                      .path = strdup("p/app"),
                                                      .bearer = strdup("of-another"),
                                                      .until_usec = UINT64_MAX};
    auto_result Result result = {.token = &token};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    resolve(f, ":stable", NULL, &result);
    assert_ok(result.err.code, &result.err);
    assert_null(fake.last_authorization);
}

static void basic_credentials_are_given_where_they_are_asked_for(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {.username = "u", .password = "p"};
    auto_result Result nobody = {0};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    fake.challenge = "Basic realm=\"registry\"";
    fake.token = "Basic dTpw";
    resolve(f, ":stable", NULL, &result);
    assert_ok(result.err.code, &result.err);

    resolve(f, ":stable", NULL, &nobody);
    assert_refused(&nobody, -EACCES, ERROR_DENIED, "there are no credentials");
    assert_false(nobody.had_credentials);
}

static void refused_credentials_are_asked_for_once_more(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {.username = "u", .password = "old"};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    fake.token_status = 403;
    fake.token_reply = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"Permission "
                       "\\\"artifactregistry.repositories.downloadArtifacts\\\" denied\"}]}";
    resolve(f, ":stable", NULL, &result);

    assert_refused(&result, -EACCES, ERROR_DENIED, "DENIED: Permission \"artifactregistry");
    assert_int_equal(result.asked, 2);
    assert_int_equal(result.asked_again, 1);
    assert_int_equal(fake.n_tokens, 2);
    assert_int_equal(result.explained, 1);
    assert_true(result.at_token_service && result.had_credentials);
    assert_string_equal(result.err.remedy, "ask for p/app");
    assert_null(strstr(result.err.message, "old"));
}

static void a_token_that_is_not_accepted_ends_in_denial(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {.username = "u", .password = "p"};

    fake_setup(f, &fake);
    set_challenge(f, &fake, "");
    fake.token_reply = "{\"token\":\"wr0ng\"}";
    resolve(f, ":stable", NULL, &result);
    assert_refused(&result, -EACCES, ERROR_DENIED, "HTTP 401");
    assert_int_equal(fake.n_tokens, 2);
    assert_false(result.at_token_service);
    assert_null(strstr(result.err.message, "wr0ng"));
}

static void credentials_may_come_later_and_may_not_come(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result later = {.username = "u", .password = "p", .answers_later = true};
    auto_result Result never = {.answers_error = true};

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    start_of(f, ":stable", NULL, &later);
    loop_run_for(f->event, 200 * MSEC);
    assert_false(later.done);
    assert_int_equal(later.asked, 1);
    registry_give_credentials(later.op, "u", "p", NULL);
    registry_give_credentials(later.op, "twice", "p", NULL);
    loop_run_until(f->event, &later.done, 10 * SECOND);
    assert_ok(later.err.code, &later.err);

    resolve(f, ":stable", NULL, &never);
    assert_refused(&never, -EAGAIN, ERROR_TEMPORARY, "no token");
}

static void a_realm_that_leads_astray_gets_nothing(void **state)
{
    static const struct {
        const char *challenge, *message;
    } cases[] = {
        {"Bearer realm=\"https://169.254.169.254/token\"", "the address is private"},
        {"Bearer realm=\"https://10.0.0.1/token\"", "the address is private"},
        {"Bearer realm=\"https://[fd00::1]/token\"", "the address is private"},
        {"Bearer realm=\"http://auth.example/token\"", "it is not https"},
        {"Bearer realm=\"file:///etc/passwd\"", "registry"},
        {"Negotiate", "negotiate"},
        {"Bearer realm=\"broken", "does not end"},
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_fake Fake fake;
        auto_result Result result = {.username = "u", .password = "p"};

        fake_setup(f, &fake);
        fake.challenge = cases[i].challenge;
        resolve(f, ":stable", NULL, &result);
        assert_true(result.err.code < 0);
        assert_contains(result.err.message, cases[i].message);
        assert_int_equal(result.asked, 0);
        assert_int_equal(fake.n_tokens, 0);
    }
}

static void a_redirect_never_carries_the_token_elsewhere(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {.username = "u", .password = "p"};
    const char *config = NULL;

    fake_setup(f, &fake);
    (void)put_image(&fake, "amd64", "stable");
    set_challenge(f, &fake, "");
    for (size_t i = 0; i < fake.n_things; i++)
        if (startswith(fake.things[i].path, "blobs/")) {
            config = fake.things[i].body;
            fake.things[i].status = 307;
            fake.things[i].headers =
                keep(&fake, str_printf("Location: %s\r\n", http_server_url(f->other, "/storage")));
        }
    http_server_reply(f->other, &(Reply){.body = config});
    resolve(f, ":stable", NULL, &result);

    assert_ok(result.err.code, &result.err);
    assert_int_equal(http_server_count(f->other), 1);
    assert_null(request_header(http_server_request(f->other, 0), "Authorization"));
}

/* ---- What is not there ---------------------------------------------------------------------- */

static void put_tags(Fake *fake, const char *path, const char *body, const char *headers)
{
    put(fake, path, "application/json", body);
    fake->things[fake->n_things - 1].headers = headers;
}

static void a_missing_tag_names_the_nearest_over_all_pages(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};

    fake_setup(f, &fake);
    put_tags(&fake, "tags/list?n=1000",
             "{\"tags\":[\"v1\",\"v2\",\"nightly\",\"2024-01-01\",\"x\\ny\"]}",
             "Link: </v2/p/app/tags/list?last=v2&n=1000>; rel=\"next\"\r\n");
    put_tags(&fake, "tags/list?last=v2&n=1000", "{\"tags\":[\"stable\",\"stable-1\"]}", "");
    resolve(f, ":stabel", NULL, &result);

    assert_refused(&result, -ENOENT, ERROR_INVALID,
                   "p/app has no tag \"stabel\"; the nearest that exist: stable, stable-1, ");
    assert_null(strstr(result.err.message, "\n"));
    assert_contains(result.err.remedy, "docker push 127.0.0.1:");
}

static void a_list_that_cannot_be_had_leaves_the_tag_missing(void **state)
{
    static const struct {
        const char *body, *headers, *message;
    } cases[] = {
        {"{\"tags\":null}", "", "it has no tags at all"},
        {"<html>", "", "has no tag \"stable\""},
        {"{\"tags\":[\"v1\"]}", "Link: <https://evil.example/next>; rel=\"next\"\r\n",
         "those that exist: v1"},
        {"{\"tags\":[\"v1\"]}", "Link: <//evil.example/next>; rel=\"next\"\r\n",
         "those that exist: v1"},
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_fake Fake fake;
        auto_result Result result = {0};

        fake_setup(f, &fake);
        put_tags(&fake, "tags/list?n=1000", cases[i].body, cases[i].headers);
        resolve(f, ":stable", NULL, &result);
        assert_refused(&result, -ENOENT, ERROR_INVALID, cases[i].message);
    }
}

static void a_missing_repository_is_told_from_a_missing_tag(void **state)
{
    Fixture *f = *state;
    auto_fake Fake by_code, by_list;
    auto_result Result result = {0};
    auto_result Result other = {0};

    fake_setup(f, &by_code);
    by_code.missing = "{\"errors\":[{\"code\":\"NAME_UNKNOWN\"}]}";
    resolve(f, ":stable", NULL, &result);
    assert_refused(&result, -ENOENT, ERROR_INVALID, "has no repository p/app");

    fake_setup(f, &by_list);
    by_list.missing = "<html>Not Found</html>";
    resolve(f, ":stable", NULL, &other);
    assert_refused(&other, -ENOENT, ERROR_INVALID, "has no repository p/app");
}

static void a_deleted_digest_says_so(void **state)
{
    Fixture *f = *state;
    auto_fake Fake fake;
    auto_result Result result = {0};

    fake_setup(f, &fake);
    resolve(f, "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL,
            &result);
    assert_refused(&result, -ENOENT, ERROR_INVALID, "was it deleted there?");
}

static void trouble_is_told_by_its_kind(void **state)
{
    static const struct {
        int status;
        const char *headers;
        int code;
        ErrorKind kind;
        uint64_t retry_after_usec;
    } cases[] = {
        {503, NULL, -EAGAIN, ERROR_TEMPORARY, 0},
        {429, "Retry-After: 7\r\n", -EBUSY, ERROR_THROTTLED, 7 * SECOND},
        {403, NULL, -EACCES, ERROR_DENIED, 0},
        {400, NULL, -EINVAL, ERROR_INVALID, 0},
        {401, NULL, -EPROTO, ERROR_INVALID, 0},
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        auto_fake Fake fake;
        auto_result Result result = {.username = "u", .password = "p"};

        fake_setup(f, &fake);
        fake.override_status = cases[i].status;
        fake.override_headers = cases[i].headers;
        resolve(f, ":stable", NULL, &result);
        assert_refused(&result, cases[i].code, cases[i].kind, "registry 127.0.0.1:");
        assert_int_equal(result.err.retry_after_usec, cases[i].retry_after_usec);
    }
}

static void freeing_cancels_without_a_word(void **state)
{
    Fixture *f = *state;
    auto_result Result result = {0};

    http_server_reply(f->server, &(Reply){.mode = REPLY_HANG});
    start_of(f, ":stable", NULL, &result);
    loop_run_for(f->event, 100 * MSEC);
    result.op = registry_op_free(result.op);
    loop_run_for(f->event, 100 * MSEC);
    assert_false(result.done);
}

TEST_MAIN(TEST(a_tag_gives_digest_platform_and_size), TEST(a_known_digest_costs_one_head),
          TEST(a_registry_that_declares_no_digest_is_hashed),
          TEST(what_contradicts_its_digest_is_refused),
          TEST(an_index_gives_both_digests_and_needs_no_config),
          TEST(an_index_that_lies_about_a_size_is_refused),
          TEST(a_wrong_platform_is_refused_for_index_and_image),
          TEST(a_challenge_is_met_with_a_token_made_of_credentials),
          TEST(a_challenge_without_service_is_met_too),
          TEST(without_credentials_an_anonymous_token_is_tried),
          TEST(a_token_is_used_again_until_it_expires),
          TEST(a_kept_token_that_is_refused_is_asked_for_anew),
          TEST(a_kept_token_that_may_not_read_is_no_verdict),
          TEST(a_token_stays_with_its_repository),
          TEST(basic_credentials_are_given_where_they_are_asked_for),
          TEST(refused_credentials_are_asked_for_once_more),
          TEST(a_token_that_is_not_accepted_ends_in_denial),
          TEST(credentials_may_come_later_and_may_not_come),
          TEST(a_realm_that_leads_astray_gets_nothing),
          TEST(a_redirect_never_carries_the_token_elsewhere),
          TEST(a_missing_tag_names_the_nearest_over_all_pages),
          TEST(a_list_that_cannot_be_had_leaves_the_tag_missing),
          TEST(a_missing_repository_is_told_from_a_missing_tag), TEST(a_deleted_digest_says_so),
          TEST(trouble_is_told_by_its_kind), TEST(freeing_cancels_without_a_word))
