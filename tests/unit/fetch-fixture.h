/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_FETCH_FIXTURE_H
#define TESTS_UNIT_FETCH_FIXTURE_H

/* A fetcher between a memory that is an array and servers on the loop: "h.example" is the recipe's
 * host, "h2.example" one that it knows, "far.example" one that it does not. */

#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "agent/base/backoff.h"
#include "agent/base/str.h"
#include "agent/base/time.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"
#include "crawler/extract/extract.h"
#include "crawler/fetch/fetch.h"
#include "crawler/model/zone.h"
#include "tests/unit/http-server.h"

#define TEXTS_MAX   32
#define ASKED_MAX   32

#define API         "\"robots\":\"api\",\"delay\":\"0s\""
#define OBEY        "\"robots\":\"obey\",\"delay\":\"0s\""
#define CONDITIONAL ",\"conditional\":true"
#define TWICE       ",\"connections\":2"

typedef struct Fixture {
    sd_event *event;
    HttpClient *http;
    HttpServer *server, *other;
    Fetcher *fetcher;
    Recipe *recipe;
    FetchJob job;
    FetchConfig config;
    char *names[TEXTS_MAX], *texts[TEXTS_MAX];
    size_t n_texts;
    Error err;

    /* What came of it. */
    unsigned documents, troubles, suspicions;
    bool idle, not_modified;
    long status;
    char *body, *trouble, *remedy;
} Fixture;

/* --- The memory ----------------------------------------------------------------------------- */

static inline unused_ int no_cursor(void *userdata, const char *job, const char *symbol,
                                    const char *range, Cursor *ret, Error *err)
{
    return 0;
}

static inline unused_ int forget_nothing(void *userdata, const char *job, const char *range,
                                         Error *err)
{
    return 0;
}

static inline unused_ size_t text_index(const Fixture *f, const char *name)
{
    size_t i = 0;

    while (i < f->n_texts && !streq(f->names[i], name))
        i++;
    return i;
}

static inline unused_ int load_text(void *userdata, const char *name, char **ret, Error *err)
{
    const Fixture *f = userdata;
    size_t i = text_index(f, name);

    if (i == f->n_texts || !f->texts[i])
        return 0;
    *ret = strdup(f->texts[i]);
    return *ret ? 1 : -ENOMEM;
}

static inline unused_ int save_text(void *userdata, const char *name, const char *text, bool now,
                                    Error *err)
{
    Fixture *f = userdata;
    size_t i = text_index(f, name);

    if (i == f->n_texts) {
        assert_true(f->n_texts < TEXTS_MAX);
        f->names[f->n_texts++] = strdup(name);
    }
    return str_set(&f->texts[i], text);
}

static inline unused_ void forget_texts(Fixture *f)
{
    for (; f->n_texts > 0; f->n_texts--) {
        free(f->names[f->n_texts - 1]);
        free(f->texts[f->n_texts - 1]);
        f->texts[f->n_texts - 1] = NULL;
    }
}

/* --- What is told --------------------------------------------------------------------------- */

static inline unused_ void on_document(const FetchDocument *document, Cursor *cursor,
                                       FetchResult *ret, void *userdata)
{
    Fixture *f = userdata;

    f->documents++;
    f->status = document->response->status;
    f->not_modified = document->not_modified;
    assert_true(str_set(&f->body, buf_str(&document->response->body)) >= 0);
    cursor->done = true;
    if (f->status == 200 || f->status == 304)
        return;
    ret->verdict = FETCH_SOURCE_ERROR;
    ret->kind = f->status == 404 ? ERROR_INVALID : ERROR_TEMPORARY;
    (void)snprintf(ret->message, sizeof(ret->message), "HTTP %ld", f->status);
}

static inline unused_ void on_idle(void *userdata)
{
    Fixture *f = userdata;

    f->idle = true;
}

static inline unused_ void on_trouble(const FetchJob *job, const char *symbol, const char *message,
                                      const char *remedy, void *userdata)
{
    Fixture *f = userdata;

    f->troubles++;
    assert_true(str_set(&f->trouble, message) >= 0 && str_set(&f->remedy, remedy) >= 0);
}

/* --- Making one ----------------------------------------------------------------------------- */

static inline unused_ void make_fetcher(Fixture *f)
{
    FetchMemory memory = {.cursor_load = no_cursor,
                          .cursors_forget = forget_nothing,
                          .text_load = load_text,
                          .text_save = save_text,
                          .userdata = f};
    FetchHandlers handlers = {
        .document = on_document, .idle = on_idle, .trouble = on_trouble, .userdata = f};

    f->fetcher = fetcher_free(f->fetcher);
    assert_ok(fetcher_new(f->event, f->http, &memory, &handlers, &f->fetcher, &f->err), &f->err);
}

