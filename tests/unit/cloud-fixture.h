/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_CLOUD_FIXTURE_H
#define TESTS_UNIT_CLOUD_FIXTURE_H

/* A metadata server and a Secret Manager in one scripted server, and a cloud that speaks to them.
 */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/base/time.h"
#include "agent/cloud/cloud.h"
#include "agent/io/loop.h"
#include "tests/unit/http-server.h"

#define EMAIL      "123-compute@developer.gserviceaccount.com"
#define ALL_SCOPES "https://www.googleapis.com/auth/cloud-platform"

typedef struct Fixture {
    sd_event *event;
    HttpClient *client;
    HttpServer *server;
    Cloud *cloud;
    char *dir;

    /* What the metadata server says. */
    char root[8192];
    char etag[32];
    const char *scopes;
    Reply root_reply;    /* instead of the tree, when its status is set */
    Reply token_reply;   /* instead of a token, when its status is set */
    Reply plan_reply;    /* the plan's raw bytes */
    Reply publish_reply; /* to a guest attribute */
    unsigned token_number, token_seconds;
    Reply secret_reply; /* what Secret Manager says */
    Reply secret_replies[4];
    size_t n_secret_replies;

    /* What was asked. */
    unsigned n_root, n_waits, n_token, n_scopes, n_secret, n_publish, n_raw;
    char last_authorization[128], last_secret[512], last_published[256];
    bool flavor_is_missing;
} Fixture;

static inline void fixture_reply(Fixture *f, const Request *request, Reply *reply)
{
    static const char prefix[] = "/computeMetadata/v1/";
    const char *path = startswith(request->target, prefix);
    const char *authorization = request_header(request, "Authorization");

    (void)snprintf(f->last_authorization, sizeof(f->last_authorization), "%s",
                   authorization ? authorization : "");
    if (!path) {
        (void)snprintf(f->last_secret, sizeof(f->last_secret), "%s", request->target);
        *reply =
            f->n_secret < f->n_secret_replies ? f->secret_replies[f->n_secret] : f->secret_reply;
        f->n_secret++;
        return;
    }

    if (!streq_ptr(request_header(request, "Metadata-Flavor"), "Google"))
        f->flavor_is_missing = true;
    reply->headers = "Metadata-Flavor: Google\r\n";
    if (startswith(path, "?recursive=true")) {
        bool waits = strstr(path, "wait_for_change=true") != NULL;

        f->n_root++;
        if (f->root_reply.status || f->root_reply.mode) {
            *reply = f->root_reply;
            return;
        }
        if (waits && strstr(path, f->etag)) {
            f->n_waits++;
            reply->mode = REPLY_HANG;
            return;
        }
        reply->headers = http_server_keep(
            f->server, str_printf("Metadata-Flavor: Google\r\nETag: %s\r\n", f->etag));
        reply->body = http_server_keep(f->server, strdup(f->root));
    } else if (startswith(path, "instance/service-accounts/default/token")) {
        f->n_token++;
        if (f->token_reply.status || f->token_reply.mode)
            *reply = f->token_reply;
        else
            reply->body = http_server_keep(
                f->server, str_printf("{\"access_token\":\"tok-%u\",\"expires_in\":%u,"
                                      "\"token_type\":\"Bearer\"}",
                                      f->token_number, f->token_seconds));
    } else if (startswith(path, "instance/service-accounts/default/scopes")) {
        f->n_scopes++;
        reply->body = f->scopes;
    } else if (startswith(path, "instance/guest-attributes/mervis/")) {
        f->n_publish++;
        (void)snprintf(f->last_published, sizeof(f->last_published), "%s %s=%s", request->method,
                       path + strlen("instance/guest-attributes/"), request->body);
        *reply = f->publish_reply;
    } else {
        f->n_raw++;
        *reply = f->plan_reply;
        reply->headers = "Metadata-Flavor: Google\r\n";
    }
}

static inline void on_fixture_request(HttpServer *server, const Request *request, Reply *reply,
                                      void *userdata)
{
    fixture_reply(userdata, request, reply);
}

/* A tree with that in its instance part, instance attributes and project attributes (each either
 * empty or ended by a comma), and an ETag that differs from the one before. */
static inline unused_ void fixture_tree(Fixture *f, const char *instance, const char *attributes,
                                        const char *project_attributes)
{
    static unsigned number;

    (void)snprintf(f->etag, sizeof(f->etag), "e%015u", ++number);
    (void)snprintf(
        f->root, sizeof(f->root),
        "{\"instance\":{%s\"attributes\":{%s\"x\":\"y\"},\"hostname\":\"web-1.c.proj.internal\","
        "\"id\":9306944706428651580,\"machineType\":\"projects/123/machineTypes/e2-micro\","
        "\"name\":\"web-1\",\"scheduling\":{\"preemptible\":\"TRUE\"},\"serviceAccounts\":{"
        "\"default\":{\"email\":\"" EMAIL "\",\"scopes\":[\"%s\"]}},"
        "\"zone\":\"projects/123/zones/asia-northeast3-a\"},"
        "\"project\":{\"attributes\":{%s\"x\":\"y\"},\"numericProjectId\":123,"
        "\"projectId\":\"proj\"}}",
        instance, attributes, f->scopes, project_attributes);
}

static inline unused_ int fixture_setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    auto_error Error error = {0};
    auto_free char *host = NULL;

    assert_non_null(f);
    f->scopes = ALL_SCOPES;
    f->token_number = 1;
    f->token_seconds = 3599;
    f->dir = test_dir_new();
    assert_ok(loop_new(&f->event, &error), &error);
    assert_ok(http_client_new(f->event, "mervis-test/1", &f->client, &error), &error);
    f->server = http_server_new(f->event, NULL);
    http_server_handle(f->server, on_fixture_request, f);
    fixture_tree(f, "", "", "");

    host = str_printf("127.0.0.1:%u", http_server_port(f->server));
    assert_int_equal(setenv("GCE_METADATA_HOST", host, 1), 0);
    const CloudConfig config = {f->event, f->client, f->dir};
    assert_ok(cloud_new(&config, &f->cloud, &error), &error);
    assert_string_equal(cloud_name(f->cloud), "gce");
    const HttpEndpoint endpoints[] = {
        {"secretmanager.googleapis.com", http_server_url(f->server, "/sm")},
        {"secretmanager.asia-northeast3.rep.googleapis.com", http_server_url(f->server, "/smr")},
    };
    assert_ok(http_client_set_endpoints(f->client, endpoints, 2, &error), &error);
    *state = f;
    return 0;
}

static inline unused_ int fixture_teardown(void **state)
{
    Fixture *f = *state;

    cloud_free(f->cloud);
    http_client_free(f->client);
    http_server_free(f->server);
    sd_event_unref(f->event);
    assert_int_equal(unsetenv("GCE_METADATA_HOST"), 0);
    test_dir_done(&f->dir);
    assert_false(f->flavor_is_missing);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

#endif
