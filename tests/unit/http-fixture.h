/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_HTTP_FIXTURE_H
#define TESTS_UNIT_HTTP_FIXTURE_H

/* A loop, a client, two servers, and what an operation came to. */

#include "tests/unit/test.h"

#include "agent/base/buf.h"
#include "agent/base/time.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"
#include "tests/unit/http-server.h"

typedef struct Fixture {
    sd_event *event;
    HttpClient *client;
    HttpServer *server, *other;
} Fixture;

typedef struct Outcome {
    bool done;
    unsigned calls;
    long status;
    char *body, *location, *content_type, *probe;
    size_t body_size;
    int code; /* of the error; 0: an answer came */
    ErrorKind kind;
    char *message;
    unsigned tries, new_connections;
    uint64_t retry_after_usec, bytes_in, bytes_out;
    bool connected;
    HttpOp *op;
} Outcome;

static inline unused_ void outcome_done(Outcome *outcome)
{
    http_op_free(outcome->op);
    free(outcome->body);
    free(outcome->location);
    free(outcome->content_type);
    free(outcome->probe);
    free(outcome->message);
    *outcome = (Outcome){0};
}

#define auto_outcome auto_(outcome_done)

static inline unused_ void on_outcome(HttpOp *op, const HttpResponse *response, const Error *err,
                                      void *userdata)
{
    Outcome *outcome = userdata;
    const char *probe = http_response_header(response, "x-probe");

    outcome->done = true;
    outcome->calls++;
    outcome->status = response->status;
    outcome->body_size = response->body.size;
    outcome->body = strdup(buf_str(&response->body));
    outcome->location = response->location ? strdup(response->location) : NULL;
    outcome->content_type = strdup(response->content_type);
    outcome->probe = probe ? strdup(probe) : NULL;
    outcome->code = err ? err->code : 0;
    outcome->kind = err ? err->kind : ERROR_INTERNAL;
    outcome->message = strdup(err ? error_text(err) : "");
    outcome->tries = response->tries;
    outcome->new_connections = response->new_connections;
    outcome->retry_after_usec = response->retry_after_usec;
    outcome->bytes_in = response->wire_bytes_in;
    outcome->bytes_out = response->wire_bytes_out;
    outcome->connected = response->connected;
}

static inline unused_ int fixture_setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    auto_error Error error = {0};

    assert_non_null(f);
    assert_ok(loop_new(&f->event, &error), &error);
    assert_ok(http_client_new(f->event, "mervis-test/1", &f->client, &error), &error);
    f->server = http_server_new(f->event, NULL);
    f->other = http_server_new(f->event, NULL);
    *state = f;
    return 0;
}

static inline unused_ int fixture_teardown(void **state)
{
    Fixture *f = *state;

    http_client_free(f->client);
    http_server_free(f->server);
    http_server_free(f->other);
    sd_event_unref(f->event);
    free(f);
    return 0;
}

static inline unused_ void outcome_start(Fixture *f, const HttpRequest *request, Outcome *outcome)
{
    auto_error Error error = {0};

    assert_ok(http_start(f->client, request, on_outcome, outcome, &outcome->op, &error), &error);
    assert_false(outcome->done);
}

static inline unused_ void outcome_of(Fixture *f, const HttpRequest *request, Outcome *outcome)
{
    outcome_start(f, request, outcome);
    loop_run_until(f->event, &outcome->done, 20 * SECOND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

#endif