static inline unused_ int fetch_setup(void **state)
{
    static char *symbols[] = {(char *)(uintptr_t) "A", NULL};
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    random_seed_for_tests(1);
    assert_ok(loop_new(&f->event, &f->err), &f->err);
    assert_ok(http_client_new(f->event, "none", &f->http, &f->err), &f->err);
    f->server = http_server_new(f->event, NULL);
    f->other = http_server_new(f->event, NULL);
    const HttpEndpoint endpoints[] = {{"h.example", http_server_url(f->server, "")},
                                      {"h2.example", http_server_url(f->other, "")},
                                      {"far.example", http_server_url(f->other, "")}};
    assert_ok(http_client_set_endpoints(f->http, endpoints, ELEMENTS(endpoints), &f->err), &f->err);
    f->job = (FetchJob){.name = "j",
                        .symbols = symbols,
                        .n_symbols = 1,
                        .interval = "1d",
                        .every_usec = HOUR,
                        .backfill_usec = 7 * DAY};
    f->config = (FetchConfig){
        .jobs = &f->job, .n_jobs = 1, .contact = "ops@example.com", .connections = 1, .once = true};
    make_fetcher(f);
    *state = f;
    return 0;
}

static inline unused_ int fetch_teardown(void **state)
{
    Fixture *f = *state;

    fetcher_free(f->fetcher);
    http_client_free(f->http);
    http_server_free(f->server);
    http_server_free(f->other);
    sd_event_unref(f->event);
    recipe_free(f->recipe);
    forget_texts(f);
    error_done(&f->err);
    free(f->body);
    free(f->trouble);
    free(f->remedy);
    free(f);
    zone_forget_all();
    return 0;
}

/* A source of that politeness, whose replies are at most 4 KiB. */
static inline unused_ void make_recipe(Fixture *f, const char *politeness)
{
    auto_free char *text = str_printf(
        "{\"name\":\"r\",\"hosts\":[\"h.example\",\"h2.example\"],\"root\":\"array\","
        "\"request\":{\"url\":\"https://h.example/bars?symbol={symbol}\",\"max_body\":\"4KiB\","
        "\"secret_header\":\"X-Key\"},\"intervals\":{\"1d\":{}},\"politeness\":{%s},"
        "\"tables\":[{\"rows\":\"[]\",\"columns\":{\"symbol\":{\"request\":\"symbol\"},"
        "\"interval\":{\"request\":\"interval\"},\"tz\":{\"const\":\"UTC\"},"
        "\"ts\":{\"path\":\"[0]\",\"type\":\"epoch-s\"},\"close\":{\"path\":\"[1]\"}}}]}",
        politeness);

    assert_non_null(text);
    f->recipe = recipe_free(f->recipe);
    assert_ok(recipe_compile(text, strlen(text), "r.json", &f->recipe, NULL, &f->err), &f->err);
    f->job.recipe = f->recipe;
}

/* --- Running it ----------------------------------------------------------------------------- */

#define RUN_UNTIL(f, condition)                                                                    \
    do {                                                                                           \
        uint64_t run_end_ = now_boottime_usec() + 30 * SECOND;                                     \
        while (!(condition)) {                                                                     \
            if (now_boottime_usec() > run_end_)                                                    \
                fail_msg("it never came to this: %s", #condition);                                 \
            assert_true(sd_event_run((f)->event, 100 * MSEC) >= 0);                                \
        }                                                                                          \
    } while (0)

/* Begins one round of the job anew. */
static inline unused_ void begin(Fixture *f)
{
    f->idle = false;
    assert_ok(fetcher_configure(f->fetcher, &f->config, &f->err), &f->err);
}

/* A whole round of it. */
static inline unused_ void crawl(Fixture *f)
{
    begin(f);
    RUN_UNTIL(f, f->idle);
    assert_true(fetcher_is_idle(f->fetcher));
}

static inline unused_ FetchJobStatus job_status(const Fixture *f)
{
    FetchJobStatus status;

    fetcher_job_status(f->fetcher, 0, &status);
    return status;
}

/* How long the host is left alone from now on. */
static inline unused_ uint64_t pause_left(const Fixture *f)
{
    const FetchHost *host = fetcher_host(f->fetcher, 0);
    uint64_t now = now_realtime_usec();

    return host && host->until_usec > now ? host->until_usec - now : 0;
}

/* How often it failed since its last success. */
static inline unused_ unsigned failures(const Fixture *f)
{
    const FetchHost *host = fetcher_host(f->fetcher, 0);

    return host ? host->failures : 0;
}

static inline unused_ const char *target(const HttpServer *server, size_t i)
{
    return http_server_request(server, i)->target;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fetch_setup, fetch_teardown)

#endif
